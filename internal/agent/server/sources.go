package server

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/mirrord-go/mirrord/internal/agent/capture"
	"github.com/mirrord-go/mirrord/internal/agent/incoming"
	"github.com/mirrord-go/mirrord/internal/agent/mesh"
	"github.com/mirrord-go/mirrord/internal/agent/redirect"
)

// sources are where stolen and mirrored connections come from.
func (s *session) sources() (steal *stealSource, mirror *lazySource) {
	steal = &stealSource{notice: s.notice}
	around := sync.OnceValue(func() mesh.Mesh { // looked at when the first port is asked for
		m := mesh.Look(s.t.Do).Mesh()
		if text := m.Text(); text != "" {
			s.notice("mesh", text)
		}
		return m
	})
	steal.lazySource = newLazySource(func() (closableSource, error) {
		r, err := redirect.New(s.t, redirect.Options{Holder: s.who().String(), Joined: s.hub.Host,
			NAT: func() error { return around().RefusesRedirect() }})
		if err != nil {
			return nil, err
		}
		steal.redirect = r
		return r, nil
	})
	mirror = newLazySource(func() (closableSource, error) {
		tap, err := capture.Open(s.t.Do, s.memory.copies, passed(), incoming.Begins)
		if err != nil {
			return nil, err
		}
		if m := around(); m.Name != "" {
			tap.Sidecar()
			switch {
			case tap.Blind():
				s.notice("mesh-copies", fmt.Sprintf("the agent may not ask the kernel what %s takes (CAP_NET_ADMIN), and this kernel lists no sockets (tcp_diag): each request is copied twice, once as it comes in", m.Name))
			case !tap.Exact():
				s.notice("mesh-copies", fmt.Sprintf("the agent may not ask the kernel what %s takes (CAP_NET_ADMIN): of connections that its rules leave out, those that end at once may not be copied", m.Name))
			}
			return s.watched(tap, m), nil
		}
		return tap, nil
	})
	steal.refuses = func(port uint16) error { return around().Refuses(port, false) }
	mirror.refuses = func(port uint16) error { return around().Refuses(port, true) }
	return steal, mirror
}

// datagramSources are where stolen and mirrored datagrams come from.
func (s *session) datagramSources() (steal, mirror *lazySource) {
	steal = newLazySource(func() (closableSource, error) { return redirect.NewDatagrams(s.t, s.who().String(), s.memory.copies) })
	return steal, newLazySource(func() (closableSource, error) { return capture.OpenDatagrams(s.t.Do, s.memory.copies) })
}

// passed are the packets of what an agent passes on, which has come from a client
// before.
func passed() capture.Marks {
	return capture.Marks{Value: redirect.MarkValue, Mask: redirect.MarkMask}
}

// stealSource can pass its connections on to the target.
type stealSource struct {
	*lazySource
	redirect *redirect.Redirect // set before ready is closed
	notice   func(code, text string)
	said     sync.Once
}

// DialOriginal connects to the target's own server at dst as if client did, for
// connections that this source brought; see redirect.Redirect.
func (s *stealSource) DialOriginal(ctx context.Context, client, dst netip.AddrPort) (net.Conn, error) {
	select {
	case <-s.ready:
	default: // nothing was stolen
		return nil, net.ErrClosed
	}
	c, err := s.redirect.DialOriginal(ctx, client, dst)
	if yes, why := s.redirect.KeepsClient(); !yes {
		s.said.Do(func() {
			s.notice("client-address-lost", fmt.Sprintf("on connections that are passed on to it, the target sees an address of its own instead of the client's: %v", why))
		})
	}
	return c, err
}

// closableSource is what redirect and capture offer.
type closableSource interface {
	incoming.Source
	Close() error
}

// lazySource opens its source when the first port is asked for: a session that
// takes no traffic leaves the target's network untouched.
type lazySource struct {
	open    func() (closableSource, error)
	refuses func(port uint16) error // nil: no port is

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
	if l.refuses != nil {
		if err := l.refuses(port); err != nil {
			return err
		}
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

// opened is the source; nil: nobody has asked for a port yet.
func (l *lazySource) opened() closableSource {
	select {
	case <-l.ready:
		return l.src
	default:
		return nil
	}
}

// lost is how many datagrams the source has lost.
func (l *lazySource) lost() uint64 {
	if src, ok := l.opened().(interface{ Lost() int64 }); ok {
		return uint64(src.Lost())
	}
	return 0
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
