package incoming

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/relay"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// deliverTime bounds the way of one connection to the program: a listener
// whose queue is full answers no SYN, and a client does not wait longer than
// this for long (the kernel's own patience is 127 s).
const deliverTime = 60 * time.Second

// arrival is a connection for the program.
type arrival struct {
	client  netip.AddrPort
	dialed  netip.Addr // the address that the client dialed
	port    uint16     // of the target; of the program if own
	own     bool       // it came by the published port
	target  bool       // it reached the target; else this machine
	copied  bool       // what the program says goes nowhere
	replies bool       // of a copy: the agent hears it
	tls     *agreed    // with the client; nil: no TLS was taken off
	udp     bool
}

// Serve hands one connection of the target to the program. It owns s and
// returns when the connection has ended, or ctx or the ports, which reset it.
// A connection that reached no program is reset with ECONNREFUSED, and no other
// is: the agent gives it to the target.
func (p *Ports) Serve(ctx context.Context, s *link.Stream, m *protocol.Incoming) {
	if !p.enter() {
		relay.Reset(s, syscall.ECONNREFUSED)
		return
	}
	defer p.wg.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(p.ctx, cancel)
	defer stop()
	a := arrival{client: m.Peer, dialed: m.Local.Addr(), port: m.Port, target: true, copied: m.Mode&^protocol.ModeUDP == protocol.ModeMirror, replies: m.Replies, tls: agreement(m), udp: m.Mode&protocol.ModeUDP != 0}
	if a.udp {
		p.carryDatagrams(ctx, remoteFlow{s}, a)
		return
	}
	p.deliver(ctx, s, a)
}

// deliver owns far.
func (p *Ports) deliver(ctx context.Context, far relay.Conn, a arrival) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	port, limit, bounded := p.patience(a)
	until := time.Now().Add(limit)
	near, at, err := p.reach(ctx, a, port, limit, bounded)
	if err != nil {
		relay.Reset(far, syscall.ECONNREFUSED)
		p.notDelivered(a, err)
		return
	}
	call := p.o.Activity.Incoming(a.activity(), !a.target)
	defer call.Close()
	if a.copied && p.o.RemoteOutgoing {
		call.OnRequest(p.repeats)
	}
	p.tellDelivered(a)
	switch {
	case a.copied && a.replies: // the agent's, which is the client
		_, _ = relay.Join(ctx, p.o.Relayed, far, call.Stream(near))
		return
	case a.copied:
		_, _ = relay.Drain(ctx, p.o.Relayed, call.Stream(near), far)
		return
	}
	var to relay.Conn = near
	if s, ok := far.(*link.Stream); ok {
		t := p.taken(ctx, s, near, at, call.Returned)
		if a.tls != nil && !p.o.Delivery.plain {
			limit := handshakeTime
			if !bounded {
				limit = 0
			}
			to = p.secure(ctx, near, a, t, limit)
		}
		defer t.forget()
		if bounded && t.peer != nil {
			var awaited sync.WaitGroup
			defer awaited.Wait()
			defer t.end()
			awaited.Go(func() {
				if err := p.await(ctx, t, port, until); err != nil {
					cancel(err)
				}
			})
		} else {
			t.admit()
		}
		far = t
	}
	_, _ = relay.Join(ctx, p.o.Relayed, far, call.Stream(to))
}

// notDelivered tells that nobody takes an arrival.
func (p *Ports) notDelivered(a arrival, err error) {
	p.o.Emit(event.Event{Level: event.Detail, Code: "not-delivered", Flow: "incoming",
		Text:  fmt.Sprintf("a connection of %v to %v reached nobody: %v", a.client, a.key(), err),
		Facts: a.key().facts(map[string]string{"client": a.client.String()})})
	e := a.activity()
	e.Error = err.Error()
	p.o.Activity.NotDelivered(e, !a.target)
}

// tellDelivered tells that the program has an arrival of the target's.
func (p *Ports) tellDelivered(a arrival) {
	if a.target {
		p.o.Emit(event.Event{Level: event.Detail, Code: "delivered", Flow: "incoming", Text: fmt.Sprintf("%v is connected to %v", a.client, a.key()),
			Facts: a.key().facts(map[string]string{"client": a.client.String()})})
	}
}

// repeats hears of a request of which the program has a copy. What writes is
// done twice: by the target, and by the program on the same databases and
// services, to which its connections lead. That is said once.
func (p *Ports) repeats(method string) {
	if safe(method) {
		return
	}
	p.warned.Do(func() {
		p.o.Emit(event.Event{Level: event.Warning, Code: "mirrored-writes", Flow: "incoming",
			Text: fmt.Sprintf("a copy of a %s request has reached the program, which may write once more what the target writes: its connections leave from the target, "+
				"to the same databases and services; copy only what reads (--method GET), or keep connections here (--no-outgoing)", method),
			Facts: map[string]string{"method": method}})
	})
}

// safe reports whether a method asks for nothing to be changed (RFC 9110 §9.2.1,
// and the same by RFC 4918, 5323 and 3253).
func safe(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "SEARCH", "REPORT":
		return true
	}
	return false
}

func (a arrival) key() portKey { return portKey{a.port, a.udp} }

// activity is what is told of an arrival.
func (a arrival) activity() activity.Event {
	e := activity.Event{Network: a.key().network(), Where: rules.Local.String(), Client: a.client.String(), Port: a.port}
	if a.target {
		e.Where, e.Mode = rules.Remote.String(), modeName(protocol.ModeSteal)
	}
	if a.copied {
		e.Mode = modeName(protocol.ModeMirror)
	}
	return e
}

// delivered is a connection to the program.
type delivered interface {
	net.Conn
	CloseWrite() error
}

// reach is dial for as long as a may wait to be accepted: a listener with a full
// queue answers nobody.
func (p *Ports) reach(ctx context.Context, a arrival, port uint16, limit time.Duration, bounded bool) (near delivered, at netip.AddrPort, err error) {
	if limit == 0 {
		return nil, at, errNotAccepted
	}
	dialing, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c, at, err := p.dial(dialing, a)
	near, ok := c.(delivered)
	switch {
	case err == nil && !ok:
		c.Close()
		err = fmt.Errorf("a connection of type %T cannot be half-closed: %w", c, syscall.EPROTO)
	case err != nil && bounded && dialing.Err() != nil && ctx.Err() == nil:
		p.isLate(port)
		err = errNotAccepted
	}
	return near, at, err
}

// dial tries the ways to each listener of the port, the likeliest first, and
// gives the address that was dialed: a connection that was reset since does not
// know its own any more. The error is that of the first try.
func (p *Ports) dial(ctx context.Context, a arrival) (c net.Conn, at netip.AddrPort, err error) {
	ctx, cancel := context.WithTimeout(ctx, deliverTime)
	defer cancel()
	dial := p.o.Dial
	if a.udp {
		dial = p.o.DialUDP
	}
	var first error
	for _, l := range p.listening(a) {
		for _, try := range p.o.Host.Reach(a.client, l) {
			c, err := dial(ctx, try)
			if err == nil {
				return c, try.Dst, nil
			}
			if first == nil {
				first = err
			}
			if ctx.Err() != nil {
				return nil, at, first
			}
		}
	}
	if first == nil {
		first = syscall.ECONNREFUSED // nobody listens any more
	}
	return nil, at, first
}

// listening gives the addresses where the program takes an arrival, the
// likeliest first. Where several of its ports are mapped onto the target's,
// that is the port with the latest listener; an earlier one is tried only when
// that has just gone.
func (p *Ports) listening(a arrival) (all []netip.AddrPort) {
	latest := map[uint16]uint64{} // by port of the program
	by := map[uint16][]netip.AddrPort{}
	p.mu.Lock()
	for _, l := range p.listeners {
		number := l.Addr.Port()
		if l.UDP != a.udp {
			continue
		}
		if a.own && number == a.port || !a.own && l.Where == rules.Remote && l.Target == a.port {
			by[number] = append(by[number], netip.AddrPortFrom(l.Addr.Addr().Unmap(), number))
			latest[number] = max(latest[number], l.order)
		}
	}
	p.mu.Unlock()
	for _, number := range slices.SortedFunc(maps.Keys(by), func(x, y uint16) int { return cmp.Compare(latest[y], latest[x]) }) {
		all = append(all, order(by[number], a)...)
	}
	return all
}

// order sorts listeners by how surely the connection is theirs, as a kernel
// would choose: the address that was dialed, then any address of the client's
// family, then any address (a socket of both families), then what is left.
// Listeners that share an address (SO_REUSEPORT) are one; the sandbox's kernel
// chooses among them.
func order(all []netip.AddrPort, a arrival) []netip.AddrPort {
	dialed, v4 := a.dialed.Unmap(), a.client.Addr().Unmap().Is4()
	rank := func(l netip.AddrPort) int {
		ip := l.Addr()
		switch {
		case ip == dialed:
			return 0
		case ip.IsUnspecified() && ip.Is4() == v4:
			return 1
		case ip.IsUnspecified():
			return 2
		case ip.Is4() == v4:
			return 3
		}
		return 4
	}
	slices.SortFunc(all, func(x, y netip.AddrPort) int {
		return cmp.Or(cmp.Compare(rank(x), rank(y)), x.Compare(y))
	})
	return slices.Compact(all)
}

func addrPort(a net.Addr) netip.AddrPort {
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
