package look

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/roster"
)

// lookedAt shows s, and tells how to get there.
func lookedAt(t *testing.T, s Session) (dial func() *net.UnixConn, done func()) {
	t.Helper()
	dirs := []string{filepath.Join(t.TempDir(), roster.Running)}
	id, end := Show(t.Context(), dirs, "abcdef", s)
	if id != "abcdef" {
		t.Fatalf("shown as %q", id)
	}
	return func() *net.UnixConn {
		c, pid, err := roster.Dial(dirs, "abcdef")
		if err != nil || pid != os.Getpid() {
			t.Fatalf("process %d, %v", pid, err)
		}
		return c
	}, end
}

// session is one that is all right.
func session() Session {
	return Session{Activity: activity.New(nil), Emit: event.Discard,
		Status: func(id string) *control.Status { return &control.Status{ID: id, Target: "pod/x"} }}
}

// TestLook: who asks is told how the session is, who watches also what happens.
func TestLook(t *testing.T) {
	s := session()
	dial, done := lookedAt(t, s)
	defer done()
	ask := control.On(dial())
	defer ask.Close()
	_ = ask.Send(control.Message{Ask: &control.Ask{}})
	m, err := ask.Receive()
	if err != nil || m.Status == nil || m.Status.ID != "abcdef" || m.Status.Target != "pod/x" {
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
	for !s.Activity.Watched() { // it is before the first word, but a test must not lean on that
		runtime.Gosched()
	}
	s.Activity.Say(event.Event{Level: event.Info, Code: "port-open", Text: "port"})
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
	s := session()
	dial, done := lookedAt(t, s)
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
	for !s.Activity.Watched() {
		runtime.Gosched()
	}
	for range 5000 { // more than a socket takes
		s.Activity.Tell(activity.Event{Kind: activity.Lookup, Name: "some.name.of.a.usual.length.example"})
	}
	began := time.Now()
	done()
	if took := time.Since(began); took > wordTime/2 {
		t.Errorf("the end takes %v", took)
	}
}

// TestStop: who asks for the end waits for it, and is turned away where nobody may.
func TestStop(t *testing.T) {
	for _, c := range []struct {
		name string
		may  bool
	}{{"may", true}, {"may not", false}} {
		t.Run(c.name, func(t *testing.T) {
			s := session()
			asked := make(chan struct{})
			if c.may {
				s.Stop = func() { close(asked) }
			}
			dial, done := lookedAt(t, s)
			ask := control.On(dial())
			defer ask.Close()
			_ = ask.Send(control.Message{Stop: &control.Stop{}})
			var ended atomic.Bool
			told := make(chan struct{})
			go func() {
				defer close(told)
				if _, err := ask.Receive(); err != io.EOF || ended.Load() != c.may {
					t.Errorf("told %v, at the end: %v, want the end of the stream", err, ended.Load())
				}
			}()
			if c.may {
				<-asked
			} else {
				<-told
			}
			ended.Store(true)
			done()
			<-told
		})
	}
}
