package target

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// portShare is the part of the target's local ports that a session's
	// connections may have: one in portShare. The rest is the target's own, which
	// could reach nobody without.
	portShare = 2
	// portsUnknown is how many ports there are taken to be where that cannot be
	// read: the kernel's default (ip_local_port_range, 32768 to 60999).
	portsUnknown = 28232
	// timeWait is how long the port of a connection that we closed first stays
	// taken (TCP_TIMEWAIT_LEN, linux/include/net/tcp.h).
	timeWait = 60 * time.Second
)

// ErrPorts is wrapped by the error of Dial when the session has its share of
// the target's local ports; so is EADDRNOTAVAIL, with which the target's kernel
// would say that there is none left.
var ErrPorts = fmt.Errorf("this session uses as many of the target's local ports as it may: %w", unix.EADDRNOTAVAIL)

// ports counts the local ports that a session's connections take. Those of TCP
// are taken for each destination by itself (a connection is known by both of
// its ends, inet_hash_connect), those of UDP from one store.
type ports struct {
	most int
	wait time.Duration // timeWait, but in tests

	mu    sync.Mutex
	taken map[portKey]int
}

// portKey is what ports are taken from; for UDP there is no destination.
type portKey struct {
	network string
	to      netip.AddrPort
}

// localPorts reads how many there are, inside the target's network namespace.
func localPorts() int {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range") // of IPv6 too: ip-sysctl.rst
	if err != nil {
		return portsUnknown
	}
	var first, last int
	if _, err := fmt.Sscan(string(b), &first, &last); err != nil || last < first {
		return portsUnknown
	}
	return last - first + 1
}

func newPorts(all int) *ports {
	return &ports{most: max(1, all/portShare), wait: timeWait, taken: map[portKey]int{}}
}

func (p *ports) take(k portKey) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken[k] >= p.most {
		return ErrPorts
	}
	p.taken[k]++
	return nil
}

func (p *ports) give(k portKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken[k]--; p.taken[k] == 0 {
		delete(p.taken, k)
	}
}

// dial takes a port for what connect makes, until that is closed, and for as
// long as the kernel keeps it then.
func (p *ports) dial(network string, a netip.AddrPort, connect func() (net.Conn, error)) (net.Conn, error) {
	k := portKey{network: network}
	if network == "tcp" {
		k.to = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	}
	if err := p.take(k); err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(a), Err: err}
	}
	c, err := connect()
	if err != nil {
		p.give(k)
		return nil, err
	}
	switch c := c.(type) {
	case *net.TCPConn:
		return &tcpPort{TCPConn: c, give: func(late bool) {
			if late {
				time.AfterFunc(p.wait, func() { p.give(k) }) // touches nothing but p
			} else {
				p.give(k)
			}
		}}, nil
	case *net.UDPConn:
		return &udpPort{UDPConn: c, give: func() { p.give(k) }}, nil
	}
	p.give(k)
	return nil, errors.Join(fmt.Errorf("a connection of type %T has no local port", c), c.Close())
}

// tcpPort is a connection and its local port.
type tcpPort struct {
	*net.TCPConn
	once sync.Once
	give func(late bool)

	mu     sync.Mutex
	abrupt bool // it is closed by a reset
}

// SetLinger is that of the connection.
func (c *tcpPort) SetLinger(seconds int) error {
	c.mu.Lock()
	c.abrupt = seconds == 0
	c.mu.Unlock()
	return c.TCPConn.SetLinger(seconds)
}

// Close closes the connection.
func (c *tcpPort) Close() error {
	c.once.Do(func() {
		c.mu.Lock()
		late := !c.abrupt && !c.passive()
		c.mu.Unlock()
		c.give(late)
	})
	return c.TCPConn.Close()
}

// States of a connection whose peer has closed it first (linux/tcp_states.h):
// it is that end which waits.
const (
	stateCloseWait = 8
	stateLastAck   = 9
)

// passive reports whether the other end has closed the connection first.
func (c *tcpPort) passive() (yes bool) {
	rc, err := c.SyscallConn()
	if err != nil {
		return false
	}
	_ = rc.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		yes = err == nil && (info.State == stateCloseWait || info.State == stateLastAck)
	})
	return yes
}

// udpPort is a socket and its local port.
type udpPort struct {
	*net.UDPConn
	once sync.Once
	give func()
}

// Close closes the socket.
func (c *udpPort) Close() error {
	err := c.UDPConn.Close()
	c.once.Do(c.give)
	return err
}
