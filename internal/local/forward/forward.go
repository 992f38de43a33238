// Package forward leads ports of this machine into the cluster (-L), and ports of
// the target to this machine (-R). It is what mirrord port-forward does in a
// session without a sandbox.
//
// A connection to a local end is dialed in the target, under a name that resolves
// as the target's programs resolve it; where that fails it is reset, which is all
// that a client that is connected already can be told, and a line says why. The
// listeners are made before the session (Open), so that a port that is taken costs
// nothing in the cluster.
package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/local/attach"
	"github.com/mirrord-go/mirrord/internal/local/bare"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/dns"
	"github.com/mirrord-go/mirrord/internal/local/incoming"
	"github.com/mirrord-go/mirrord/internal/local/outgoing"
	"github.com/mirrord-go/mirrord/internal/relay"
	"github.com/mirrord-go/mirrord/internal/rules"
)

const (
	// maxTries is how many addresses of a name are tried for one connection: what is
	// not there takes the kernel's own time each.
	maxTries = 8
	// againTime is how long the same failure of a port is not told again: a client
	// that tries and tries would fill the terminal.
	againTime = 5 * time.Second
)

// Forwards are those of one session. They implement bare.Server.
type Forwards struct {
	s       *bare.Session
	locals  []*Opened
	remotes []Remote
	ports   *incoming.Ports // nil: there are no remotes
	ready   func(Ready)
	names   atomic.Pointer[dns.Resolver] // nil: nobody asks
	ctx     context.Context              // alive until Close
	cancel  context.CancelFunc
	wg      sync.WaitGroup // all goroutines of Forwards
}

// Ready tells what is forwarded.
type Ready struct {
	At      time.Time         `json:"at"`
	Session string            `json:"session,omitempty"` // in the roster; empty: it is not there
	Kind    string            `json:"kind"`              // ready
	Locals  []control.Forward `json:"local,omitempty"`
	Remotes []control.Port    `json:"remote,omitempty"`
}

// New is Options.Begin of a session that forwards. It owns locals; ready is called
// when they are served. remotes are subject to the session's rules (Rules).
func New(ctx context.Context, s *bare.Session, locals []*Opened, remotes []Remote, ready func(Ready)) (*Forwards, error) {
	f := &Forwards{s: s, locals: locals, remotes: remotes, ready: ready}
	if len(remotes) > 0 {
		var err error
		if f.ports, err = openPorts(ctx, s, remotes); err != nil {
			return nil, err
		}
	}
	f.ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	f.readNames(ctx)
	return f, nil
}

// readNames reads how names resolve in the target, if somebody wants to know.
func (f *Forwards) readNames(ctx context.Context) {
	for _, l := range f.locals {
		if _, err := netip.ParseAddr(l.Host); err != nil {
			if r := dns.ReadResolver(ctx, f.s.Hold.Peer()); r.Known() || f.names.Load() == nil {
				f.names.Store(r)
			}
			return
		}
	}
}

// Ready implements bare.Server.
func (f *Forwards) Ready(id string) {
	for _, l := range f.locals {
		told := &told{}
		for _, ln := range l.listeners {
			f.wg.Go(func() { f.accept(ln, l, told) })
		}
	}
	f.ready(Ready{At: time.Now().UTC(), Kind: "ready", Session: id, Locals: f.forwards(), Remotes: f.remotesNow()})
}

// Renewed implements bare.Server.
func (f *Forwards) Renewed(at *attach.Attachment) {
	f.readNames(f.ctx)
	if f.ports != nil {
		f.ports.Renew(at.Link(), at.Agent().Probes())
	}
}

// Status implements bare.Server.
func (f *Forwards) Status(st *control.Status) {
	st.Forwards, st.Ports = f.forwards(), f.remotesNow()
	if len(st.Ports) > 0 {
		st.Mode = st.Ports[0].Mode
	}
}

func (f *Forwards) forwards() (all []control.Forward) {
	for _, l := range f.locals {
		all = append(all, control.Forward{Listen: l.At(), To: l.To()})
	}
	return all
}

// Close implements bare.Server.
func (f *Forwards) Close() {
	Close(f.locals)
	if f.ports != nil {
		f.ports.Close()
	}
	f.cancel()
	f.wg.Wait()
}

// accept serves a listener until it is closed.
func (f *Forwards) accept(ln net.Listener, l *Opened, told *told) {
	relay.Accept(f.ctx, ln, func(c relay.Conn, client, _ net.Addr) {
		f.wg.Go(func() { f.carry(c, client.String(), l, told) })
	})
}

// carry owns near, a client's connection.
func (f *Forwards) carry(near relay.Conn, client string, l *Opened, told *told) {
	of := activity.Event{Network: "tcp", Where: rules.Remote.String(), Client: client, Address: l.To()}
	if _, err := netip.ParseAddr(l.Host); err != nil {
		of.Name = l.Host
	}
	far, to, err := f.dial(f.ctx, l.Local)
	if to.IsValid() {
		of.Address = to.String()
	}
	if err != nil {
		relay.Reset(near, outgoing.Errno(err))
		if f.ctx.Err() != nil {
			return // closed with all others
		}
		of.Error = err.Error()
		f.s.Activity.NotConnected(of)
		f.tell(l, to, err, told)
		return
	}
	f.s.Emit(event.Event{Level: event.Detail, Code: "forwarded", Flow: "outgoing", Text: fmt.Sprintf("%s is connected to %s (%v)", client, l.To(), to),
		Facts: map[string]string{"client": client, "to": l.To(), "address": to.String()}})
	call := f.s.Activity.Outgoing(of)
	defer call.Close()
	_, _ = relay.Join(f.ctx, f.s.Relayed, call.Stream(near), far)
}

// dial connects to where l leads: to the first of its addresses that takes the
// connection. to is the one that was tried first, or that took it.
func (f *Forwards) dial(ctx context.Context, l Local) (far relay.Conn, to netip.AddrPort, err error) {
	addrs, err := f.addresses(ctx, l.Host)
	if err != nil {
		return nil, to, err
	}
	var first error
	for _, a := range addrs {
		at := netip.AddrPortFrom(a, l.Remote)
		s, err := outgoing.Dial(ctx, f.s.Hold.Peer(), at)
		if err == nil {
			return s, at, nil
		}
		if first == nil {
			first, to = err, at
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, to, first
}

// addresses are those of a host, at least one, and at most maxTries: first those
// of the families that the target has.
func (f *Forwards) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	all, err := f.names.Load().Lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	all = byFamily(all, f.s.Hold.Now().Pod().Addrs)
	return all[:min(len(all), maxTries)], nil
}

// byFamily puts the addresses in front that somebody with own may reach.
func byFamily(all []netip.Addr, own []netip.Prefix) (sorted []netip.Addr) {
	var others []netip.Addr
	for _, a := range all {
		has := a.IsLoopback()
		for _, p := range own {
			has = has || p.Addr().Is4() == a.Is4()
		}
		if has {
			sorted = append(sorted, a)
		} else {
			others = append(others, a)
		}
	}
	return append(sorted, others...)
}

// tell says why a connection could not be made.
func (f *Forwards) tell(l *Opened, to netip.AddrPort, err error, told *told) {
	text := fmt.Sprintf("-L %s: no connection to %s", l.Text, l.To())
	if to.IsValid() && to.String() != l.To() {
		text += fmt.Sprintf(" (%v)", to)
	}
	text += ": " + reason(err)
	more, now := told.again(text, time.Now())
	if !now {
		return
	}
	if more > 0 {
		text += fmt.Sprintf(" (and %d times more before)", more)
	}
	f.s.Emit(event.Event{Level: event.Warning, Code: "forward-failed", Flow: "outgoing", Text: text,
		Facts: map[string]string{"forward": l.Text, "to": l.To(), "errno": fmt.Sprint(int(outgoing.Errno(err)))}})
}

// reason is err for a person.
func reason(err error) string {
	var closed *link.ClosedError
	switch {
	case errors.As(err, &closed):
		return "there is no link to the agent any more"
	case errors.Is(err, link.ErrLost):
		return "the link to the agent is lost"
	}
	return err.Error()
}

// told remembers what was told of a port last.
type told struct {
	mu   sync.Mutex
	text string
	at   time.Time
	more int
}

// again reports whether text is to be told now, and how often the same was not
// told before.
func (t *told) again(text string, now time.Time) (more int, tell bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if text == t.text && now.Sub(t.at) < againTime {
		t.more++
		return 0, false
	}
	if text == t.text {
		more = t.more
	}
	t.text, t.at, t.more = text, now, 0
	return more, true
}
