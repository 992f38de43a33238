package dns

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/mirrord-go/mirrord/internal/relay"
	"github.com/mirrord-go/mirrord/internal/rules"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

func filter(side string, entries ...string) rules.DNSOptions {
	o := rules.DNSOptions{Filter: rules.AddressFilter{Side: side}}
	for _, e := range entries {
		o.Filter.Entries = append(o.Filter.Entries, rules.Pattern{Text: e})
	}
	return o
}

const (
	typeA, typeAAAA, typeTXT = dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypeTXT
	ok                       = dnsmessage.RCodeSuccess
	noName                   = dnsmessage.RCodeNameError
	failed                   = dnsmessage.RCodeServerFailure
)

// answers are the rows of what this machine says to a lookup that is its own.
var answers = []struct {
	name    string
	o       rules.DNSOptions
	asked   string
	kind    dnsmessage.Type
	code    dnsmessage.RCode
	answers string
	lookups string // here
}{
	{"A", filter("local", "db"), "db.", typeA, ok, "192.168.1.5", "db"},
	{"AAAA", filter("local", "db"), "db.", typeAAAA, ok, "2001:db8::5", "db"},
	{"with search domain", filter("local", "db"), "DB.shop.svc.cluster.local.", typeA, ok, "192.168.1.5", "db"},
	{"the family has none", filter("local", "v4.corp"), "v4.corp.", typeAAAA, ok, "", "v4.corp"},
	{"mapped", filter("local", "other"), "other.", typeA, ok, "192.168.1.7", "other"},
	{"no such name", filter("local", "none"), "none.", typeA, noName, "", "none"},
	{"the resolver fails", filter("local", "broken"), "broken.", typeA, failed, "", "broken"},
	{"another type", filter("local", "db"), "db.", typeTXT, ok, "here by NETWORK", ""},
	{"another type with search domain", filter("local", "db"), "db.svc.cluster.local.", typeTXT, noName, "", ""},
	{"another type, no server", filter("local", "broken"), "broken.", typeTXT, failed, "", ""},
	{"rest of remote", filter("remote", "web"), "db.", typeA, ok, "192.168.1.5", "db"},
	{"rest of remote, made by the search list", filter("remote", "web"), "db.cluster.local.", typeA, noName, "", "db.cluster.local."},
	{"suffix", filter("local", "*.corp"), "v4.corp.", typeA, ok, "192.168.1.6", "v4.corp"},
}

func TestLocalAnswersUDP(t *testing.T) {
	for _, c := range answers {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, c.o)
			f := newSocket()
			done := make(chan struct{})
			go func() {
				defer close(done)
				b.UDP(t.Context(), f, func(context.Context, UDPFlow, rules.Decision) { t.Error("the name server was asked") })
			}()
			f.sent <- question(7, c.asked, c.kind)
			got := parse(t, within(t, "an answer", f.got))
			f.Close()
			within(t, "the end of the flow", done)
			check(t, b, got, c.asked, c.code, strings.ReplaceAll(c.answers, "NETWORK", "udp"), c.lookups)
		})
	}
}

func check(t *testing.T, b *bench, got read, asked string, code dnsmessage.RCode, answers, lookups string) {
	t.Helper()
	var want []string
	if answers != "" {
		want = []string{answers}
	}
	if got.id != 7 || got.question != asked || got.code != code || !slices.Equal(got.answers, want) || got.truncated {
		t.Errorf("got %+v, want %v %v for %s", got, code, want, asked)
	}
	if made := strings.Join(b.asked, " "); made != lookups {
		t.Errorf("looked up %q, want %q", made, lookups)
	}
	if len(b.events) != 1 || b.events[0].Code != "lookup-local" || b.events[0].Facts["why"] == "" {
		t.Errorf("events %v", b.events)
	}
}

// The others go on as they are, also what is no query at all.
func TestRemoteLookupsPassUntouched(t *testing.T) {
	b := newBench(t, filter("local", "db"))
	f := newSocket()
	passed := make(chan []byte, 8)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.UDP(t.Context(), f, func(_ context.Context, f UDPFlow, d rules.Decision) {
			if d.Where != rules.Remote {
				t.Errorf("carried %v", d)
			}
			buf := make([]byte, maxMessage)
			for {
				n, err := f.Read(buf)
				if err != nil {
					return
				}
				passed <- slices.Clone(buf[:n])
				f.Write(buf[:n]) // also back
			}
		})
	}()
	update := question(9, "db.", typeA)
	update[2] |= 5 << 3 // opcode
	for _, m := range [][]byte{question(8, "web.shop.svc.cluster.local.", typeA), question(8, "notdb.", typeTXT), {}, []byte("x"), bytes.Repeat([]byte{0xff}, 512), update} {
		f.sent <- question(7, "db.", typeA) // in between
		if got := within(t, "a local answer", f.got); parse(t, got).id != 7 {
			t.Errorf("got %x", got)
		}
		f.sent <- m
		if got := within(t, "what passes", passed); !bytes.Equal(got, m) {
			t.Errorf("passed %x, want %x", got, m)
		}
		if got := within(t, "what comes back", f.got); !bytes.Equal(got, m) {
			t.Errorf("came back %x, want %x", got, m)
		}
	}
	f.Close()
	within(t, "the end of the flow", done)
}

func TestLongAnswerIsTruncatedOverUDP(t *testing.T) {
	b := newBench(t, filter("local", "many"))
	for _, c := range []struct {
		size int // that the client takes; 0: it does not say
		want bool
	}{{0, true}, {900, true}, {1200, false}, {4096, false}} {
		raw := question(7, "many.", typeA)
		if c.size > 0 {
			var m dnsmessage.Message
			var opt dnsmessage.ResourceHeader
			if err := m.Unpack(raw); err != nil {
				t.Fatal(err)
			}
			if err := opt.SetEDNS0(c.size, ok, false); err != nil {
				t.Fatal(err)
			}
			m.Additionals = []dnsmessage.Resource{{Header: opt, Body: &dnsmessage.OPTResource{}}}
			raw, _ = m.Pack()
		}
		l, mine := b.mine(raw, true)
		if !mine {
			t.Fatal("it is not answered here")
		}
		reply := b.answer(t.Context(), l)
		got := parse(t, reply)
		if got.truncated != c.want || (len(got.answers) == 60) == c.want || len(reply) > max(c.size, udpPlain) {
			t.Errorf("size %d: %d bytes, %d answers, truncated %v", c.size, len(reply), len(got.answers), got.truncated)
		}
		l.udp = false
		if got := parse(t, b.answer(t.Context(), l)); got.truncated || len(got.answers) != 60 {
			t.Errorf("over TCP: %d answers, truncated %v", len(got.answers), got.truncated)
		}
	}
}

// attemptOf is a program's connection attempt to a name server.
type attemptOf struct{ near net.Conn }

func (a attemptOf) Src() netip.AddrPort       { return netip.MustParseAddrPort("10.1.2.3:40000") }
func (a attemptOf) Dst() netip.AddrPort       { return netip.MustParseAddrPort("10.96.0.10:53") }
func (a attemptOf) Accept() (net.Conn, error) { return a.near, nil }
func (a attemptOf) Refuse(syscall.Errno)      {}

// overTCP carries a connection between the program and a name server, and
// gives their ends.
func overTCP(t *testing.T, b *bench) (program, server *net.TCPConn, done chan struct{}) {
	t.Helper()
	near, program := testnet.Pair(t)
	far, server := testnet.Pair(t)
	done = make(chan struct{})
	go func() {
		defer close(done)
		b.TCP(t.Context(), attemptOf{near}, func(ctx context.Context, f TCPFlow, d rules.Decision) {
			c, err := f.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			relay.Join(ctx, nil, c.(relay.Conn), far)
		})
	}()
	t.Cleanup(func() {
		program.Close()
		server.Close()
		within(t, "the end of the flow", done)
	})
	return program, server, done
}

func TestLocalAnswersTCP(t *testing.T) {
	for _, c := range answers {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, c.o)
			program, server, done := overTCP(t, b)
			program.Write(framed(question(7, c.asked, c.kind)))
			program.CloseWrite() // the answer comes all the same
			if got, err := io.ReadAll(server); err != nil || len(got) > 0 {
				t.Errorf("the name server got %x, %v", got, err)
			}
			server.Close()
			got, err := io.ReadAll(program)
			if err != nil || len(got) < 2 || len(got) != 2+int(got[0])<<8+int(got[1]) {
				t.Fatalf("the program got %x, %v", got, err)
			}
			within(t, "the end of the flow", done)
			check(t, b, parse(t, got[2:]), c.asked, c.code, strings.ReplaceAll(c.answers, "NETWORK", "tcp"), c.lookups)
		})
	}
}

// Local and remote lookups share a connection; messages never mix, however
// they are cut.
func TestLookupsShareAConnection(t *testing.T) {
	b := newBench(t, filter("local", "db"))
	program, server, done := overTCP(t, b)
	const rounds = 100
	go func() {
		var all []byte
		for range rounds {
			all = append(all, framed(question(1, "db.", typeA))...)
			all = append(all, framed(question(2, "web.", typeA))...)
		}
		for len(all) > 0 {
			n := min(len(all), 7)
			program.Write(all[:n])
			all = all[n:]
		}
		program.Write([]byte{0, 9, 'c', 'u', 't'}) // and then it hangs up
		program.CloseWrite()
	}()
	go func() {
		defer server.Close()
		for range rounds {
			m, err := readMessage(server)
			if err != nil {
				t.Errorf("the name server reads %v", err)
				return
			}
			q, parsed := parseQuery(m[2:])
			if !parsed || q.header.ID != 2 {
				t.Errorf("the name server got %x", m)
			}
			for _, part := range [][]byte{framed(reply(q, a4("web.", "10.0.0.7")))} {
				server.Write(part[:5])
				server.Write(part[5:])
			}
		}
		if rest, err := io.ReadAll(server); string(rest) != "\x00\x09cut" || err != nil {
			t.Errorf("at the end the name server got %q, %v", rest, err)
		}
		server.Write([]byte{0, 7, 'c', 'u', 't'})
	}()
	count := map[uint16]int{}
	for range 2 * rounds {
		m, err := readMessage(program)
		if err != nil {
			t.Fatalf("the program reads %v after %v", err, count)
		}
		r := parse(t, m[2:])
		if want := map[uint16]string{1: "192.168.1.5", 2: "10.0.0.7"}[r.id]; !slices.Equal(r.answers, []string{want}) {
			t.Errorf("got %+v", r)
		}
		count[r.id]++
	}
	if rest, err := io.ReadAll(program); string(rest) != "\x00\x07cut" || err != nil || count[1] != rounds {
		t.Errorf("at the end the program got %q, %v, and %v", rest, err, count)
	}
	within(t, "the end of the flow", done)
	if names, remote := b.Of(netip.MustParseAddr("10.0.0.7")); !slices.Equal(names, []string{"web"}) || !remote {
		t.Errorf("web's address is known as %v, %v", names, remote)
	}
}

// Without rules nothing is held: not every protocol on port 53 is DNS.
func TestAnythingPassesAtOnce(t *testing.T) {
	b := newBench(t, rules.DNSOptions{})
	program, server, _ := overTCP(t, b)
	buf := make([]byte, 64)
	for _, text := range []string{"SSH-2.0-x\r\n", "y", "GET / HTTP/1.1\r\n"} {
		server.Write([]byte(text))
		if n, err := io.ReadFull(program, buf[:len(text)]); err != nil || string(buf[:n]) != text {
			t.Errorf("the program got %q, %v", buf[:n], err)
		}
		program.Write([]byte(text))
		if n, err := io.ReadFull(server, buf[:len(text)]); err != nil || string(buf[:n]) != text {
			t.Errorf("the server got %q, %v", buf[:n], err)
		}
	}
	server.SetLinger(0)
	server.Close()
	if _, err := program.Read(buf); err == nil || err == io.EOF {
		t.Errorf("a reset became %v", err)
	}
}

func TestWatchedStreamLearns(t *testing.T) {
	b := newBench(t, rules.DNSOptions{})
	program, server, _ := overTCP(t, b)
	q, _ := parseQuery(question(3, "web.shop.svc.cluster.local.", typeA))
	m := framed(reply(q, a4("web.shop.svc.cluster.local.", "10.0.0.7")))
	for i := range m {
		server.Write(m[i : i+1])
	}
	if got, err := readMessage(program); err != nil || !bytes.Equal(got, m) {
		t.Errorf("got %x, %v", got, err)
	}
	program.Close()
	server.Close()
	if names, _ := b.Of(netip.MustParseAddr("10.0.0.7")); !slices.Equal(names, []string{"web.shop.svc.cluster.local", "web", "web.shop", "web.shop.svc"}) {
		t.Errorf("known as %v", names)
	}
}

func TestEndOfTheSession(t *testing.T) {
	b := newBench(t, filter("local", "db"))
	block := make(chan struct{})
	b.o.Here.Lookup = func(ctx context.Context, _ string) ([]netip.Addr, error) {
		close(block)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	f := newSocket()
	done := make(chan struct{})
	go func() { defer close(done); b.UDP(ctx, f, nil) }()
	f.sent <- question(7, "db.", typeA)
	within(t, "a lookup", block)
	cancel()
	within(t, "the end of the flow", done)
	if len(f.got) > 0 {
		t.Error("a lookup that was given up was answered")
	}
}

func TestServer(t *testing.T) {
	conf := func(text string) func() Conf { return func() Conf { return ParseConf(text) } }
	for _, c := range []struct {
		name string
		conf func() Conf
		dst  string
		want string // empty: none
	}{
		{"listed", cluster, "10.96.0.10:53", "10.96.0.10:53"},
		{"listed, IPv6", cluster, "[fd00::10]:53", "[fd00::10]:53"},
		{"another port", cluster, "10.96.0.10:5353", ""},
		{"not listed", cluster, "8.8.8.8:53", ""},
		{"unknown", nil, "8.8.8.8:53", "8.8.8.8:53"},
		{"unknown, another port", nil, "8.8.8.8:80", ""},
		{"localhost stands for all of them", conf("nameserver 127.0.0.53"), "127.0.0.1:53", "127.0.0.53:53"},
		{"itself first", conf("nameserver 127.0.0.53\nnameserver 127.0.0.1"), "127.0.0.1:53", "127.0.0.1:53"},
		{"of the family", conf("nameserver 127.0.0.53"), "[::1]:53", ""},
		{"of the link", conf("nameserver fe80::1%eth0"), "[fe80::1]:53", "[fe80::1%eth0]:53"},
		{"none is named", conf("search x"), "127.0.0.1:53", "127.0.0.1:53"},
	} {
		t.Run(c.name, func(t *testing.T) {
			to, found := New(Options{Conf: c.conf}).Server(netip.MustParseAddrPort(c.dst))
			if found != (c.want != "") || found && to.String() != c.want {
				t.Errorf("got %v, %v, want %q", to, found, c.want)
			}
		})
	}
}

// What the program sees of this machine changes while it runs: a VPN comes up.
func TestServerOfAChangedFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, reads := "nameserver 192.168.1.1", 0
		n := New(Options{Conf: Remembered(func() Conf { reads++; return ParseConf(file) })})
		server := func(dst string) bool {
			_, ok := n.Server(netip.MustParseAddrPort(dst))
			return ok
		}
		for range 3 {
			if !server("192.168.1.1:53") || server("10.8.0.1:53") {
				t.Error("at first: the server of the file is none, or another is")
			}
		}
		if reads != 1 {
			t.Errorf("the file was read %d times at once, want 1", reads)
		}
		file = "nameserver 10.8.0.1"
		time.Sleep(2 * confTime) // the bubble's clock
		if !server("10.8.0.1:53") {
			t.Error("after the change: the file of the start counts")
		}
		if !server("192.168.1.1:53") || server("192.168.1.2:53") {
			t.Error("after the change: programs that read the file before have no server, or any")
		}
		for i := range 2 * maxServers {
			file = fmt.Sprintf("nameserver 10.9.0.%d", i)
			time.Sleep(2 * confTime)
			if !server(fmt.Sprintf("10.9.0.%d:53", i)) {
				t.Errorf("change %d does not count", i)
			}
		}
		if got := len(n.o.Conf().Servers); got != maxServers {
			t.Errorf("%d servers are remembered, want %d", got, maxServers)
		}
	})
}

// With DNS off the name servers of this machine are asked, on it.
func TestOff(t *testing.T) {
	b := newBench(t, rules.DNSOptions{Local: true})
	var got rules.Decision
	b.UDP(t.Context(), newSocket(), func(_ context.Context, f UDPFlow, d rules.Decision) {
		got = d
		q, _ := parseQuery(question(3, "web.", typeA))
		f.Write(reply(q, a4("web.", "10.0.0.7")))
	})
	if got.Where != rules.Local || got.Why != "dns is off" {
		t.Errorf("carried %v", got)
	}
	if names, remote := b.Of(netip.MustParseAddr("10.0.0.7")); len(names) != 1 || remote {
		t.Errorf("known as %v, remote %v", names, remote)
	}
}

func TestHostsFile(t *testing.T) {
	b := newBench(t, rules.DNSOptions{})
	a := netip.MustParseAddr("10.0.0.9")
	b.o.Hosts = map[netip.Addr][]string{a: {"legacy", "legacy.corp"}}
	if names, remote := b.Of(a); !slices.Equal(names, []string{"legacy", "legacy.corp"}) || !remote {
		t.Errorf("got %v, %v", names, remote)
	}
	if names, remote := b.Of(netip.MustParseAddr("10.0.0.8")); len(names) > 0 || remote {
		t.Errorf("of an address that nobody asked for: %v, %v", names, remote)
	}
}
