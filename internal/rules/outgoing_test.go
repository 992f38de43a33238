package rules

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// entries are patterns with an origin.
func entries(texts ...string) (list []Pattern) {
	for _, s := range texts {
		list = append(list, Pattern{Text: s, Origin: "feature.network.outgoing.filter in mirrord.json:7"})
	}
	return list
}

func TestOutgoingDecide(t *testing.T) {
	listed := func(side string, e ...string) OutgoingOptions {
		return OutgoingOptions{Filter: AddressFilter{Side: side, Entries: entries(e...)}}
	}
	local, remote := Local, Remote
	for _, c := range []struct {
		name    string
		o       OutgoingOptions
		network string
		dst     string
		names   string
		want    Where
		why     string // part of it
	}{
		{"default", OutgoingOptions{}, "tcp", "10.0.0.1:80", "", remote, "default"},
		{"default, IPv6", OutgoingOptions{}, "udp", "[2001:db8::1]:80", "", remote, "default"},
		{"default, localhost", OutgoingOptions{}, "tcp", "127.0.0.1:80", "", remote, "default"},
		{"ignored localhost", OutgoingOptions{IgnoreLocalhost: true}, "tcp", "127.0.0.1:80", "", local, "ignore_localhost"},
		{"ignored localhost, another of its addresses", OutgoingOptions{IgnoreLocalhost: true}, "tcp", "127.9.9.9:80", "", local, "ignore_localhost"},
		{"ignored localhost, IPv6", OutgoingOptions{IgnoreLocalhost: true}, "udp", "[::1]:80", "", local, "ignore_localhost"},
		{"ignored localhost, mapped", OutgoingOptions{IgnoreLocalhost: true}, "udp", "[::ffff:127.0.0.1]:80", "", local, "ignore_localhost"},
		{"ignored localhost, unspecified", OutgoingOptions{IgnoreLocalhost: true}, "tcp", "0.0.0.0:80", "", local, "ignore_localhost"},
		{"ignored localhost, elsewhere", OutgoingOptions{IgnoreLocalhost: true}, "tcp", "10.0.0.1:80", "", remote, "default"},
		{"port 0, where nobody is, is refused by the target", OutgoingOptions{}, "tcp", "10.0.0.1:0", "", remote, "default"},
		{"ping", OutgoingOptions{}, "ping", "10.0.0.1:0", "", remote, "default"},
		{"ping, UDP off", OutgoingOptions{UDPLocal: true}, "ping", "10.0.0.1:0", "", remote, "default"},
		{"ping, outgoing off", OutgoingOptions{TCPLocal: true, UDPLocal: true}, "ping", "10.0.0.1:0", "", local, "outgoing is off"},
		{"ping, network", listed("local", "10.0.0.0/8"), "ping", "10.0.0.1:0", "", local, "10.0.0.0/8"},
		{"ping, name", listed("local", "*.corp.example"), "ping", "10.0.0.1:0", "vpn.corp.example", local, "corp.example"},
		{"ping, TCP of a network", listed("local", "tcp://10.0.0.0/8"), "ping", "10.0.0.1:0", "", remote, "no entry"},
		{"ping, port", listed("local", "10.0.0.1:80"), "ping", "10.0.0.1:0", "", remote, "no entry"},
		{"TCP off", OutgoingOptions{TCPLocal: true}, "tcp", "10.0.0.1:80", "", local, "outgoing.tcp is off"},
		{"TCP off, UDP", OutgoingOptions{TCPLocal: true}, "udp", "10.0.0.1:80", "", remote, "default"},
		{"UDP off", OutgoingOptions{UDPLocal: true}, "udp", "[2001:db8::1]:80", "", local, "outgoing.udp is off"},
		{"UDP off, TCP", OutgoingOptions{UDPLocal: true}, "tcp", "10.0.0.1:80", "", remote, "default"},
		{"off beats the filter", OutgoingOptions{TCPLocal: true, Filter: AddressFilter{SideRemote, entries("0.0.0.0")}}, "tcp", "10.0.0.1:80", "", local, "off"},
		{"localhost beats the filter", OutgoingOptions{IgnoreLocalhost: true, Filter: AddressFilter{SideRemote, entries("localhost")}}, "tcp", "[::1]:80", "", local, "ignore"},

		{"debugger", OutgoingOptions{DebuggerPorts: []PortRange{{5005, 5005}, {45000, 65535}}}, "tcp", "127.0.0.1:5005", "", local, "DEBUGGER"},
		{"debugger, IPv6", OutgoingOptions{DebuggerPorts: []PortRange{{45000, 65535}}}, "tcp", "[::1]:45000", "", local, "DEBUGGER"},
		{"debugger, another port", OutgoingOptions{DebuggerPorts: []PortRange{{45000, 65535}}}, "tcp", "127.0.0.1:44999", "", remote, "default"},
		{"debugger, what editors' ranges leave", OutgoingOptions{DebuggerPorts: []PortRange{{45000, 65535}}}, "tcp", "127.0.0.1:50000", "", remote, "default"},
		{"debugger, one of these by itself", OutgoingOptions{DebuggerPorts: []PortRange{{50000, 50000}}}, "tcp", "127.0.0.1:50000", "", local, "DEBUGGER"},
		{"debugger, elsewhere", OutgoingOptions{DebuggerPorts: []PortRange{{5005, 5005}}}, "tcp", "10.0.0.1:5005", "", remote, "default"},
		{"debugger, UDP", OutgoingOptions{DebuggerPorts: []PortRange{{5005, 5005}}}, "udp", "127.0.0.1:5005", "", remote, "default"},
		{"debugger beats the filter", OutgoingOptions{Filter: AddressFilter{SideRemote, entries("localhost")}, DebuggerPorts: []PortRange{{5005, 5005}}}, "tcp", "127.0.0.1:5005", "", local, "DEBUGGER"},

		{"local, port", listed("local", ":5432"), "tcp", "10.0.0.1:5432", "", local, `mirrord.json:7 has ":5432"`},
		{"local, another port", listed("local", ":5432"), "tcp", "10.0.0.1:5433", "", remote, "outgoing.filter.local has no entry"},
		{"remote, port", listed("remote", ":5432"), "tcp", "[2001:db8::1]:5432", "", remote, `":5432"`},
		{"remote, another port", listed("remote", ":5432"), "tcp", "10.0.0.1:5433", "", local, "outgoing.filter.remote has no entry"},
		{"network", listed("local", "10.0.0.0/8"), "udp", "10.200.0.1:80", "", local, "10.0.0.0/8"},
		{"network, mapped", listed("local", "10.0.0.0/8"), "udp", "[::ffff:10.200.0.1]:80", "", local, "10.0.0.0/8"},
		{"outside the network", listed("local", "10.0.0.0/8"), "tcp", "11.0.0.1:80", "", remote, "no entry"},
		{"IPv6 network", listed("local", "[2001:db8::]/64:443"), "tcp", "[2001:db8::9]:443", "", local, "2001:db8"},
		{"IPv6 network, another port", listed("local", "[2001:db8::]/64:443"), "tcp", "[2001:db8::9]:80", "", remote, "no entry"},
		{"IPv4 is not in an IPv6 network", listed("local", "[::]/0"), "tcp", "10.0.0.1:80", "", remote, "no entry"},
		{"IPv6 is not in an IPv4 network", listed("local", "0.0.0.0/0"), "tcp", "[2001:db8::9]:80", "", remote, "no entry"},
		{"0.0.0.0 is any address", listed("local", "0.0.0.0:80"), "tcp", "[2001:db8::9]:80", "", local, "0.0.0.0:80"},
		{"[::] is any address", listed("local", "[::]:80"), "tcp", "10.0.0.1:80", "", local, "[::]:80"},
		{"protocol", listed("local", "tcp://"), "tcp", "10.0.0.1:80", "", local, "tcp://"},
		{"another protocol", listed("local", "tcp://"), "udp", "10.0.0.1:80", "", remote, "no entry"},
		{"all three", listed("local", "udp://1.1.1.0/24:1337"), "udp", "1.1.1.9:1337", "", local, "1337"},
		{"all three, another protocol", listed("local", "udp://1.1.1.0/24:1337"), "tcp", "1.1.1.9:1337", "", remote, "no entry"},
		{"second entry", listed("local", "udp://", "10.0.0.1"), "tcp", "10.0.0.1:80", "", local, `has "10.0.0.1"`},

		{"name", listed("local", "db.svc:5432"), "tcp", "10.0.0.1:5432", "web db.svc", local, "db.svc"},
		{"name, whatever the case", listed("local", "DB.svc."), "tcp", "10.0.0.1:5432", "db.svc", local, "DB.svc"},
		{"name, another port", listed("local", "db.svc:5432"), "tcp", "10.0.0.1:80", "db.svc", remote, "no entry"},
		{"another name", listed("local", "db"), "tcp", "10.0.0.1:80", "db.svc mydb", remote, "no entry"},
		{"no name", listed("remote", "db"), "tcp", "10.0.0.1:80", "", local, "no entry"},
		{"suffix", listed("local", "*.corp.example"), "tcp", "[2001:db8::1]:80", "a.b.corp.example", local, "*.corp.example"},
		{"suffix, itself", listed("local", "*.corp.example"), "tcp", "10.0.0.1:80", "corp.example", remote, "no entry"},
		{"glob", listed("local", "db-?"), "tcp", "10.0.0.1:80", "db-7", local, "db-?"},
		{"any name or none", listed("local", "*:80"), "tcp", "10.0.0.1:80", "", local, "*:80"},

		{"localhost by name", listed("local", "localhost:80"), "tcp", "127.0.0.1:80", "", local, "localhost:80"},
		{"localhost by name, IPv6", listed("local", "localhost:80"), "tcp", "[::1]:80", "", local, "localhost:80"},
		{"localhost by address", listed("local", "127.0.0.1"), "tcp", "127.0.0.1:80", "", local, "127.0.0.1"},
		{"localhost by address, IPv6", listed("local", "[::1]"), "tcp", "[::1]:80", "", local, "[::1]"},
		{"localhost of the other family", listed("local", "127.0.0.1"), "tcp", "[::1]:80", "", remote, "no entry"},
		{"localhost is nobody else", listed("local", "localhost"), "tcp", "10.0.0.1:80", "", remote, "no entry"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, err := NewOutgoing(c.o)
			if err != nil {
				t.Fatal(err)
			}
			got := o.Decide(c.network, netip.MustParseAddrPort(c.dst), strings.Fields(c.names))
			if got.Where != c.want || !strings.Contains(got.Why, c.why) {
				t.Errorf("got %v, want %v because of %q", got, c.want, c.why)
			}
		})
	}
	if got := new(Outgoing).Decide("tcp", netip.AddrPort{}, nil); got.Where != Remote {
		t.Errorf("no address at all: got %v", got)
	}
}

func TestOutgoingErrors(t *testing.T) {
	bad := Pattern{"10.0.0.0/99", "feature.network.outgoing.filter.local in mirrord.json:9"}
	_, err := NewOutgoing(OutgoingOptions{Filter: AddressFilter{SideLocal, []Pattern{{Text: ":80"}, bad}}})
	var e *AddressError
	if !errors.As(err, &e) || e.Pattern != bad || errors.Unwrap(err) != e.Err {
		t.Fatalf("got %v", err)
	}
	if want := `feature.network.outgoing.filter.local in mirrord.json:9: "10.0.0.0/99": prefix "/99" is not a number from 0 to 32`; err.Error() != want {
		t.Errorf("got %s, want %s", err, want)
	}
	for name, f := range map[string]AddressFilter{
		"empty list": {Side: SideLocal}, "no side": {Entries: entries(":80")}, "another side": {Side: "both", Entries: entries(":80")},
	} {
		if _, err := NewOutgoing(OutgoingOptions{Filter: f}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestLocalhostAdvice(t *testing.T) {
	for side, want := range map[string]string{
		"":         `{"feature": {"network": {"outgoing": {"filter": {"local": ["localhost:5432"]}}}}}`,
		SideLocal:  `add "localhost:5432" to feature.network.outgoing.filter.local`,
		SideRemote: `"ignore_localhost": true`,
	} {
		f := AddressFilter{Side: side}
		if side != "" {
			f.Entries = entries(":80")
		}
		o, err := NewOutgoing(OutgoingOptions{Filter: f})
		if err != nil {
			t.Fatal(err)
		}
		if got := o.LocalhostAdvice(5432); !strings.Contains(got, want) {
			t.Errorf("side %q: got %s, want %s", side, got, want)
		}
	}
}
