package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// smallWrite is how many bytes of small writes a stream takes over without
// waiting for the sender, so that they travel as one frame.
const smallWrite = 4 << 10

var smallWrites = sync.Pool{New: func() any { return new([smallWrite]byte) }}

// Stream is one conversation on a link: a net.Conn whose directions end
// separately, and which carries messages as well as bytes. Its methods may be
// called concurrently; what several callers write, or send, is not mixed. The
// user closes it.
//
// Reading gives io.EOF after the other end's CloseWrite or Close, a *ResetError
// after a reset, ErrLost (see SetLost), os.ErrDeadlineExceeded after a deadline, net.ErrClosed after
// Close, and when the link has ended, after all that had arrived, a
// *ClosedError. Writing fails alike, and with EPIPE when the other end has
// closed the stream.
type Stream struct {
	c      *Conn
	id     uint64
	lane   Lane
	owner  Role          // who opened it
	lasts  bool          // see Lasting; set before anybody knows the stream, as is opened
	opened time.Duration // when, of those opened here

	writing sync.Mutex // held by Write; taken before c.mu

	// What follows is guarded by c.mu.
	gone    bool  // not in c.streams any more: both directions have ended
	counted bool  // its StreamCost was taken and not given back
	reset   error // why both directions failed; nil: they did not
	closed  bool  // Close was called: nobody reads

	// Receiving. Counters are of bytes since the beginning.
	readable  sync.Cond
	in        inbox
	received  uint64
	consumed  uint64
	granted   uint64 // what the other end may send
	window    int    // granted beyond consumed, at most
	grownAt   time.Duration
	finIn     bool // the other end will send nothing more
	unready   bool // the opening message is not complete
	message   int  // bytes reserved for the message that Receive gave last
	readLimit deadline

	// Sending: held first, then direct.
	taken      sync.Cond         // direct is empty, or cannot be sent
	held       []byte            // owned: the opening message, small writes
	pooled     *[smallWrite]byte // what held lies in, nil: not in the pool's
	direct     []byte            // of the caller of Write, who waits
	credit     int               // bytes that may be sent
	stopped    bool              // the other end reads no more
	finDue     bool              // nothing more will be written
	finOut     bool              // and the other end was told
	openDue    bool              // OPEN was not sent
	windowDue  bool              // WINDOW is to be sent
	stopDue    bool              // STOP is to be sent
	resetDue   bool              // RESET is to be sent, with errno
	errno      syscall.Errno     // of resetDue
	writeLimit deadline
	next       [queueKinds]*Stream // in a lane, and in control
	queued     [queueKinds]bool
}

// newStream makes a stream and counts it; nil: there is no memory for it. mu is
// held.
func (c *Conn) newStream(id uint64, lane Lane, owner Role) *Stream {
	if !c.take(c.share(lane, owner), StreamCost) {
		return nil
	}
	s := &Stream{counted: true, c: c, id: id, lane: lane, owner: owner, window: minWindow, grownAt: time.Since(c.start)}
	s.readable.L, s.taken.L = &c.mu, &c.mu
	s.readLimit.cond, s.writeLimit.cond = &s.readable, &s.taken
	c.streams[id] = s
	c.opened[owner]++
	return s
}

// Link is the link that the stream is part of.
func (s *Stream) Link() *Conn { return s.c }

// Lane is the one that the stream was opened with.
func (s *Stream) Lane() Lane { return s.lane }

// Read reads what has arrived, or waits for something.
func (s *Stream) Read(p []byte) (int, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for {
		switch {
		case s.closed:
			return 0, fmt.Errorf("read: %w", net.ErrClosed)
		case s.reset != nil:
			return 0, s.reset
		case s.readLimit.passed:
			return 0, os.ErrDeadlineExceeded
		case s.in.n > 0:
			n := s.in.read(p)
			s.wasConsumed(n)
			return n, nil
		case s.finIn:
			s.giveBack()
			return 0, io.EOF
		case s.c.err != nil:
			return 0, s.c.err
		case len(p) == 0:
			return 0, nil
		}
		s.readable.Wait()
	}
}

// Buffered is how many bytes can be read without waiting.
func (s *Stream) Buffered() int {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.in.n
}

// Ready waits until Read would not wait, and is how many bytes it could give; 0: it
// says why there are none.
func (s *Stream) Ready() int {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for s.in.n == 0 && !s.closed && s.reset == nil && !s.readLimit.passed && !s.finIn && s.c.err == nil {
		s.readable.Wait()
	}
	return s.in.n
}

// ReadByte is Read for one byte.
func (s *Stream) ReadByte() (byte, error) {
	var p [1]byte
	_, err := s.Read(p[:])
	return p[0], err
}

// Write returns when p is on its way; a small p a little earlier, so that the
// error of its sending comes with a later call.
func (s *Stream) Write(p []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.unwritable(); err != nil || len(p) == 0 {
		return 0, err
	}
	if len(s.held)+len(p) <= smallWrite {
		s.hold(p)
		c.push(s)
		return len(p), nil
	}
	s.direct = p
	c.push(s)
	for len(s.direct) > 0 {
		s.taken.Wait()
		if len(s.direct) == 0 {
			break
		}
		if err := s.unwritable(); err != nil {
			n := len(p) - len(s.direct)
			s.direct = nil
			c.push(s) // the end of the direction may have waited for it
			return n, err
		}
	}
	return len(p), nil
}

// hold copies p behind what is held. mu is held.
func (s *Stream) hold(p []byte) {
	if s.held == nil {
		s.pooled = smallWrites.Get().(*[smallWrite]byte)
		s.held = s.pooled[:0]
	}
	if s.pooled != nil && cap(s.held)-len(s.held) < len(p) {
		s.held = s.pooled[:copy(s.pooled[:], s.held)] // the front has been sent
	}
	s.held = append(s.held, p...)
}

// release gives held's memory back. mu is held.
func (s *Stream) release() {
	if s.pooled != nil {
		smallWrites.Put(s.pooled)
	}
	s.held, s.pooled = nil, nil
}

// unwritable is why nothing can be written; nil: it can. mu is held.
func (s *Stream) unwritable() error {
	switch {
	case s.closed, s.finDue && !s.stopped:
		return fmt.Errorf("write: %w", net.ErrClosed)
	case s.reset != nil:
		return s.reset
	case s.c.err != nil:
		return s.c.err
	case s.stopped:
		return fmt.Errorf("write: %w", syscall.EPIPE)
	case s.writeLimit.passed:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// CloseWrite ends this direction after what was written; reading goes on. The
// other end reads io.EOF.
func (s *Stream) CloseWrite() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if err := s.unwritable(); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("close for writing: %w", err)
	}
	s.finDue = true
	s.c.push(s)
	s.taken.Broadcast() // a Write under way fails
	return nil
}

// Close ends the stream: what was written is still sent, then the other end
// reads io.EOF; what it sends from now on is dropped, and its Write fails with
// EPIPE. Close does not wait, and fails only if it is called again.
func (s *Stream) Close() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.closed {
		return fmt.Errorf("close: %w", net.ErrClosed)
	}
	s.closed = true
	s.forgetMessage()
	s.readLimit.stop()
	s.writeLimit.stop()
	s.in.drop()
	s.giveBack()
	s.wake()
	if s.gone || s.c.err != nil {
		return nil
	}
	s.finDue = true
	s.c.push(s)
	if !s.finIn {
		s.stopDue = true
		s.c.pushControl(s)
	}
	return nil
}

// Reset ends both directions at once; the other end's reading and writing fail
// with errno (0: ECONNRESET). It is no error to reset a stream that has ended.
// The stream must still be closed.
func (s *Stream) Reset(errno syscall.Errno) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.abort(errno)
	return nil
}

// abort is Reset for who holds mu.
func (s *Stream) abort(errno syscall.Errno) {
	if errno == 0 {
		errno = syscall.ECONNRESET
	}
	s.abortWith(errno, &ResetError{Errno: errno})
}

// abortWith tells the other end errno and the callers here err. mu is held.
func (s *Stream) abortWith(errno syscall.Errno, err error) {
	if s.gone || s.c.err != nil {
		return
	}
	if !s.openDue { // else the other end never hears of it
		s.resetDue, s.errno = true, errno
		s.c.pushControl(s)
	}
	s.kill(err)
}

// kill ends both directions with err. mu is held.
func (s *Stream) kill(err error) {
	s.reset = err
	s.in.drop()
	s.dropUnsent()
	s.retire()
	s.wake()
}

// dropUnsent forgets what was written. mu is held.
func (s *Stream) dropUnsent() {
	s.release()
	s.openDue = false
}

// wake makes every waiting caller look again. mu is held.
func (s *Stream) wake() {
	s.readable.Broadcast()
	s.taken.Broadcast()
}

// retire takes the stream out of the link when both directions have ended. mu
// is held.
func (s *Stream) retire() {
	if s.gone || s.reset == nil && !(s.finIn && s.finOut) {
		return
	}
	s.gone = true
	delete(s.c.streams, s.id)
	s.c.opened[s.owner]--
	s.giveBack()
}

// giveBack returns what was lent for reading when nothing is left to be read,
// and all when the stream has ended. mu is held.
func (s *Stream) giveBack() {
	if s.in.n > 0 || !s.gone && !s.finIn {
		return
	}
	if s.window > minWindow {
		s.c.setWindow(s, minWindow)
	}
	if s.gone && s.counted {
		s.counted = false
		s.c.give(s.c.share(s.lane, s.owner), StreamCost)
	}
}

// Send writes one message; it is not mixed with what others send.
func (s *Stream) Send(m protocol.Message) error {
	_, err := s.Write(protocol.Append(nil, m))
	return err
}

// Receive reads one message. It returns io.EOF at the end of the stream,
// io.ErrUnexpectedEOF in the middle of a message, and a
// *protocol.UnknownKindError after a message of a newer release, behind which
// the stream is intact. There must be one reader at a time. The memory of a
// large message counts until the next Receive, or Close: while there is too
// much of it Receive waits.
func (s *Stream) Receive() (protocol.Message, error) {
	s.c.mu.Lock()
	s.forgetMessage()
	s.c.mu.Unlock()
	return protocol.ReadWithin(s, s.reserve)
}

// LocalAddr names this end.
func (s *Stream) LocalAddr() net.Addr { return addr{fmt.Sprintf("stream %d", s.id)} }

// RemoteAddr names the other end.
func (s *Stream) RemoteAddr() net.Addr { return addr{fmt.Sprintf("stream %d", s.id)} }

// SetDeadline sets both deadlines.
func (s *Stream) SetDeadline(t time.Time) error {
	if err := s.SetReadDeadline(t); err != nil {
		return err
	}
	return s.SetWriteDeadline(t)
}

// SetReadDeadline bounds calls of Read, also those under way; zero: no bound.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.setLimit(&s.readLimit, t) }

// SetWriteDeadline bounds calls of Write, also those under way; zero: no bound.
// What a Write has given to the sender is sent all the same.
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.setLimit(&s.writeLimit, t) }

func (s *Stream) setLimit(d *deadline, t time.Time) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.closed {
		return fmt.Errorf("set a deadline: %w", net.ErrClosed)
	}
	d.set(&s.c.mu, t)
	return nil
}

// deadline is a time after which callers stop waiting. It is guarded by the
// link's mu.
type deadline struct {
	cond   *sync.Cond // of those who wait
	passed bool
	timer  *time.Timer
	turn   int // counts sets: a timer that fires late finds another turn
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.turn++
}

func (d *deadline) set(mu *sync.Mutex, t time.Time) {
	d.stop()
	d.passed = false
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		d.passed = true
		d.cond.Broadcast()
		return
	}
	turn := d.turn
	d.timer = time.AfterFunc(left, func() {
		mu.Lock()
		defer mu.Unlock()
		if d.turn == turn {
			d.passed = true
			d.cond.Broadcast()
		}
	})
}
