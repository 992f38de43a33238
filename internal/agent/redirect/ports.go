package redirect

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Source ports of connections to the original: below what clients usually take
// (32768 and up on Linux, 49152 and up elsewhere), so that a client seldom has
// a connection to the same server from the same port.
const firstPort, lastPort = 10000, 29999

const (
	// portBlock is how many ports a client is given at a time: to enter one or
	// many in the translation takes the kernel the same time, about 0.2 ms.
	portBlock = 64
	// portRest is how long a port rests after a connection. The kernel lets a
	// tuple in TIME_WAIT go again after a second (tcp_tw_reuse, which is on for
	// loopback; ip-sysctl.rst).
	portRest = time.Second
)

// lease is one source port for one client.
type lease struct {
	port   uint16
	client netip.Addr // what the port is translated to; the zero Addr: nothing
	since  time.Time  // when it was last given back
}

// ports gives out source ports that are translated to clients' addresses. Its
// methods may be called concurrently.
type ports struct {
	enter func(out, in []lease) error // changes the translation; mu is held

	mu   sync.Mutex
	rest []uint16               // what nobody has had
	free map[netip.Addr][]lease // by client, oldest first
}

// newPorts has the ports in no order: clients count theirs up, and one that is
// taken must not mean that the next is too.
func newPorts(enter func(out, in []lease) error) *ports {
	p := &ports{enter: enter, free: map[netip.Addr][]lease{}}
	for _, n := range rand.Perm(lastPort - firstPort + 1) {
		p.rest = append(p.rest, uint16(firstPort+n))
	}
	return p
}

// take gives a port for client, to be given back by put. EADDRNOTAVAIL: all are
// in use.
func (p *ports) take(client netip.Addr) (lease, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if q := p.free[client]; len(q) > 0 && (time.Since(q[0].since) >= portRest || len(p.rest) == 0) {
		return p.pop(client), nil
	}
	var out, in []lease
	fresh := p.rest[:min(portBlock, len(p.rest))]
	for _, port := range fresh {
		in = append(in, lease{port: port, client: client})
	}
	if len(in) == 0 { // all have a client: take some back from others
		for other := range p.free {
			for len(p.free[other]) > 0 && len(out) < portBlock {
				l := p.pop(other)
				out = append(out, l)
				in = append(in, lease{port: l.port, client: client})
			}
		}
	}
	if len(in) == 0 {
		return lease{}, fmt.Errorf("%d connections have all source ports: %w", lastPort-firstPort+1, unix.EADDRNOTAVAIL)
	}
	if err := p.enter(out, in); err != nil {
		for _, l := range out {
			p.free[l.client] = append(p.free[l.client], l)
		}
		return lease{}, err
	}
	p.rest = p.rest[len(fresh):]
	// Fresh ones first: those that rest are behind them.
	p.free[client] = append(in[1:], p.free[client]...)
	return in[0], nil
}

// pop takes the oldest of a client. mu is held.
func (p *ports) pop(client netip.Addr) lease {
	q := p.free[client]
	if len(q) == 1 {
		delete(p.free, client) // clients that have gone must not add up
	} else {
		p.free[client] = q[1:]
	}
	return q[0]
}

// put gives a port back.
func (p *ports) put(l lease) {
	l.since = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free[l.client] = append(p.free[l.client], l)
}
