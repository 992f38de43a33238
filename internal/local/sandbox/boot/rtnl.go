package boot

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// routing is a rtnetlink(7) socket of this network namespace.
type routing struct {
	fd  int
	seq uint32
}

func openRouting() (*routing, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	return &routing{fd: fd}, nil
}

func (r *routing) close() { unix.Close(r.fd) }

// do sends one request, a fixed header and attributes, and gives the kernel's
// answer to it.
func (r *routing) do(typ uint16, flags netlink.HeaderFlags, head []byte, attrs ...netlink.Attribute) error {
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

func attr(t uint16, b []byte) netlink.Attribute { return netlink.Attribute{Type: t, Data: b} }

func attr32(t uint16, v uint32) netlink.Attribute {
	return attr(t, binary.NativeEndian.AppendUint32(nil, v))
}

// nested joins attributes, which are few and short: marshalling cannot fail.
func nested(t uint16, attrs ...netlink.Attribute) netlink.Attribute {
	b, _ := netlink.MarshalAttributes(attrs)
	return attr(t|unix.NLA_F_NESTED, b)
}

// linkHead gives the header of a message about interface index: struct ifinfomsg.
func linkHead(index int, flags uint32) []byte {
	ne := binary.NativeEndian
	b := make([]byte, 4, unix.SizeofIfInfomsg)
	b = ne.AppendUint32(b, uint32(index))
	b = ne.AppendUint32(b, flags)
	return ne.AppendUint32(b, flags) // only these change
}

// setLink changes properties of an interface.
func (r *routing) setLink(index int, flags uint32, attrs ...netlink.Attribute) error {
	return r.do(unix.RTM_NEWLINK, 0, linkHead(index, flags), attrs...)
}

// addAddress gives the interface an address, usable at once (no duplicate
// address detection).
func (r *routing) addAddress(index int, a netip.Prefix) error {
	head := binary.NativeEndian.AppendUint32([]byte{family(a.Addr()), byte(a.Bits()), 0, unix.RT_SCOPE_UNIVERSE}, uint32(index))
	ip := a.Addr().AsSlice()
	return r.do(unix.RTM_NEWADDR, netlink.Create|netlink.Excl, head,
		attr(unix.IFA_LOCAL, ip), attr(unix.IFA_ADDRESS, ip), attr32(unix.IFA_FLAGS, unix.IFA_F_NODAD))
}

// route is an entry of a routing table.
type route struct {
	dst      netip.Prefix
	local    bool // of type local, in the table of that name
	priority uint32
}

// addRoute sends a destination to the interface.
func (r *routing) addRoute(index int, t route) error {
	table, typ, scope := byte(unix.RT_TABLE_MAIN), byte(unix.RTN_UNICAST), byte(unix.RT_SCOPE_LINK)
	if t.local {
		table, typ, scope = unix.RT_TABLE_LOCAL, unix.RTN_LOCAL, unix.RT_SCOPE_HOST
	}
	head := []byte{family(t.dst.Addr()), byte(t.dst.Bits()), 0, 0, table, unix.RTPROT_BOOT, scope, typ, 0, 0, 0, 0}
	attrs := []netlink.Attribute{attr32(unix.RTA_OIF, uint32(index))}
	if t.dst.Bits() > 0 {
		attrs = append(attrs, attr(unix.RTA_DST, t.dst.Masked().Addr().AsSlice()))
	}
	if t.priority > 0 {
		attrs = append(attrs, attr32(unix.RTA_PRIORITY, t.priority))
	}
	return r.do(unix.RTM_NEWROUTE, netlink.Create|netlink.Excl, head, attrs...)
}

func family(a netip.Addr) byte {
	if a.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}
