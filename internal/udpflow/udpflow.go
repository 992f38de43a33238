// Package udpflow divides the datagrams that reach one socket into flows, one
// for each client and address that it sends to, so that whoever carries them
// sees connections.
//
// Nothing tells the end of a flow: it ends when it has been idle for long, or
// when there are too many and others have been busier, as with address
// translators (RFC 4787 §4.3). What a slow reader cannot take is dropped, and
// counted, as on any way of a datagram.
package udpflow

import (
	"container/list"
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
)

const (
	// backlog bounds flows that wait for Accept.
	backlog = 64
	// maxQueued bounds the datagrams of one flow that its reader has not taken.
	maxQueued = 256
	// perDatagram is what a waiting one costs besides its bytes.
	perDatagram = 64
)

// Options of New.
type Options struct {
	// Answer sends a datagram from the address that a client has sent to. It must
	// not wait for long. nil: nothing is answered.
	Answer func(from, client netip.AddrPort, p []byte) error
	// Idle is how long a flow lives without a datagram either way; Max how many
	// there are at a time.
	Idle time.Duration
	Max  int
	// Held is the memory for what waits for readers. nil: it has no end.
	Held *budget.Share
}

// Table is the flows of one socket. Its methods may be called concurrently.
type Table struct {
	o    Options
	news chan *Flow
	quit chan struct{} // closed by Close

	mu     sync.Mutex
	flows  map[ends]*Flow
	order  list.List // of *Flow, the one that has been idle longest first
	lost   int64
	closed bool
}

type ends struct{ client, local netip.AddrPort }

// New makes a table; Close ends it.
func New(o Options) *Table {
	return &Table{o: o, news: make(chan *Flow, backlog), quit: make(chan struct{}), flows: map[ends]*Flow{}}
}

// Deliver gives p, which client has sent to local, to its flow, a new one if
// there is none. It copies p, and never waits.
func (t *Table) Deliver(client, local netip.AddrPort, p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	k := ends{client, local}
	f := t.flows[k]
	if f == nil {
		if f = t.begin(k); f == nil {
			t.lost++
			return
		}
	}
	t.touch(f)
	if len(f.queue) == cap(f.queue) || !t.o.Held.Take(perDatagram+len(p)) {
		t.lost++
		return
	}
	f.queue <- append([]byte(nil), p...) // nobody else writes to it
}

// begin makes a flow; nil: nobody accepts it. mu is held.
func (t *Table) begin(k ends) *Flow {
	f := &Flow{t: t, ends: k, queue: make(chan []byte, maxQueued), over: make(chan struct{})}
	select {
	case t.news <- f:
	default:
		return nil
	}
	if len(t.flows) >= t.o.Max {
		t.end(t.order.Front().Value.(*Flow))
	}
	t.flows[k], f.at = f, t.order.PushBack(f)
	return f
}

// touch makes f the one that has been idle shortest. mu is held.
func (t *Table) touch(f *Flow) {
	if f.at != nil {
		f.busy = time.Now()
		t.order.MoveToBack(f.at)
	}
}

// end ends a flow. mu is held.
func (t *Table) end(f *Flow) {
	if f.at == nil {
		return
	}
	t.order.Remove(f.at)
	f.at = nil
	delete(t.flows, f.ends)
	close(f.over)
	for {
		select {
		case p := <-f.queue:
			t.o.Held.Give(perDatagram + len(p))
			t.lost++
		default:
			return
		}
	}
}

// Accept waits for the next flow, a *Flow. After Close it fails with
// net.ErrClosed.
func (t *Table) Accept(ctx context.Context) (net.Conn, error) {
	select {
	case f := <-t.news:
		return f, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-t.quit:
		return nil, net.ErrClosed
	}
}

// Forget ends the flows to one port.
func (t *Table) Forget(port uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, f := range t.flows {
		if k.local.Port() == port {
			t.end(f)
		}
	}
}

// Lost is how many datagrams reached no reader.
func (t *Table) Lost() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lost
}

// Close ends all flows.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.closed = true
	close(t.quit)
	for _, f := range t.flows {
		t.end(f)
	}
}

// Flow is the datagrams between one client and one address. Its methods may be
// called concurrently. Deadlines are not supported: Close ends a Read.
type Flow struct {
	t *Table
	ends
	queue chan []byte
	over  chan struct{} // closed when it has ended

	at   *list.Element // in t.order, guarded by t.mu; nil: it has ended
	busy time.Time     // guarded by t.mu
}

// Read is Next, of which what p has no room for is dropped.
func (f *Flow) Read(p []byte) (int, error) {
	d, err := f.Next()
	return copy(p, d), err
}

// Next waits for the client's next datagram, which is the caller's. It fails with
// io.EOF when the flow has been idle both ways, and with net.ErrClosed after its
// end.
func (f *Flow) Next() ([]byte, error) {
	idle := time.NewTimer(f.t.o.Idle)
	defer idle.Stop()
	for {
		select {
		case d := <-f.queue:
			f.t.o.Held.Give(perDatagram + len(d))
			return d, nil
		case <-f.over:
			return nil, net.ErrClosed
		case <-idle.C:
		}
		left := f.left()
		if left <= 0 {
			f.Close()
			return nil, io.EOF
		}
		idle.Reset(left)
	}
}

// left is how long f may still be idle.
func (f *Flow) left() time.Duration {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	return f.t.o.Idle - time.Since(f.busy)
}

// Write sends the client a datagram from the address that it has sent to.
func (f *Flow) Write(p []byte) (int, error) {
	if f.t.o.Answer == nil {
		return 0, io.ErrClosedPipe
	}
	f.t.mu.Lock()
	over := f.at == nil
	f.t.touch(f)
	f.t.mu.Unlock()
	if over {
		return 0, net.ErrClosed
	}
	if err := f.t.o.Answer(f.local, f.client, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close ends the flow. The client's next datagram begins a new one.
func (f *Flow) Close() error {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	f.t.end(f)
	return nil
}

// LocalAddr is what the client sends to.
func (f *Flow) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(f.local) }

// RemoteAddr is the client.
func (f *Flow) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(f.client) }

// SetDeadline implements net.Conn.
func (f *Flow) SetDeadline(time.Time) error { return os.ErrNoDeadline }

// SetReadDeadline implements net.Conn.
func (f *Flow) SetReadDeadline(time.Time) error { return os.ErrNoDeadline }

// SetWriteDeadline implements net.Conn.
func (f *Flow) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
