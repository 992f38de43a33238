// Package incoming is the local half of the incoming flow: it asks for the
// connections of the target's ports that the program listens on, publishes
// those ports on the developer's own loopback, and hands every connection to
// the program with the client's address.
//
// The session tells it of listeners as they come and go, gives it the link
// and a way into the sandbox. It knows neither kernel nor Kubernetes.
//
// A port is one thing however many listeners it has: it is begun with the
// first, ended with the last, and whoever listens on it again meanwhile waits
// for the end, so that a program which restarts its server finds the same port
// published.
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
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
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
	// Dial makes one attempt to connect into the sandbox. The connection has a
	// CloseWrite.
	Dial func(ctx context.Context, a Attempt) (net.Conn, error)
	// Listen opens a listener on this machine; net.Listen in the product.
	Listen func(network, address string) (net.Listener, error)
	Emit   event.Sink
}

// subscribeTime bounds how long listen(2) waits for the agent: longer than a
// lost link may take to be resumed (60 s), so that only an agent that is stuck
// meets it.
const subscribeTime = 75 * time.Second

// Ports keeps what a session's program listens on. Its methods may be called
// concurrently.
type Ports struct {
	o      Options
	ctx    context.Context // alive until Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // calls under way and every goroutine of Ports

	mu        sync.Mutex
	closed    bool
	listeners map[uint64]listener // by the sandbox's id
	open      map[uint16]*port
}

type listener struct {
	addr netip.AddrPort
	port *port
}

// port is one port number with at least one listener.
type port struct {
	count  int           // listeners; guarded by Ports.mu
	ending bool          // nobody joins any more; guarded by Ports.mu
	ready  chan struct{} // closed when the fields below are set
	ended  chan struct{} // closed when nothing is left of it

	err          error        // why it could not be begun
	subscription *link.Stream // nil: not subscribed
	published    []net.Listener
}

// New makes the ports of a session; Close ends them.
func New(o Options) *Ports {
	ctx, cancel := context.WithCancel(context.Background())
	return &Ports{o: o, ctx: ctx, cancel: cancel, listeners: map[uint64]listener{}, open: map[uint16]*port{}}
}

// enter counts a call, so that Close waits for it. After Close it is false.
func (p *Ports) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.wg.Add(1)
	return true
}

// Listening tells that the program listens on addr. It returns once the
// target's traffic for the port flows here and the port is published, or with
// the errno that listen(2) must fail with; then the listener is forgotten. It
// fails with EINTR when ctx ends. ids are never used twice.
func (p *Ports) Listening(ctx context.Context, id uint64, addr netip.AddrPort) error {
	if !p.enter() {
		return syscall.ESHUTDOWN
	}
	defer p.wg.Done()
	for {
		err := p.tryListening(ctx, id, addr)
		// It may be another caller, who began the port for both, that was
		// interrupted.
		if !errors.Is(err, syscall.EINTR) || ctx.Err() != nil {
			return err
		}
	}
}

func (p *Ports) tryListening(ctx context.Context, id uint64, addr netip.AddrPort) error {
	pt, first, err := p.join(ctx, id, addr)
	if err != nil {
		return err
	}
	if first {
		pt.err = p.begin(ctx, pt, addr)
		if pt.err != nil {
			p.mu.Lock()
			delete(p.open, addr.Port()) // the next one asks anew
			p.mu.Unlock()
			close(pt.ended)
		}
		close(pt.ready)
	}
	select {
	case <-pt.ready:
		if pt.err != nil {
			p.forget(id)
		}
		return pt.err
	case <-ctx.Done():
		p.withdraw(id)
		return syscall.EINTR
	}
}

// join enters a listener; first is who has to begin the port.
func (p *Ports) join(ctx context.Context, id uint64, addr netip.AddrPort) (_ *port, first bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		pt := p.open[addr.Port()]
		switch {
		case p.closed:
			return nil, false, syscall.ESHUTDOWN
		case pt == nil:
			pt = &port{count: 1, ready: make(chan struct{}), ended: make(chan struct{})}
			p.open[addr.Port()] = pt
			p.listeners[id] = listener{addr, pt}
			return pt, true, nil
		case !pt.ending: // SO_REUSEPORT, or another address
			pt.count++
			p.listeners[id] = listener{addr, pt}
			return pt, false, nil
		}
		p.mu.Unlock()
		select {
		case <-pt.ended:
		case <-ctx.Done():
			err = syscall.EINTR
		}
		p.mu.Lock()
		if err != nil {
			return nil, false, err
		}
	}
}

func (p *Ports) forget(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.listeners, id)
}

// begin subscribes and publishes, and says so.
func (p *Ports) begin(ctx context.Context, pt *port, addr netip.AddrPort) error {
	mode, d := p.o.Rules.Decide(addr)
	number := addr.Port()
	facts := map[string]string{"port": fmt.Sprint(number), "why": d.Why}
	text := fmt.Sprintf("port %d", number)
	if d.Where == rules.Remote {
		s, err := p.subscribe(ctx, number, mode)
		switch {
		case p.ctx.Err() != nil:
			return syscall.ESHUTDOWN
		case ctx.Err() != nil:
			return syscall.EINTR
		case errors.Is(err, syscall.EADDRINUSE):
			p.o.Emit(event.Event{Level: event.Warning, Code: "port-held", Flow: "incoming",
				Text:  fmt.Sprintf("port %d of the target is taken: %v", number, err),
				Facts: map[string]string{"port": fmt.Sprint(number)}})
			return syscall.EADDRINUSE
		case err != nil:
			p.o.Emit(event.Event{Level: event.Warning, Code: "port-not-" + modeName(mode), Flow: "incoming",
				Text:  fmt.Sprintf("port %d is open on this machine only: %v", number, err),
				Facts: map[string]string{"port": fmt.Sprint(number)}})
		default:
			pt.subscription = s
			facts["mode"] = modeName(mode)
			text += ": the target's traffic is " + map[uint8]string{protocol.ModeSteal: "stolen", protocol.ModeMirror: "mirrored"}[mode]
		}
	}
	var busy error
	pt.published, busy = p.publish(number)
	switch {
	case len(pt.published) == 0:
		text += fmt.Sprintf(", not open on this machine (%v)", busy)
	default:
		at := pt.published[0].Addr().String()
		facts["published"] = at
		text += ", open here at " + at
		if busy != nil {
			text += fmt.Sprintf(" (%d is not free here: %v)", number, busy)
		}
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

// subscribe asks the agent for a port. An error leaves nothing behind; it is
// not to be told from another's when ctx has ended.
func (p *Ports) subscribe(ctx context.Context, number uint16, mode uint8) (*link.Stream, error) {
	s, err := p.o.Link.Open(p.ctx, link.Interactive, &protocol.Subscribe{Port: number, Mode: mode})
	if err != nil {
		return nil, err
	}
	if err := p.answered(ctx, s); err != nil {
		s.Close()
		return nil, err
	}
	p.wg.Go(func() { p.follow(s, number) })
	return s, nil
}

// answered waits for the agent's yes.
func (p *Ports) answered(ctx context.Context, s *link.Stream) error {
	_ = s.SetReadDeadline(time.Now().Add(subscribeTime))
	for _, end := range []context.Context{ctx, p.ctx} {
		stop := context.AfterFunc(end, func() { s.Close() })
		defer stop()
	}
	m, err := s.Receive()
	if err != nil {
		return fmt.Errorf("wait for the agent's answer: %w", err)
	}
	a, ok := m.(*protocol.Answer)
	if !ok {
		return fmt.Errorf("the agent answered a subscription with message %d: %w", m.Kind(), syscall.EPROTO)
	}
	if a.Err() == nil {
		return s.SetReadDeadline(time.Time{})
	}
	return a.Err()
}

// follow waits for the end of a subscription, which says nothing more, and
// tells if the agent has ended it. The end of the whole session is for others
// to tell: ESHUTDOWN, and the end of the link.
func (p *Ports) follow(s *link.Stream, number uint16) {
	_, err := io.Copy(io.Discard, s)
	var closed *link.ClosedError
	if errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ESHUTDOWN) || errors.As(err, &closed) {
		return
	}
	s.Close()
	p.o.Emit(event.Event{Level: event.Warning, Code: "port-lost", Flow: "incoming",
		Text:  fmt.Sprintf("the target's traffic for port %d does not come here any more: the agent gave it back", number),
		Facts: map[string]string{"port": fmt.Sprint(number)}})
}

// Closed tells that the listener id is gone: with the last of a port the
// target has its traffic back. Connections that were delivered go on.
func (p *Ports) Closed(id uint64) {
	if !p.enter() {
		return
	}
	defer p.wg.Done()
	p.withdraw(id)
}

func (p *Ports) withdraw(id uint64) {
	p.mu.Lock()
	l, ok := p.listeners[id]
	delete(p.listeners, id)
	if ok {
		l.port.count--
	}
	if !ok || l.port.count > 0 || l.port.ending {
		p.mu.Unlock()
		return
	}
	l.port.ending = true
	p.mu.Unlock()
	p.end(l.addr.Port(), l.port, p.o.Emit)
}

// end ends pt, which nobody joins any more, and says so before anybody can
// begin the port anew. One that was never begun has nothing to end.
func (p *Ports) end(number uint16, pt *port, emit event.Sink) {
	<-pt.ready
	if pt.err != nil {
		return
	}
	if pt.subscription != nil {
		pt.subscription.Close()
	}
	for _, ln := range pt.published {
		ln.Close()
	}
	emit(event.Event{Level: event.Detail, Code: "port-closed", Flow: "incoming",
		Text: fmt.Sprintf("port %d is closed", number), Facts: map[string]string{"port": fmt.Sprint(number)}})
	p.mu.Lock()
	delete(p.open, number)
	p.mu.Unlock()
	close(pt.ended)
}

// Close ends every subscription and publication, resets what is still being
// delivered, and returns when all of it is gone.
func (p *Ports) Close() {
	p.mu.Lock()
	p.closed = true
	ports := map[uint16]*port{}
	for number, pt := range p.open {
		if !pt.ending {
			pt.ending = true
			ports[number] = pt
		}
	}
	clear(p.listeners)
	p.mu.Unlock()
	p.cancel()
	for number, pt := range ports {
		p.end(number, pt, event.Discard) // the end of the session says it all
	}
	p.wg.Wait()
}
