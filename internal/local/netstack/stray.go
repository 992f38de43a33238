package netstack

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// fewHops is less than what packets are sent with by default, or by who wants to
// be sure; those that look for the way have fewer left (30 at most:
// traceroute(8)).
const fewHops = 32

// Stray is a packet that nobody carries, or not as it is: a datagram to a group
// or to all, one of a protocol that is none of TCP, UDP and ICMP, an ICMP message
// that is no echo, the wish to be in a group, or what is to end on its way.
type Stray struct {
	Protocol uint8          // of IP, IPPROTO_…; 0 with Joins
	Dst      netip.AddrPort // port 0 where the protocol is not known to have ports
	Type     uint8          // of ICMP
	Joins    bool           // the program wants what is sent to the group Dst
	Hops     uint8          // the packet is carried, but not that it ends after so many routers; 0: no such
}

// takeStray tells of a packet if it is a stray, and takes those to groups. The
// stack answers other protocols by itself. It runs in the device's read loop.
func (t *Stack) takeStray(pkt []byte) bool {
	if t.h.Stray != nil {
		joined(pkt, func(group netip.Addr) { t.h.Stray(Stray{Dst: netip.AddrPortFrom(group, 0), Joins: true}) })
	}
	s, head, ok := stray(pkt)
	if !ok {
		return false
	}
	if t.h.Stray != nil {
		t.h.Stray(s)
	}
	group := toMany(s.Dst.Addr()) && !isEcho(s)
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
	var hops uint8
	if pkt[0]>>4 == 4 {
		ip := header.IPv4(pkt)
		if !ip.IsValid(len(pkt)) || ip.FragmentOffset() != 0 {
			return s, 0, false
		}
		s.Protocol, head, dst, hops = ip.Protocol(), int(ip.HeaderLength()), ip.DestinationAddressSlice(), ip.TTL()
	} else {
		ip := header.IPv6(pkt)
		if !ip.IsValid(len(pkt)) {
			return s, 0, false
		}
		s.Protocol, head, dst, hops = ip.NextHeader(), header.IPv6MinimumSize, ip.DestinationAddressSlice(), ip.HopLimit()
	}
	addr, _ := netip.AddrFromSlice(dst)
	var port uint16
	switch s.Protocol {
	case unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE, unix.IPPROTO_SCTP, unix.IPPROTO_DCCP:
		if len(pkt) >= head+4 {
			port = binary.BigEndian.Uint16(pkt[head+2:])
		}
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		if len(pkt) == head || kernels(s.Protocol, pkt[head]) {
			return s, 0, false
		}
		s.Type = pkt[head]
	case unix.IPPROTO_TCP, unix.IPPROTO_IGMP,
		// What stands before others in IPv6 (RFC 8200, 4).
		unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_FRAGMENT, unix.IPPROTO_NONE, unix.IPPROTO_DSTOPTS:
		return s, 0, false
	}
	s.Dst = netip.AddrPortFrom(addr, port)
	if !isEcho(s) && (s.Protocol != unix.IPPROTO_UDP || toMany(addr)) {
		return s, head, true
	}
	s.Hops = hops
	return s, head, hops < fewHops && !addr.IsLoopback() && !toMany(addr)
}

// isEcho reports whether s is an echo request.
func isEcho(s Stray) bool {
	return s.Protocol == unix.IPPROTO_ICMP && s.Type == uint8(header.ICMPv4Echo) || s.Protocol == unix.IPPROTO_ICMPV6 && s.Type == uint8(header.ICMPv6EchoRequest)
}

// kernels reports whether the sandbox's kernel sends ICMP messages of a type by
// itself: errors and answers; and over IPv6 what looks for neighbours, routers
// and members of groups (RFC 4861, RFC 3810).
func kernels(protocol, typ uint8) bool {
	if protocol == unix.IPPROTO_ICMP {
		switch header.ICMPv4Type(typ) {
		case header.ICMPv4EchoReply, header.ICMPv4DstUnreachable, header.ICMPv4SrcQuench, header.ICMPv4TimeExceeded, header.ICMPv4ParamProblem, header.ICMPv4TimestampReply:
			return true
		}
		return false
	}
	const firstInformational, firstGroups, lastNeighbours, reportOfGroups = 128, 130, 137, 143
	return typ < firstInformational || typ == uint8(header.ICMPv6EchoReply) || typ >= firstGroups && typ <= lastNeighbours || typ == reportOfGroups
}

func sourceOf(pkt []byte) []byte {
	if pkt[0]>>4 == 4 {
		return header.IPv4(pkt).SourceAddressSlice()
	}
	return header.IPv6(pkt).SourceAddressSlice()
}
