package incoming

import (
	"errors"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// The program's ports under rules: which port the agent is asked for, what is
// published, who gets a connection.

// serves checks that a connection of the target's port reaches the program at
// port number.
func (b *bench) serves(ln *net.TCPListener, target, number uint16) {
	b.t.Helper()
	dst := netip.MustParseAddrPort(at("10.1.2.3", target))
	b.deliver(b.t.Context(), &protocol.Incoming{Port: target, Mode: protocol.ModeSteal, Peer: client, Local: dst})
	_ = ln.SetDeadline(time.Now().Add(3 * time.Second))
	c, err := ln.Accept()
	if err != nil {
		b.t.Fatalf("the program's port %d gets nothing of the target's %d: %v", number, target, err)
	}
	c.Close()
	within(b.t, "the program's connection", b.dialed)
}

// asked checks what the agent was asked for.
func (b *bench) asked(want protocol.Subscribe) *sub {
	b.t.Helper()
	s := within(b.t, "a subscription", b.agent.subs)
	if !reflect.DeepEqual(*s.Subscribe, want) {
		b.t.Errorf("asked for %+v, want %+v", *s.Subscribe, want)
	}
	return s
}

func (b *bench) notAsked() {
	b.t.Helper()
	if len(b.agent.subs) > 0 {
		b.t.Errorf("the agent was asked for %+v", *(<-b.agent.subs).Subscribe)
	}
}

func TestPortsMappedOntoOne(t *testing.T) {
	const target = 80
	one, two := freePort(t), freePort(t)
	b := setUpWith(t, rules.IncomingOptions{Mode: rules.IncomingSteal, PortMapping: []rules.PortPair{{From: one, To: target}, {From: two, To: target}}})
	first, second := b.program(Tunnel, at("10.1.2.3", one)), b.program(Tunnel, at("10.1.2.3", two))
	b.listening(1, at("0.0.0.0", one))
	s := b.asked(protocol.Subscribe{Port: target, Mode: protocol.ModeSteal})
	if e := b.event("port-open"); e.Facts["published"] != at("127.0.0.1", one) || e.Facts["target"] != "80" || !strings.Contains(e.Text, "for port 80 is stolen") {
		t.Errorf("the event says %q, %v", e.Text, e.Facts)
	}
	b.serves(first, target, one)
	b.listening(2, at("0.0.0.0", two))
	b.notAsked()
	b.serves(second, target, two)
	b.listening(3, at("127.0.0.1", one)) // the latest again, by another listener
	b.Closed(1)
	b.serves(b.program(Tunnel, at("198.18.0.1", one)), target, one)
	b.Closed(3)
	b.serves(second, target, two)
	if len(s.ended) > 0 {
		t.Error("the subscription ended while there is a listener")
	}
	b.Closed(2)
	within(t, "the end of the subscription", s.ended)
}

// What the program's own ports have in common with the target's numbers is
// nothing: a local client gets the port that it dialed.
func TestMappedPortIsPublishedByItsOwnNumber(t *testing.T) {
	one, two := freePort(t), freePort(t)
	b := setUpWith(t, rules.IncomingOptions{Mode: rules.IncomingSteal, PortMapping: []rules.PortPair{{From: one, To: two}, {From: two, To: one}}})
	b.listening(1, at("0.0.0.0", one))
	b.listening(2, at("0.0.0.0", two))
	ln := b.program(Inside, at("127.0.0.1", one))
	c, err := net.Dial("tcp", at("127.0.0.1", one))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = ln.SetDeadline(time.Now().Add(3 * time.Second))
	app, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	app.Close()
	b.serves(b.program(Tunnel, at("10.1.2.3", two)), one, two)
}

func TestIgnoredPortIsLocal(t *testing.T) {
	for name, o := range map[string]func(port uint16) rules.IncomingOptions{
		"ignore_ports":     func(p uint16) rules.IncomingOptions { return rules.IncomingOptions{IgnorePorts: []uint16{p}} },
		"ports":            func(uint16) rules.IncomingOptions { return rules.IncomingOptions{Ports: []uint16{80}} },
		"ignore_localhost": func(uint16) rules.IncomingOptions { return rules.IncomingOptions{IgnoreLocalhost: true} },
	} {
		t.Run(name, func(t *testing.T) {
			port := freePort(t)
			b := setUpWith(t, o(port))
			b.listening(1, at("127.0.0.1", port))
			b.notAsked()
			if e := b.event("port-open"); !strings.Contains(e.Text, "is local only: "+name) || e.Facts["published"] != at("127.0.0.1", port) {
				t.Errorf("the event says %q", e.Text)
			}
			// Nothing that the agent sends gets there.
			agent, done := b.deliver(t.Context(), &protocol.Incoming{Port: port, Mode: protocol.ModeMirror, Peer: client, Local: netip.MustParseAddrPort(at("10.1.2.3", port))})
			if _, err := agent.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("a client of the target gets %v, want ECONNREFUSED", err)
			}
			within(t, "the end of the delivery", done)
			b.Closed(1)
			b.wantEvents("port-open", "not-delivered", "port-closed")
		})
	}
}

func TestAnyPortIsLocal(t *testing.T) {
	port := freePort(t)
	b := setUp(t, protocol.ModeSteal)
	b.heard(Listener{ID: 1, Addr: netip.MustParseAddrPort(at("0.0.0.0", port)), AnyPort: true})
	// A group of listeners that share the kernel's choice (SO_REUSEPORT) asks for
	// its number.
	b.listening(2, at("0.0.0.0", port))
	b.notAsked()
	if e := b.event("port-open"); !strings.Contains(e.Text, "any free port") || e.Facts["published"] != at("127.0.0.1", port) {
		t.Errorf("the event says %q", e.Text)
	}
	b.Closed(1)
	b.listening(3, at("0.0.0.0", port))
	b.Closed(2)
	b.notAsked()
	b.Closed(3)
	// Later somebody wants that very number.
	b.listening(4, at("0.0.0.0", port))
	b.asked(protocol.Subscribe{Port: port, Mode: protocol.ModeSteal})
}

// Two addresses of one port may be of two kinds: the target's traffic comes as
// long as one of its kind is there, and only to that one.
func TestTwoAddressesOfOnePort(t *testing.T) {
	port := freePort(t)
	b := setUpWith(t, rules.IncomingOptions{Mode: rules.IncomingSteal, IgnoreLocalhost: true})
	b.listening(1, at("127.0.0.1", port))
	b.notAsked()
	b.listening(2, at("10.1.2.3", port))
	s := b.asked(protocol.Subscribe{Port: port, Mode: protocol.ModeSteal})
	b.wantEvents("port-open", "port-open")
	b.mu.Lock()
	if got := b.events[1].Text; !strings.HasSuffix(got, "the target's traffic is stolen") {
		t.Errorf("the second event says %q", got)
	}
	b.mu.Unlock()
	b.serves(b.program(Tunnel, at("10.1.2.3", port)), port, port)
	b.Closed(2)
	within(t, "the end of the subscription", s.ended)
	if !reachable(t, port) {
		t.Error("the port is closed while there is a listener")
	}
	b.Closed(1)
	if reachable(t, port) {
		t.Error("the port is still open")
	}
}

func TestListenPorts(t *testing.T) {
	for name, mode := range map[string]string{"subscribed": rules.IncomingSteal, "otherwise local": rules.IncomingOff} {
		t.Run(name, func(t *testing.T) {
			port, published := freePort(t), freePort(t)
			b := setUpWith(t, rules.IncomingOptions{Mode: mode, ListenPorts: []rules.PortPair{{From: port, To: published}}})
			busy, err := net.Listen("tcp", at("::1", published)) // one family is enough
			if err != nil {
				t.Fatal(err)
			}
			addr := netip.MustParseAddrPort(at("0.0.0.0", port))
			if err := b.Listening(t.Context(), Listener{ID: 1, Addr: addr}); err != syscall.EADDRINUSE {
				t.Errorf("on a busy port: got %v, want EADDRINUSE", err)
			}
			if e := b.event("port-not-free"); !strings.Contains(e.Text, "listen_ports") || !strings.Contains(e.Text, busy.Addr().String()) {
				t.Errorf("the event says %q", e.Text)
			}
			if reachable(t, published) || reachable(t, port) {
				t.Error("a port that failed is open")
			}
			if mode == rules.IncomingSteal { // the target has its traffic back
				within(t, "the end of the subscription", b.asked(protocol.Subscribe{Port: port, Mode: protocol.ModeSteal}).ended)
			}
			busy.Close()
			b.listening(2, addr.String())
			if e := b.event("port-open"); e.Facts["published"] != at("127.0.0.1", published) {
				t.Errorf("published at %s, want port %d", e.Facts["published"], published)
			}
			ln := b.program(Inside, at("127.0.0.1", port))
			c, err := net.Dial("tcp", at("127.0.0.1", published))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			app, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			app.Close()
			if n := len(b.Ports.listeners); n != 1 {
				t.Errorf("%d listeners are known, want 1", n)
			}
		})
	}
}

func filtered() rules.IncomingOptions {
	return rules.IncomingOptions{Mode: rules.IncomingSteal, HTTP: &rules.HTTPOptions{Filter: rules.Filter{Path: &rules.Pattern{Text: "^/mine"}}}}
}

func TestFilterIsAskedFor(t *testing.T) {
	port := freePort(t)
	b := setUpWith(t, filtered())
	b.listening(1, at("0.0.0.0", port))
	b.asked(protocol.Subscribe{Port: port, Mode: protocol.ModeSteal, Filter: `{"path":{"text":"^/mine"}}`})
	if e := b.event("port-open"); !strings.Contains(e.Text, "that the filter matches is stolen") {
		t.Errorf("the event says %q", e.Text)
	}
}

// An agent that knows no filters must not be asked for the whole port instead.
func TestFilterThatTheAgentRefuses(t *testing.T) {
	for name, answer := range map[string]*protocol.Answer{
		"an older agent":      {Errno: syscall.EINVAL, Cause: protocol.CauseUnsupported, Text: "this agent knows no filters"},
		"a pattern too large": {Errno: syscall.EINVAL, Text: "the pattern is too large"},
	} {
		t.Run(name, func(t *testing.T) {
			port := freePort(t)
			b := setUpWith(t, filtered())
			b.agent.answer = func(*protocol.Subscribe) *protocol.Answer { return answer }
			b.listening(1, at("0.0.0.0", port))
			b.listening(2, at("0.0.0.0", port)) // says it no second time
			if s := within(t, "a subscription", b.agent.subs); s.Filter == "" {
				t.Error("asked for the whole port")
			}
			b.notAsked()
			code := "filter-refused"
			if answer.Cause == 0 {
				code = "port-not-steal"
			}
			b.wantEvents(code, "port-open")
			if e := b.event(code); !strings.Contains(e.Text, answer.Text) || !strings.Contains(e.Text, "on this machine only") {
				t.Errorf("the event says %q", e.Text)
			}
			if !reachable(t, port) {
				t.Error("the port is not open here")
			}
		})
	}
}
