package drain

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/agent/packet"
)

// Flags of a segment (RFC 9293 §3.1).
const (
	fin = 1 << iota
	syn
	rst
	_
	ack
)

// segment is one of TCP.
type segment struct {
	src, dst netip.AddrPort
	seq, ack uint32
	flags    uint8
	window   uint16 // not scaled
	stamps   bool   // it has timestamps (RFC 7323 §3)
	val, ecr uint32 // which are these
	data     []byte
}

// end is the sequence number behind it.
func (s *segment) end() uint32 {
	n := s.seq + uint32(len(s.data))
	if s.flags&(syn|fin) != 0 {
		n++
	}
	return n
}

// parse reads a packet; data is a part of it. What is no whole TCP segment is
// not ok.
func parse(b []byte) (s segment, ok bool) {
	src, dst, tcp, ok := packet.Cut(b, unix.IPPROTO_TCP, tcpHeader)
	if !ok {
		return s, false
	}
	head := int(tcp[12]>>4) * 4
	if head < tcpHeader || head > len(tcp) {
		return s, false
	}
	s = segment{src: src, dst: dst, seq: binary.BigEndian.Uint32(tcp[4:]), ack: binary.BigEndian.Uint32(tcp[8:]),
		flags: tcp[13], window: binary.BigEndian.Uint16(tcp[14:]), data: tcp[head:]}
	for o := tcp[tcpHeader:head]; len(o) > 0; {
		switch {
		case o[0] == optionEnd:
			return s, true
		case o[0] == optionNone:
			o = o[1:]
			continue
		case len(o) < 2 || o[1] < 2 || int(o[1]) > len(o):
			return s, true
		case o[0] == optionStamps && o[1] == 10:
			s.stamps, s.val, s.ecr = true, binary.BigEndian.Uint32(o[2:]), binary.BigEndian.Uint32(o[6:])
		}
		o = o[o[1]:]
	}
	return s, true
}

const (
	tcpHeader    = 20
	optionEnd    = 0
	optionNone   = 1
	optionStamps = 8
)

// packet is s with an IP header.
func (s *segment) packet() []byte {
	tcp := make([]byte, tcpHeader, tcpHeader+12+len(s.data))
	binary.BigEndian.PutUint16(tcp, s.src.Port())
	binary.BigEndian.PutUint16(tcp[2:], s.dst.Port())
	binary.BigEndian.PutUint32(tcp[4:], s.seq)
	binary.BigEndian.PutUint32(tcp[8:], s.ack)
	tcp[13] = s.flags
	binary.BigEndian.PutUint16(tcp[14:], s.window)
	if s.stamps {
		tcp = append(tcp, optionNone, optionNone, optionStamps, 10)
		tcp = binary.BigEndian.AppendUint32(tcp, s.val)
		tcp = binary.BigEndian.AppendUint32(tcp, s.ecr)
	}
	tcp[12] = byte(len(tcp)/4) << 4
	tcp = append(tcp, s.data...)
	const hops = 64
	var ip []byte
	if s.src.Addr().Is4() {
		ip = []byte{0x45, 0, 0, 0, 0, 0, 0, 0, hops, unix.IPPROTO_TCP, 0, 0}
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(tcp)))
	} else {
		ip = []byte{0x60, 0, 0, 0, 0, 0, unix.IPPROTO_TCP, hops}
		binary.BigEndian.PutUint16(ip[4:], uint16(len(tcp)))
	}
	ip = append(append(ip, s.src.Addr().AsSlice()...), s.dst.Addr().AsSlice()...) // its own checksum is the kernel's (raw(7))
	binary.BigEndian.PutUint16(tcp[16:], packet.Checksum(s.src.Addr(), s.dst.Addr(), unix.IPPROTO_TCP, tcp))
	return append(ip, tcp...)
}
