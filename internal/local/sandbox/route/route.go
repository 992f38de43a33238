// Package route changes interfaces, addresses, routes and rules of a network
// namespace by rtnetlink(7).
//
// Init uses it inside a sandbox, and the supervisor with the socket that init
// opened there: the rights are those of the namespace's owner. Errors are
// errnos of the kernel.
package route

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Conn is a rtnetlink socket. Its calls must not be concurrent.
type Conn struct {
	fd  int
	seq uint32
}

// Socket opens the socket of a Conn in the caller's network namespace; the
// caller closes it.
func Socket() (int, error) {
	return unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
}

// On gives a Conn on a Socket, which stays the caller's.
func On(fd int) *Conn { return &Conn{fd: fd} }

// do sends one request, a fixed header and attributes, and gives the kernel's
// answer to it.
func (r *Conn) do(typ uint16, flags netlink.HeaderFlags, head []byte, attrs ...netlink.Attribute) error {
	b, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return err
	}
	r.seq++
	ne := binary.NativeEndian
	msg := ne.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(head)+len(b)))
	msg = ne.AppendUint16(msg, typ)
	msg = ne.AppendUint16(msg, uint16(netlink.Request|netlink.Acknowledge|flags))
	msg = ne.AppendUint32(msg, r.seq)
	msg = ne.AppendUint32(msg, 0)
	msg = append(append(msg, head...), b...)
	if err := unix.Sendto(r.fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 8<<10)
	for {
		n, _, err := unix.Recvfrom(r.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if n < unix.NLMSG_HDRLEN+4 || ne.Uint16(buf[4:]) != unix.NLMSG_ERROR {
			return errors.New("rtnetlink: unexpected answer")
		}
		if errno := syscall.Errno(-int32(ne.Uint32(buf[unix.NLMSG_HDRLEN:]))); errno != 0 {
			return errno
		}
		return nil
	}
}

// Attr is an attribute.
func Attr(t uint16, b []byte) netlink.Attribute { return netlink.Attribute{Type: t, Data: b} }

// Attr32 is an attribute that is a number.
func Attr32(t uint16, v uint32) netlink.Attribute {
	return Attr(t, binary.NativeEndian.AppendUint32(nil, v))
}

// Nested joins attributes, which are few and short: marshalling cannot fail.
func Nested(t uint16, attrs ...netlink.Attribute) netlink.Attribute {
	b, _ := netlink.MarshalAttributes(attrs)
	return Attr(t|unix.NLA_F_NESTED, b)
}

// linkHead gives the header of a message about interface index: struct ifinfomsg.
func linkHead(index int, flags uint32) []byte {
	ne := binary.NativeEndian
	b := make([]byte, 4, unix.SizeofIfInfomsg)
	b = ne.AppendUint32(b, uint32(index))
	b = ne.AppendUint32(b, flags)
	return ne.AppendUint32(b, flags) // only these change
}

// SetLink changes properties of an interface.
func (r *Conn) SetLink(index int, flags uint32, attrs ...netlink.Attribute) error {
	return r.do(unix.RTM_NEWLINK, 0, linkHead(index, flags), attrs...)
}

// Veth is the end of a veth pair that lies elsewhere.
type Veth struct {
	Name      string
	Namespace int // descriptor of its network namespace
	MTU       uint32
	Address   net.HardwareAddr
}

// AddVeth makes a veth pair, one end here and one elsewhere. The latter asks for no
// neighbours (IFF_NOARP): everything goes out at once, addressed to itself. And
// every packet leaves it as the one packet that it will be on arrival: segments
// of TCP and UDP are not left for later (IFLA_GSO_MAX_SEGS).
func (r *Conn) AddVeth(here string, mtu uint32, there Veth) error {
	const peer = 1 // VETH_INFO_PEER (linux/veth.h): an interface as in the message itself
	b, err := netlink.MarshalAttributes([]netlink.Attribute{
		Attr(unix.IFLA_IFNAME, append([]byte(there.Name), 0)), Attr32(unix.IFLA_MTU, there.MTU), Attr(unix.IFLA_ADDRESS, there.Address),
		Attr32(unix.IFLA_GSO_MAX_SEGS, 1), Attr32(unix.IFLA_NET_NS_FD, uint32(there.Namespace))})
	if err != nil {
		return err
	}
	return r.do(unix.RTM_NEWLINK, netlink.Create|netlink.Excl, linkHead(0, 0),
		Attr(unix.IFLA_IFNAME, append([]byte(here), 0)), Attr32(unix.IFLA_MTU, mtu),
		Nested(unix.IFLA_LINKINFO, Attr(unix.IFLA_INFO_KIND, []byte("veth")),
			Nested(unix.IFLA_INFO_DATA, Attr(peer, append(linkHead(0, unix.IFF_NOARP), b...)))))
}

// AddAddress gives the interface an address, usable at once (no duplicate
// address detection).
func (r *Conn) AddAddress(index int, a netip.Prefix) error {
	head := binary.NativeEndian.AppendUint32([]byte{family(a.Addr()), byte(a.Bits()), 0, unix.RT_SCOPE_UNIVERSE}, uint32(index))
	ip := a.Addr().AsSlice()
	return r.do(unix.RTM_NEWADDR, netlink.Create|netlink.Excl, head,
		Attr(unix.IFA_LOCAL, ip), Attr(unix.IFA_ADDRESS, ip), Attr32(unix.IFA_FLAGS, unix.IFA_F_NODAD))
}

// Route is an entry of a routing table.
type Route struct {
	Dst      netip.Prefix
	Local    bool // of type local, in the table of that name
	Priority uint32
	Table    uint8      // 0: the main one
	Src      netip.Addr // preferred source; the zero value: none
}

// AddRoute sends a destination to the interface.
func (r *Conn) AddRoute(index int, t Route) error {
	table, typ, scope := byte(unix.RT_TABLE_MAIN), byte(unix.RTN_UNICAST), byte(unix.RT_SCOPE_LINK)
	if t.Local {
		table, typ, scope = unix.RT_TABLE_LOCAL, unix.RTN_LOCAL, unix.RT_SCOPE_HOST
	}
	if t.Table != 0 {
		table = t.Table
	}
	head := []byte{family(t.Dst.Addr()), byte(t.Dst.Bits()), 0, 0, table, unix.RTPROT_BOOT, scope, typ, 0, 0, 0, 0}
	attrs := []netlink.Attribute{Attr32(unix.RTA_OIF, uint32(index))}
	if t.Dst.Bits() > 0 {
		attrs = append(attrs, Attr(unix.RTA_DST, t.Dst.Masked().Addr().AsSlice()))
	}
	if t.Src.IsValid() {
		attrs = append(attrs, Attr(unix.RTA_PREFSRC, t.Src.AsSlice()))
	}
	if t.Priority > 0 {
		attrs = append(attrs, Attr32(unix.RTA_PRIORITY, t.Priority))
	}
	return r.do(unix.RTM_NEWROUTE, netlink.Create|netlink.Excl, head, attrs...)
}

func family(a netip.Addr) byte {
	if a.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// Rule says which table routes some packets of IPv4. Fields that are zero do
// not matter.
type Rule struct {
	Priority     uint32
	Table        uint8
	Iif          string       // interface that the packet came by
	Dst          netip.Prefix // destination
	Mark         uint32
	Proto        uint8 // IPPROTO_TCP, …
	Sport, Dport uint16
}

// AddRule adds a rule; that it is there already is EEXIST.
func (r *Conn) AddRule(u Rule) error {
	return r.rule(unix.RTM_NEWRULE, netlink.Create|netlink.Excl, u)
}

// DeleteRule deletes a rule; that there is none is ENOENT.
func (r *Conn) DeleteRule(u Rule) error { return r.rule(unix.RTM_DELRULE, 0, u) }

func (r *Conn) rule(typ uint16, flags netlink.HeaderFlags, u Rule) error {
	head := make([]byte, unix.SizeofRtMsg) // struct fib_rule_hdr
	head[0], head[4], head[7] = unix.AF_INET, u.Table, unix.FR_ACT_TO_TBL
	attrs := []netlink.Attribute{Attr32(unix.FRA_PRIORITY, u.Priority), Attr32(unix.FRA_TABLE, uint32(u.Table))}
	if u.Iif != "" {
		attrs = append(attrs, Attr(unix.FRA_IIFNAME, append([]byte(u.Iif), 0)))
	}
	if u.Dst.IsValid() {
		head[1] = byte(u.Dst.Bits())
		attrs = append(attrs, Attr(unix.FRA_DST, u.Dst.Masked().Addr().AsSlice()))
	}
	if u.Mark != 0 {
		attrs = append(attrs, Attr32(unix.FRA_FWMARK, u.Mark))
	}
	if u.Proto != 0 {
		attrs = append(attrs, Attr(unix.FRA_IP_PROTO, []byte{u.Proto}))
	}
	for _, p := range []struct {
		kind uint16
		port uint16
	}{{unix.FRA_SPORT_RANGE, u.Sport}, {unix.FRA_DPORT_RANGE, u.Dport}} {
		if p.port != 0 { // from, to
			attrs = append(attrs, Attr(p.kind, binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, p.port), p.port)))
		}
	}
	return r.do(typ, flags, head, attrs...)
}
