package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/agent/packet"
	"github.com/mirrord-go/mirrord/internal/datagram"
)

// This file is about the sockets by which stolen datagrams come and their answers
// go.

// open makes the sockets. It runs inside the namespace.
func (d *Datagrams) open() error {
	for i, family := range families {
		err := d.openFamily(i, family)
		if err != nil && (i == 0 || !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EADDRNOTAVAIL)) {
			return err
		}
	}
	return nil
}

func (d *Datagrams) openFamily(i, family int) error {
	// On loopback and a port of the kernel's choice: the program hands it
	// datagrams for any address.
	at, level, original := unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.SOL_IP, unix.IP_RECVORIGDSTADDR
	if family == unix.AF_INET6 {
		at, level, original = &unix.SockaddrInet6{Addr: netip.IPv6Loopback().As16()}, unix.SOL_IPV6, unix.IPV6_RECVORIGDSTADDR
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "datagrams")
	if err := unix.SetsockoptInt(fd, level, original, 1); err == nil {
		err = unix.Bind(fd, at)
	}
	own, nerr := unix.Getsockname(fd)
	if err = errors.Join(err, nerr); err == nil {
		err = d.socks.Put(uint32(i), uint64(fd))
	}
	if err != nil {
		f.Close()
		return err
	}
	switch own := own.(type) {
	case *unix.SockaddrInet4:
		d.own[i] = uint16(own.Port)
	case *unix.SockaddrInet6:
		d.own[i] = uint16(own.Port)
	}
	raw, err := openRaw(family)
	if err != nil {
		f.Close()
		return err
	}
	d.sockets[i], d.raw[i] = f, raw
	return nil
}

// openRaw makes a socket that sends UDP with headers of ours, and receives
// nothing.
func openRaw(family int) (*os.File, error) {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP)
	if err != nil {
		return nil, fmt.Errorf("a raw socket, which needs CAP_NET_RAW: %w", err)
	}
	f := os.NewFile(uintptr(fd), "raw")
	none := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &none[0]}); err != nil {
		f.Close()
		return nil, os.NewSyscallError("attach a filter", err)
	}
	return f, nil
}

// receive takes what reaches one of the sockets, until it is closed.
func (d *Datagrams) receive(family int, f *os.File) {
	rc, err := f.SyscallConn()
	if err != nil {
		return
	}
	buf, oob := make([]byte, datagram.Max), make([]byte, 256)
	for {
		var n, m int
		var from unix.Sockaddr
		waited := rc.Read(func(fd uintptr) bool {
			n, m, _, from, err = unix.Recvmsg(int(fd), buf, oob, 0)
			return err != unix.EAGAIN && err != unix.EINTR
		})
		if waited != nil {
			return
		}
		if err != nil { // of what was answered before
			continue
		}
		client, local := socketAddr(from), dialedBy(oob[:m])
		if local.IsValid() && local.Port() != d.own[family] { // else somebody sent to our own port
			d.flows.Deliver(client, local, buf[:n])
		}
	}
}

// socketAddr is the zero value for other families. The zone of a link-local
// address is the interface's number.
func socketAddr(sa unix.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(a.Addr)
		if a.ZoneId != 0 {
			ip = ip.WithZone(strconv.Itoa(int(a.ZoneId)))
		}
		return netip.AddrPortFrom(ip, uint16(a.Port))
	}
	return netip.AddrPort{}
}

// dialedBy reads where a datagram was sent to: IP_ORIGDSTADDR and
// IPV6_ORIGDSTADDR (ip(7); linux/in6.h), a sockaddr.
func dialedBy(oob []byte) netip.AddrPort {
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.AddrPort{}
	}
	for _, m := range all {
		b := m.Data
		switch {
		case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_ORIGDSTADDR && len(b) >= 8:
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:]))
		case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_ORIGDSTADDR && len(b) >= 24:
			return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), binary.BigEndian.Uint16(b[2:]))
		}
	}
	return netip.AddrPort{}
}

// answer sends a datagram from an address and port of the target. The kernel
// makes the IP header, and fragments what is too large for the way. What it has
// no room for is dropped.
func (d *Datagrams) answer(from, client netip.AddrPort, p []byte) error {
	i, to, as := 0, unix.Sockaddr(nil), []byte(nil)
	if from.Addr().Is4() {
		to = &unix.SockaddrInet4{Addr: client.Addr().As4()}
		as = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: from.Addr().As4()})
	} else {
		zone, _ := strconv.Atoi(client.Addr().Zone())
		i, to = 1, &unix.SockaddrInet6{Addr: client.Addr().As16(), ZoneId: uint32(zone)}
		as = unix.PktInfo6(&unix.Inet6Pktinfo{Addr: from.Addr().As16(), Ifindex: uint32(zone)})
	}
	rc, err := d.raw[i].SyscallConn()
	if err != nil {
		return err
	}
	b := udpPacket(from, client, p)
	if cerr := rc.Control(func(fd uintptr) { _, err = unix.SendmsgN(int(fd), b, as, to, 0) }); cerr != nil {
		return cerr
	}
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOBUFS) {
		return nil
	}
	return err
}

// udpPacket is p with a header of UDP (RFC 768).
func udpPacket(from, to netip.AddrPort, p []byte) []byte {
	b := make([]byte, 8, 8+len(p))
	binary.BigEndian.PutUint16(b, from.Port())
	binary.BigEndian.PutUint16(b[2:], to.Port())
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(p)))
	b = append(b, p...)
	sum := packet.Checksum(from.Addr(), to.Addr(), unix.IPPROTO_UDP, b)
	if sum == 0 { // would mean that there is none
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[6:], sum)
	return b
}
