// Package incoming is the local half of the incoming flow: it asks for the
// connections of the target's ports that the program listens on, publishes
// those ports on the developer's own loopback, and hands every connection to
// the program with the client's address.
//
// The session tells it of listeners as they come and go, gives it the link
// and a way into the sandbox. It knows neither kernel nor Kubernetes.
//
// A port of the target is one subscription, and a port of the program one
// publication, however many listeners there are (share.go).
package incoming

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/local/activity"
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
	Rules *rules.Incoming
	// Probes are the paths on which the target's node asks each port how the pod
	// is: such requests are never stolen. Not changed after New; see Renew.
	Probes map[uint16][]string
	Host   Host
	// Dial and DialUDP make one attempt to connect into the sandbox. A connection of
	// Dial has a CloseWrite.
	Dial, DialUDP func(ctx context.Context, a Attempt) (net.Conn, error)
	// Follow looks after the program's side of a connection that Dial has made,
	// from one address to another. Optional.
	Follow func(from, to netip.AddrPort) Peer
	// Accept is how long the program may take to accept a connection of the target's
	// before the target gets it. 0: for ever.
	Accept time.Duration
	// Delivery is how the program gets what was under TLS. The zero value: under TLS,
	// with any certificate.
	Delivery Delivery
	// Queues are those of the program's listeners. nil: as with Accept 0.
	Queues Queues
	// Try gives a command that sends the target a request at a port which the
	// filter matches; "" if there is none. Optional.
	Try func(port uint16) string
	// Listen and ListenPacket open a port of this machine; net.Listen and
	// net.ListenPacket in the product. nil: the ports are not published, since what
	// listens there is this machine's itself.
	Listen       func(network, address string) (net.Listener, error)
	ListenPacket func(network, address string) (net.PacketConn, error)
	Emit         event.Sink
	// Activity hears of every connection. nil: nobody listens.
	Activity *activity.Log
	// Existing is what becomes of connections that clients have with a port before it
	// is stolen (protocol.Subscribe).
	Existing uint8
	// RemoteOutgoing: the program's connections leave from the target.
	RemoteOutgoing bool
	// Relayed is the memory for large buffers. nil: it has no end.
	Relayed *budget.Share
	// Subscribed is called when a port of the target is first given. Optional.
	Subscribed func()
	// Window is how long a lost link may take to come back; listen(2) waits for
	// it. 0: less than subscribeTime.
	Window time.Duration
}

// subscribeTime is the least that listen(2) waits for the agent, and patience
// how much longer than a lost link may take to be resumed: only an agent that is
// stuck meets them.
const subscribeTime, patience = 75 * time.Second, 15 * time.Second

// Ports keeps what a session's program listens on. Its methods may be called
// concurrently.
type Ports struct {
	o      Options
	ctx    context.Context // alive until Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // calls under way and every goroutine of Ports

	subscriptions shares[*subscription] // by the target's port
	publications  shares[publication]   // by the program's

	warned sync.Once   // that copies write
	asked  atomic.Bool // for a port of the target

	lates     lates        // by the program's port
	unsecured lates        // by the target's: that its program speaks no TLS was told
	queued    atomic.Int64 // connections that wait to be accepted

	mu        sync.Mutex
	closed    bool
	probes    map[uint16][]string
	sites     map[*Site]bool
	last      uint64 // order of the last listener
	listeners map[uint64]*listener
}

// Listener is a listener of the program's.
type Listener struct {
	ID      uint64         // never used twice
	Addr    netip.AddrPort // where it listens
	AnyPort bool           // the program asked for port 0
	UDP     bool           // it is bound to a UDP port
	// Debugger is the kind of debugger that the port is for; empty: none's.
	Debugger string
}

// listener is one that is known.
type listener struct {
	Listener
	rules.Port
	order       uint64                // a later one has a higher number
	subscribed  *share[*subscription] // nil: it is Local
	publication *share[publication]
	ready       bool // what is above is set; guarded by Ports.mu
}

// key is the program's port.
func (l *listener) key() portKey { return portKey{l.Addr.Port(), l.UDP} }

// subscription is what the agent was asked for.
type subscription struct {
	wish *protocol.Subscribe
	port portKey // of the program that it was asked for first

	mu     sync.Mutex
	stream *link.Stream     // nil: it did not give it, and that was told
	at     map[*Site]*given // those of the others; nil: it is being asked
	pods   map[string]pod   // the others, by their names
	over   bool             // nobody wants it any more, or another session has taken it
}

// target is the port of the target.
func (s *subscription) target() portKey { return portKey{s.wish.Port, s.port.udp} }

// given reports whether the agent gives what was asked for.
func (s *subscription) given() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream != nil
}

// old forgets a stream that is of another link than l; false: it is of l, or
// nothing is to be asked for any more.
func (s *subscription) old(l *link.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	if s.stream != nil && s.stream.Link() != l {
		s.stream.Close()
		s.stream = nil
	}
	return s.stream == nil
}

// take makes stream the subscription's; false: it is over.
func (s *subscription) take(stream *link.Stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.stream = stream
	}
	return !s.over
}

// New makes the ports of a session; Close ends them.
func New(o Options) *Ports {
	ctx, cancel := context.WithCancel(context.Background())
	p := &Ports{o: o, ctx: ctx, cancel: cancel, listeners: map[uint64]*listener{}, probes: o.Probes, sites: map[*Site]bool{}}
	p.subscriptions = shares[*subscription]{end: p.unsubscribe, of: map[portKey]*share[*subscription]{}}
	p.publications = shares[publication]{end: p.unpublish, of: map[portKey]*share[publication]{}}
	return p
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

// Listening tells that the program listens. It returns once the target's
// traffic for the port flows here and the port is published, or with the errno
// that listen(2) must fail with; then the listener is forgotten. It fails with
// EINTR when ctx ends.
func (p *Ports) Listening(ctx context.Context, one Listener) error {
	if !p.enter() {
		return syscall.ESHUTDOWN
	}
	defer p.wg.Done()
	l := p.add(one) // before the first connection can come
	err := p.begin(ctx, l)
	if err != nil {
		p.remove(one.ID)
	}
	return err
}

// add enters a listener and decides about it.
func (p *Ports) add(one Listener) *listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !one.AnyPort { // a number that the kernel has chosen for another listener is still nobody's wish
		for _, l := range p.listeners {
			one.AnyPort = one.AnyPort || l.AnyPort && l.UDP == one.UDP && l.Addr.Port() == one.Addr.Port()
		}
	}
	p.last++
	l := &listener{Listener: one, order: p.last, Port: p.o.Rules.Decide(rules.Listener{Addr: one.Addr, AnyPort: one.AnyPort, UDP: one.UDP, Debugger: one.Debugger})}
	p.listeners[one.ID] = l
	return l
}

func (p *Ports) remove(id uint64) *listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.listeners[id]
	delete(p.listeners, id)
	return l
}

// begin subscribes and publishes, unless another listener has, and says so. An
// error leaves nothing behind.
func (p *Ports) begin(ctx context.Context, l *listener) error {
	fresh := false
	if l.Where == rules.Remote {
		sh, began, err := p.subscriptions.join(ctx, portKey{l.Target, l.UDP}, func() (*subscription, error) { return p.subscribe(ctx, l) })
		if err != nil {
			return err
		}
		l.subscribed, fresh = sh, began
	}
	sh, began, err := p.publications.join(ctx, l.key(), func() (publication, error) { return p.publish(l.key(), l.Publish, l.Exact) })
	if err != nil {
		if l.subscribed != nil {
			p.subscriptions.leave(l.subscribed)
		}
		return err
	}
	l.publication = sh
	p.mu.Lock()
	l.ready = true
	p.mu.Unlock()
	if fresh || began {
		p.tell(l, began)
	}
	if fresh && l.Filter != "" && p.o.Try != nil && l.subscribed.value.given() {
		if command := p.o.Try(l.Target); command != "" {
			p.o.Emit(event.Event{Level: event.Info, Code: "try", Flow: "incoming", Text: "a request that comes here: " + command,
				Facts: map[string]string{"port": fmt.Sprint(l.Target), "command": command}})
		}
	}
	return nil
}

// tell says what a listener's port is now; published: that is news, too.
func (p *Ports) tell(l *listener, published bool) {
	number := l.Addr.Port()
	e := event.Event{Level: event.Info, Code: "port-open", Flow: "incoming", Text: l.key().String(), Facts: l.key().facts(map[string]string{"why": l.Why})}
	switch {
	case l.subscribed == nil:
		if l.UDP { // clients bind, too
			e.Level = event.Detail
		}
		e.Text += " is local only: " + l.Why
	case l.subscribed.value.given(): // else there was a warning
		e.Facts["mode"], e.Facts["target"] = modeName(l.Mode), fmt.Sprint(l.Target)
		e.Text += ": the target's traffic "
		if l.Target != number {
			e.Text += fmt.Sprintf("for port %d ", l.Target)
		}
		if l.Filter != "" {
			e.Facts["filter"] = l.Filter
			e.Text += "that the filter matches "
		}
		e.Text += "is " + map[string]string{"steal": "stolen", "mirror": "mirrored"}[modeName(l.Mode)]
		if l.Mode == protocol.ModeTee {
			e.Text += ", lossless"
		}
	}
	switch at := l.publication.value; {
	case !published, p.o.Listen == nil:
	case len(at.listeners) == 0:
		e.Text += fmt.Sprintf(", not open on this machine (%v)", at.busy)
	default:
		e.Facts["published"] = at.listeners[0].Addr().String()
		e.Text += ", open here at " + e.Facts["published"]
		if at.busy != nil {
			e.Text += fmt.Sprintf(" (%d is not free here: %v)", number, at.busy)
		}
	}
	p.o.Emit(e)
}

func modeName(mode uint8) string {
	if mode&^protocol.ModeUDP == protocol.ModeSteal {
		return "steal"
	}
	return "mirror"
}

// subscribe asks the agent for a listener's port. Where it refuses, the program
// still serves this machine, and a person is told why; only a port that another
// session holds is an error of listen(2), unless that was asked for. Nothing less than what was asked for
// is ever taken instead: no whole port for one with a filter.
func (p *Ports) subscribe(ctx context.Context, l *listener) (*subscription, error) {
	sub := &subscription{port: l.key(), at: map[*Site]*given{}, pods: map[string]pod{}, wish: &protocol.Subscribe{
		Port: l.Target, Mode: l.Mode, Filter: l.Filter, BodySize: uint32(l.BodySize), BodyTime: uint32(l.BodyTime), TLS: l.TLS}}
	if l.Mode == protocol.ModeSteal || l.Mode == protocol.ModeTee {
		sub.wish.Existing = p.o.Existing
	}
	sub.wish.Replies = l.Mode == protocol.ModeMirror || l.Mode == protocol.ModeTee
	err := p.order(ctx, sub, p.overrides(sub))
	switch {
	case err == nil:
		p.spread(sub)
	case p.ctx.Err() != nil:
		return nil, syscall.ESHUTDOWN
	case ctx.Err() != nil:
		return nil, syscall.EINTR
	default:
		p.refused(sub, err, p.overrides(sub))
		if errors.Is(err, syscall.EADDRINUSE) && !p.o.Rules.HeldContinues() {
			return nil, syscall.EADDRINUSE
		}
	}
	return sub, nil
}

// overrides reports whether what sub wishes is taken from another session that has
// it. That is said once: when the program listens. Said again, two sessions would
// take a port from each other for ever.
func (p *Ports) overrides(sub *subscription) bool {
	return sub.wish.Mode == protocol.ModeSteal && p.o.Rules.HeldOverrides()
}

// order asks the agent that there is now for what sub wishes.
func (p *Ports) order(ctx context.Context, sub *subscription, override bool) error {
	m := *sub.wish
	m.Override = override
	p.asked.Store(true)
	if !sub.port.udp {
		p.mu.Lock()
		m.Probes = p.probes[m.Port]
		p.mu.Unlock()
	}
	s, err := p.ask(ctx, p.o.Link, &m)
	if err != nil {
		return err
	}
	if !sub.take(s) {
		s.Close()
		return nil
	}
	p.wg.Go(func() { p.follow(s, sub) })
	return nil
}

// refused tells that the agent does not give what sub wishes; override: not even if
// that is taken from another session.
func (p *Ports) refused(sub *subscription, err error, override bool) {
	facts := sub.port.facts(map[string]string{"target": fmt.Sprint(sub.wish.Port)})
	var refused *protocol.AnswerError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		text := fmt.Sprintf("%v of the target is taken: %v", sub.target(), err)
		if p.o.Rules.HeldContinues() {
			text += "; " + p.alone(sub)
		}
		if override {
			text += "; it cannot be taken over: the agent that has it is older than that, or does not answer"
		}
		switch {
		case sub.wish.Mode == protocol.ModeTee:
			text += "; a copy that is not lossless is in nobody's way: leave feature.network.incoming.lossless away"
		case !sub.port.udp:
			text += "; sessions share a port if each has a filter of its own: --header 'NAME: VALUE'"
		}
		p.o.Emit(event.Event{Level: event.Warning, Code: "port-held", Flow: "incoming", Text: text, Facts: facts})
	case sub.wish.Filter != "" && errors.As(err, &refused) && refused.Answer.Cause == protocol.CauseUnsupported:
		p.o.Emit(event.Event{Level: event.Warning, Code: "filter-refused", Flow: "incoming",
			Text: fmt.Sprintf("%s: the agent cannot do the filter (%v)", p.alone(sub), err), Facts: facts})
	default:
		p.o.Emit(event.Event{Level: event.Warning, Code: "port-not-" + modeName(sub.wish.Mode), Flow: "incoming",
			Text: fmt.Sprintf("%s: %v", p.alone(sub), err), Facts: facts})
	}
}

// alone says that nothing of the target's traffic comes for sub.
func (p *Ports) alone(sub *subscription) string {
	text := fmt.Sprintf("nothing of the target's traffic for %v comes here", sub.target())
	if p.o.Listen != nil {
		text = fmt.Sprintf("%v is open on this machine only, ", sub.port) + text
	}
	return text
}

// Open is what a listener's port is.
type Open struct {
	Network   string // tcp, udp
	Port      uint16 // of the program
	Target    uint16 // of the target, whose traffic comes; 0: none does
	Mode      string // steal, mirror; empty: none does
	Filter    string
	Published string // where it is open on this machine; empty: it is not
}

// Asked reports whether the agent was ever asked for a port.
func (p *Ports) Asked() bool { return p.asked.Load() }

// Ports are those that the program listens on, and that are ready.
func (p *Ports) Ports() (all []Open) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.listeners {
		if !l.ready {
			continue
		}
		o := Open{Network: l.key().network(), Port: l.Addr.Port()}
		if l.subscribed != nil && l.subscribed.value.given() {
			o.Target, o.Mode, o.Filter = l.Target, modeName(l.Mode), l.Filter
		}
		if at := l.publication.value; len(at.listeners) > 0 {
			o.Published = at.listeners[0].Addr().String()
		}
		if !slices.Contains(all, o) { // one for each address
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b Open) int { return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Network, b.Network)) })
	return all
}

// Renew asks the agent at the other end of l, which has replaced another beside
// a target with these probes, for every port that the program listens on. What
// it does not give is told, and stays with the target. It returns when all has
// been answered, or after Close.
func (p *Ports) Renew(l *link.Conn, probes map[uint16][]string) {
	if !p.enter() {
		return
	}
	defer p.wg.Done()
	p.mu.Lock()
	p.probes = probes
	p.mu.Unlock()
	var asked sync.WaitGroup
	for _, sh := range p.subscriptions.begun() {
		if !sh.value.old(l) {
			continue
		}
		asked.Go(func() {
			if err := p.order(p.ctx, sh.value, false); err != nil && p.ctx.Err() == nil {
				p.refused(sh.value, err, false)
			}
		})
	}
	asked.Wait()
}

// ask opens a subscription. An error leaves nothing behind; it is not to be
// told from another's when ctx has ended.
func (p *Ports) ask(ctx context.Context, of Opener, m *protocol.Subscribe) (*link.Stream, error) {
	s, err := of.Open(link.Lasting(p.ctx), link.Interactive, m) // a server that does not start is worse than one that starts late
	if err != nil {
		return nil, err
	}
	if err := p.answered(ctx, s); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (p *Ports) unsubscribe(_ portKey, sub *subscription) {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	sub.over = true
	sub.release()
}

// release gives back what is given. mu is held.
func (s *subscription) release() {
	if s.stream != nil {
		s.stream.Close()
	}
	for _, g := range s.at {
		if g != nil {
			g.Close()
		}
	}
}

// answered waits for the agent's yes.
func (p *Ports) answered(ctx context.Context, s *link.Stream) error {
	_ = s.SetReadDeadline(time.Now().Add(max(subscribeTime, p.o.Window+patience)))
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

// follow waits for the end of a subscription, and tells if the agent has ended it.
// The end of the whole session is for others to tell: ESHUTDOWN, and the end of
// the link.
func (p *Ports) follow(s *link.Stream, sub *subscription) {
	port := sub.target()
	taken, err := lastWord(s)
	switch {
	case taken != nil:
		s.Close()
		p.lost(sub, taken)
		return
	case !tookBack(err):
		return
	}
	s.Close()
	p.o.Emit(event.Event{Level: event.Warning, Code: "port-lost", Flow: "incoming",
		Text: fmt.Sprintf("the target's traffic for %v does not come here any more: the agent gave it back", port), Facts: port.facts(nil)})
}

// tookBack reports whether err, with which a subscription ended, says that the agent
// took the port back, and not that it was given up, or that all has ended.
func tookBack(err error) bool {
	var closed *link.ClosedError
	return !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.ESHUTDOWN) && !errors.As(err, &closed)
}

// Closed tells that a listener is gone whose Listening has returned: with the
// last of a port the target has its traffic back. Connections that were
// delivered go on.
func (p *Ports) Closed(id uint64) {
	if !p.enter() {
		return
	}
	defer p.wg.Done()
	l := p.remove(id)
	if l == nil {
		return
	}
	if l.subscribed != nil {
		p.subscriptions.leave(l.subscribed)
	}
	p.publications.leave(l.publication)
}

// Close ends every subscription and publication, resets what is still being
// delivered, and returns when all of it is gone.
func (p *Ports) Close() {
	p.mu.Lock()
	p.closed = true
	clear(p.listeners)
	p.mu.Unlock()
	p.cancel()
	for _, sh := range p.subscriptions.shut() {
		p.subscriptions.finish(sh)
	}
	for _, sh := range p.publications.shut() {
		p.publications.finish(sh)
	}
	p.wg.Wait()
}
