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
	}, resume.Options{Window: window})
	if err != nil {
		t.Fatal(err)
	}
	l := link.New(pipe, link.Local, link.Options{})
	defer l.Close("test")
	if m, err := l.Call(t.Context(), &protocol.EnvRequest{}); err != nil || m.Kind() != protocol.KindEnv {
		t.Fatalf("environment: %v, %v", m, err)
	}
	start := time.Now()
	mu.Lock()
	current.Close()
	mu.Unlock()
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
