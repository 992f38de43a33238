package nft

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Expr is a part of a rule: it matches, or it acts.
type Expr struct{ list []expr.Any }

// Offsets and sizes of header fields (RFC 791, 8200, 9293).
const (
	saddr4, saddr6 = 12, 8
	tcpFlagsOffset = 13
	tcpFinSynRst   = 0x07
	tcpAck         = 0x10
	tcpSyn         = 0x02
)

func equal(data ...byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

func meta(key expr.MetaKey, data []byte) Expr {
	return Expr{[]expr.Any{&expr.Meta{Key: key, Register: 1}, equal(data...)}}
}

func port(register uint32, offset uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2}
}

// All joins parts.
func All(parts ...Expr) (e Expr) {
	for _, p := range parts {
		e.list = append(e.list, p.list...)
	}
	return e
}

// L4 matches the transport protocol (unix.IPPROTO_TCP, …). Whatever looks at
// ports must come after it.
func L4(proto byte) Expr { return meta(expr.MetaKeyL4PROTO, []byte{proto}) }

// Family matches packets of IPv6, or of IPv4.
func Family(v6 bool) Expr { return meta(expr.MetaKeyNFPROTO, []byte{byte(nfproto(v6))}) }

func nfproto(v6 bool) uint32 {
	if v6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// Saddr matches the source address; the family is matched too.
func Saddr(p netip.Prefix) Expr { return address(p, 0) }

// Daddr matches the destination address; the family is matched too.
func Daddr(p netip.Prefix) Expr { return address(p, 1) }

// address matches the nth address of the IP header.
func address(p netip.Prefix, nth uint32) Expr {
	size, offset := uint32(4), uint32(saddr4)
	if p.Addr().Is6() {
		size, offset = 16, saddr6
	}
	mask := make([]byte, size)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return All(Family(p.Addr().Is6()), Expr{[]expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset + nth*size, Len: size},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: mask, Xor: make([]byte, size)},
		equal(p.Masked().Addr().AsSlice()...),
	}})
}

// Dport matches one destination port.
func Dport(p uint16) Expr { return Expr{[]expr.Any{port(1, 2), equal(be16(p)...)}} }

// DportIn matches destination ports that are in the set.
func DportIn(s Set) Expr { return Expr{[]expr.Any{port(1, 2), lookup(s, false)}} }

// DportNotIn matches destination ports that are not in the set.
func DportNotIn(s Set) Expr { return Expr{[]expr.Any{port(1, 2), lookup(s, true)}} }

func lookup(s Set, invert bool) expr.Any {
	return &expr.Lookup{SourceRegister: 1, SetName: s.Name, Invert: invert}
}

// Syn matches the first packet of a TCP connection: SYN without ACK, FIN, RST.
func Syn() Expr {
	return Expr{[]expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: tcpFlagsOffset, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{tcpFinSynRst | tcpAck}, Xor: []byte{0}},
		equal(tcpSyn),
	}}
}

// Oif matches the name of the interface that the packet leaves by.
func Oif(name string) Expr { return meta(expr.MetaKeyOIFNAME, ifname(name)) }

// Iif matches the name of the interface that the packet came in by.
func Iif(name string) Expr { return meta(expr.MetaKeyIIFNAME, ifname(name)) }

func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

// Mark matches the packet's mark (SO_MARK of the socket that sent it).
func Mark(m uint32) Expr { return meta(expr.MetaKeyMARK, binary.NativeEndian.AppendUint32(nil, m)) }

// SetConnMark gives the packet's connection a mark, which connection tracking
// keeps.
func SetConnMark(m uint32) Expr {
	return Expr{[]expr.Any{
		&expr.Immediate{Register: 1, Data: binary.NativeEndian.AppendUint32(nil, m)},
		&expr.Ct{Register: 1, SourceRegister: true, Key: expr.CtKeyMARK},
	}}
}

// Unmarked matches packets of connections that nobody has given a mark.
func Unmarked() Expr {
	return Expr{[]expr.Any{&expr.Ct{Register: 1, Key: expr.CtKeyMARK}, equal(0, 0, 0, 0)}}
}

// Accept ends the chain for a packet.
func Accept() Expr { return Expr{[]expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}} }

// DNAT rewrites the destination address; ports stay.
func DNAT(to netip.Addr) Expr { return nat(expr.NATTypeDestNAT, to) }

// SNAT rewrites the source address; the port stays where it can.
func SNAT(to netip.Addr) Expr { return nat(expr.NATTypeSourceNAT, to) }

func nat(t expr.NATType, to netip.Addr) Expr {
	return Expr{[]expr.Any{
		&expr.Immediate{Register: 1, Data: to.AsSlice()},
		&expr.NAT{Type: t, Family: nfproto(to.Is6()), RegAddrMin: 1},
	}}
}

// DNATPort rewrites the destination port; the address stays. L4 and Family must
// come before it.
func DNATPort(v6 bool, to uint16) Expr {
	return Expr{[]expr.Any{
		&expr.Immediate{Register: 1, Data: be16(to)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: nfproto(v6), RegProtoMin: 1},
	}}
}

// SNATBySport rewrites the source address to what the map (ports to addresses)
// has for the packet's source port, and keeps that very port: where it is taken
// the kernel drops the packet instead of choosing another port. Packets whose
// port is not in the map do not match. L4 and Family must come before it.
func SNATBySport(m Set) Expr {
	return Expr{[]expr.Any{
		port(1, 0),
		&expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: m.Name},
		port(2, 0),
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: nfproto(m.Value == TypeIPv6), RegAddrMin: 1, RegProtoMin: 2, Specified: true},
	}}
}

// Redirect sends packets to a port of this machine.
func Redirect(to uint16) Expr {
	return Expr{[]expr.Any{&expr.Immediate{Register: 1, Data: be16(to)}, &expr.Redir{RegisterProtoMin: 1}}}
}
