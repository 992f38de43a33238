package netstack

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What nobody carries is told, and the program hears of it as far as a kernel
// tells programs.
func TestStrays(t *testing.T) { bothDevices(t, testStrays) }

func testStrays(t *testing.T) {
	strays := make(chan Stray, 16)
	w := newWorld(t, Handler{Stray: func(s Stray) { strays <- s }})
	for _, c := range []struct {
		network, to string
		protocol    uint8
		want        syscall.Errno // of the next call; 0: none
	}{
		{"udp", "239.1.2.3:5353", unix.IPPROTO_UDP, unix.ENETUNREACH},
		{"udp", "[ff0e::5]:5353", unix.IPPROTO_UDP, unix.EACCES},
		{"udp", "255.255.255.255:67", unix.IPPROTO_UDP, unix.ENETUNREACH},
		{"udplite", "10.9.0.9:7", unix.IPPROTO_UDPLITE, unix.ENOPROTOOPT},
	} {
		t.Run(c.network+" to "+c.to, func(t *testing.T) {
			to := netip.MustParseAddrPort(c.to)
			fd, err := w.datagrams(to, c.network)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			// Over a socket of UDP itself this is what is sent, else the beginning of the
			// protocol's header.
			if _, err := unix.Write(fd, []byte{0, 1, byte(to.Port() >> 8), byte(to.Port()), 0, 8, 0, 0}); err != nil {
				t.Fatal(err)
			}
			if got := await(t, strays); got.Protocol != c.protocol || got.Dst != to {
				t.Errorf("got %+v, want %d to %v", got, c.protocol, to)
			}
			if _, err := unix.Read(fd, make([]byte, 8)); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// datagrams gives a socket of the program's, connected. That of UDP-Lite is a raw
// one: not every kernel knows the protocol.
func (w *world) datagrams(to netip.AddrPort, network string) (fd int, err error) {
	typ, protocol := unix.SOCK_DGRAM, unix.IPPROTO_UDP
	if network == "udplite" {
		typ, protocol = unix.SOCK_RAW, unix.IPPROTO_UDPLITE
	}
	w.do(func() error {
		var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(to.Port())}
		domain := unix.AF_INET
		if to.Addr().Is4() {
			sa.(*unix.SockaddrInet4).Addr = to.Addr().As4()
		} else {
			domain, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
		}
		if fd, err = unix.Socket(domain, typ|unix.SOCK_CLOEXEC, protocol); err != nil {
			return nil
		}
		limit := unix.NsecToTimeval(int64(5 * time.Second))
		err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit), unix.Connect(fd, sa))
		return nil
	})
	return fd, err
}

// What is carried, or belongs to the kernels, is no stray.
func TestNoStrays(t *testing.T) {
	for name, pkt := range map[string][]byte{
		"tcp": ip4(unix.IPPROTO_TCP, 24, "192.0.2.1"), "udp": ip4(unix.IPPROTO_UDP, 8, "192.0.2.1"), "ping": ip4(unix.IPPROTO_ICMP, 8, "192.0.2.1"),
		"a report of groups": ip4(unix.IPPROTO_IGMP, 8, "224.0.0.22"), "less than a header": {0x45, 0},
	} {
		if s, _, ok := stray(pkt); ok {
			t.Errorf("%s: got %+v", name, s)
		}
	}
	if s, head, ok := stray(ip4(unix.IPPROTO_SCTP, 2, "192.0.2.1")); !ok || head != 20 || fmt.Sprint(s.Dst) != "192.0.2.1:0" {
		t.Errorf("cut short: got %+v, %d, %v", s, head, ok)
	}
}

// What a packet asks for, and the groups that its sender wants.
func TestOddPackets(t *testing.T) {
	hops := func(pkt []byte, n byte) []byte { pkt[8] = n; return pkt }
	with := func(pkt []byte, head int, payload ...byte) []byte { copy(pkt[head:], payload); return pkt }
	for _, c := range []struct {
		name string
		pkt  []byte
		want string // empty: no stray
	}{
		{"ping", with(ip4(unix.IPPROTO_ICMP, 8, "192.0.2.1"), 20, 8), ""},
		{"ping that looks for the way", with(hops(ip4(unix.IPPROTO_ICMP, 8, "192.0.2.1"), 3), 20, 8), "{1 192.0.2.1:0 8 false 3}"},
		{"traceroute", with(hops(ip4(unix.IPPROTO_UDP, 8, "192.0.2.1"), 1), 20, 0, 1, 0x82, 0x9a), "{17 192.0.2.1:33434 0 false 1}"},
		{"the same to localhost", hops(ip4(unix.IPPROTO_UDP, 8, "127.0.0.1"), 1), ""},
		{"a timestamp request", with(ip4(unix.IPPROTO_ICMP, 20, "192.0.2.1"), 20, 13), "{1 192.0.2.1:0 13 false 0}"},
		{"what the kernel says of a closed port", with(ip4(unix.IPPROTO_ICMP, 8, "192.0.2.1"), 20, 3, 3), ""},
		{"multicast, which has one hop", hops(ip4(unix.IPPROTO_UDP, 8, "239.1.2.3"), 1), "{17 239.1.2.3:0 0 false 0}"},
		{"a neighbour's question", ip6(unix.IPPROTO_ICMPV6, "ff02::1:ff00:1", 135, 0, 0, 0), ""},
		{"ping over IPv6", ip6(unix.IPPROTO_ICMPV6, "2001:db8::1", 128, 0, 0, 0, 0, 0, 0, 0), ""},
		{"node information", ip6(unix.IPPROTO_ICMPV6, "2001:db8::1", 139, 0, 0, 0), "{58 [2001:db8::1]:0 139 false 0}"},
		{"no ICMP in it", ip6(unix.IPPROTO_ICMPV6, "2001:db8::1"), ""},
	} {
		s, _, ok := stray(c.pkt)
		got := ""
		if ok {
			got = fmt.Sprint(s)
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestJoined(t *testing.T) {
	report6 := func(records ...byte) []byte { // after an option for routers
		return ip6(unix.IPPROTO_HOPOPTS, "ff02::16", append([]byte{unix.IPPROTO_ICMPV6, 0, 5, 2, 0, 0, 1, 0}, records...)...)
	}
	group6 := func(last ...byte) []byte { a := netip.MustParseAddr("ff0e::").As16(); return append(a[:14], last...) }
	solicited := netip.MustParseAddr("ff02::1:ff00:2").As16()
	igmp := func(b ...byte) []byte { return append(ip4(unix.IPPROTO_IGMP, 0, "224.0.0.22"), b...) }
	for _, c := range []struct {
		name string
		pkt  []byte
		want string
	}{
		{"two groups, one left", igmp(0x22, 0, 0, 0, 0, 0, 0, 3, 4, 0, 0, 0, 239, 1, 2, 3, 3, 0, 0, 0, 239, 9, 9, 9, 2, 0, 0, 0, 239, 1, 2, 4), "[239.1.2.3 239.1.2.4]"},
		{"sources, and auxiliary data", igmp(0x22, 0, 0, 0, 0, 0, 0, 2, 5, 1, 0, 1, 232, 1, 2, 3, 192, 0, 2, 1, 0, 0, 0, 0, 4, 0, 0, 0, 239, 1, 2, 4), "[232.1.2.3 239.1.2.4]"},
		{"fewer records than said", igmp(0x22, 0, 0, 0, 0, 0, 0xff, 0xff, 4, 0, 0xff, 0xff, 239, 1, 2, 3), "[239.1.2.3]"},
		{"the second version", igmp(0x16, 0, 0, 0, 239, 1, 2, 3), "[239.1.2.3]"},
		{"every host", igmp(0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 224, 0, 0, 1), "[]"},
		{"no group", igmp(0x16, 0, 0, 0, 10, 1, 2, 3), "[]"},
		{"too short", igmp(0x22), "[]"},
		{"IPv6", report6(append(append([]byte{143, 0, 0, 0, 0, 0, 0, 2, 4, 0, 0, 0}, solicited[:]...), append([]byte{4, 0, 0, 0}, group6(1, 2)...)...)...), "[ff0e::102]"},
		{"IPv6, the first version", report6(append([]byte{131, 0, 0, 0, 0, 0, 0, 0}, group6(1, 2)...)...), "[ff0e::102]"},
		{"IPv6, cut short", report6(131, 0, 0, 0, 0, 0, 0, 0, 0xff), "[]"},
	} {
		if c.pkt[0]>>4 == 4 {
			c.pkt[3] = byte(len(c.pkt))
		}
		got := []netip.Addr{}
		joined(c.pkt, func(g netip.Addr) { got = append(got, g) })
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s: got %v, want %s", c.name, got, c.want)
		}
	}
}

// A program may send what it likes.
func FuzzStray(f *testing.F) {
	f.Add(ip4(unix.IPPROTO_IGMP, 20, "224.0.0.22"))
	f.Add(ip4(unix.IPPROTO_ICMP, 0, "192.0.2.1"))
	f.Add(ip6(unix.IPPROTO_HOPOPTS, "ff02::16", unix.IPPROTO_ICMPV6, 0, 5, 2, 0, 0, 1, 0, 143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0))
	f.Fuzz(func(t *testing.T, pkt []byte) {
		if len(pkt) == 0 {
			return // the device gives none such
		}
		joined(pkt, func(g netip.Addr) {
			if !g.IsMulticast() {
				t.Errorf("%v is no group", g)
			}
		})
		if _, head, ok := stray(pkt); ok && head > len(pkt) {
			t.Errorf("a header of %d bytes in a packet of %d", head, len(pkt))
		}
		inFragments(pkt)
		echoRequest(pkt)
	})
}

// ip6 is a packet with a payload.
func ip6(next byte, dst string, payload ...byte) []byte {
	pkt := append(make([]byte, 40), payload...)
	pkt[0], pkt[5], pkt[6], pkt[7] = 0x60, byte(len(payload)), next, 64
	copy(pkt[8:], net.ParseIP("2001:db8::99"))
	copy(pkt[24:], net.ParseIP(dst))
	return pkt
}

// ip4 is a packet with a payload of zeroes.
func ip4(protocol byte, payload int, dst string) []byte {
	pkt := make([]byte, 20+payload)
	pkt[0], pkt[3], pkt[8], pkt[9] = 0x45, byte(len(pkt)), 64, protocol
	copy(pkt[12:], net.ParseIP("10.0.0.1").To4())
	copy(pkt[16:], net.ParseIP(dst).To4())
	return pkt
}
