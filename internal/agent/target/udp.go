package target

import (
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// udpPort is a UDP socket that is connected, and its local port. It is an os.File
// since the net package takes ten system calls to adopt a socket, of which a
// lookup needs none.
type udpPort struct {
	*os.File
	to   netip.AddrPort
	once sync.Once
	give func()
}

// dialUDP connects a socket.
func (t *Target) dialUDP(a netip.AddrPort) (net.Conn, error) {
	domain, to := address(a)
	fd, err := t.socket(kind{domain, unix.SOCK_DGRAM})
	if err == nil {
		if err = unix.Connect(fd, to); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "udp", Addr: net.UDPAddrFromAddrPort(a), Err: err}
	}
	return &udpPort{File: os.NewFile(uintptr(fd), "socket"), to: a, give: func() {}}, nil
}

// Read takes one datagram, which may be empty.
func (c *udpPort) Read(p []byte) (n int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	waited := raw.Read(func(fd uintptr) bool {
		n, err = unix.Read(int(fd), p)
		return err != unix.EAGAIN
	})
	if waited != nil {
		return 0, waited
	}
	return max(n, 0), err
}

// LocalAddr is the socket's own address; nil after Close.
func (c *udpPort) LocalAddr() (a net.Addr) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	_ = raw.Control(func(fd uintptr) {
		switch own, _ := unix.Getsockname(int(fd)); own := own.(type) {
		case *unix.SockaddrInet4:
			a = net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4(own.Addr), uint16(own.Port)))
		case *unix.SockaddrInet6:
			a = net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom16(own.Addr), uint16(own.Port)))
		}
	})
	return a
}

// RemoteAddr is the peer's.
func (c *udpPort) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(c.to) }

// Close closes the socket.
func (c *udpPort) Close() error {
	err := c.File.Close()
	c.once.Do(c.give)
	return err
}
