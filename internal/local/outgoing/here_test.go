package outgoing

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// listed is a filter.
func listed(side string, entries ...string) rules.OutgoingOptions {
	o := rules.OutgoingOptions{Filter: rules.AddressFilter{Side: side}}
	for _, e := range entries {
		o.Filter.Entries = append(o.Filter.Entries, rules.Pattern{Text: e, Origin: "test.json:1"})
	}
	return o
}

// answering is a server of this machine that says who it is to each
// connection; its port is given.
func answering(t *testing.T, at, who string) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, who)
			c.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return netip.MustParseAddrPort(ln.Addr().String())
}

// refusing is an agent whose target refuses, and counts.
func refusing(asked chan<- netip.AddrPort) func(*link.Stream, protocol.Message) {
	return func(s *link.Stream, m protocol.Message) {
		asked <- m.(*protocol.Dial).Addr
		_ = s.Send(&protocol.Answer{Errno: syscall.ECONNREFUSED})
		s.Close()
	}
}

// said are the events with a code.
func (b *bench) said(code string) (list []event.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.events {
		if e.Code == code {
			list = append(list, e)
		}
	}
	return list
}

// connect makes a connection and gives what the program reads, or the errno.
func (b *bench) connect(t *testing.T, dst string) (string, syscall.Errno) {
	t.Helper()
	f := newAttempt(t, dst)
	done := b.tcp(t.Context(), f)
	select {
	case errno := <-f.refused:
		<-done
		return "", errno
	case <-f.accepted:
	}
	f.program.CloseWrite()
	got, err := io.ReadAll(f.program)
	if err != nil {
		t.Error(err)
	}
	within(t, "the end of the flow", done)
	return string(got), 0
}

// What is local by rule but was learned from the target is looked up anew.
func TestNamesAreLookedUpAnew(t *testing.T) {
	closed := "127.0.0.99" // nobody listens there
	resolver := map[string][]string{"db": {"127.0.0.1"}, "six": {"::1", "::ffff:127.0.0.1"}, "two": {closed, "127.0.0.1"}, "web.example": {"127.0.0.1"}, "gone": {closed}}
	for _, c := range []struct {
		name   string
		o      rules.OutgoingOptions
		names  string // known for the address
		remote bool
		dst    string
		want   string
		errno  syscall.Errno
		asked  string
	}{
		{"by name", listed("local", "db"), "db.svc.cluster.local db", true, "10.0.0.1", "here", 0, "db"},
		{"one of several", listed("local", "db"), "cache web.example db", true, "10.0.0.1", "here", 0, "db"},
		{"rest of remote", listed("remote", "x"), "web.example", true, "10.0.0.1", "here", 0, "web.example"},
		{"rest of remote, the first has none", listed("remote", "x"), "db.svc db", true, "10.0.0.1", "here", 0, "db.svc db"},
		{"by network", listed("local", "10.0.0.0/8"), "web.example", true, "10.0.0.1", "here", 0, "web.example"},
		{"protocol off", rules.OutgoingOptions{TCPLocal: true}, "web.example", true, "[2001:db8::1]", "here", 0, "web.example"},
		{"the family that was asked for first", listed("local", "six"), "six", true, "10.0.0.1", "here", 0, "six"},
		{"the next address", listed("local", "two"), "two", true, "10.0.0.1", "here", 0, "two"},
		{"refused here", listed("local", "gone"), "gone", true, "10.0.0.1", "", syscall.ECONNREFUSED, "gone"},
		{"no such name here", listed("local", "none"), "none", true, "10.0.0.1", "", syscall.EHOSTUNREACH, "none"},
		{"learned here", listed("local", "db"), "db", false, "127.0.0.1", "here", 0, ""},
		{"localhost", listed("local", "localhost"), "localhost", true, "127.0.0.1", "here", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := setUp(t, never(t))
			here := answering(t, "127.0.0.1:0", "here")
			b.rule(c.o)
			var asked []string
			b.Names = func(netip.Addr) ([]string, bool) { return strings.Fields(c.names), c.remote }
			b.Resolve = func(_ context.Context, name string) (addrs []netip.Addr, err error) {
				asked = append(asked, name)
				for _, a := range resolver[name] {
					addrs = append(addrs, netip.MustParseAddr(a))
				}
				if addrs == nil {
					err = &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
				}
				return addrs, err
			}
			for range 2 {
				asked = nil
				got, errno := b.connect(t, netip.AddrPortFrom(netip.MustParseAddr(strings.Trim(c.dst, "[]")), here.Port()).String())
				if got != c.want || errno != c.errno || strings.Join(asked, " ") != c.asked {
					t.Errorf("got %q, %v, looked up %q; want %q, %v, %q", got, errno, asked, c.want, c.errno, c.asked)
				}
			}
			warned := b.said("name-not-local")
			if (c.errno == syscall.EHOSTUNREACH) != (len(warned) == 1) {
				t.Errorf("warnings: %v", warned)
			}
			if what := b.said("outgoing-connected"); c.errno == 0 && (len(what) != 2 || what[0].Facts["where"] != "local" || what[0].Facts["name"] != strings.Fields(c.names)[0]) {
				t.Errorf("events %v", what)
			}
		})
	}
}

func TestDatagramsAreLookedUpAnew(t *testing.T) {
	b := setUp(t, never(t))
	b.rule(listed("local", "udp://stats"))
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	b.Names = func(netip.Addr) ([]string, bool) { return []string{"stats"}, true }
	b.Resolve = func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	port := netip.MustParseAddrPort(server.LocalAddr().String()).Port()
	f := newSocket(netip.AddrPortFrom(netip.MustParseAddr("2001:db8::1"), port).String())
	done := b.udp(t.Context(), f)
	f.sent <- []byte("ping")
	buf := make([]byte, 16)
	if n, _, err := server.ReadFrom(buf); err != nil || string(buf[:n]) != "ping" {
		t.Errorf("got %q, %v", buf[:n], err)
	}
	close(f.idle)
	within(t, "the end of the flow", done)

	b.Resolve = func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no") }
	f = newSocket("10.0.0.1:8125")
	within(t, "the end of the flow", b.udp(t.Context(), f))
	if got := within(t, "an errno", f.unreachable); got != syscall.EHOSTUNREACH {
		t.Errorf("got %v, want EHOSTUNREACH", got)
	}
	b.wantEvents("outgoing-connected", "name-not-local", "outgoing-refused")
}

func TestListenersOfThisMachine(t *testing.T) {
	relative, stranger := Listener{"node", 41, true}, Listener{"postgres", 42, false}
	for _, c := range []struct {
		name  string
		at    string
		here  *Listener
		want  string
		errno syscall.Errno
		code  string // of the event that a person sees
		text  []string
	}{
		{"a relative", "127.0.0.1:0", &relative, "adapter", 0, "localhost-relative", []string{"node (process 41)"}},
		{"a relative on ::1", "[::1]:0", &relative, "adapter", 0, "localhost-relative", []string{"node (process 41)"}},
		{"a stranger", "127.0.0.1:0", &stranger, "", syscall.ECONNREFUSED, "localhost-hint", []string{"postgres (process 42)", `"local": ["localhost:`}},
		{"another user's", "127.0.0.1:0", &Listener{}, "", syscall.ECONNREFUSED, "localhost-hint", []string{"another user"}},
		{"nobody", "127.0.0.1:0", nil, "", syscall.ECONNREFUSED, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := make(chan netip.AddrPort, 8)
			b := setUp(t, refusing(asked))
			dst := answering(t, c.at, "adapter")
			b.Here = func(a netip.AddrPort) (l Listener, ok bool) {
				if a != dst {
					t.Errorf("asked for %v, want %v", a, dst)
				}
				if c.here != nil {
					return *c.here, true
				}
				return l, false
			}
			for range 3 {
				if got, errno := b.connect(t, dst.String()); got != c.want || errno != c.errno {
					t.Errorf("got %q, %v, want %q, %v", got, errno, c.want, c.errno)
				}
			}
			if len(asked) != 3 {
				t.Errorf("the target was asked %d times, want 3: it may listen by now", len(asked))
			}
			for _, code := range []string{"localhost-relative", "localhost-hint"} {
				said := b.said(code)
				if (code == c.code) != (len(said) == 1) || len(said) > 1 {
					t.Fatalf("%s: %v", code, said)
				}
				for _, e := range said {
					if e.Level != event.Info || slices.ContainsFunc(c.text, func(s string) bool { return !strings.Contains(e.Text, s) }) {
						t.Errorf("said %q at %s, want %q", e.Text, e.Level, c.text)
					}
				}
			}
		})
	}
	t.Run("only where the target refuses, on localhost", func(t *testing.T) {
		answers := map[netip.AddrPort]syscall.Errno{netip.MustParseAddrPort("127.0.0.1:80"): syscall.ETIMEDOUT, netip.MustParseAddrPort("10.0.0.1:80"): syscall.ECONNREFUSED}
		b := setUp(t, func(s *link.Stream, m protocol.Message) {
			_ = s.Send(&protocol.Answer{Errno: answers[m.(*protocol.Dial).Addr]})
			s.Close()
		})
		b.Here = func(netip.AddrPort) (Listener, bool) { t.Error("asked"); return relative, true }
		for dst, want := range answers {
			if _, errno := b.connect(t, dst.String()); errno != want {
				t.Errorf("%v: got %v, want %v", dst, errno, want)
			}
		}
	})
}

// A flow whose decision is another's goes where that says.
func TestCarry(t *testing.T) {
	b := setUp(t, never(t))
	here := answering(t, "127.0.0.1:0", "here")
	f := newAttempt(t, "10.96.0.10:53")
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.CarryTCP(t.Context(), f, here, rules.Decision{Where: rules.Local, Why: "dns is off"})
	}()
	f.program.CloseWrite()
	if got, err := io.ReadAll(f.program); string(got) != "here" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	within(t, "the end of the flow", done)
	if got := b.events[0].Facts; got["address"] != here.String() || got["why"] != "dns is off" {
		t.Errorf("the event says %v", got)
	}
}

func TestCarryLookups(t *testing.T) {
	b := setUp(t, echo(t))
	b.rule(rules.OutgoingOptions{UDPLocal: true})
	u := newSocket("10.96.0.10:53")
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.CarryLookups(t.Context(), u, u.Dst(), rules.Decision{Where: rules.Remote, Why: "a name server"})
	}()
	u.sent <- []byte("ping")
	if got := within(t, "an answer", u.got); string(got) != "ping" {
		t.Errorf("got %q", got)
	}
	close(u.idle)
	within(t, "the end of the flow", done)
}

func TestToldIsBounded(t *testing.T) {
	var x told
	for i := range maxTold {
		if what := strconv.Itoa(i); !x.once(what) || x.once(what) {
			t.Fatalf("%d is not told once", i)
		}
	}
	if x.once("one more") {
		t.Error("it goes on for ever")
	}
}

// TestDebuggerWaitsHere: a port of localhost where the command's debugger waits
// is this machine's, without the target being asked.
func TestDebuggerWaitsHere(t *testing.T) {
	asked := make(chan netip.AddrPort, 4)
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(at, func(t *testing.T) {
			b := setUp(t, refusing(asked))
			here := answering(t, at, "adapter")
			b.rule(rules.OutgoingOptions{})
			b.Debugger = func(port uint16) string {
				if port == here.Port() {
					return "debugpy"
				}
				return ""
			}
			if got, errno := b.connect(t, here.String()); got != "adapter" || errno != 0 || len(asked) != 0 {
				t.Errorf("%v: got %q, %v; the target was asked %d times", here, got, errno, len(asked))
			}
			if e := b.said("outgoing-connected"); len(e) != 1 || !strings.Contains(e[0].Facts["why"], "debugpy") {
				t.Errorf("%v: events %v", here, e)
			}
			if _, errno := b.connect(t, "10.0.0.1:"+strconv.Itoa(int(here.Port()))); errno != syscall.ECONNREFUSED || len(asked) != 1 {
				t.Errorf("the same port elsewhere: %v, the target was asked %d times", errno, len(asked))
			}
			<-asked
		})
	}
}
