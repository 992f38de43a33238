package target

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/quiet"
)

const (
	// portShare is the part of the target's local ports that a session's
	// connections may have: one in portShare. The rest is the target's own, which
	// could reach nobody without.
	portShare = 2
	// portReserve is the part of them that no session takes, one in portReserve,
	// whatever it has itself: ten sessions on a pod have ten agents, of which none
	// knows what the others have.
	portReserve = 4
	// lookTime is how long a count of the namespace's ports holds, and lookPart for
	// how many dials: one in lookPart of the ports. What ten agents do meanwhile is
	// within the reserve.
	lookTime, lookPart = 200 * time.Millisecond, 64
	// timeWait is how long the port of a connection that we closed first stays
	// taken (TCP_TIMEWAIT_LEN, linux/include/net/tcp.h).
	timeWait = 60 * time.Second
)

// ErrPorts is wrapped by the error of Dial when the session has its share of
// the target's local ports, or next to none is left in the target's network; so
// is EADDRNOTAVAIL, with which the target's kernel would say that none is.
var ErrPorts = fmt.Errorf("this session, or all on the target together, uses as many of its local ports as they may: %w", unix.EADDRNOTAVAIL)

// ports counts the local ports that a session's connections take. Those of TCP
// are taken for each destination by itself (a connection is known by both of
// its ends, inet_hash_connect), those of UDP from one store.
type ports struct {
	most  int                               // of this session
	full  int                               // of everybody in the target's network
	inUse func(network string) (int, error) // by everybody
	look  int                               // dials for which that holds
	wait  time.Duration                     // timeWait, but in tests

	mu    sync.Mutex
	taken map[portKey]int
	looks map[string]*look // by network
}

// look is what inUse said.
type look struct {
	n     int
	at    time.Time
	dials int // since then, refused ones too
}

// portKey is what ports are taken from; for UDP there is no destination.
type portKey struct {
	network string
	to      netip.AddrPort
}

func newPorts(r portRange, inUse func(string) (int, error)) *ports {
	return &ports{most: max(1, r.size()/portShare), full: reserved(r), inUse: inUse, look: max(1, r.size()/lookPart), wait: timeWait, taken: map[portKey]int{}, looks: map[string]*look{}}
}

// reserved is how many ports in use leave no more than the reserve.
func reserved(r portRange) int { return r.size() - r.size()/portReserve }

func (p *ports) take(k portKey) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken[k] >= p.most || p.crowded(k.network) {
		return ErrPorts
	}
	p.taken[k]++
	return nil
}

// crowded reports whether next to no port is left in the target's network. mu is
// held.
func (p *ports) crowded(network string) bool {
	l := p.looks[network]
	if l == nil || l.dials >= p.look || time.Since(l.at) > lookTime || l.n < p.full && l.n+l.dials >= p.full {
		n, err := p.inUse(network)
		if err != nil {
			return false // the session's own share holds all the same
		}
		l = &look{n: n, at: time.Now()}
		p.looks[network] = l
	}
	l.dials++
	return l.n >= p.full
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
		return &tcpPort{Conn: quiet.New(c), give: func(late bool) {
			if late {
				time.AfterFunc(p.wait, func() { p.give(k) }) // touches nothing but p
			} else {
				p.give(k)
			}
		}}, nil
	case *udpPort:
		c.give = func() { p.give(k) }
		return c, nil
	}
	p.give(k)
	return nil, errors.Join(fmt.Errorf("a connection of type %T has no local port", c), c.Close())
}

// tcpPort is a connection and its local port.
type tcpPort struct {
	*quiet.Conn
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
	return c.Conn.SetLinger(seconds)
}

// Close closes the connection.
func (c *tcpPort) Close() error {
	c.once.Do(func() {
		c.mu.Lock()
		late := !c.abrupt && !c.passive()
		c.mu.Unlock()
		c.give(late)
	})
	return c.Conn.Close()
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
