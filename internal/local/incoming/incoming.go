// Package incoming is the local half of the incoming flow: it asks for the
// connections of the target's ports that the program listens on, publishes
// those ports on the developer's own loopback, and hands every connection to
// the program with the client's address.
//
// The session tells it of listeners as they come and go, gives it the link
// and a way into the sandbox. It knows neither kernel nor Kubernetes.
package incoming

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/relay"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// Opener starts a stream towards the agent.
type Opener interface {
	Open(ctx context.Context, lane link.Lane, m protocol.Message) (*link.Stream, error)
}

// Options of New. All functions may be called concurrently.
type Options struct {
	Link  Opener
	Rules rules.Incoming
	Host  Host
	// Dial makes one attempt to connect into the sandbox.
	Dial func(ctx context.Context, a Attempt) (net.Conn, error)
	// Listen opens a listener on this machine; net.Listen in the product.
	Listen func(network, address string) (net.Listener, error)
	Emit   event.Sink
}

// Ports keeps what a session's program listens on.
type Ports struct {
	o      Options
	ctx    context.Context // alive until Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // every goroutine of Ports

	mu        sync.Mutex
	listeners map[uint64]netip.AddrPort // by the sandbox's id
	open      map[uint16]*port
}

// port is one port number with at least one listener.
type port struct {
	count int
	ready chan struct{} // closed when the first listener has been dealt with
	err   error         // then: why it failed

	subscription *link.Stream // nil: not subscribed
	published    []net.Listener
}

// New makes the ports of a session; Close ends them.
func New(o Options) *Ports {
	ctx, cancel := context.WithCancel(context.Background())
	return &Ports{o: o, ctx: ctx, cancel: cancel, listeners: map[uint64]netip.AddrPort{}, open: map[uint16]*port{}}
}

// Listening tells that the program listens on addr. It returns once the
// target's traffic for the port flows here and the port is published, or with
// the errno that listen(2) must fail with. ids are never used twice.
func (p *Ports) Listening(ctx context.Context, id uint64, addr netip.AddrPort) error {
	p.mu.Lock()
	if p.ctx.Err() != nil {
		p.mu.Unlock()
		return syscall.ESHUTDOWN
	}
	p.listeners[id] = addr
	pt := p.open[addr.Port()]
	if pt != nil { // SO_REUSEPORT, or another address
		pt.count++
		p.mu.Unlock()
		select {
		case <-pt.ready:
			return pt.err
		case <-ctx.Done():
			return syscall.EINTR
		}
	}
	pt = &port{count: 1, ready: make(chan struct{})}
	p.open[addr.Port()] = pt
	p.mu.Unlock()

	pt.err = p.begin(ctx, pt, addr)
	close(pt.ready)
	if pt.err != nil {
		p.Closed(id)
	}
	return pt.err
}

// begin subscribes and publishes.
func (p *Ports) begin(ctx context.Context, pt *port, addr netip.AddrPort) error {
	mode, d := p.o.Rules.Decide(addr)
	if d.Where == rules.Remote {
		s, err := p.subscribe(ctx, addr.Port(), mode)
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			p.o.Emit(event.Event{Level: event.Warning, Code: "port-held", Flow: "incoming",
				Text: fmt.Sprintf("port %d of the target is taken: %v", addr.Port(), err)})
			return syscall.EADDRINUSE
		case err != nil:
			p.o.Emit(event.Event{Level: event.Warning, Code: "port-not-" + modeName(mode), Flow: "incoming",
				Text: fmt.Sprintf("port %d is open on this machine only: %v", addr.Port(), err)})
		default:
			pt.subscription = s
		}
	}
	pt.published = p.publish(addr.Port())
	facts := map[string]string{"port": fmt.Sprint(addr.Port()), "why": d.Why}
	text := fmt.Sprintf("port %d", addr.Port())
	if pt.subscription != nil {
		facts["mode"] = modeName(mode)
		text += ": the target's traffic is " + map[uint8]string{protocol.ModeSteal: "stolen", protocol.ModeMirror: "mirrored"}[mode]
	}
	if len(pt.published) > 0 {
		at := pt.published[0].Addr().String()
		facts["published"] = at
		text += ", open here at " + at
	}
	p.o.Emit(event.Event{Level: event.Info, Code: "port-open", Flow: "incoming", Text: text, Facts: facts})
	return nil
}

func modeName(mode uint8) string {
	if mode == protocol.ModeSteal {
		return "steal"
	}
	return "mirror"
}

func (p *Ports) subscribe(ctx context.Context, port uint16, mode uint8) (*link.Stream, error) {
	s, err := p.o.Link.Open(p.ctx, link.Interactive, &protocol.Subscribe{Port: port, Mode: mode})
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	m, err := s.Receive()
	if err == nil {
		a, ok := m.(*protocol.Answer)
		if !ok {
			err = fmt.Errorf("the agent answered a subscription with %T: %w", m, syscall.EPROTO)
		} else {
			err = a.Err()
		}
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// publish opens the port on this machine's loopback, both families: the same
// number where it is free, another where not, none if the machine refuses.
func (p *Ports) publish(number uint16) []net.Listener {
	var all []net.Listener
	for _, want := range []uint16{number, 0} {
		for _, host := range []string{"127.0.0.1", "::1"} {
			if want == 0 && len(all) > 0 { // the second family follows the first's number
				want = addrPort(all[0].Addr()).Port()
			}
			ln, err := p.o.Listen("tcp", net.JoinHostPort(host, fmt.Sprint(want)))
			if err != nil {
				continue
			}
			all = append(all, ln)
		}
		if len(all) > 0 {
			break
		}
	}
	for _, ln := range all {
		p.wg.Go(func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				p.wg.Go(func() { p.deliver(p.ctx, c.(relay.Conn), addrPort(c.RemoteAddr()), number, relayBoth) })
			}
		})
	}
	return all
}

// Closed tells that the listener id is gone.
func (p *Ports) Closed(id uint64) {
	p.mu.Lock()
	addr, ok := p.listeners[id]
	delete(p.listeners, id)
	pt := p.open[addr.Port()]
	if !ok || pt == nil {
		p.mu.Unlock()
		return
	}
	if pt.count--; pt.count > 0 {
		p.mu.Unlock()
		return
	}
	delete(p.open, addr.Port())
	p.mu.Unlock()
	<-pt.ready
	pt.end()
	if pt.err == nil {
		p.o.Emit(event.Event{Level: event.Detail, Code: "port-closed", Flow: "incoming", Text: fmt.Sprintf("port %d is closed", addr.Port()),
			Facts: map[string]string{"port": fmt.Sprint(addr.Port())}})
	}
}

func (pt *port) end() {
	if pt.subscription != nil {
		pt.subscription.Close()
	}
	for _, ln := range pt.published {
		ln.Close()
	}
}

// Serve hands one connection of the target to the program. It owns s and
// returns when the connection has ended.
func (p *Ports) Serve(ctx context.Context, s *link.Stream, m *protocol.Incoming) {
	how := relayBoth
	if m.Mode == protocol.ModeMirror {
		how = relayThere
	}
	p.deliver(ctx, s, m.Peer, m.Port, how)
}

type direction uint8

const (
	relayBoth  direction = iota
	relayThere           // what the program says goes nowhere
)

// deliver owns far.
func (p *Ports) deliver(ctx context.Context, far relay.Conn, client netip.AddrPort, port uint16, how direction) {
	near, err := p.dial(ctx, client, port)
	if err != nil {
		p.o.Emit(event.Event{Level: event.Detail, Code: "not-delivered", Flow: "incoming",
			Text: fmt.Sprintf("a connection of %v to port %d reached nobody: %v", client, port, err)})
		relay.Reset(far, err)
		return
	}
	if how == relayThere {
		_, _ = relay.Drain(ctx, near, far)
		return
	}
	_, _ = relay.Join(ctx, far, near)
}

// dial tries the ways to each listener of port.
func (p *Ports) dial(ctx context.Context, client netip.AddrPort, port uint16) (relay.Conn, error) {
	p.mu.Lock()
	var listeners []netip.AddrPort
	for _, a := range p.listeners {
		if a.Port() == port {
			listeners = append(listeners, a)
		}
	}
	p.mu.Unlock()
	var err error = syscall.ECONNREFUSED
	for _, l := range listeners {
		for _, try := range p.o.Host.Reach(client, l) {
			var c net.Conn
			if c, err = p.o.Dial(ctx, try); err == nil {
				if rc, ok := c.(relay.Conn); ok {
					return rc, nil
				}
				c.Close()
				err = syscall.EPROTO
			}
		}
	}
	return nil, err
}

// Close ends every subscription and publication, resets what is still being
// delivered, and returns when all of it is gone.
func (p *Ports) Close() {
	p.mu.Lock()
	open := p.open
	p.open = map[uint16]*port{}
	p.cancel()
	p.mu.Unlock()
	for _, pt := range open {
		<-pt.ready
		pt.end()
	}
	p.wg.Wait()
}

func addrPort(a net.Addr) netip.AddrPort {
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
