// Package capture copies what clients send to a target's ports, without being
// in their way.
//
// A packet socket in the target's network namespace sees the packets that come
// in (packet(7)); they are put into order and given out as one read-only
// connection for each connection of a client. One that is older than the tap, or
// of which something is missing, is copied from the place on where something
// begins that its user knows. It needs CAP_NET_RAW in the
// namespace's user namespace, and nothing of the target's traffic depends on
// it: the kernel copies packets into a ring of fixed size and goes on.
//
// Behind a mesh's sidecar, a connection that its rules lead elsewhere than to the
// port that the client has called is not copied (led.go): the sidecar calls the
// port itself.
//
// What is lost is never hidden. A copy with a gap ends with an error
// (ErrIncomplete), a reader that is too slow loses its copy, and all of it is
// counted.
//
// Hazards. The read loop must never wait for a reader: a full ring loses the
// packets of all connections. On loopback every packet is seen twice, so
// outgoing ones are ignored. Packets may be larger than 64 KiB (segmentation
// offload: the IP length is 0 then) and longer than their IP length (Ethernet's
// padding).
package capture

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/budget"
)

// ErrIncomplete ends the copy of a connection of which packets were lost.
var ErrIncomplete = errors.New("packets were lost, the copy is incomplete")

const (
	// backlog bounds copies that wait for Accept; more are not copied.
	backlog = 256
	// maxPorts bounds the watched ports of one session; each is an instruction
	// of the kernel's filter, and jumps reach 255 of them (linux/filter.h).
	maxPorts = 250
)

// Stats counts since the tap was opened.
type Stats struct {
	Connections int64 // copies begun
	Bytes       int64 // of payload, retransmissions included
	Incomplete  int64 // copies ended because of a gap
	Slow        int64 // copies ended because their reader was too slow
	Refused     int64 // connections not copied because too many were open
	Dropped     int64 // packets that the ring had no room for
}

// Marks are those of packets that are not copied: a mark that is Value under
// Mask (SO_MARK, socket(7)). The zero value is none. Connections that have such a
// mark are led elsewhere by an agent, and copied.
type Marks struct{ Value, Mask uint32 }

// Tap copies from one network namespace. Its methods may be called
// concurrently.
type Tap struct {
	ring  *ring
	led   *led
	wg    sync.WaitGroup // the read loop
	conns chan *Conn
	quit  chan struct{} // closed by Close
	once  sync.Once

	mu    sync.Mutex // ports, asm
	ports []uint16
	asm   *assembler
}

// Open makes a tap in the namespace that do runs functions in. It sees nothing
// until the first Add. What waits, for a reader or for what comes before it, is
// taken from held; without room copies end. begins reports whether a segment that
// a client sends begins something from which on an older connection may be
// copied; it is asked about each of those. nil: nothing does.
func Open(do func(func() error) error, held *budget.Share, but Marks, begins func([]byte) bool) (*Tap, error) {
	t := &Tap{conns: make(chan *Conn, backlog), quit: make(chan struct{})}
	t.asm = newAssembler(t.begin, begins, held)
	err := do(func() (err error) {
		t.ring, err = openRing(but)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("capture in the target's network: %w", err)
	}
	t.led = newLed(do, but)
	t.asm.led = t.led.elsewhere
	t.wg.Go(func() {
		_ = t.ring.read(func(pkt []byte, loops bool) {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.asm.packet(pkt, loops, time.Now())
		})
	})
	return t, nil
}

// Sidecar tells that a proxy in the target's network gets what comes in for its
// ports. It is called before the first Add.
func (t *Tap) Sidecar() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.led.sidecar = true
}

// Exact reports whether all that rules of others lead elsewhere is known. Where
// it is not, behind a sidecar, connections that end at once may not be copied; or,
// where Blind, all are copied twice.
func (t *Tap) Exact() bool { return t.led.tracks }

// Blind reports whether nothing is known of what rules of others lead elsewhere.
func (t *Tap) Blind() bool { return !t.led.tracks && !t.led.diagnoses }

// Passes gives the port of a connection that has gone to the sidecar since the
// last was taken: its copy is to come from there.
func (t *Tap) Passes() <-chan uint16 { return t.led.passes }

// begin offers a new copy; false if there is no room.
func (t *Tap) begin(c *Conn) bool {
	select {
	case t.conns <- c:
		return true
	default:
		return false
	}
}

// Add watches port: connections that begin after its return are copied, and
// older ones from where something begins.
func (t *Tap) Add(port uint16) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.Contains(t.ports, port) {
		return nil
	}
	if len(t.ports) >= maxPorts {
		return fmt.Errorf("watch port %d: %d ports are watched already: %w", port, maxPorts, unix.ENOSPC)
	}
	ports := append(slices.Clone(t.ports), port)
	if err := t.ring.watch(ports); err != nil {
		return fmt.Errorf("watch port %d: %w", port, err)
	}
	t.ports = ports
	return nil
}

// Remove ends the copies of port.
func (t *Tap) Remove(port uint16) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	ports := slices.DeleteFunc(slices.Clone(t.ports), func(p uint16) bool { return p == port })
	if len(ports) == len(t.ports) {
		return nil
	}
	t.ports = ports
	t.asm.forget(port)
	return t.ring.watch(ports)
}

// Accept waits for the next copy, a *Conn. After Close it fails with
// net.ErrClosed.
func (t *Tap) Accept(ctx context.Context) (net.Conn, error) {
	select {
	case c := <-t.conns:
		return c, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-t.quit:
		return nil, net.ErrClosed
	}
}

// Stats gives the counters.
func (t *Tap) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-t.quit: // the ring may be gone
	default:
		t.asm.stats.Dropped += t.ring.dropped()
	}
	return t.asm.stats
}

// Close ends every copy.
func (t *Tap) Close() error {
	t.once.Do(func() {
		close(t.quit)
		t.ring.stop()
		t.wg.Wait()
		t.mu.Lock()
		defer t.mu.Unlock()
		t.asm.forgetAll()
		t.led.close()
	})
	return t.ring.close()
}
