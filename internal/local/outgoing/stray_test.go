package outgoing

import (
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// What is not carried is said once for each address, by name.
func TestStraysAreToldOnce(t *testing.T) {
	b := setUp(t, never(t))
	for range 2 {
		b.Stray(Stray{Protocol: syscall.IPPROTO_UDP, Dst: netip.MustParseAddrPort("239.1.2.3:5353")})
		b.Stray(Stray{Protocol: syscall.IPPROTO_UDP, Dst: netip.MustParseAddrPort("[ff02::fb]:5353")})
		b.Stray(Stray{Protocol: syscall.IPPROTO_UDP, Dst: netip.MustParseAddrPort("255.255.255.255:67")})
		b.Stray(Stray{Protocol: syscall.IPPROTO_SCTP, Dst: netip.MustParseAddrPort("192.0.2.1:2905")})
		b.Stray(Stray{Protocol: 253, Dst: netip.MustParseAddrPort("192.0.2.1:0")})
		b.Stray(Stray{Protocol: syscall.IPPROTO_ICMP, Type: 13, Dst: netip.MustParseAddrPort("192.0.2.1:0")})
		b.Stray(Stray{Protocol: syscall.IPPROTO_ICMPV6, Type: 200, Dst: netip.MustParseAddrPort("[2001:db8::1]:0")})
		b.Stray(Stray{Joins: true, Dst: netip.MustParseAddrPort("239.1.2.3:0")})
	}
	for port := range uint16(3) { // a program that looks for the way
		b.Stray(Stray{Protocol: syscall.IPPROTO_UDP, Hops: uint8(port + 1), Dst: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), 33434+port)})
	}
	want := []string{"multicast to 239.1.2.3:5353", "multicast to [ff02::fb]:5353", "broadcast to 255.255.255.255:67", "SCTP to 192.0.2.1:2905", "protocol 253 to 192.0.2.1 ",
		"an ICMP timestamp request to 192.0.2.1 ", "ICMPv6 of type 200 to 2001:db8::1 ", "multicast from 239.1.2.3 does not enter", "a limit of hops to 192.0.2.1 "}
	b.wantEvents("not-carried", "not-carried", "not-carried", "not-carried", "not-carried", "not-carried", "not-carried", "not-carried", "not-carried")
	for i, e := range b.events {
		if !strings.HasPrefix(e.Text, want[i]) {
			t.Errorf("got %q, want it to begin with %q", e.Text, want[i])
		}
	}
}

// A network's own broadcast address is known to the target only: its kernel
// refuses it.
func TestBroadcastOfTheTarget(t *testing.T) {
	b := setUp(t, func(s *link.Stream, _ protocol.Message) {
		_ = s.Send(&protocol.Answer{Errno: syscall.EACCES})
		s.Close()
	})
	for range 2 {
		f := newSocket("10.1.2.255:9000")
		done := b.udp(t.Context(), f)
		if got := within(t, "an errno", f.unreachable); got != syscall.EACCES {
			t.Errorf("got %v, want EACCES", got)
		}
		within(t, "the end of the flow", done)
	}
	b.wantEvents("outgoing-refused", "not-carried", "outgoing-refused")
}
