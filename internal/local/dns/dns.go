// Package dns is the name flow: it decides about each lookup of the program by
// itself, and remembers which names addresses were the answer for.
//
// A program asks by packets to the name server of its resolv.conf, over UDP or
// TCP. The session hands those flows to this room, which hands them on to be
// carried, with itself in between: a lookup that is this machine's is answered
// here, all others pass as they are. Answers are looked at on their way; what
// does not parse passes untouched. Nothing costs a round trip of its own.
//
// It asks this machine's resolver as any program of this machine does, and
// touches nothing else.
package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/rules"
)

const (
	port = 53
	// lookupTime bounds a lookup on this machine: resolvers give up a server
	// after 5 s and try twice (resolv.conf(5)).
	lookupTime = 12 * time.Second
	// maxLookups bounds lookups on this machine at once. One more waits over
	// TCP; over UDP it is dropped, and the program asks again.
	maxLookups = 256
)

// Options of New.
type Options struct {
	Rules *rules.DNS
	// Conf gives the resolv.conf that the program sees. It is asked for every
	// flow and name. Nil if it could not be read: then whoever is asked on port
	// 53 is a name server.
	Conf func() Conf
	// Hosts is the hosts file that the program sees.
	Hosts map[netip.Addr][]string
	Here  Here
	Emit  event.Sink
	// Activity hears of every answer. nil: nobody listens.
	Activity *activity.Log
}

// Names answers lookups and knows names. Its methods may be called
// concurrently.
type Names struct {
	o      Options
	memory memory
	slots  chan struct{} // a place for each lookup on this machine
}

// New makes the flow of one session.
func New(o Options) *Names { return &Names{o: o, slots: make(chan struct{}, maxLookups)} }

// Server reports whether dst is a name server of the resolv.conf in force, and
// gives its address: the sandbox has only one localhost, a machine may have a
// name server at 127.0.0.53.
func (n *Names) Server(dst netip.AddrPort) (to netip.AddrPort, ok bool) {
	switch {
	case dst.Port() != port:
		return netip.AddrPort{}, false
	case n.o.Conf == nil:
		return dst, true
	}
	servers := n.o.Conf().Servers
	if slices.Contains(servers, dst.Addr()) {
		return dst, true
	}
	for _, s := range servers {
		if s.WithZone("") == dst.Addr() || s.IsLoopback() && dst.Addr().IsLoopback() && s.Is4() == dst.Addr().Is4() {
			return netip.AddrPortFrom(s, port), true
		}
	}
	return netip.AddrPort{}, false
}

// decision says where a name server is asked.
func (n *Names) decision() rules.Decision {
	if n.o.Rules.Off() {
		return rules.Decision{Where: rules.Local, Why: "dns is off"}
	}
	return rules.Decision{Where: rules.Remote, Why: "a name server of the target's"}
}

// Of gives the names that the program may mean by a, those of the latest
// lookups first, and whether it learned a from the target's side.
func (n *Names) Of(a netip.Addr) (names []string, remote bool) {
	asked, remote := n.memory.of(a)
	add := func(name string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range asked {
		for _, meant := range rules.Names(name, n.search()) {
			add(meant)
		}
	}
	hosts := n.o.Hosts[a]
	for _, name := range hosts {
		add(name)
	}
	return names, remote || len(asked) == 0 && len(hosts) > 0 && !n.o.Rules.Off()
}

func (n *Names) search() []string {
	if n.o.Conf == nil {
		return nil
	}
	return n.o.Conf().Search
}

// Resolve looks a name that the program may mean up on this machine. A name
// that the search list of the target has made is looked up as it is, without
// this machine's search list.
func (n *Names) Resolve(ctx context.Context, name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	if n.o.Rules.Searched(name) {
		name += "."
	}
	return n.o.Here.Lookup(ctx, name)
}

// learn looks at an answer on its way to the program.
func (n *Names) learn(answer []byte, remote bool) {
	for _, f := range parseAnswer(answer) {
		n.memory.add(f.addr, f.names, remote)
	}
}

// lookup is a query that this machine answers.
type lookup struct {
	query
	raw   []byte // as it came; must not change
	meant string
	why   string
	udp   bool
}

// mine reads a query and reports whether it is this machine's to answer. raw
// is copied then.
func (n *Names) mine(raw []byte, udp bool) (l lookup, ok bool) {
	q, ok := parseQuery(raw)
	if !ok {
		return l, false
	}
	d, meant := n.o.Rules.Decide(q.name)
	if d.Where == rules.Remote {
		return l, false
	}
	return lookup{q, slices.Clone(raw), meant, d.Why, udp}, true
}

// answer looks l up on this machine and makes the reply; nil if ctx has ended.
func (n *Names) answer(ctx context.Context, l lookup) []byte {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	began := time.Now()
	own := strings.EqualFold(l.meant, l.name)
	var reply []byte
	var outcome string
	switch {
	case l.address():
		addrs, err := n.Resolve(ctx, l.meant)
		code := dnsmessage.RCodeSuccess
		var de *net.DNSError
		switch {
		case errors.As(err, &de) && de.IsNotFound:
			code, outcome = dnsmessage.RCodeNameError, "no such name"
		case err != nil:
			code, outcome = dnsmessage.RCodeServerFailure, err.Error()
		default:
			outcome = fmt.Sprint(addrs)
			for _, a := range addrs {
				n.memory.add(a.Unmap(), slices.Compact([]string{strings.ToLower(l.name), l.meant}), false)
			}
		}
		reply = l.query.answer(code, addrs, l.udp)
	case !own:
		// Resolvers go on with the rest of their list, which ends with the name
		// itself: that question can be passed on as it is.
		reply, outcome = l.query.answer(dnsmessage.RCodeNameError, nil, l.udp), "not with a search domain"
	default:
		network := "tcp"
		if l.udp {
			network = "udp"
		}
		var err error
		if reply, err = n.o.Here.Exchange(ctx, network, l.raw); err != nil {
			reply, outcome = l.query.answer(dnsmessage.RCodeServerFailure, nil, l.udp), err.Error()
		} else {
			n.learn(reply, false)
			outcome = "answered by its name server"
		}
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil
	}
	n.tell(reply, rules.Local, began)
	n.o.Emit(event.Event{Level: event.Detail, Code: "lookup-local", Flow: "dns",
		Text:  fmt.Sprintf("%s %s is looked up on this machine (%s): %s", kind(l.question.Type), l.meant, l.why, outcome),
		Facts: map[string]string{"name": l.name, "meant": l.meant, "type": kind(l.question.Type), "why": l.why, "outcome": outcome}})
	return reply
}

// tell tells of an answer, from one side, to a lookup that began at a time; zero:
// nobody knows.
func (n *Names) tell(answer []byte, where rules.Where, began time.Time) {
	n.o.Activity.Lookup(func() activity.Event {
		e := summary(answer)
		e.Where = where.String()
		if !began.IsZero() {
			e.Millis = activity.Took(began)
		}
		return e
	})
}

// kind is a record type as people write it.
func kind(t dnsmessage.Type) string { return strings.TrimPrefix(t.String(), "Type") }
