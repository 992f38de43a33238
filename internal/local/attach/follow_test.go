package attach

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/link"
)

// New work waits for the successor's agent, a bounded time.
func TestPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		newLink := func() *link.Conn {
			a, z := net.Pipe()
			near, far := link.New(a, link.Local, link.Options{}), link.New(z, link.Agent, link.Options{})
			t.Cleanup(func() { near.Close(""); far.Close("") })
			return near
		}
		first, second := newLink(), newLink()
		p := &Peer{}
		p.set(first)
		if got, err := p.now(t.Context()); got != first || err != nil {
			t.Errorf("got %p, %v, want the first link %p", got, err, first)
		}
		p.hold()
		began := time.Now()
		if _, err := p.now(t.Context()); !errors.Is(err, syscall.EHOSTUNREACH) || time.Since(began) != link.BeginTime {
			t.Errorf("without a successor: %v after %v, want EHOSTUNREACH after %v", err, time.Since(began), link.BeginTime)
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, syscall.EINTR)
		defer cancel()
		if _, err := p.now(ctx); !errors.Is(err, syscall.EINTR) {
			t.Errorf("interrupted: %v, want EINTR", err)
		}
		time.AfterFunc(time.Second, func() { p.set(second) })
		if got, err := p.now(t.Context()); got != second || err != nil {
			t.Errorf("got %p, %v, want the second link %p", got, err, second)
		}
		p.hold()
		time.AfterFunc(time.Second, func() { p.set(nil) })
		if got, err := p.now(t.Context()); got != second || err != nil {
			t.Errorf("after the last: got %p, %v, want the old link %p, which is over", got, err, second)
		}
	})
}

func TestUnfollowed(t *testing.T) {
	lost := &failure.Error{Code: "agent-lost", What: "the session has ended", Why: "deleted", Do: "start again"}
	if got := unfollowed(lost, ErrNotReplaced); got != error(lost) {
		t.Errorf("got %v, want what was lost", got)
	}
	got := failure.From(unfollowed(lost, &failure.Error{Code: "target-not-found", What: "there is no pod", Why: "looked here", Do: "kubectl get pods"}))
	if got.Code != "target-ended" || got.Why != "there is no pod: looked here" || got.Do != "kubectl get pods" {
		t.Errorf("got %+v", got)
	}
}
