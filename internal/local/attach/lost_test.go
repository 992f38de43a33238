package attach

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/link/resume"
	"github.com/mirrord-go/mirrord/internal/link/seal"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// heard are the events of a session.
type heard struct {
	mu   sync.Mutex
	list []event.Event
}

func (h *heard) emit(e event.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(h.list, e)
}

// said gives level and code of each so far.
func (h *heard) said() (all []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.list {
		all = append(all, string(e.Level)+" "+e.Code)
	}
	return all
}

// A loss is one line, and so is its end; what is mended at once is a detail, but
// not what was noticed late: then everything had stood still.
func TestLossIsTold(t *testing.T) {
	for _, c := range []struct {
		name  string
		past  time.Duration // when it was noticed
		lasts time.Duration // from then on
		end   resume.State
		want  []string
	}{
		{"a blink", 0, 900 * time.Millisecond, resume.Back, []string{"detail link-back"}},
		{"mended", 0, 12 * time.Second, resume.Back, []string{"warning link-lost", "info link-back"}},
		{"mended at once when noticed", 10 * time.Second, 50 * time.Millisecond, resume.Back, []string{"warning link-lost", "info link-back"}},
		{"mended before anybody looks", 10 * time.Second, 0, resume.Back, []string{"warning link-lost", "info link-back"}},
		{"not mended", 0, 90 * time.Second, resume.Gone, []string{"warning link-lost"}},
		{"ended in between", 0, 500 * time.Millisecond, resume.Gone, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var h heard
				l := newLoss(90*time.Second, h.emit)
				start := time.Now()
				err := errors.New("nothing\nheard")
				if c.past > 0 {
					err = &resume.SilentError{For: c.past, Slept: true, Err: err}
				}
				l.note(resume.Lost, err)
				if c.lasts > 0 {
					time.Sleep(c.lasts)
				}
				l.note(c.end, nil)
				synctest.Wait()
				l.close()
				if got := h.said(); !slices.Equal(got, c.want) {
					t.Fatalf("said %q, want %q", got, c.want)
				}
				for _, e := range h.list {
					switch e.Code {
					case "link-lost":
						for _, want := range []string{"nothing\\nheard", start.Add(90 * time.Second).Format(time.TimeOnly), "15s", "gives the target its ports back"} {
							if !strings.Contains(e.Text, want) {
								t.Errorf("%q does not say %q", e.Text, want)
							}
						}
					case "link-back":
						if want := (c.past + c.lasts).Round(100 * time.Millisecond).String(); !strings.Contains(e.Text, want) {
							t.Errorf("%q does not say %q", e.Text, want)
						}
					}
				}
			})
		})
	}
}

// The link learns of the loss also when it is made during one.
func TestLossReachesTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoss(time.Minute, event.Discard)
		l.note(resume.Lost, io.EOF)
		a, z := net.Pipe()
		near, far := link.New(a, link.Local, link.Options{}), link.New(z, link.Agent, link.Options{})
		l.attach(near)
		ask := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := near.Call(ctx, &protocol.EnvRequest{})
			return err
		}
		if err := ask(); !errors.Is(err, link.ErrLost) {
			t.Errorf("while it is lost a call ends with %v, want %v", err, link.ErrLost)
		}
		l.note(resume.Back, nil)
		if err := ask(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("when it is back a call ends with %v, want %v", err, context.DeadlineExceeded)
		}
		near.Close("")
		far.Close("")
		l.close()
	})
}

// Who asks later than the end of a loss has not lost anything by it.
func TestLostSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoss(time.Minute, event.Discard)
		defer l.close()
		start := time.Now()
		ask := func(when string, since time.Time, want bool) {
			t.Helper()
			if got := l.lostSince(since); got != want {
				t.Errorf("%s: %v, want %v", when, got, want)
			}
		}
		ask("never lost", start.Add(-time.Hour), false)
		time.Sleep(time.Second)
		l.note(resume.Lost, io.EOF)
		ask("lost", time.Now(), true)
		time.Sleep(time.Second)
		l.note(resume.Back, nil)
		ask("back, from before", start, true)
		ask("back, from then on", time.Now(), false)
	})
}

// deaf is an agent that takes connections and says nothing, or cannot be
// reached.
type deaf struct{ refuse error }

func (d *deaf) Announced() protocol.Announcement   { return protocol.Announcement{} }
func (d *deaf) Image() string                      { return "" }
func (d *deaf) Place() (namespace, context string) { return "", "" }
func (d *deaf) Probes() map[uint16][]string        { return nil }
func (d *deaf) Gone(error) bool                    { return false }
func (d *deaf) Close(context.Context) error        { return nil }
func (d *deaf) Follow(context.Context, bool, Request) (Agent, error) {
	return nil, ErrNotReplaced
}
func (d *deaf) Dial(context.Context) (io.ReadWriteCloser, error) {
	if d.refuse != nil {
		return nil, d.refuse
	}
	near, far := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, far); far.Close() }()
	return near, nil
}

// An agent that is stopped ends the session, one that cannot be reached does not.
func TestStoppedAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, err := seal.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		a := &deaf{}
		l := newLoss(time.Minute, event.Discard)
		defer l.close()
		connect, fatal := sealed(a, key, key.Public().(ed25519.PublicKey)), l.options(a).Fatal
		try := func(want bool) {
			t.Helper()
			start := time.Now()
			_, err := connect(t.Context())
			if err == nil || fatal(err) != want {
				t.Errorf("%v is fatal: %v, want %v", err, fatal(err), want)
			}
			if took := time.Since(start); a.refuse == nil && took != sealTime {
				t.Errorf("it took %v, want %v", took, sealTime)
			}
		}
		for range maxSilent - 1 {
			try(false)
		}
		a.refuse = errors.New("no network")
		try(false)
		a.refuse = nil
		for range maxSilent - 1 {
			try(false)
		}
		try(true)
		if f := linkGone(&link.ClosedError{Cause: fmt.Errorf("resume: %w", errStopped)}, time.Minute); f == nil || f.Code != "agent-stopped" {
			t.Errorf("explained as %+v", f)
		}
	})
}

func TestLinkGone(t *testing.T) {
	f := linkGone(&link.ClosedError{Cause: fmt.Errorf("%w within a minute", resume.ErrGone)}, 90*time.Second)
	if f == nil || f.Code != "link-gone" || !strings.Contains(f.What, "1m30s") || f.Exit > 1 {
		t.Errorf("explained as %+v", f)
	}
	if f := linkGone(&link.ClosedError{Remote: true}, time.Minute); f != nil {
		t.Errorf("an orderly end is explained as %+v", f)
	}
}

func TestAgentArguments(t *testing.T) {
	for _, c := range []struct{ config, want string }{
		{`{}`, "-resume-window=1m30s -lost-reply=15s"},
		{`{"agent": {"resume_window": 300}, "incoming": {"lost_reply": 0}}`, "-resume-window=5m0s -lost-reply=0s"},
		{`{"incoming": {"lost_reply": 30}}`, "-resume-window=1m30s -lost-reply=30s"},
	} {
		var cfg config.Config
		if err := json.Unmarshal([]byte(c.config), &cfg); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(agentArguments(&cfg), " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.config, got, c.want)
		}
	}
}

// TestCounted: what the agent counts is in the activity's counts, loss included.
func TestCounted(t *testing.T) {
	var said heard
	h := New(Options{Activity: activity.New(nil), Emit: said.emit})
	at := &Attachment{counts: h.o.Activity.Agent()}
	h.counted(at, &protocol.Counts{Passed: 3})
	h.counted(at, &protocol.Counts{Passed: 4, Returned: 2, Refused: 1, Packets: 7, Copies: 5})
	got := h.o.Activity.Counts()
	if want := (activity.Ports{Passed: 4, Returned: 2, Lost: 6}); got.Ports != want || got.Lost != (activity.Loss{Packets: 7, Copies: 5}) || !slices.Equal(said.said(), []string{"warning mirror-lost"}) {
		t.Errorf("got %+v, %+v, said %q", got.Ports, got.Lost, said.said())
	}
}

// TestLostCopies: what the agent could not mirror is counted, and said once.
func TestLostCopies(t *testing.T) {
	var said heard
	h := New(Options{Activity: activity.New(nil), Emit: said.emit})
	at := &Attachment{counts: h.o.Activity.Agent()}
	h.lost(at, &protocol.Lost{Packets: 3})
	h.lost(at, &protocol.Lost{Packets: 4, Copies: 2})
	if got, want := h.o.Activity.Counts().Lost, (activity.Loss{Packets: 4, Copies: 2}); got != want || !slices.Equal(said.said(), []string{"warning mirror-lost"}) {
		t.Errorf("got %+v, said %q, want %+v, once", got, said.said(), want)
	}
}
