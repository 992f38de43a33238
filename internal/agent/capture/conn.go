package capture

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
)

// What Push fails with, besides net.ErrClosed.
var (
	errSlow    = errors.New("the reader is too slow")
	errIgnored = errors.New("the connection is ignored")
)

// maxQueued bounds the bytes of one copy that its reader has not read yet: a
// large request body ahead of a reader that has a slow link.
const maxQueued = 4 << 20

// perPiece is what a piece costs besides its bytes, of which there may be one:
// its place in a queue that grows by doubling, and the allocator's rounding.
const perPiece = 64

// cost is what a piece of a connection that waits, for its reader or for what
// comes before it, is counted as.
func cost(data []byte) int { return perPiece + len(data) }

// Conn is the copy of one connection: what the client sent, in order. It can
// be read once, by one reader; what is written to it goes nowhere.
type Conn struct {
	client, server netip.AddrPort
	held           *budget.Share
	middle         bool

	mu     sync.Mutex
	cond   sync.Cond // of mu
	queue  [][]byte
	at     int   // what was read of the first of them
	queued int   // bytes in queue
	taken  int   // of held, for queue
	err    error // after the queue: io.EOF, ErrIncomplete, …
	closed bool
	ignore bool
}

// NewConn makes a copy that somebody else than a Tap fills. What waits in it is
// taken from h.
func NewConn(client, server netip.AddrPort, h *budget.Share) *Conn {
	c := &Conn{client: client, server: server, held: h}
	c.cond.L = &c.mu
	return c
}

// Middle reports whether the copy does not begin where its connection did.
func (c *Conn) Middle() bool { return c.middle }

// Push queues data, which it takes over. It does not wait: it fails with
// net.ErrClosed if the reader has closed the copy, and if it is too slow.
func (c *Conn) Push(data []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ignore:
		return errIgnored
	case c.closed:
		return net.ErrClosed
	case c.queued+len(data) > maxQueued || !c.held.Take(cost(data)):
		return errSlow
	}
	c.taken += cost(data)
	c.queue = append(c.queue, data)
	c.queued += len(data)
	c.cond.Signal()
	return nil
}

// Finish says what the reader gets after what is queued. The first call counts.
func (c *Conn) Finish(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	c.cond.Broadcast()
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) == 0 && c.err == nil && !c.closed {
		c.cond.Wait()
	}
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case len(c.queue) == 0:
		return 0, c.err
	}
	n := copy(p, c.queue[0][c.at:])
	if c.at += n; c.at == len(c.queue[0]) {
		c.held.Give(cost(c.queue[0]))
		c.taken -= cost(c.queue[0])
		c.queue[0] = nil
		c.queue, c.at = c.queue[1:], 0
	}
	c.queued -= n
	return n, nil
}

// Write implements net.Conn: a copy has nobody to answer.
func (c *Conn) Write(p []byte) (int, error) { return 0, io.ErrClosedPipe }

// CloseWrite does nothing.
func (c *Conn) CloseWrite() error { return nil }

// Ignore tells that what the connection carries is not understood: after Close
// nothing of it begins another copy.
func (c *Conn) Ignore() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ignore = true
}

// Close ends the copy. Where the connection goes on, what begins there may be
// another.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.held.Give(c.taken)
	c.queue, c.queued, c.taken = nil, 0, 0
	c.cond.Broadcast()
	return nil
}

// LocalAddr is what the client dialed.
func (c *Conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.server) }

// RemoteAddr is the client.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.client) }

// Deadlines are not supported: Close ends a Read.

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(time.Time) error { return os.ErrNoDeadline }

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(time.Time) error { return os.ErrNoDeadline }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
