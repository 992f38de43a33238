// Package incoming is the agent's half of the incoming flow: it hands the
// connections that reach the target's ports to the session that subscribed to
// them.
//
// It knows no kernel: a Source brings connections, stolen or copied, and the
// link carries them. A subscription lives as long as its stream: when that
// ends, by whatever, the port goes back to the target, and what was taken
// before goes on. A port that is asked for twice goes back after the last.
package incoming

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/relay"
)

// Source brings connections that reach ports of the target. The LocalAddr of
// each is what the client dialed, the RemoteAddr is the client.
type Source interface {
	// Add begins with port; from its return on, new connections come here.
	Add(port uint16) error
	// Remove gives the port back to the target.
	Remove(port uint16) error
	// Accept waits for the next connection. It fails with net.ErrClosed, or
	// the error of ctx, when there will be no more.
	Accept(ctx context.Context) (net.Conn, error)
}

// Opener starts a stream towards local.
type Opener interface {
	Open(ctx context.Context, lane link.Lane, m protocol.Message) (*link.Stream, error)
}

// Hub shares out the connections of one target to one session.
type Hub struct {
	open    Opener
	sources map[uint8]Source // by mode; absent: this agent cannot
	missing map[uint8]string // by mode: why it is absent

	mu        sync.Mutex
	ports     map[key]map[*link.Stream]bool // subscriptions by mode and port
	suspended bool
}

type key struct {
	mode uint8
	port uint16
}

// New makes a hub. sources are by mode (protocol.ModeSteal, …); missing says,
// for a person, why a mode has none.
func New(open Opener, sources map[uint8]Source, missing map[uint8]string) *Hub {
	return &Hub{open: open, sources: sources, missing: missing, ports: map[key]map[*link.Stream]bool{}}
}

// Run carries connections until ctx ends and every one of them is done.
func (h *Hub) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for mode, src := range h.sources {
		wg.Go(func() {
			for {
				c, err := src.Accept(ctx)
				if err != nil {
					return
				}
				wg.Go(func() { h.carry(ctx, mode, c) })
			}
		})
	}
	wg.Wait()
}

// Subscribe answers m on s, which it owns, and keeps the subscription until s
// or ctx ends.
func (h *Hub) Subscribe(ctx context.Context, s *link.Stream, m *protocol.Subscribe) {
	defer s.Close()
	k := key{m.Mode, m.Port}
	if a := h.add(k, s, m.Filter); a.Err() != nil {
		_ = s.Send(a)
		return
	}
	defer h.remove(k, s)
	if s.Send(&protocol.Answer{}) != nil {
		return
	}
	// ESHUTDOWN: not this port but the whole session ends.
	stop := context.AfterFunc(ctx, func() { _ = s.Reset(syscall.ESHUTDOWN) })
	defer stop()
	_, _ = io.Copy(io.Discard, s)
}

func (h *Hub) add(k key, s *link.Stream, filter string) *protocol.Answer {
	src := h.sources[k.mode]
	switch why := h.missing[k.mode]; {
	case src == nil && why != "":
		return &protocol.Answer{Errno: syscall.EOPNOTSUPP, Cause: protocol.CauseDenied, Text: why}
	case src == nil:
		return &protocol.Answer{Errno: syscall.EINVAL, Cause: protocol.CauseUnsupported,
			Text: fmt.Sprintf("mode %d is not known to this agent", k.mode)}
	case filter != "":
		return &protocol.Answer{Errno: syscall.EINVAL, Cause: protocol.CauseUnsupported, Text: "this agent knows no filters"}
	case k.port == 0:
		return &protocol.Answer{Errno: syscall.EINVAL, Text: "port 0 cannot be subscribed to"}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ports[k]) == 0 && !h.idle(k) {
		if err := src.Add(k.port); err != nil {
			return refusal(err)
		}
	}
	if h.ports[k] == nil {
		h.ports[k] = map[*link.Stream]bool{}
	}
	h.ports[k][s] = true
	return &protocol.Answer{}
}

// idle reports whether the port is with the target for the time being. mu is
// held.
func (h *Hub) idle(k key) bool { return h.suspended && k.mode == protocol.ModeSteal }

// Suspend gives the target its stolen ports back, or takes them again, without
// an end of the subscriptions. One that another session has taken meanwhile
// ends with EADDRINUSE.
func (h *Hub) Suspend(yes bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.suspended == yes {
		return
	}
	h.suspended = yes
	for k, streams := range h.ports {
		switch {
		case k.mode != protocol.ModeSteal:
		case yes:
			_ = h.sources[k.mode].Remove(k.port)
		default:
			if err := h.sources[k.mode].Add(k.port); err != nil {
				for s := range streams {
					_ = s.Reset(relay.Errno(err))
				}
				delete(h.ports, k)
			}
		}
	}
}

// refusal says why a source did not take a port.
func refusal(err error) *protocol.Answer {
	a := &protocol.Answer{Errno: syscall.EIO, Text: err.Error()}
	if errors.As(err, &a.Errno) {
		switch a.Errno {
		case syscall.EADDRINUSE:
			a.Cause = protocol.CauseHeld
		case syscall.EPERM, syscall.EACCES:
			a.Cause = protocol.CauseDenied
		}
	}
	return a
}

func (h *Hub) remove(k key, s *link.Stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ports[k][s] {
		return // lost already
	}
	if delete(h.ports[k], s); len(h.ports[k]) > 0 {
		return
	}
	delete(h.ports, k)
	if !h.idle(k) {
		_ = h.sources[k.mode].Remove(k.port)
	}
}

// carry owns c.
func (h *Hub) carry(ctx context.Context, mode uint8, c net.Conn) {
	defer c.Close()
	peer, local := addrPort(c.RemoteAddr()), addrPort(c.LocalAddr())
	s, err := h.open.Open(ctx, link.Bulk, &protocol.Incoming{Port: local.Port(), Mode: mode, Peer: peer, Local: local})
	if err != nil {
		if conn, ok := c.(relay.Conn); ok {
			relay.Reset(conn, err)
		}
		return
	}
	conn, ok := c.(relay.Conn)
	if !ok {
		conn = readOnly{c}
	}
	if mode == protocol.ModeMirror {
		_, _ = relay.Drain(ctx, unwanted{s, conn}, conn)
		return
	}
	_, _ = relay.Join(ctx, s, conn)
}

// unwanted is local's side of a copy. When local resets it the copy ends at
// once, not with the client's next word.
type unwanted struct {
	*link.Stream
	copied io.Closer
}

func (u unwanted) Read(p []byte) (int, error) {
	n, err := u.Stream.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		u.copied.Close()
	}
	return n, err
}

// readOnly is a copy of a connection, which has nothing to half-close.
type readOnly struct{ net.Conn }

func (readOnly) CloseWrite() error { return nil }

func addrPort(a net.Addr) netip.AddrPort {
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
