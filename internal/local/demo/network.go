package demo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// device is the name of both ends of the veth pair, each in its namespace.
	device = "eth0"
	// linkTimeout bounds the wait for the devices to be up, which takes a few
	// milliseconds.
	linkTimeout = 15 * time.Second
)

// host is a place in the demo's network, by the last number of its addresses.
type host byte

const (
	gatewayHost host = 0x01 // the client of Pod.Request
	podHost     host = 0x07
	dnsHost     host = 0x10
	dbHost      host = 0x20
	catalogHost host = 0x30
	echoHost    host = 0x40
)

// The networks, written in hexadecimal and decimal alike: fd00:245::20 is the
// IPv6 address of what is 10.245.0.20.
func (h host) v4() netip.Addr {
	return netip.AddrFrom4([4]byte{10, 245, 0, byte(h>>4)*10 + byte(h&15)})
}
func (h host) v6() netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfd, 2: 0x02, 3: 0x45, 15: byte(h)})
}
func (h host) addrs() []netip.Addr { return []netip.Addr{h.v4(), h.v6()} }

// network configures the network namespace of the calling process.
type network struct{ conn *netlink.Conn }

func openNetwork() (*network, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("open route socket: %w", err)
	}
	return &network{conn}, nil
}

func (n *network) close() { n.conn.Close() }

func (n *network) do(kind netlink.HeaderType, flags netlink.HeaderFlags, head []byte, attrs *netlink.AttributeEncoder) error {
	data := head
	if attrs != nil {
		b, err := attrs.Encode()
		if err != nil {
			return err
		}
		data = append(data, b...)
	}
	_, err := n.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Acknowledge | flags},
		Data:   data,
	})
	return err
}

// linkHead is struct ifinfomsg (rtnetlink(7)).
func linkHead(index int, flags uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], flags) // which of them to change
	return b
}

// addVeth makes a veth pair: one end here, the other in the network namespace
// of the process pid.
func (n *network) addVeth(name, peer string, pid int) error {
	const vethInfoPeer = 1 // linux/veth.h
	// Two different numbers: the kernel reports the state of a device that is
	// its peer's equal by number as that of an ordinary one, up to a second late
	// (linkwatch_urgent_event in net/core/link_watch.c).
	const index, peerIndex = 2, 3
	a := netlink.NewAttributeEncoder()
	a.String(unix.IFLA_IFNAME, name)
	a.Nested(unix.IFLA_LINKINFO, func(a *netlink.AttributeEncoder) error {
		a.String(unix.IFLA_INFO_KIND, "veth")
		a.Nested(unix.IFLA_INFO_DATA, func(a *netlink.AttributeEncoder) error {
			p := netlink.NewAttributeEncoder()
			p.String(unix.IFLA_IFNAME, peer)
			p.Uint32(unix.IFLA_NET_NS_PID, uint32(pid))
			b, err := p.Encode()
			a.Bytes(vethInfoPeer, append(linkHead(peerIndex, 0), b...))
			return err
		})
		return nil
	})
	if err := n.do(unix.RTM_NEWLINK, netlink.Create|netlink.Excl, linkHead(index, 0), a); err != nil {
		return fmt.Errorf("make a veth pair: %w", err)
	}
	return nil
}

// addAddress gives the link an address of a /24 or /64. The kernel takes a
// secondary one as the source of a connection only where a program binds it.
func (n *network) addAddress(index int, a netip.Addr, secondary bool) error {
	family, bits := byte(unix.AF_INET), byte(24)
	if a.Is6() {
		family, bits = unix.AF_INET6, 64
	}
	head := make([]byte, unix.SizeofIfAddrmsg)
	head[0], head[1] = family, bits
	binary.NativeEndian.PutUint32(head[4:], uint32(index))
	attrs := netlink.NewAttributeEncoder()
	attrs.Bytes(unix.IFA_LOCAL, a.AsSlice())
	attrs.Bytes(unix.IFA_ADDRESS, a.AsSlice())
	if a.Is6() {
		// Usable at once: nobody else is on this wire.
		attrs.Uint32(unix.IFA_FLAGS, unix.IFA_F_NODAD)
	}
	if a.Is6() && secondary { // in IPv4 all of a network after the first are
		const length, forever = 16, ^uint32(0) // struct ifa_cacheinfo
		deprecated := make([]byte, length)     // preferred for 0 seconds (RFC 6724, rule 3)
		binary.NativeEndian.PutUint32(deprecated[4:], forever)
		attrs.Bytes(unix.IFA_CACHEINFO, deprecated)
	}
	if err := n.do(unix.RTM_NEWADDR, netlink.Create|netlink.Replace, head, attrs); err != nil {
		return fmt.Errorf("add address %s: %w", a, err)
	}
	return nil
}

// configure brings loopback and the device up, gives it the addresses of the
// hosts, the first as its own, and waits until packets pass. It returns the
// addresses: without those of IPv6 where this machine has it switched off.
func (n *network) configure(hosts ...host) ([]netip.Addr, error) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find loopback: %w", err)
	}
	eth, err := net.InterfaceByName(device)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", device, err)
	}
	// Before it comes up, or the news of it would be missed.
	news, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("open route socket: %w", err)
	}
	defer news.Close()
	for _, group := range []uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV6_ROUTE} {
		if err := news.JoinGroup(group); err != nil {
			return nil, fmt.Errorf("watch the network: %w", err)
		}
	}
	// No link-local address: its own would appear only seconds later, after
	// duplicate address detection, and nothing here needs it.
	const genModeNone = 1 // IN6_ADDR_GEN_MODE_NONE, linux/if_link.h
	a := netlink.NewAttributeEncoder()
	a.Nested(unix.IFLA_AF_SPEC, func(a *netlink.AttributeEncoder) error {
		a.Nested(unix.AF_INET6, func(a *netlink.AttributeEncoder) error {
			a.Uint8(unix.IFLA_INET6_ADDR_GEN_MODE, genModeNone)
			return nil
		})
		return nil
	})
	if err := n.do(unix.RTM_NEWLINK, 0, linkHead(eth.Index, 0), a); err != nil && !errors.Is(err, syscall.EAFNOSUPPORT) {
		return nil, fmt.Errorf("switch off link-local addresses: %w", err)
	}
	for _, index := range []int{lo.Index, eth.Index} {
		if err := n.do(unix.RTM_NEWLINK, 0, linkHead(index, unix.IFF_UP), nil); err != nil {
			return nil, fmt.Errorf("bring link %d up: %w", index, err)
		}
	}
	var have []netip.Addr
	for i, h := range hosts {
		for _, a := range h.addrs() {
			err := n.addAddress(eth.Index, a, i > 0)
			// net.ipv6.conf.*.disable_ipv6 and ipv6.disable=1 answer so.
			if a.Is6() && (errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EOPNOTSUPP)) {
				continue
			}
			if err != nil {
				return nil, err
			}
			have = append(have, a)
		}
	}
	return have, awaitUsable(news, eth.Index, have)
}

// awaitUsable waits until the kernel says that the link is up: a device that
// is merely switched on still drops packets, and a lost SYN costs a second.
// And until each address of IPv6 has its local route, which the kernel adds a
// little later than the address.
func awaitUsable(news *netlink.Conn, index int, addrs []netip.Addr) error {
	if err := news.SetReadDeadline(time.Now().Add(linkTimeout)); err != nil {
		return err
	}
	missing := map[netip.Addr]bool{}
	for _, a := range addrs {
		if a.Is6() {
			missing[a] = true
		}
	}
	for up := false; !up || len(missing) > 0; {
		messages, err := news.Receive()
		if err != nil {
			return fmt.Errorf("wait for %s: %w", device, err)
		}
		for _, m := range messages {
			switch m.Header.Type {
			case unix.RTM_NEWLINK:
				up = up || linkUp(m.Data, index)
			case unix.RTM_NEWROUTE:
				delete(missing, localRoute(m.Data))
			}
		}
	}
	return nil
}

// linkUp reports whether a message says that the link index is up.
func linkUp(data []byte, index int) bool {
	const operUp = 6 // IF_OPER_UP, RFC 2863
	if len(data) < unix.SizeofIfInfomsg || int(binary.NativeEndian.Uint32(data[4:])) != index {
		return false
	}
	state := attribute(data[unix.SizeofIfInfomsg:], unix.IFLA_OPERSTATE)
	return len(state) == 1 && state[0] == operUp
}

// localRoute is the address that a message about a route makes this host's
// own; the zero Addr if it is about another kind of route.
func localRoute(data []byte) netip.Addr {
	if len(data) < unix.SizeofRtMsg || data[7] != unix.RTN_LOCAL {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(attribute(data[unix.SizeofRtMsg:], unix.RTA_DST)) // none: not of a host
	return a
}

// attribute is the value of one netlink attribute, nil if it is not there.
func attribute(data []byte, kind uint16) []byte {
	d, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return nil
	}
	for d.Next() {
		if d.Type() == kind {
			return d.Bytes()
		}
	}
	return nil
}

// inventory lists links, addresses, routes, rules and nftables tables of the
// calling process's network namespace, sorted.
func inventory() ([]string, error) {
	var list []string
	for _, kind := range []struct {
		name     string
		protocol int
		get      uint16
		head     int
		drop     []uint16 // attributes that change by themselves
	}{
		{"address", unix.NETLINK_ROUTE, unix.RTM_GETADDR, unix.SizeofIfAddrmsg, []uint16{unix.IFA_CACHEINFO}},
		{"route", unix.NETLINK_ROUTE, unix.RTM_GETROUTE, unix.SizeofRtMsg, []uint16{unix.RTA_CACHEINFO}},
		{"rule", unix.NETLINK_ROUTE, unix.RTM_GETRULE, unix.SizeofRtMsg, nil},
		{"nftables table", unix.NETLINK_NETFILTER, unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETTABLE, 4, nil},
	} {
		lines, err := dump(kind.name, kind.protocol, kind.get, kind.head, kind.drop)
		if errors.Is(err, syscall.EPROTONOSUPPORT) || errors.Is(err, syscall.EINVAL) && kind.protocol == unix.NETLINK_NETFILTER {
			continue // a kernel without nftables has no tables
		}
		if err != nil {
			return nil, err
		}
		list = append(list, lines...)
	}
	links, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		list = append(list, fmt.Sprintf("link %d %s %s %s", l.Index, l.Name, l.HardwareAddr, l.Flags))
	}
	slices.Sort(list)
	return list, nil
}

// dump gives a line for every object that the kernel lists.
func dump(name string, protocol int, get uint16, head int, drop []uint16) ([]string, error) {
	conn, err := netlink.Dial(protocol, nil)
	if err != nil {
		return nil, fmt.Errorf("list each %s: %w", name, err)
	}
	defer conn.Close()
	messages, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(get), Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, head),
	})
	if err != nil {
		return nil, fmt.Errorf("list each %s: %w", name, err)
	}
	var list []string
	for _, m := range messages {
		if len(m.Data) < head {
			continue
		}
		if get == unix.RTM_GETROUTE && binary.NativeEndian.Uint32(m.Data[8:])&unix.RTM_F_CLONED != 0 {
			continue // the kernel's own notes about a path
		}
		line := fmt.Sprintf("%s %x", name, m.Data[:head])
		d, err := netlink.NewAttributeDecoder(m.Data[head:])
		if err != nil {
			return nil, fmt.Errorf("list each %s: %w", name, err)
		}
		for d.Next() {
			if !slices.Contains(drop, d.Type()) {
				line += fmt.Sprintf(" %d:%x", d.Type(), d.Bytes())
			}
		}
		list = append(list, line)
	}
	return list, nil
}

// resolver asks the demo's name server, also where cgo would ask elsewhere.
func resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, netip.AddrPortFrom(dnsHost.v4(), 53).String())
	}}
}
