package netstack

import (
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// icmpCode is one reason of "destination unreachable" in both families.
type icmpCode struct {
	v4 header.ICMPv4Code
	v6 header.ICMPv6Code
}

// Codes and what Linux makes of them: see icmp_err_convert in net/ipv4/icmp.c
// and tab_unreach in net/ipv6/icmp.c.
var (
	icmpNet        = icmpCode{header.ICMPv4NetUnreachable, header.ICMPv6NetworkUnreachable}  // ENETUNREACH
	icmpHost       = icmpCode{header.ICMPv4HostUnreachable, header.ICMPv6AddressUnreachable} // EHOSTUNREACH
	icmpPort       = icmpCode{header.ICMPv4PortUnreachable, header.ICMPv6PortUnreachable}    // ECONNREFUSED
	icmpGroup      = icmpCode{header.ICMPv4NetProhibited, header.ICMPv6Prohibited}           // ENETUNREACH, EACCES; the plain one a UDP socket keeps to itself
	icmpProhibited = icmpCode{header.ICMPv4AdminProhibited, header.ICMPv6Prohibited}         // EHOSTUNREACH, EACCES
)

// icmpFor is the code that comes closest to errno, and whether there is one.
func icmpFor(errno syscall.Errno) (icmpCode, bool) {
	switch errno {
	case syscall.EHOSTUNREACH, syscall.EHOSTDOWN:
		return icmpHost, true
	case syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT, syscall.EINVAL:
		return icmpNet, true
	case syscall.EACCES, syscall.EPERM:
		return icmpProhibited, true
	}
	return icmpPort, false
}

// unreachable sends "destination unreachable" from the destination to the
// program, quoting its packet.
func (d *device) unreachable(program, dst tcpip.Address, quoted []byte, code icmpCode) {
	// From a group the kernel takes nothing; these are nobody's (RFC 7600, RFC 6666).
	switch {
	case header.IsV4MulticastAddress(dst) || dst == header.IPv4Broadcast:
		dst = tcpip.AddrFrom4([4]byte{192, 0, 0, 8})
	case header.IsV6MulticastAddress(dst):
		dst = tcpip.AddrFrom16([16]byte{0: 1, 15: 8})
	}
	if program.Len() == header.IPv4AddressSize {
		pkt := make([]byte, header.IPv4MinimumSize+header.ICMPv4MinimumSize+len(quoted))
		ip := header.IPv4(pkt)
		ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(pkt)), TTL: 64, Protocol: uint8(header.ICMPv4ProtocolNumber),
			SrcAddr: dst, DstAddr: program})
		ip.SetChecksum(^ip.CalculateChecksum())
		ic := header.ICMPv4(pkt[header.IPv4MinimumSize:])
		ic.SetType(header.ICMPv4DstUnreachable)
		ic.SetCode(code.v4)
		copy(ic[header.ICMPv4MinimumSize:], quoted)
		ic.SetChecksum(^checksum.Checksum(ic, 0))
		d.writeRaw(pkt)
		return
	}
	pkt := make([]byte, header.IPv6MinimumSize+header.ICMPv6MinimumSize+len(quoted))
	header.IPv6(pkt).Encode(&header.IPv6Fields{PayloadLength: uint16(len(pkt) - header.IPv6MinimumSize), HopLimit: 64,
		TransportProtocol: header.ICMPv6ProtocolNumber, SrcAddr: dst, DstAddr: program})
	ic := header.ICMPv6(pkt[header.IPv6MinimumSize:])
	ic.SetType(header.ICMPv6DstUnreachable)
	ic.SetCode(code.v6)
	copy(ic[header.ICMPv6MinimumSize:], quoted)
	ic.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: ic, Src: dst, Dst: program}))
	d.writeRaw(pkt)
}

// ipHeader is a header to quote.
func ipHeader(src, dst tcpip.Address, payload int) []byte {
	if src.Len() == header.IPv4AddressSize {
		ip := make(header.IPv4, header.IPv4MinimumSize)
		ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(ip) + payload), TTL: 64, Protocol: uint8(header.UDPProtocolNumber),
			SrcAddr: src, DstAddr: dst})
		ip.SetChecksum(^ip.CalculateChecksum())
		return ip
	}
	ip := make(header.IPv6, header.IPv6MinimumSize)
	ip.Encode(&header.IPv6Fields{PayloadLength: uint16(payload), HopLimit: 64,
		TransportProtocol: header.UDPProtocolNumber, SrcAddr: src, DstAddr: dst})
	return ip
}
