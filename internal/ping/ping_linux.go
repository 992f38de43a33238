// Package ping makes sockets for ICMP echo.
//
// The agent uses it in the target's network, the session on this machine. Linux
// gives such sockets to ordinary processes whose group
// net.ipv4.ping_group_range names, in each network namespace (icmp(7)): a
// program sends and receives whole ICMP messages, of the one type only, and the
// kernel chooses the identifier, which is the socket's port. To others a raw
// socket does the same (raw(7)), where they have CAP_NET_RAW in that namespace.
//
// Hazards: the kernel keeps each ICMP error in the socket's queue besides telling
// it by the next call (IP_RECVERR, ip(7)); a queue that nobody empties takes the
// place of replies. Whoever reads an error calls Drain.
package ping

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Dial gives a socket for echo requests to a, made by socket(2) or what stands
// in for it; it must be non-blocking and closed on exec. What is written and read are ICMP
// messages from their type on; errors of the way are errnos of Read and Write.
// Where neither the group may ping nor a raw socket is to be had, the error is
// EACCES.
func Dial(a netip.Addr, socket func(domain, typ, protocol int) (int, error)) (net.Conn, error) {
	a = a.Unmap()
	domain, protocol, level, option := unix.AF_INET6, unix.IPPROTO_ICMPV6, unix.SOL_IPV6, unix.IPV6_RECVERR
	to := unix.Sockaddr(&unix.SockaddrInet6{Addr: a.As16()})
	if a.Is4() {
		domain, protocol, level, option = unix.AF_INET, unix.IPPROTO_ICMP, unix.SOL_IP, unix.IP_RECVERR
		to = &unix.SockaddrInet4{Addr: a.As4()}
	}
	raw := false
	fd, err := socket(domain, unix.SOCK_DGRAM, protocol)
	if errors.Is(err, unix.EACCES) {
		if other, missing := socket(domain, unix.SOCK_RAW, protocol); missing == nil {
			fd, err, raw = other, nil, true
		}
	}
	if err != nil {
		return nil, fmt.Errorf("make a socket for echo requests: %w", err)
	}
	f := os.NewFile(uintptr(fd), "ping")
	defer f.Close() // FileConn has a descriptor of its own
	if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
		return nil, fmt.Errorf("ask for ICMP errors: %w", err)
	}
	if err := unix.Connect(fd, to); err != nil {
		return nil, fmt.Errorf("connect to %v: %w", a, err)
	}
	c, err := net.FileConn(f)
	if err != nil || !raw {
		return c, err
	}
	return newRaw(c, a.Is4())
}

// Socket is socket(2) as Dial wants it.
func Socket(domain, typ, protocol int) (int, error) {
	return unix.Socket(domain, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
}

// Take reads one datagram of c, whose descriptor is fd, without waiting: EAGAIN
// is that there is none. Of Dial's sockets, and others, it gives what their Read
// does.
func Take(c net.Conn, fd int, p []byte) (int, error) {
	if r, ok := c.(*rawConn); ok {
		return r.take(fd, p)
	}
	return unix.Read(fd, p)
}

// Drain empties the queue of errors of c, if it has one.
func Drain(c syscall.Conn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		for err == nil || err == unix.EINTR {
			_, _, _, _, err = unix.Recvmsg(int(fd), nil, nil, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		}
	})
}
