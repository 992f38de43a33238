package main

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

func (w *world) udp() {
	w.datagrams()
	w.sizes()
	w.peers()
	w.refusals()
}

func (w *world) datagrams() {
	for _, c := range []struct {
		name string
		to   netip.AddrPort
	}{{"another host", netip.AddrPortFrom(w.server, portEcho)}, {"localhost", netip.AddrPortFrom(w.localhost(), portSide)}, {"the unspecified address", netip.AddrPortFrom(w.anywhere(), portSide)}} {
		fd := socket(c.to.Addr(), unix.SOCK_DGRAM)
		err := unix.Connect(fd, sockaddr(c.to))
		local, _ := unix.Getsockname(fd)
		peer, _ := unix.Getpeername(fd)
		_, werr := unix.Write(fd, []byte("hi"))
		b := make([]byte, 64)
		n, rerr := unix.Read(fd, b)
		unix.Close(fd)
		show("a connected socket to "+c.name, err, address(local).Addr(), address(peer), werr, string(b[:max(n, 0)]), rerr)

		fd = socket(c.to.Addr(), unix.SOCK_DGRAM)
		err = unix.Sendto(fd, []byte("hi"), 0, sockaddr(c.to))
		n, from, rerr := unix.Recvfrom(fd, b, 0)
		unix.Close(fd)
		show("a socket without a peer to "+c.name, err, string(b[:max(n, 0)]), address(from), rerr)
	}
}

// sizes up to the largest, and beyond.
func (w *world) sizes() {
	most := 65507
	if w.server.Is6() {
		most = 65527
	}
	for _, size := range []int{0, 1, 1472, 1473, 9000, most, most + 1} {
		fd := socket(w.server, unix.SOCK_DGRAM)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20)
		data := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		err := unix.Sendto(fd, data, 0, sockaddr(netip.AddrPortFrom(w.server, portEcho)))
		got := make([]byte, 1<<17)
		n, rerr := 0, error(nil)
		if err == nil {
			n, _, rerr = unix.Recvfrom(fd, got, 0)
		}
		unix.Close(fd)
		show(fmt.Sprintf("a datagram of %d bytes", size), err, n, rerr, bytes.Equal(got[:max(n, 0)], data))
	}
}

// peers of one socket.
func (w *world) peers() {
	fd := socket(w.server, unix.SOCK_DGRAM)
	defer unix.Close(fd)
	for i := range 3 {
		for _, a := range []netip.Addr{w.server, w.other} {
			if err := unix.Sendto(fd, fmt.Appendf(nil, "%d for %v", i, a), 0, sockaddr(netip.AddrPortFrom(a, portEcho))); err != nil {
				show("several peers", err)
			}
		}
	}
	var all []string
	for range 6 {
		b := make([]byte, 64)
		n, from, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			show("several peers", err)
			break
		}
		all = append(all, fmt.Sprintf("%s from %v", b[:n], address(from)))
	}
	slices.Sort(all)
	show("several peers", fmt.Sprintf("%q", all))
	// A peer of its own for each send, as with a connected socket that is given
	// another peer.
	for _, a := range []netip.Addr{w.server, w.other} {
		err := unix.Connect(fd, sockaddr(netip.AddrPortFrom(a, portEcho)))
		_, werr := unix.Write(fd, []byte("again"))
		b := make([]byte, 64)
		n, rerr := unix.Read(fd, b)
		show("connected anew", err, werr, string(b[:max(n, 0)]), rerr)
	}
}

// refusals are ICMP errors.
func (w *world) refusals() {
	for _, c := range []struct {
		name string
		to   netip.AddrPort
	}{{"closed port", netip.AddrPortFrom(w.server, portNobody)}, {"closed port of localhost", netip.AddrPortFrom(w.localhost(), portNobody)}} {
		fd := socket(c.to.Addr(), unix.SOCK_DGRAM)
		err := unix.Connect(fd, sockaddr(c.to))
		_, werr := unix.Write(fd, []byte("x"))
		b := make([]byte, 16)
		_, rerr := unix.Read(fd, b)
		_, again := unix.Write(fd, []byte("x")) // the error is told once
		show(c.name, err, werr, rerr, again)
		unix.Close(fd)

		fd = socket(c.to.Addr(), unix.SOCK_DGRAM)
		level, option := unix.SOL_IP, unix.IP_RECVERR
		if c.to.Addr().Is6() {
			level, option = unix.SOL_IPV6, unix.IPV6_RECVERR
		}
		_ = unix.SetsockoptInt(fd, level, option, 1)
		err = unix.Sendto(fd, []byte("x"), 0, sockaddr(c.to))
		if !readable(fd, patience) {
			show(c.name+", a socket without a peer that asks for errors", err, "none")
		} else {
			_, _, _, from, qerr := unix.Recvmsg(fd, b, make([]byte, 256), unix.MSG_ERRQUEUE)
			show(c.name+", a socket without a peer that asks for errors", err, address(from), qerr)
		}
		unix.Close(fd)
	}
	fd := socket(w.nowhere, unix.SOCK_DGRAM)
	err := unix.Sendto(fd, []byte("x"), 0, sockaddr(netip.AddrPortFrom(w.nowhere, 9)))
	show("no route", err)
	unix.Close(fd)
}

// odd is what only few programs do.
func (w *world) odd() {
	for _, s := range []struct {
		name                  string
		domain, typ, protocol int
	}{
		{"raw ICMP", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP}, {"raw ICMPv6", unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6},
		{"raw IP", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW}, {"packet", unix.AF_PACKET, unix.SOCK_RAW, 0},
		{"SCTP", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP}, {"SCTP, one to many", unix.AF_INET, unix.SOCK_SEQPACKET, unix.IPPROTO_SCTP},
		{"DCCP", unix.AF_INET, 6, unix.IPPROTO_DCCP}, {"CAN", unix.AF_CAN, unix.SOCK_RAW, 1}, {"Bluetooth", unix.AF_BLUETOOTH, unix.SOCK_RAW, 1},
		{"XDP", unix.AF_XDP, unix.SOCK_RAW, 0}, {"key", unix.AF_KEY, unix.SOCK_RAW, 2},
	} {
		fd, err := unix.Socket(s.domain, s.typ, s.protocol)
		if err == nil {
			unix.Close(fd)
		}
		show("a socket of kind "+s.name, err)
	}
	for _, o := range []struct {
		name                 string
		level, option, value int
	}{
		{"SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, 7}, {"IP_TRANSPARENT", unix.SOL_IP, unix.IP_TRANSPARENT, 1}, {"IPV6_TRANSPARENT", unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1},
		{"IP_FREEBIND", unix.SOL_IP, unix.IP_FREEBIND, 1}, {"SO_PRIORITY", unix.SOL_SOCKET, unix.SO_PRIORITY, 6}, {"SO_RCVBUFFORCE", unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1 << 20},
		{"TCP_FASTOPEN", unix.SOL_TCP, unix.TCP_FASTOPEN, 5},
	} {
		fd := socket(w.server, unix.SOCK_STREAM)
		show("the option "+o.name, unix.SetsockoptInt(fd, o.level, o.option, o.value))
		unix.Close(fd)
	}
	w.bound()
	w.fastOpen()
	show("netlink, a route", addRoute())
	w.multicast()
}

// bound connects by a device of a name.
func (w *world) bound() {
	for _, device := range []string{"eth0", "eth1"} {
		fd := socket(w.server, unix.SOCK_STREAM)
		err := unix.BindToDevice(fd, device)
		show("a connection by "+device, err, unix.Connect(fd, sockaddr(netip.AddrPortFrom(w.server, portFirst))))
		unix.Close(fd)
	}
}

// fastOpen sends with the first packet, if it may (TCP Fast Open).
func (w *world) fastOpen() {
	for _, port := range []uint16{portEcho, portNobody} {
		fd := socket(w.server, unix.SOCK_STREAM)
		b := make([]byte, 16)
		err := unix.Sendto(fd, []byte("fast"), unix.MSG_FASTOPEN, sockaddr(netip.AddrPortFrom(w.server, port)))
		if err != nil {
			show(fmt.Sprintf("MSG_FASTOPEN to port %d", port), err)
		} else {
			n, rerr := unix.Read(fd, b)
			show(fmt.Sprintf("MSG_FASTOPEN to port %d", port), string(b[:max(n, 0)]), rerr)
		}
		unix.Close(fd)
		fd = socket(w.server, unix.SOCK_STREAM)
		_ = unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_FASTOPEN_CONNECT, 1)
		err = unix.Connect(fd, sockaddr(netip.AddrPortFrom(w.server, port)))
		_, werr := unix.Write(fd, []byte("fast"))
		n, rerr := unix.Read(fd, b)
		show(fmt.Sprintf("TCP_FASTOPEN_CONNECT to port %d", port), err, werr, string(b[:max(n, 0)]), rerr)
		unix.Close(fd)
	}
}

// join is in a group for longer than the kernel takes to report it (a second:
// RFC 3376, 8.11).
func (w *world) join() {
	group := netip.MustParseAddr("239.7.7.8")
	if w.server.Is6() {
		group = netip.MustParseAddr("ff0e::7:8")
	}
	ifi, err := net.InterfaceByName(outward())
	if err != nil {
		show("join", err)
		return
	}
	c, err := net.ListenMulticastUDP("udp", ifi, &net.UDPAddr{IP: group.AsSlice(), Port: 0})
	show("join", err)
	if err == nil {
		time.Sleep(1500 * time.Millisecond)
		c.Close()
	}
}

// addRoute asks the kernel for a route by netlink, as ip(8) does.
func addRoute() any {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	msg := make([]byte, 28) // nlmsghdr, rtmsg
	msg[0], msg[4], msg[6] = 28, unix.RTM_NEWROUTE, unix.NLM_F_REQUEST|unix.NLM_F_ACK
	msg[16] = unix.AF_INET
	if _, err := unix.Write(fd, msg); err != nil {
		return err
	}
	b := make([]byte, 4096)
	n, err := unix.Read(fd, b)
	if err != nil || n < 20 {
		return err
	}
	return unix.Errno(-int32(uint32(b[16]) | uint32(b[17])<<8 | uint32(b[18])<<16 | uint32(b[19])<<24))
}

func (w *world) multicast() {
	group := netip.MustParseAddr("239.7.7.7")
	if w.server.Is6() {
		group = netip.MustParseAddr("ff0e::7:7")
	}
	to := netip.AddrPortFrom(group, 7007)
	show("connect to a group by tcp", connect(to))
	fd := socket(group, unix.SOCK_DGRAM)
	show("join a group", joined(group))
	show("send to a group", unix.Sendto(fd, []byte("x"), 0, sockaddr(to)))
	unix.Close(fd)
	fd = socket(group, unix.SOCK_DGRAM)
	err := unix.Connect(fd, sockaddr(to))
	_, werr := unix.Write(fd, []byte("x"))
	heard := readable(fd, 300*time.Millisecond)
	_, again := unix.Write(fd, []byte("x"))
	show("a socket connected to a group", err, werr, heard, again)
	unix.Close(fd)
	if w.server.Is6() {
		return
	}
	for _, all := range []netip.Addr{netip.AddrFrom4([4]byte{255, 255, 255, 255}), netip.AddrFrom4([4]byte{10, 77, 0, 255})} {
		fd := socket(all, unix.SOCK_DGRAM)
		show("broadcast without the option", unix.Sendto(fd, []byte("x"), 0, sockaddr(netip.AddrPortFrom(all, 7007))))
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
		show("broadcast", unix.Sendto(fd, []byte("x"), 0, sockaddr(netip.AddrPortFrom(all, 7007))))
		unix.Close(fd)
	}
}

func joined(group netip.Addr) error {
	ifi, err := net.InterfaceByName(outward())
	if err != nil {
		return err
	}
	c, err := net.ListenMulticastUDP("udp", ifi, &net.UDPAddr{IP: group.AsSlice(), Port: 0})
	if err != nil {
		return err
	}
	return c.Close()
}

// outward is the device that is not loopback.
func outward() string {
	all, err := net.Interfaces()
	if err != nil {
		fmt.Fprintln(os.Stderr, "network:", err)
	}
	for _, i := range all {
		if i.Flags&net.FlagLoopback == 0 && i.Flags&net.FlagUp != 0 {
			return i.Name
		}
	}
	return ""
}
