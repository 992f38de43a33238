// Package packet reads and completes packets of IP that carry TCP or UDP, as
// packet sockets see them and raw sockets send them. It is pure.
package packet

import (
	"encoding/binary"
	"net/netip"
)

// Cut reads a packet that begins at its IP header, and gives what its protocol's
// header begins, which is a part of b and has at least least bytes (4 or more).
// Ports are where TCP and UDP both have them. The IP length is 0 in packets of
// segmentation offload, and b may be longer than it (Ethernet's padding). IPv6
// extension headers are not looked behind, nor are fragments told.
func Cut(b []byte, protocol uint8, least int) (src, dst netip.AddrPort, payload []byte, ok bool) {
	var from, to netip.Addr
	switch {
	case len(b) >= 20+least && b[0]>>4 == 4:
		n, head := int(binary.BigEndian.Uint16(b[2:])), int(b[0]&15)*4
		if n == 0 {
			n = len(b)
		}
		if head < 20 || n > len(b) || n < head+least || b[9] != protocol {
			return src, dst, nil, false
		}
		from, to, payload = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), b[head:n]
	case len(b) >= 40+least && b[0]>>4 == 6:
		n := int(binary.BigEndian.Uint16(b[4:])) + 40
		if n == 40 {
			n = len(b)
		}
		if n > len(b) || n < 40+least || b[6] != protocol {
			return src, dst, nil, false
		}
		from, to, payload = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), b[40:n]
	default:
		return src, dst, nil, false
	}
	src = netip.AddrPortFrom(from, binary.BigEndian.Uint16(payload))
	dst = netip.AddrPortFrom(to, binary.BigEndian.Uint16(payload[2:]))
	return src, dst, payload, true
}

// Checksum is that of TCP and UDP (RFC 1071): of b, from the protocol's header
// on with the checksum's own field 0, and of the pseudo header (RFC 9293 §3.1,
// RFC 768, RFC 8200 §8.1).
func Checksum(src, dst netip.Addr, protocol uint8, b []byte) uint16 {
	sum := uint32(protocol) + uint32(len(b))
	for _, part := range [][]byte{src.AsSlice(), dst.AsSlice(), b} {
		for i, c := range part {
			sum += uint32(c) << (8 * (1 - i%2))
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
