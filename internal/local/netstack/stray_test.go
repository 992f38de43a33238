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

// ip4 is a packet with a payload of zeroes.
func ip4(protocol byte, payload int, dst string) []byte {
	pkt := make([]byte, 20+payload)
	pkt[0], pkt[3], pkt[8], pkt[9] = 0x45, byte(len(pkt)), 64, protocol
	copy(pkt[12:], net.ParseIP("10.0.0.1").To4())
	copy(pkt[16:], net.ParseIP(dst).To4())
	return pkt
}
