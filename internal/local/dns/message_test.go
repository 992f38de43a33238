package dns

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/mirrord-go/mirrord/internal/rules"
)

func TestParseAnswer(t *testing.T) {
	q, _ := parseQuery(question(1, "Web.Shop.", typeA))
	refused := reply(q, a4("web.shop.", "10.0.0.1"))
	refused[3] |= 5
	two := reply(q, a4("web.shop.", "10.0.0.1"))
	two[5] = 2 // questions
	loop := []dnsmessage.Resource{cname("web.shop.", "b."), cname("b.", "web.shop."), a4("b.", "10.0.0.1")}
	var long []dnsmessage.Resource
	for i := range 40 {
		from := "web.shop."
		if i > 0 {
			from = fmt.Sprintf("n%d.", i)
		}
		long = append(long, cname(from, fmt.Sprintf("n%d.", i+1)))
	}
	long = append(long, a4("n40.", "10.0.0.1"))
	for _, c := range []struct {
		name string
		raw  []byte
		want string
	}{
		{"one", reply(q, a4("web.shop.", "10.0.0.1")), "10.0.0.1=web.shop"},
		{"several", reply(q, a4("WEB.shop.", "10.0.0.1"), a4("web.SHOP.", "10.0.0.2")), "10.0.0.1=web.shop 10.0.0.2=web.shop"},
		{"alias", reply(q, cname("web.shop.", "lb.example."), a4("lb.example.", "10.0.0.1")), "10.0.0.1=web.shop,lb.example"},
		{"aliases in another order", reply(q, a4("c.", "10.0.0.1"), cname("b.", "c."), cname("web.shop.", "b.")), "10.0.0.1=web.shop,b,c"},
		{"beside the question", reply(q, a4("bank.example.", "10.0.0.1")), ""},
		{"a circle", reply(q, loop...), "10.0.0.1=web.shop,b"},
		{"too many aliases", reply(q, long...), ""},
		{"none", reply(q), ""},
		{"a failure", refused, ""},
		{"two questions", two, ""},
		{"a query", question(1, "web.shop.", typeA), ""},
		{"cut", reply(q, a4("web.shop.", "10.0.0.1"))[:35], ""},
		{"nothing", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, f := range parseAnswer(c.raw) {
				got = append(got, f.addr.String()+"="+strings.Join(f.names, ","))
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	q6, _ := parseQuery(question(1, "v6.", typeAAAA))
	m := reply(q6, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q6.question.Name, Class: dnsmessage.ClassINET},
		Body: &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::1").As16()}})
	if got := parseAnswer(m); len(got) != 1 || got[0].addr != netip.MustParseAddr("2001:db8::1") {
		t.Errorf("AAAA: got %v", got)
	}
}

// FuzzObserver: whatever a name server answers and a program asks, nothing
// breaks, and what is remembered stays bounded.
func FuzzObserver(f *testing.F) {
	q, _ := parseQuery(question(1, "web.shop.svc.cluster.local.", typeA))
	f.Add(reply(q, cname("web.shop.svc.cluster.local.", "b."), a4("b.", "10.0.0.1")))
	f.Add(question(1, "db.", typeAAAA))
	f.Add([]byte{})
	r, err := rules.NewDNS(filter("local", "db*"), clusterConf.Search)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n := New(Options{Rules: r, Conf: cluster})
		n.learn(b, true)
		summary(b)
		for _, known := range parseAnswer(b) {
			if len(known.names) == 0 || len(known.names) > maxAliases || !known.addr.IsValid() {
				t.Errorf("learned %v", known)
			}
			n.Of(known.addr)
		}
		if l, mine := n.mine(b, true); mine {
			reply := l.query.answer(ok, []netip.Addr{netip.IPv6Loopback(), netip.AddrFrom4([4]byte{10, 0, 0, 1})}, true)
			var p dnsmessage.Parser
			if h, err := p.Start(reply); err != nil || !h.Response || h.ID != l.header.ID || len(reply) > l.limit {
				t.Errorf("the answer to %x is %x: %v", b, reply, err)
			}
		}
		messages(b, func([]byte) {})
	})
}

func FuzzConf(f *testing.F) {
	f.Add("search a b\nnameserver 10.0.0.1\noptions ndots:5\n10.0.0.1 a b # c\n")
	f.Fuzz(func(t *testing.T, text string) {
		if c := ParseConf(text); len(c.Servers) == 0 || len(c.Servers) > maxServers || len(c.Search) > maxSearch {
			t.Errorf("got %v", c)
		}
		for a, names := range ParseHosts(text) {
			if !a.IsValid() || a.Is4In6() || len(names) == 0 {
				t.Errorf("%v: %v", a, names)
			}
		}
	})
}

func TestParseConf(t *testing.T) {
	for text, want := range map[string]string{
		"nameserver 10.96.0.10\nsearch a.b b\noptions ndots:5\n":              "[10.96.0.10] [a.b b]",
		"# nameserver 1.1.1.1\n;nameserver 1.1.1.1\nnameserver\t::1 # here\n": "[::1] []",
		"domain x\nsearch y z": "[127.0.0.1] [y z]",
		"search y z\ndomain x": "[127.0.0.1] [x]",
		"nameserver none\nnameserver 10.0.0.1\nnameserver 10.0.0.2": "[10.0.0.1 10.0.0.2] []",
		"nameserver fe80::1%eth0":                                   "[fe80::1%eth0] []",
		"":                                                          "[127.0.0.1] []",
	} {
		if c := ParseConf(text); fmt.Sprint(c.Servers, " ", c.Search) != want {
			t.Errorf("%q: got %v %v, want %s", text, c.Servers, c.Search, want)
		}
	}
}

func TestParseHosts(t *testing.T) {
	got := ParseHosts("127.0.0.1 localhost\n::1\tlocalhost ip6-localhost # x\n10.0.0.9 Legacy.Corp. legacy\n10.0.0.9 more\nbad name\n10.0.0.8\n#10.0.0.7 x\n")
	want := map[string]string{"127.0.0.1": "localhost", "::1": "localhost ip6-localhost", "10.0.0.9": "legacy.corp legacy more"}
	if len(got) != len(want) {
		t.Errorf("got %v", got)
	}
	for a, names := range want {
		if s := strings.Join(got[netip.MustParseAddr(a)], " "); s != names {
			t.Errorf("%s: got %q, want %q", a, s, names)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	var m memory
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	for i := range maxAddresses {
		m.add(addr(i), []string{"first"}, true)
	}
	m.add(addr(0), []string{"again"}, false) // so it is not the next to go
	m.add(addr(maxAddresses), []string{"one more"}, true)
	if names, remote := m.of(addr(0)); !slices.Equal(names, []string{"again", "first"}) || remote {
		t.Errorf("got %v, %v", names, remote)
	}
	if names, _ := m.of(addr(1)); names != nil {
		t.Errorf("the oldest is still known as %v", names)
	}
	if len(m.byAddr) != maxAddresses || m.order.Len() != maxAddresses {
		t.Errorf("%d, %d addresses", len(m.byAddr), m.order.Len())
	}
	for i := range 100 {
		m.add(addr(5), []string{fmt.Sprint("name ", i)}, true)
	}
	if names, _ := m.of(addr(5)); len(names) != maxNames || names[0] != "name 99" {
		t.Errorf("got %v", names)
	}
}

// bothProtocols listens on one port by UDP and TCP. A number that is free in one
// may be taken in the other.
func bothProtocols(t *testing.T) (udp net.PacketConn, tcp net.Listener) {
	t.Helper()
	for range 100 {
		udp, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if tcp, err := net.Listen("tcp", udp.LocalAddr().String()); err == nil {
			return udp, tcp
		}
		udp.Close()
	}
	t.Fatal("no port is free by both UDP and TCP")
	return nil, nil
}

func TestExchange(t *testing.T) {
	udp, tcp := bothProtocols(t)
	at := netip.MustParseAddrPort(udp.LocalAddr().String())
	t.Cleanup(func() { udp.Close(); tcp.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			udp.WriteTo([]byte("?? somebody else's"), from)
			udp.WriteTo(append(buf[:n:n], "udp"...), from)
		}
	}()
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			var length [2]byte
			io.ReadFull(c, length[:])
			b := make([]byte, binary.BigEndian.Uint16(length[:]))
			io.ReadFull(c, b)
			c.Write(framed(append(b, "tcp"...)))
			c.Close()
		}
	}()
	closed := netip.MustParseAddrPort("127.0.0.1:1")
	for _, network := range []string{"udp", "tcp"} {
		got, err := exchange(t.Context(), []netip.AddrPort{closed, at}, network, []byte("12345"))
		if err != nil || string(got) != "12345"+network {
			t.Errorf("%s: got %q, %v", network, got, err)
		}
		if _, err := exchange(t.Context(), []netip.AddrPort{closed}, network, []byte("12345")); err == nil {
			t.Errorf("%s: nobody answered, and that was no error", network)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := exchange(ctx, []netip.AddrPort{at}, "udp", []byte("12345")); err == nil {
		t.Error("the end of the context was no error")
	}
	if _, err := exchange(t.Context(), nil, "udp", nil); err == nil {
		t.Error("no name server was no error")
	}
}

// TestSummary: what is told of an answer, whatever it is.
func TestSummary(t *testing.T) {
	q, _ := parseQuery(question(1, "Web.Shop.", typeA))
	refused := reply(q)
	refused[3] |= 5
	odd := reply(q)
	odd[3] |= 15
	for _, c := range []struct {
		name string
		raw  []byte
		want string
	}{
		{"addresses", reply(q, cname("web.shop.", "b."), a4("b.", "10.0.0.1"), a4("b.", "10.0.0.2")), "A Web.Shop [10.0.0.1 10.0.0.2] "},
		{"none", reply(q), "A Web.Shop [] "},
		{"no such name", q.answer(dnsmessage.RCodeNameError, nil, true), "A Web.Shop [] no such name"},
		{"refused", refused, "A Web.Shop [] refused"},
		{"a code of later", odd, "A Web.Shop [] code 15"},
		{"a query", question(1, "web.shop.", typeA), "  [] no answer that can be read"},
		{"nothing", nil, "  [] no answer that can be read"},
	} {
		e := summary(c.raw)
		if got := fmt.Sprintf("%s %s %v %s", e.Type, e.Name, e.Answers, e.Error); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
