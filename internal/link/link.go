// Package link carries many streams over one byte pipe between the supervisor
// and the agent, the same code at both ends.
//
// Each stream begins with a message of package protocol and then carries more
// messages or plain bytes, both ways, with half-close, reset by errno,
// deadlines and flow control of its own: a stream that nobody reads delays no
// other. Streams are of one of two lanes; what is interactive goes first. The
// frames are described in docs/protocol.md, part 3.
//
// The pipe below (package resume, or a socket between two processes of one
// machine) is owned by the link. It should not take much more than it can pass
// on: what it has taken cannot be overtaken. When it ends, everything fails
// with an error that wraps ECONNRESET and says why (*ClosedError).
//
// Nobody has to read a stream, but everybody has to Close it: until then it
// counts against the limits.
package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// Lane says what a stream's bytes wait behind.
type Lane uint8

const (
	// Interactive is for control, files, names and everything small: its
	// frames go before those of Bulk. It must not be used for streams that can
	// fill the path for long.
	Interactive Lane = iota
	// Bulk is for the data of connections.
	Bulk

	lanes = 2
)

// Role tells the two ends of a link apart.
type Role uint8

const (
	// Local is the supervisor's end.
	Local Role = iota
	// Agent is the agent's end.
	Agent
)

// Options of a link. The zero value is good.
type Options struct {
	// Memory bounds what the other end may make this end hold. The zero value is
	// a budget of this link's own.
	Memory Memory
}

// Memory is what a link takes from, until its end. Beside that it holds Fixed.
type Memory struct {
	Interactive *budget.Share // for streams of that lane
	Opened      *budget.Share // for others that this end has opened
	Accepted    *budget.Share // for others that the other end has opened
	Windows     *budget.Share // for windows beyond the smallest
}

// What a link without Memory may take, in bytes: all the streams that there may
// be, and some larger windows.
const (
	ownStreams = 2 * maxStreams * StreamCost
	ownWindows = 36 << 20
)

func ownMemory() Memory {
	b := budget.New(ownStreams + ownWindows)
	streams := b.Share(ownStreams, ownStreams)
	return Memory{Interactive: streams, Opened: streams, Accepted: streams, Windows: b.Share(ownWindows, ownWindows)}
}

// closeTime bounds how long Close sends what was written before.
const closeTime = 2 * time.Second

// Conn is one link. Its methods may be called concurrently.
type Conn struct {
	pipe   io.ReadWriteCloser
	role   Role
	memory Memory
	start  time.Time     // PING values and all times count from it
	done   chan struct{} // closed when the link has ended
	wg     sync.WaitGroup
	heard  atomic.Uint64 // frames that have come

	mu       sync.Mutex // guards what follows, and the fields of every Stream
	err      error      // why the link ended; nil while it lives
	streams  map[uint64]*Stream
	opened   [2]int                // streams in the map, by the Role that opened them
	nextID   uint64                // of the next stream opened here
	peerID   uint64                // of the next stream opened there
	ready    []*Stream             // opened there, with a complete message, for Accept
	readied  sync.Cond             // for Accept
	taken    map[*budget.Share]int // bytes
	messages int                   // bytes of large messages that were received and may be in use
	roomless map[*Stream]bool      // whose Receive waits for fewer of these
	isLost   bool                  // see lost.go, as for the next two
	lostAt   time.Duration
	patience *time.Timer // while it is lost

	// For the sender; see sender.go.
	work      sync.Cond // something to send, or the end
	queues    [lanes]queue
	control   queue
	refusals  []refusal
	pingDue   bool
	pongDue   bool
	token     uint64 // of the latest PING; a flood of them is answered once
	closing   bool   // Close was called: GOAWAY when all is sent
	reason    string
	saidBye   bool          // GOAWAY is on its way: an end of the pipe is its answer
	pingAt    time.Duration // when the last PING was sent
	tripTimes [trips]time.Duration
	tripsSeen int
}

// New starts a link on pipe, which it owns and closes at its end. The two ends
// of a link must have different roles.
func New(pipe io.ReadWriteCloser, role Role, opts Options) *Conn {
	memory := opts.Memory
	if memory == (Memory{}) {
		memory = ownMemory()
	}
	c := &Conn{
		pipe:     pipe,
		role:     role,
		memory:   memory,
		start:    time.Now(),
		done:     make(chan struct{}),
		streams:  map[uint64]*Stream{},
		roomless: map[*Stream]bool{},
		nextID:   firstID(role),
		peerID:   firstID(1 - role),
		taken:    map[*budget.Share]int{},
		pingDue:  true,
	}
	c.readied.L, c.work.L = &c.mu, &c.mu
	c.wg.Go(c.send)
	c.wg.Go(func() { c.fail(c.receive()) })
	c.wg.Go(func() {
		<-c.done
		c.pipe.Close() // ends send and receive
	})
	return c
}

func firstID(r Role) uint64 {
	if r == Local {
		return 1
	}
	return 2
}

// Open starts a stream whose first message is m and does not wait for the
// other end. Without a free stream, or memory for one, it fails with EAGAIN,
// after the end of the link with a *ClosedError. ctx is only looked at, not kept. While the link is
// lost the stream waits: see SetLost.
func (c *Conn) Open(ctx context.Context, lane Lane, m protocol.Message) (*Stream, error) {
	return c.open(ctx, lane, m, false)
}

func (c *Conn) open(ctx context.Context, lane Lane, m protocol.Message, fin bool) (*Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open a stream: %w", context.Cause(ctx))
	}
	first := protocol.Append(nil, m)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return nil, fmt.Errorf("open a stream: %w", c.err)
	case c.closing:
		return nil, fmt.Errorf("open a stream: %w", &ClosedError{Reason: c.reason})
	case c.opened[c.role] >= maxStreams:
		return nil, fmt.Errorf("open a stream: all %d are in use: %w", maxStreams, syscall.EAGAIN)
	}
	s := c.newStream(c.nextID, lane, c.role)
	if s == nil {
		return nil, fmt.Errorf("open a stream: the memory for it is in use: %w", syscall.EAGAIN)
	}
	c.nextID += 2
	c.lend(s, firstWindow)
	s.openDue, s.finDue = true, fin
	s.opened, s.lasts = time.Since(c.start), lasting(ctx)
	s.held, s.credit = first, minWindow
	c.push(s)
	return s, nil
}

// Accept waits for a stream that the other end opened, and gives its first
// message. Streams with a message that this end does not understand are reset
// here and not given.
func (c *Conn) Accept(ctx context.Context) (*Stream, protocol.Message, error) {
	for {
		s, err := c.acceptStream(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("accept a stream: %w", err)
		}
		m, err := s.Receive() // does not wait: the message is complete
		var unknown *protocol.UnknownKindError
		var reset *ResetError
		switch {
		case err == nil:
			return s, m, nil
		case errors.As(err, &unknown):
			_ = s.Reset(syscall.ENOSYS)
		case !errors.As(err, &reset):
			_ = s.Reset(syscall.EPROTO)
		}
		s.Close()
	}
}

func (c *Conn) acceptStream(ctx context.Context) (*Stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ready) == 0 && ctx.Done() != nil {
		stop := context.AfterFunc(ctx, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.readied.Broadcast()
		})
		defer stop()
	}
	for len(c.ready) == 0 {
		switch {
		case c.err != nil:
			return nil, c.err
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
		c.readied.Wait()
	}
	s := c.ready[0]
	c.ready[0] = nil
	c.ready = c.ready[1:]
	return s, nil
}

// Call asks one question: it opens an Interactive stream with m as its only
// message and returns the one reply, after one round trip. The end of ctx
// resets the stream with ECANCELED. An errno with which the other end reset it
// can be had from the error (EAGAIN: too many streams; ENOSYS: it does not know
// the message).
func (c *Conn) Call(ctx context.Context, m protocol.Message) (protocol.Message, error) {
	s, err := c.open(ctx, Interactive, m, true)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if ctx.Done() != nil {
		stop := context.AfterFunc(ctx, func() { _ = s.Reset(syscall.ECANCELED) })
		defer stop()
	}
	reply, err := s.Receive()
	switch {
	case err == nil:
		return reply, nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, io.EOF):
		err = fmt.Errorf("no reply: %w", syscall.EPROTO)
	}
	return nil, fmt.Errorf("call with message %d: %w", m.Kind(), err)
}

// Close sends what was written, then says goodbye with the reason, and returns
// when the link has ended and all its goroutines are gone. What cannot be sent
// within 2 s is dropped. It does not fail; it may be called again.
func (c *Conn) Close(reason string) error {
	c.mu.Lock()
	if c.err == nil && !c.closing {
		c.closing, c.reason = true, reason
		c.work.Signal()
		timer := time.AfterFunc(closeTime, func() { c.fail(&ClosedError{Reason: reason}) })
		defer timer.Stop()
	}
	c.mu.Unlock()
	<-c.done
	c.wg.Wait()
	return nil
}

// Done is closed when the link has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is why the link ended, a *ClosedError; nil while it lives.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// fail ends the link; only the first call counts.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	var closed *ClosedError
	switch {
	case errors.As(err, &closed):
	case c.saidBye: // the other end may close the pipe before the write of GOAWAY returns
		err = &ClosedError{Reason: c.reason}
	default:
		err = &ClosedError{Cause: err}
	}
	c.err = err
	for share, n := range c.taken {
		share.Give(n)
	}
	clear(c.taken)
	if c.patience != nil {
		c.patience.Stop()
	}
	for _, s := range c.streams {
		s.dropUnsent()
		s.wake()
	}
	c.readied.Broadcast()
	c.work.Broadcast()
	close(c.done)
}

// addr is the address of a link's end, for net.Conn.
type addr struct{ text string }

func (addr) Network() string  { return "link" }
func (a addr) String() string { return a.text }

var _ net.Conn = (*Stream)(nil)
