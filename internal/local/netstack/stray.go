package netstack

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Stray is a packet that nobody carries: a datagram to a group or to all, or
// one of a protocol that is none of TCP, UDP and ICMP.
type Stray struct {
	Protocol uint8          // of IP, IPPROTO_…
	Dst      netip.AddrPort // port 0 where the protocol is not known to have ports
}

// takeStray tells of a packet if it is a stray, and takes those to groups. The
// stack answers other protocols by itself. It runs in the device's read loop.
func (t *Stack) takeStray(pkt []byte) bool {
	s, head, ok := stray(pkt)
	if !ok {
		return false
	}
	if t.h.Stray != nil {
		t.h.Stray(s)
	}
	group := toMany(s.Dst.Addr())
	if group {
		program := tcpip.AddrFromSlice(sourceOf(pkt))
		t.device.unreachable(program, tcpip.AddrFromSlice(s.Dst.Addr().AsSlice()), pkt[:min(len(pkt), head+header.UDPMinimumSize)], icmpGroup)
	}
	return group
}

// toMany reports whether an address is a group's or everybody's.
func toMany(a netip.Addr) bool {
	return a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// stray reads a packet; head is the length of its IP header.
func stray(pkt []byte) (s Stray, head int, ok bool) {
	var dst []byte
	if pkt[0]>>4 == 4 {
		ip := header.IPv4(pkt)
		if !ip.IsValid(len(pkt)) || ip.FragmentOffset() != 0 {
			return s, 0, false
		}
		s.Protocol, head, dst = ip.Protocol(), int(ip.HeaderLength()), ip.DestinationAddressSlice()
	} else {
		ip := header.IPv6(pkt)
		if !ip.IsValid(len(pkt)) {
			return s, 0, false
		}
		s.Protocol, head, dst = ip.NextHeader(), header.IPv6MinimumSize, ip.DestinationAddressSlice()
	}
	addr, _ := netip.AddrFromSlice(dst)
	var port uint16
	switch s.Protocol {
	case unix.IPPROTO_UDP:
		if !toMany(addr) {
			return s, 0, false
		}
		fallthrough
	case unix.IPPROTO_UDPLITE, unix.IPPROTO_SCTP, unix.IPPROTO_DCCP:
		if len(pkt) >= head+4 {
			port = binary.BigEndian.Uint16(pkt[head+2:])
		}
	case unix.IPPROTO_TCP, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6, unix.IPPROTO_IGMP,
		// What stands before others in IPv6 (RFC 8200, 4).
		unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_FRAGMENT, unix.IPPROTO_NONE, unix.IPPROTO_DSTOPTS:
		return s, 0, false
	}
	s.Dst = netip.AddrPortFrom(addr, port)
	return s, head, true
}

func sourceOf(pkt []byte) []byte {
	if pkt[0]>>4 == 4 {
		return header.IPv4(pkt).SourceAddressSlice()
	}
	return header.IPv6(pkt).SourceAddressSlice()
}
