package session

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/incoming"
	"github.com/mirrord-go/mirrord/internal/local/roster"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// TestLostCopies: what the agent could not mirror is counted, and said once.
func TestLostCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs, err := control.Pair()
		if err != nil {
			t.Fatal(err)
		}
		theirs.Close()
		defer ours.Close()
		s := &supervisor{ctl: ours, activity: activity.New(nil)}
		said := 0
		defer s.activity.Watch(func(e activity.Event) {
			if e.Code == "mirror-lost" && e.Level == string(event.Warning) {
				said++
			}
		})()
		s.lost(&protocol.Lost{Packets: 3})
		s.lost(&protocol.Lost{Packets: 4, Copies: 2})
		if got, want := s.activity.Counts().Lost, (activity.Loss{Packets: 4, Copies: 2}); got != want || said != 1 {
			t.Errorf("got %+v, said %d times, want %+v, once", got, said, want)
		}
	})
}

// lookedAt gives a session that can be looked at, and how to get there.
func lookedAt(t *testing.T) (s *supervisor, dial func() *net.UnixConn, done func()) {
	t.Helper()
	ours, theirs, err := control.Pair()
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	home := t.TempDir()
	s = &supervisor{ctl: ours, activity: activity.New(nil), peer: &peer{}, cfg: config.Config{Target: "pod/x"},
		start: &control.Start{Argv: []string{"sleep", "1"}, Env: []string{"XDG_RUNTIME_DIR=" + home}, Front: 7}}
	loss := newLoss(time.Minute, event.Discard)
	s.current.Store(&attachment{pod: &protocol.Welcome{Hostname: "x"}, loss: loss})
	ports := incoming.New(incoming.Options{})
	dirs := []string{filepath.Join(home, "mirrord", roster.Running)}
	if err := os.MkdirAll(dirs[0], 0o700); err != nil {
		t.Fatal(err)
	}
	end := s.show(t.Context(), &built{ports: ports}, "abcdef")
	t.Cleanup(func() { ports.Close(); loss.close(); ours.Close() })
	return s, func() *net.UnixConn {
		c, pid, err := roster.Dial(dirs, "abcdef")
		if err != nil || pid != os.Getpid() {
			t.Fatalf("process %d, %v", pid, err)
		}
		return c
	}, end
}

// TestLook: who asks is told how the session is, who watches also what happens.
func TestLook(t *testing.T) {
	s, dial, done := lookedAt(t)
	defer done()
	ask := control.On(dial())
	defer ask.Close()
	_ = ask.Send(control.Message{Ask: &control.Ask{}})
	m, err := ask.Receive()
	if err != nil || m.Status == nil || m.Status.ID != "abcdef" || m.Status.Target != "pod/x" || m.Status.Hostname != "x" || m.Status.Kept ||
		len(m.Status.Commands) != 1 || m.Status.Commands[0].PID != 7 || m.Status.Mode != "mirror" {
		t.Fatalf("got %+v, %v", m.Status, err)
	}
	if _, err := ask.Receive(); err != io.EOF {
		t.Errorf("then %v, want the end", err)
	}
	watch := control.On(dial())
	defer watch.Close()
	_ = watch.Send(control.Message{Watch: &control.Watch{}})
	if m, err := watch.Receive(); err != nil || m.Status == nil {
		t.Fatalf("first %+v, %v, want how it is", m, err)
	}
	for !s.activity.Watched() { // it is before the first word, but a test must not lean on that
		runtime.Gosched()
	}
	s.emit(event.Event{Level: event.Info, Code: "port-open", Text: "port"})
	for {
		m, err := watch.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if m.Activity != nil {
			if m.Activity.Code != "port-open" {
				t.Errorf("got %+v", m.Activity)
			}
			break
		}
	}
	nonsense := dial()
	defer nonsense.Close()
	if _, err := nonsense.Write([]byte("nonsense\n{}\n")); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(nonsense); len(b) > 0 {
		t.Errorf("nonsense is answered %q, %v", b, err)
	}
}

// TestLookers: there may be so many of them; and those who are there, say nothing
// and read nothing do not hold up the session's end.
func TestLookers(t *testing.T) {
	s, dial, done := lookedAt(t)
	var all []*net.UnixConn
	for range maxLookers {
		c := dial()
		defer c.Close()
		all = append(all, c)
	}
	one := dial()
	defer one.Close()
	_ = one.SetReadDeadline(time.Now().Add(20 * time.Second))
	if b, err := io.ReadAll(one); err != nil || len(b) > 0 {
		t.Errorf("one too many: %q, %v, want the end", b, err)
	}
	if _, err := all[0].Write([]byte(`{"watch":{}}` + "\n")); err != nil {
		t.Fatal(err)
	}
	for !s.activity.Watched() {
		runtime.Gosched()
	}
	for range 5000 { // more than a socket takes
		s.activity.Tell(activity.Event{Kind: activity.Lookup, Name: "some.name.of.a.usual.length.example"})
	}
	began := time.Now()
	done()
	if took := time.Since(began); took > endTime/2 {
		t.Errorf("the end takes %v", took)
	}
}
