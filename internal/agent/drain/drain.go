// Package drain ends connections that clients made before a port was stolen,
// gently and between two requests, so that the clients come anew.
//
// The kernel gives new connections only to who steals a port; a client that
// keeps its connection open would stay with the target for good. A packet socket
// shows when such a connection has carried a whole request of HTTP/1 and its
// whole response, and nothing since; only then is it ended. The server is told
// the client's end by a segment of ours. Its kernel takes that only if the client
// has said nothing meanwhile, as its sequence number would be an old one: so no
// request can be lost in between. When the kernel has acknowledged the end, the
// client is told the server's in the same way. Both then close in order, and
// neither of the two ends disagrees with what the other has sent. A request that
// was on its way is answered by a reset from the server's kernel, and no program
// has seen it.
//
// It needs CAP_NET_RAW in the user namespace of the target's network namespace;
// for cutting connections (Cut) CAP_NET_ADMIN there and a kernel with
// CONFIG_INET_DIAG_DESTROY. It keeps nothing when all connections are gone.
//
// Hazards. A client that sends a request ahead of the response to one that was
// under way before this began would be misunderstood: the one response is taken
// for the other's. Who pipelines does not leave connections idle.
package drain

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/agent/capture"
	"github.com/mirrord-go/mirrord/internal/budget"
)

const (
	// tickTime is how often idle connections are looked for, while there are any.
	tickTime = 50 * time.Millisecond
	// pruneTime is how often the kernel is asked whether they are still there.
	pruneTime = 15 * time.Second
	// maxFlows bounds connections that are watched; more stay with the target.
	maxFlows = 4096
	// maxPacket is more than any packet has.
	maxPacket = 256 << 10
)

// Namespace is the target's network namespace.
type Namespace interface {
	// Do runs f on a thread inside it.
	Do(f func() error) error
}

// Options of New.
type Options struct {
	Namespace Namespace
	Passed    capture.Marks // of packets of agents' own connections to the port, which stay
	Heads     *budget.Share // for beginnings of heads that come in pieces
	// Ended is told of connections that have been ended, by port. It must not wait.
	Ended func(port uint16)
}

// Drain ends connections of one network namespace. Its methods may be called
// concurrently.
type Drain struct {
	o  Options
	wg sync.WaitGroup // run

	mu     sync.Mutex // what follows
	watch  watch
	ports  map[uint16]bool
	socket *os.File // packets; nil: run is not there
	closed bool
}

// New makes one that does nothing yet.
func New(o Options) *Drain {
	return &Drain{o: o, watch: watch{heads: o.Heads, flows: map[flowKey]*flow{}}, ports: map[uint16]bool{}}
}

// Connections are those that clients have with a port.
type Connections struct {
	port uint16
	keys []flowKey
}

// Len is how many there are.
func (c Connections) Len() int { return len(c.keys) }

// Connections lists those that are established, but for those of this process.
func (d *Drain) Connections(port uint16) (Connections, error) {
	c := Connections{port: port}
	own, err := ownSockets()
	if err != nil {
		return c, err
	}
	err = d.o.Namespace.Do(func() (err error) {
		c.keys, err = established(port, own)
		return err
	})
	if len(c.keys) > maxFlows {
		c.keys = c.keys[:maxFlows]
	}
	return c, err
}

// Begin ends c, one by one, as they are idle. An error leaves all of them alone.
func (d *Drain) Begin(c Connections) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || len(c.keys) == 0 {
		return nil
	}
	d.ports[c.port] = true
	d.watch.add(c.keys)
	if err := d.listen(); err != nil {
		d.drop(c.port)
		return fmt.Errorf("watch connections to port %d: %w", c.port, err)
	}
	return nil
}

// listen sees to it that run is there, and sees the ports. mu is held.
func (d *Drain) listen() error {
	if d.socket != nil {
		return filterPorts(d.socket, d.ports, d.o.Passed)
	}
	var in *os.File
	var out senders
	err := d.o.Namespace.Do(func() (err error) {
		if in, err = openPackets(d.ports, d.o.Passed); err == nil {
			out, err = openSenders()
		}
		return err
	})
	if err != nil {
		if in != nil {
			in.Close()
		}
		return err
	}
	d.socket = in
	d.wg.Go(func() { d.run(in, out) })
	return nil
}

// Forget leaves the connections of a port alone.
func (d *Drain) Forget(port uint16) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop(port)
}

func (d *Drain) drop(port uint16) {
	delete(d.ports, port)
	d.watch.keep(nil, func(k flowKey) bool { return k.server.Port() == port })
}

// Close ends nothing more.
func (d *Drain) Close() error {
	d.mu.Lock()
	d.closed = true
	d.watch.keep(nil, func(flowKey) bool { return true })
	d.mu.Unlock()
	d.wg.Wait()
	return nil
}

// run looks at packets until no connection is left.
func (d *Drain) run(in *os.File, out senders) {
	defer out.close()
	buf := make([]byte, maxPacket)
	ticked, pruned := time.Now(), time.Now()
	for {
		_ = in.SetReadDeadline(time.Now().Add(tickTime))
		packet, err := receive(in, buf)
		now := time.Now()
		d.mu.Lock()
		if len(d.watch.flows) == 0 || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			d.socket = nil
			d.mu.Unlock()
			in.Close()
			return
		}
		var say []*segment
		if s, ok := parse(packet); ok {
			if last := d.watch.segment(s, now); last != nil {
				say = append(say, last)
				d.o.Ended(last.src.Port())
			}
		}
		if now.Sub(ticked) >= tickTime {
			ticked = now
			say = append(say, d.watch.due(now)...)
		}
		if now.Sub(pruned) >= pruneTime {
			pruned = now
			d.prune()
		}
		d.mu.Unlock()
		for _, s := range say {
			_ = out.send(s) // what does not arrive ends nothing
		}
	}
}

// prune forgets what the kernel does not know any more: its end was not seen. mu
// is held.
func (d *Drain) prune() {
	for port := range d.ports {
		var there []flowKey
		err := d.o.Namespace.Do(func() (err error) {
			there, err = established(port, nil)
			return err
		})
		if err == nil {
			d.watch.keep(there, func(k flowKey) bool { return k.server.Port() == port })
		}
	}
}

// Cut resets c at once, requests under way or not, and gives how many there were.
func (d *Drain) Cut(c Connections) (n int, err error) {
	err = d.o.Namespace.Do(func() error {
		n, err = destroy(c.keys)
		return err
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = fmt.Errorf("the target's kernel cannot (CONFIG_INET_DIAG_DESTROY): %w", err)
	}
	return n, err
}

// unmapped is a as a connection's end is called in packets.
func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
