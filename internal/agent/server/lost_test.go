package server

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/target"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/link/resume"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// An agent whose session does not come back ends itself, when its window has
// passed.
func TestNobodyComesBack(t *testing.T) {
	const window = 500 * time.Millisecond
	a := startWith(t, Options{Target: target.Self, Window: window, LostReply: 100 * time.Millisecond})
	start := time.Now()
	a.lose()
	select {
	case err := <-a.done:
		if !errors.Is(err, resume.ErrGone) {
			t.Errorf("the agent ended with %v, want %v", err, resume.ErrGone)
		}
		if took := time.Since(start); took < window {
			t.Errorf("the agent ended after %v, want %v", took, window)
		}
	case <-time.After(window + 10*time.Second):
		t.Fatal("the agent goes on without a session")
	}
}

// An agent that is told to end while its session is away has nobody to say
// goodbye to: it does not try for long.
func TestToldWhileAlone(t *testing.T) {
	a := startWith(t, Options{Target: target.Self})
	a.lose()
	time.Sleep(100 * time.Millisecond) // for the agent to notice it
	start := time.Now()
	a.stop()
	if err := <-a.done; !errors.Is(err, errTold) {
		t.Errorf("the agent ended with %v, want %v", err, errTold)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("the agent ended after %v, want 1s at most", took)
	}
}

// lose makes a session and takes its link away for good.
func (a *agent) lose() {
	t := a.t
	var mu sync.Mutex
	var current io.ReadWriteCloser
	away := errors.New("no network")
	pipe, err := resume.Dial(t.Context(), func(ctx context.Context) (io.ReadWriteCloser, error) {
		mu.Lock()
		defer mu.Unlock()
		if current != nil {
			return nil, away
		}
		var err error
		current, err = a.connect(ctx, a.session, a.key)
		return current, err
	}, resume.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := link.New(pipe, link.Local, link.Options{})
	t.Cleanup(func() { l.Close("test") })
	if m, err := l.Call(t.Context(), &protocol.EnvRequest{}); err != nil || m.Kind() != protocol.KindEnv {
		t.Fatalf("environment: %v, %v", m, err)
	}
	mu.Lock()
	defer mu.Unlock()
	current.Close()
}
