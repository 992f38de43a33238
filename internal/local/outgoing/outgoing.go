// Package outgoing is the local half of the outgoing flow: it sends each
// connection and datagram of the program where the rules say, and gives the
// program the true result.
//
// The session hands it the flows of the network stack. A connection is dialed
// first, in the target's network or on this machine, and accepted only when
// that has succeeded: so connect(2) returns what the target's kernel said.
// Each flow is one event, when its outcome is known.
package outgoing

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/relay"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// TCPFlow is a connection attempt of the program that waits for its answer.
type TCPFlow interface {
	Src() netip.AddrPort
	Dst() netip.AddrPort
	// Accept completes the program's connect.
	Accept() (net.Conn, error)
	// Refuse makes it fail.
	Refuse(errno syscall.Errno)
}

// UDPFlow is the datagrams between one socket of the program and one peer. Its
// methods may be called concurrently, also after Close.
type UDPFlow interface {
	Src() netip.AddrPort
	Dst() netip.AddrPort
	// Read and Write carry one datagram each. Read fails when the flow has been
	// idle for long: that, and nothing else, bounds its life.
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
	// Unreachable tells the program that its datagrams reach nobody.
	Unreachable(errno syscall.Errno)
	// Close ends the flow and makes Read fail.
	Close() error
}

// Opener starts a stream towards the agent, or asks it one question.
type Opener interface {
	Open(ctx context.Context, lane link.Lane, m protocol.Message) (*link.Stream, error)
	Call(ctx context.Context, m protocol.Message) (protocol.Message, error)
}

// Router answers flows. Its exported fields are set before the first and not
// changed after; its methods may be called concurrently.
type Router struct {
	Link  Opener
	Rules *rules.Outgoing
	// Translate maps the addresses that the sandbox puts on packets for
	// localhost and for the pod itself to what they mean in the target. An
	// invalid address stands for one that the target has not.
	Translate func(netip.AddrPort) netip.AddrPort
	// Names gives the names that the program may mean by an address, latest
	// first, and whether it learned the address from the target's side. Optional.
	Names func(netip.Addr) (names []string, remote bool)
	// Resolve looks a name up on this machine. Required with Names.
	Resolve func(ctx context.Context, name string) ([]netip.Addr, error)
	// Here finds who on this machine listens at a TCP address of localhost; ok
	// is false if nobody does. Optional.
	Here func(netip.AddrPort) (l Listener, ok bool)
	// Debugger gives the kind of debugger that waits at a TCP port of this
	// machine's localhost for the program; "" if none does. Optional.
	Debugger func(port uint16) string
	// LostSince reports whether the link was lost at any time since then.
	// Optional.
	LostSince func(time.Time) bool
	// Lookups reports whether the agent answers protocol.Lookup. Optional.
	Lookups func() bool
	Emit    event.Sink
	// Activity hears of all but what other flows let this one carry. nil: nobody
	// listens.
	Activity *activity.Log
	// Relayed is the memory for large buffers. nil: it has no end.
	Relayed *budget.Share
	// Connections is the memory for connections to unix sockets; others are the
	// network stack's. nil: it has no end.
	Connections *budget.Share

	told told
}

// dialTime bounds one dial: longer than the agent's (agent/outgoing), which is
// longer than the target's kernel tries.
const dialTime = 10*time.Minute + 5*time.Second

// TCP answers f and carries the connection until its end, or that of ctx.
func (r *Router) TCP(ctx context.Context, f TCPFlow) { r.carryTCP(ctx, f, r.route("tcp", f.Dst())) }

// CarryTCP does the same where the decision is another flow's: to is where f
// goes.
func (r *Router) CarryTCP(ctx context.Context, f TCPFlow, to netip.AddrPort, d rules.Decision) {
	r.carryTCP(ctx, f, &route{network: "tcp", asked: f.Dst(), dst: to, Decision: d, carried: true})
}

func (r *Router) carryTCP(ctx context.Context, f TCPFlow, t *route) {
	far, err := r.dial(ctx, t)
	if err != nil {
		f.Refuse(Errno(err))
		r.report(t, err)
		return
	}
	near, err := f.Accept()
	if err != nil { // the program gave up meanwhile
		relay.Reset(far, err)
		return
	}
	conn, ok := near.(relay.Conn)
	if !ok {
		near.Close()
		relay.Reset(far, syscall.EPROTO)
		return
	}
	r.report(t, nil)
	call := r.began(t)
	defer call.Close()
	_, _ = relay.Join(ctx, r.Relayed, call.Stream(conn), far)
}

func (r *Router) dial(ctx context.Context, t *route) (relay.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	switch {
	case !t.dst.IsValid():
		return nil, errNoAddress
	case t.Where == rules.Local:
		return r.dialHere(ctx, t)
	}
	s, err := Dial(ctx, r.Link, t.dst)
	if err != nil {
		if t.dst.Addr().IsLoopback() && errors.Is(err, syscall.ECONNREFUSED) && r.relative(t) {
			return r.dialHere(ctx, t)
		}
		return nil, err
	}
	return s, nil
}

// Dial makes a TCP connection in the target, within the time that its kernel
// takes. The error says what that one said, or wraps what became of the link.
func Dial(ctx context.Context, agent Opener, to netip.AddrPort) (*link.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	s, err := agent.Open(ctx, link.Bulk, &protocol.Dial{Network: protocol.NetworkTCP, Addr: to})
	if err != nil {
		return nil, err
	}
	if err := answered(ctx, s); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

var errNoAddress = fmt.Errorf("the target has no address of this family: %w", syscall.ENETUNREACH)

// answered waits for the agent's yes, until ctx ends.
func answered(ctx context.Context, s *link.Stream) error {
	stop := context.AfterFunc(ctx, func() { _ = s.Reset(syscall.ECANCELED) })
	defer stop()
	m, err := s.Receive()
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("wait for the agent's answer: %w", err)
	}
	a, ok := m.(*protocol.Answer)
	if !ok {
		return fmt.Errorf("the agent answered a dial with message %d: %w", m.Kind(), syscall.EPROTO)
	}
	return a.Err()
}

// Errno is what connect(2) must return after an error of Dial.
func Errno(err error) syscall.Errno {
	var closed *link.ClosedError
	var e syscall.Errno
	switch {
	case errors.As(err, &closed), errors.Is(err, context.Canceled):
		return syscall.ENETDOWN // there is no way to the target any more
	case errors.As(err, &e) && e != 0:
		return e
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return syscall.ETIMEDOUT
	}
	return syscall.ENETUNREACH
}

// report emits the one event of a flow; err is why it failed.
func (r *Router) report(t *route, err error) {
	what := "connected"
	if err != nil {
		what = "refused"
	}
	dst := t.dst
	if !dst.IsValid() {
		dst = t.asked
	}
	e := event.Event{Level: event.Detail, Code: "outgoing-" + what, Flow: "outgoing",
		Facts: map[string]string{"address": t.text(dst), "network": t.network, "where": t.Where.String(), "why": t.Why}}
	name := ""
	if len(t.names) > 0 {
		name = " (" + t.names[0] + ")"
		e.Facts["name"] = t.names[0]
	}
	e.Text = fmt.Sprintf("%s %v%s: %s, %s", t.network, t.text(dst), name, t.Where, what)
	if err != nil {
		e.Text += ": " + err.Error()
		e.Facts["errno"] = fmt.Sprint(int(Errno(err)))
	}
	r.Emit(e)
	if err != nil && !t.carried {
		a := t.activity()
		a.Error = err.Error()
		r.Activity.NotConnected(a)
	}
	if t.network == "ping" && errors.Is(err, syscall.EACCES) {
		r.tellNoPing(t, e)
	}
	r.tellForbidden(t, err)
}

// began tells of a connection that has been made; nil: it is another flow's.
func (r *Router) began(t *route) *activity.Call {
	if t.carried {
		return nil
	}
	return r.Activity.Outgoing(t.activity())
}

// activity is what is told of a route.
func (t *route) activity() activity.Event {
	dst := t.dst
	if !dst.IsValid() {
		dst = t.asked
	}
	e := activity.Event{Network: t.network, Where: t.Where.String(), Address: t.text(dst)}
	if len(t.names) > 0 {
		e.Name = t.names[0]
	}
	return e
}

// tellNoPing says once for each side that nobody may ping there.
func (r *Router) tellNoPing(t *route, refused event.Event) {
	place, do := "the target", "set that sysctl in the pod's securityContext, or mirror: an agent that may, may ping"
	if t.Where == rules.Local {
		place, do = "this machine", "set it by sysctl"
	}
	if r.told.once("ping " + place) {
		r.Emit(event.Event{Level: event.Warning, Code: "ping-refused", Flow: "outgoing", Facts: refused.Facts,
			Text: fmt.Sprintf("ping %s: the network of %s lets no ordinary process ping (net.ipv4.ping_group_range), so the answer is \"prohibited\"; %s", refused.Facts["address"], place, do)})
	}
}

// text is a as a person writes it: an echo request has no port.
func (t *route) text(a netip.AddrPort) string {
	if t.network == "ping" {
		return a.Addr().String()
	}
	return a.String()
}
