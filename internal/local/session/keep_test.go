package session

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/attach"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/places"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// keeping gives the keeper of a session whose front reads nothing.
func keeping(t *testing.T, ttl int) *keeper {
	t.Helper()
	ours, theirs, err := control.Pair()
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	s := &supervisor{ctl: ours, cfg: config.Config{Agent: config.Agent{TTL: &ttl}}, start: &control.Start{Env: []string{"HOME=" + t.TempDir()}}}
	s.kept = s.newKeeper(event.Discard)
	t.Cleanup(func() { ours.Close() })
	return s.kept
}

func over(k *keeper) bool {
	synctest.Wait()
	select {
	case <-k.over:
		return true
	default:
		return false
	}
}

// TestIdleEnd: a session ends some time after its last command, not while there
// is one, and never with 0.
func TestIdleEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keeping(t, 10)
		k.ready()
		time.Sleep(9 * time.Second)
		a, b := &guest{k: k}, &guest{k: k}
		if !k.enter(a) || !k.enter(b) {
			t.Fatal("nobody may join")
		}
		time.Sleep(time.Hour)
		k.leave(a)
		time.Sleep(time.Hour)
		if over(k) || !k.until.IsZero() {
			t.Fatal("it has ended under a command")
		}
		k.leave(b)
		time.Sleep(9 * time.Second)
		if over(k) {
			t.Fatal("it has ended too early")
		}
		time.Sleep(2 * time.Second)
		if !over(k) {
			t.Fatal("it goes on without a command")
		}
		if k.enter(a) {
			t.Error("somebody joins a session that ends")
		}
		k.end(event.Info, "again") // is nothing
	})
	synctest.Test(t, func(t *testing.T) {
		k := keeping(t, 0)
		k.ready()
		time.Sleep(1000 * time.Hour)
		if over(k) {
			t.Error("it has ended, though it was to be kept until it is stopped")
		}
		k.close()
	})
}

// TestRemembered: the last events, and no details.
func TestRemembered(t *testing.T) {
	k := keeping(t, 1)
	for i := range maxEvents + 5 {
		k.s.emit(event.Event{Level: event.Info, Text: fmt.Sprint(i)})
		k.s.emit(event.Event{Level: event.Detail, Text: "detail"})
	}
	if got := len(k.events); got != maxEvents {
		t.Errorf("%d events are remembered, want %d", got, maxEvents)
	}
	if first, last := k.events[0].Text, k.events[maxEvents-1].Text; first != "5" || last != fmt.Sprint(maxEvents+4) {
		t.Errorf("got %s to %s, want the last ones", first, last)
	}
}

// TestElsewhere: a command is refused whose directory or program is the
// target's.
func TestElsewhere(t *testing.T) {
	k := keeping(t, 1)
	base := t.TempDir() // below /tmp, which would be everybody's
	started, other, bin := filepath.Join(base, "started"), filepath.Join(base, "other"), filepath.Join(base, "bin")
	for _, d := range []string{started, other, bin, filepath.Join(started, "below")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{filepath.Join(bin, "program"), filepath.Join(started, "program")} {
		if err := os.WriteFile(f, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(other, filepath.Join(started, "link")); err != nil {
		t.Fatal(err)
	}
	var err error
	remote := []rules.Pattern{{Text: "^" + other, Origin: "test"}, {Text: "^" + bin, Origin: "test"}}
	if k.files, err = rules.NewFiles(rules.FilesOptions{ReadOnly: remote}, places.Of(nil, []string{"PATH=/usr/bin:/bin"}, started)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ dir, program, what string }{
		{started, "sh", ""},
		{filepath.Join(started, "below"), "sh", ""},
		{"/", "sh", ""},
		{started, "no-such-program", ""},
		{started, "./program", ""},
		{other, "sh", "working directory " + other},
		{filepath.Join(started, "link"), "sh", "working directory " + other},
		{started, "program", "program " + filepath.Join(bin, "program")},
		{started, "../bin/program", "program " + filepath.Join(bin, "program")},
	} {
		f := k.elsewhere(&control.Start{Argv: []string{c.program}, Env: []string{"PATH=/usr/bin:/bin:" + bin}, Dir: c.dir})
		switch {
		case (f == nil) != (c.what == ""):
			t.Errorf("%s in %s: got %v, want %q", c.program, c.dir, f, c.what)
		case f != nil && (f.Code != "session-elsewhere" || !strings.Contains(f.What, c.what)):
			t.Errorf("%s in %s: got %q, want %q in it", c.program, c.dir, f.What, c.what)
		}
	}
}

// TestStartAgain: what to do about the end of a session that was kept.
func TestStartAgain(t *testing.T) {
	k := keeping(t, 1)
	s, ended := k.s, &failure.Error{Code: "agent-lost", What: "x", Do: attach.StartAgain}
	if got, want := s.failure(ended).Do, "start another session: mirrord session start"; got != want {
		t.Errorf("kept: got %q, want %q", got, want)
	}
	s.kept = nil
	if got := s.failure(ended).Do; got != attach.StartAgain {
		t.Errorf("not kept: got %q, want %q", got, attach.StartAgain)
	}
}

// TestEnding: who comes to a session that is ending is told so, and what ends a
// session without a name of its own has one.
func TestEnding(t *testing.T) {
	k := keeping(t, 1)
	k.ready()
	k.close()
	ours, end, err := control.Pair()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := control.Open(end)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	sock, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	go (&guest{k: k, ctl: ours}).serve(t.Context(), nil, sock) // ends with what it says
	if m, err := theirs.Receive(); err != nil || m.Failed == nil || m.Failed.Code != "session-ends" {
		t.Errorf("got %+v, %v", m, err)
	}
	if f := k.s.failure(errors.New("odd")); f.Code != "session-failed" || f.Why != "odd" {
		t.Errorf("got %+v", f)
	}
}
