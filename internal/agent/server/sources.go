package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/mirrord-go/mirrord/internal/agent/capture"
	"github.com/mirrord-go/mirrord/internal/agent/incoming"
	"github.com/mirrord-go/mirrord/internal/agent/redirect"
)

// sources are where stolen and mirrored connections come from.
func (s *session) sources() (steal, mirror *lazySource) {
	return newLazySource(func() (closableSource, error) {
			s.mu.Lock()
			holder := s.user
			s.mu.Unlock()
			return redirect.New(s.t, holder)
		}), newLazySource(func() (closableSource, error) {
			return capture.Open(s.t.Do)
		})
}

// closableSource is what redirect and capture offer.
type closableSource interface {
	incoming.Source
	Close() error
}

// lazySource opens its source when the first port is asked for: a session that
// takes no traffic leaves the target's network untouched.
type lazySource struct {
	open func() (closableSource, error)

	ready chan struct{} // closed when source is set
	mu    sync.Mutex    // source, closed
	done  bool
	src   closableSource
}

func newLazySource(open func() (closableSource, error)) *lazySource {
	return &lazySource{open: open, ready: make(chan struct{})}
}

// Add implements incoming.Source. A source that could not be opened is tried
// again by the next Add.
func (l *lazySource) Add(port uint16) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		return net.ErrClosed
	}
	if l.src == nil {
		src, err := l.open()
		if err != nil {
			return err
		}
		l.src = src
		close(l.ready)
	}
	return l.src.Add(port)
}

// Remove implements incoming.Source.
func (l *lazySource) Remove(port uint16) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.src == nil || l.done {
		return nil
	}
	return l.src.Remove(port)
}

// Accept implements incoming.Source.
func (l *lazySource) Accept(ctx context.Context) (net.Conn, error) {
	select {
	case <-l.ready:
		return l.src.Accept(ctx)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// DialOriginal connects to the target's own server at dst as if client did, for
// connections that this source brought.
func (l *lazySource) DialOriginal(ctx context.Context, client, dst netip.AddrPort) (net.Conn, error) {
	select {
	case <-l.ready:
	default: // nothing was stolen
		return nil, net.ErrClosed
	}
	d, ok := l.src.(originalDialer)
	if !ok {
		return nil, fmt.Errorf("%T cannot reach the original: %w", l.src, errors.ErrUnsupported)
	}
	return d.DialOriginal(ctx, client, dst)
}

// originalDialer is a source that steals.
type originalDialer interface {
	DialOriginal(ctx context.Context, client, dst netip.AddrPort) (net.Conn, error)
}

// Close gives everything back.
func (l *lazySource) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = true
	if l.src == nil {
		return nil
	}
	return l.src.Close()
}
