package outgoing

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/ping"
	"github.com/mirrord-go/mirrord/internal/relay"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// This file is about connections that stay on this machine.

// route is where a flow goes, and what is said of it.
type route struct {
	rules.Decision
	network string
	asked   netip.AddrPort // what the program dialed
	dst     netip.AddrPort // what that means
	names   []string       // that the program may mean by it
	again   []string       // names to look up on this machine in place of dst
	carried bool           // for another flow, which tells of it
}

// route decides about a flow.
func (r *Router) route(network string, asked netip.AddrPort) *route {
	t := &route{network: network, asked: asked, dst: r.Translate(asked)}
	remote := false
	if r.Names != nil {
		t.names, remote = r.Names(t.dst.Addr())
	}
	t.Decision = r.Rules.Decide(network, t.dst, t.names)
	if r.Debugger != nil && network == "tcp" && t.dst.Addr().IsLoopback() {
		if kind := r.Debugger(t.dst.Port()); kind != "" {
			t.Decision = rules.Decision{Where: rules.Local, Why: fmt.Sprintf("the command's debugger (%s) waits there", kind)}
		}
	}
	if t.Where != rules.Local || !remote || t.dst.Addr().IsLoopback() {
		return t
	}
	// The target's address of a name is nobody's here, or somebody else's. Of
	// several names it is one that the rules keep here; if that is due to the
	// address, they keep all.
	for _, n := range t.names {
		if r.Rules.Decide(network, t.dst, []string{n}).Where == rules.Local {
			t.again = append(t.again, n)
		}
	}
	return t
}

// dialHere connects on this machine.
func (r *Router) dialHere(ctx context.Context, t *route) (relay.Conn, error) {
	c, err := r.connectHere(ctx, t)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// connectHere makes a socket of this machine and connects it, to the first
// address that takes it.
func (r *Router) connectHere(ctx context.Context, t *route) (net.Conn, error) {
	addrs, err := r.addressesHere(ctx, t)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		var c net.Conn
		to := netip.AddrPortFrom(a, t.dst.Port())
		if t.network == "ping" {
			c, err = ping.Dial(a, ping.Socket)
		} else {
			c, err = new(net.Dialer).DialContext(ctx, t.network, to.String())
		}
		if err == nil {
			t.dst = to
			return c, nil
		}
	}
	return nil, err
}

// addressesHere gives what to try on this machine, at least one.
func (r *Router) addressesHere(ctx context.Context, t *route) ([]netip.Addr, error) {
	if len(t.again) == 0 {
		return []netip.Addr{t.dst.Addr()}, nil
	}
	var failed error
	for _, name := range t.again {
		addrs, err := r.Resolve(ctx, name)
		if err == nil && len(addrs) > 0 {
			for i := range addrs {
				addrs[i] = addrs[i].Unmap()
			}
			// The family that the program asked for first.
			slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return t.familyRank(a) - t.familyRank(b) })
			return addrs, nil
		}
		if failed == nil {
			failed = err
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	name := t.again[0]
	if r.told.once(name) {
		r.Emit(event.Event{Level: event.Warning, Code: "name-not-local", Flow: "outgoing",
			Text:  fmt.Sprintf("%s is to be reached from this machine (%s), but has no address here: %v", name, t.Why, failed),
			Facts: map[string]string{"name": name, "address": t.dst.String(), "why": t.Why}})
	}
	return nil, fmt.Errorf("%s has no address on this machine (%v): %w", name, failed, syscall.EHOSTUNREACH)
}

func (t *route) familyRank(a netip.Addr) int {
	if a.Is4() == t.dst.Addr().Is4() {
		return 0
	}
	return 1
}

// Listener is a program of this machine that listens on a port of localhost.
type Listener struct {
	Program string // its name; empty: it cannot be told
	PID     int
	// Relative: it is an ancestor of the command, or a descendant of one, so
	// that the command means it: an editor, its debugger.
	Relative bool
}

// String names it for a person.
func (l Listener) String() string {
	if l.Program == "" {
		return "a program of another user"
	}
	return fmt.Sprintf("%s (process %d)", l.Program, l.PID)
}

// relative asks who listens on this machine at the port of localhost that
// nobody serves in the target. The route leads there if it is a relative;
// otherwise the user is told, once a port.
func (r *Router) relative(t *route) bool {
	if r.Here == nil {
		return false
	}
	l, ok := r.Here(t.dst)
	if !ok {
		return false
	}
	port := t.dst.Port()
	facts := map[string]string{"port": strconv.Itoa(int(port)), "program": l.Program, "pid": strconv.Itoa(l.PID)}
	if l.Relative {
		t.Decision = rules.Decision{Where: rules.Local, Why: fmt.Sprintf("%s, which the command comes from or with, listens there", l)}
		if r.told.once("relative " + facts["port"]) {
			r.Emit(event.Event{Level: event.Info, Code: "localhost-relative", Flow: "outgoing", Facts: facts,
				Text: fmt.Sprintf("localhost:%d is nobody's in the target; on this machine it is %s, which the command comes from or with: connections go there", port, l)})
		}
		return true
	}
	if r.told.once("hint " + facts["port"]) {
		r.Emit(event.Event{Level: event.Info, Code: "localhost-hint", Flow: "outgoing", Facts: facts,
			Text: fmt.Sprintf("localhost:%d is the target's, and nobody listens there; on this machine %s does: to reach it %s", port, l, r.Rules.LocalhostAdvice(port))})
	}
	return false
}

// maxTold bounds what is remembered of what was said: later news is not told.
const maxTold = 10_000

// told knows what a user has been told.
type told struct {
	mu   sync.Mutex
	what map[string]bool
}

// once reports whether what is told for the first time.
func (t *told) once(what string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.what[what] || len(t.what) >= maxTold {
		return false
	}
	if t.what == nil {
		t.what = map[string]bool{}
	}
	t.what[what] = true
	return true
}
