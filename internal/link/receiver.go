package link

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// readBuffer is how many bytes are taken from the pipe at once.
const readBuffer = 64 << 10

// receive is the goroutine that reads the pipe; it returns why that ended. It
// waits for nothing but the pipe.
func (c *Conn) receive() error {
	r := bufio.NewReaderSize(c.pipe, readBuffer)
	for {
		b, err := r.Peek(headerSize)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // no GOAWAY
			}
			return fmt.Errorf("read: %w", err)
		}
		h := parseHeader(b)
		_, _ = r.Discard(headerSize)
		c.heard.Add(1)
		if err := c.frame(r, h); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
}

func violation(h header, what string) error {
	return fmt.Errorf("%w: frame of type %d on stream %d: %s", errProtocol, h.typ, h.stream, what)
}

// frame handles one frame, whose payload is the next in r.
func (c *Conn) frame(r *bufio.Reader, h header) error {
	switch h.typ {
	case typeOpen, typeData:
		if h.n > maxPayload {
			return violation(h, fmt.Sprintf("%d bytes", h.n))
		}
		if h.typ == typeOpen {
			return c.onOpen(r, h)
		}
		return c.onData(r, h)
	case typeWindow, typeStop, typeReset, typePing, typePong, typeGoAway:
		if h.n > 4+maxReason {
			return violation(h, fmt.Sprintf("%d bytes", h.n))
		}
		b, err := r.Peek(h.n)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if err := c.onControl(h, b); err != nil {
			return err
		}
	}
	_, err := r.Discard(h.n) // also of types of a newer release
	return err
}

// onControl handles a frame without stream data.
func (c *Conn) onControl(h header, b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch h.typ {
	case typePing, typePong:
		if len(b) < 8 {
			return violation(h, "too short")
		}
		v := binary.BigEndian.Uint64(b)
		if h.typ == typePing {
			c.pongDue, c.token = true, v
			c.work.Signal()
			return nil
		}
		if took := time.Since(c.start) - time.Duration(v); took > 0 && v > 0 && time.Duration(v) == c.pingAt {
			c.tripTimes[c.tripsSeen%trips] = took
			c.tripsSeen++
		}
		return nil
	case typeGoAway:
		if len(b) < 4 {
			return violation(h, "too short")
		}
		e := &ClosedError{Reason: string(b[4:]), Remote: true}
		if code := protocol.Errno(binary.BigEndian.Uint32(b)); code != 0 {
			e.Cause = code
		}
		return e
	}

	s, err := c.find(h)
	if err != nil || s == nil {
		return err
	}
	if h.typ == typeStop {
		s.stopped, s.finDue = true, true
		s.release()
		s.taken.Broadcast()
		c.push(s)
		return nil
	}
	if len(b) < 4 {
		return violation(h, "too short")
	}
	v := binary.BigEndian.Uint32(b)
	if h.typ == typeReset {
		errno := protocol.Errno(v)
		if errno == 0 {
			errno = syscall.ECONNRESET
		}
		s.kill(&ResetError{Errno: errno, Remote: true})
		return nil
	}
	if v > maxCredit || s.credit > maxCredit-int(v) {
		return violation(h, "window overflows")
	}
	s.credit += int(v)
	c.push(s)
	return nil
}

// maxCredit bounds what the other end may allow, far beyond any window.
const maxCredit = 1 << 30

// maxID keeps ids from wrapping around.
const maxID = 1 << 62

// find gives the stream that h is for; nil if it has ended. mu is held.
func (c *Conn) find(h header) (*Stream, error) {
	if s := c.streams[h.stream]; s != nil {
		if s.openDue { // it cannot know of it
			return nil, violation(h, "stream was not opened")
		}
		return s, nil
	}
	next := c.nextID
	if h.stream%2 != c.nextID%2 {
		next = c.peerID
	}
	if h.stream == 0 || h.stream >= next {
		return nil, violation(h, "stream was not opened")
	}
	return nil, nil
}

// onOpen makes the stream that the other end opens, or refuses it.
func (c *Conn) onOpen(r *bufio.Reader, h header) error {
	if h.n < 4 {
		return violation(h, "too short")
	}
	b, err := r.Peek(4)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	credit := binary.BigEndian.Uint32(b)
	_, _ = r.Discard(4)
	h.n -= 4

	c.mu.Lock()
	switch {
	case h.stream < c.peerID || h.stream%2 != c.peerID%2 || h.stream > maxID:
		err = violation(h, fmt.Sprintf("stream %d is the next", c.peerID))
	case credit > maxCredit:
		err = violation(h, "window overflows")
	case h.n > minWindow:
		err = violation(h, "beyond the window")
	case len(c.refusals) > maxStreams:
		err = violation(h, "too many streams, and RESETs are not read")
	}
	if err != nil {
		c.mu.Unlock()
		return err
	}
	c.peerID = h.stream + 2
	lane := Interactive
	if h.flags&flagBulk != 0 {
		lane = Bulk
	}
	var s *Stream
	if c.err == nil && !c.closing && c.opened[1-c.role] < maxStreams {
		s = c.newStream(h.stream, lane, 1-c.role)
	}
	if s == nil {
		c.refusals = append(c.refusals, refusal{h.stream, syscall.EAGAIN})
		c.work.Signal()
		c.mu.Unlock()
		_, err := r.Discard(h.n)
		return err
	}
	s.credit, s.granted, s.unready = int(credit), minWindow, true
	if lane == Bulk && h.flags&flagFin == 0 { // more will come
		if c.lend(s, firstWindow); s.window > minWindow {
			s.grant()
		}
	}
	c.mu.Unlock()
	return c.onData(r, h)
}

// onData puts the payload into the stream's inbox.
func (c *Conn) onData(r *bufio.Reader, h header) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.find(h)
	switch {
	case err != nil:
		return err
	case s == nil: // reset here, while this was on its way
		return c.discard(r, h.n)
	case s.finIn:
		return violation(h, "after the end")
	case uint64(h.n) > s.granted-s.received:
		return violation(h, "beyond the window")
	}
	s.received += uint64(h.n)
	n := h.n
	for n > 0 && !s.closed && !s.gone {
		room := s.in.space(n, chunkSize(s.window))
		ok := true
		if r.Buffered() >= len(room) {
			_, err = io.ReadFull(r, room)
		} else {
			s.in.filling = true
			c.mu.Unlock()
			_, err = io.ReadFull(r, room)
			c.mu.Lock()
			ok = s.in.filled()
		}
		n -= len(room)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if ok {
			s.in.commit(len(room))
		}
	}
	if err := c.discard(r, n); err != nil {
		return err
	}
	if h.flags&flagFin != 0 && !s.gone {
		s.finIn = true
		s.retire()
	}
	if s.unready {
		c.checkReady(s)
	}
	if !follows(r, h.stream) {
		s.readable.Broadcast()
	}
	return nil
}

// follows reports whether the next in r is a whole frame of data for that stream:
// who waits for data is then woken once for both. It is handled at once, or the
// link ends, so nobody is forgotten.
func follows(r *bufio.Reader, stream uint64) bool {
	if r.Buffered() < headerSize {
		return false
	}
	b, _ := r.Peek(headerSize)
	h := parseHeader(b)
	return h.typ == typeData && h.stream == stream && h.n <= maxPayload && r.Buffered() >= headerSize+h.n
}

// discard drops n bytes of r; mu is held before and after, not meanwhile.
func (c *Conn) discard(r *bufio.Reader, n int) error {
	if n == 0 {
		return nil
	}
	c.mu.Unlock()
	defer c.mu.Lock()
	_, err := r.Discard(n)
	return err
}

// checkReady gives s to Accept when its first message is complete, and sees to
// it that it can become so. mu is held.
func (c *Conn) checkReady(s *Stream) {
	if s.reset != nil {
		s.unready = false
		return
	}
	var head [2 * binary.MaxVarintLen64]byte
	b := head[:s.in.peek(head[:])]
	need, ok := messageSize(b)
	switch {
	case !ok && len(b) == len(head), ok && need > protocol.MaxMessage+len(head):
		errno := syscall.EMSGSIZE
		if !ok {
			errno = syscall.EPROTO
		}
		s.abort(errno)
	case ok && s.in.n >= need:
		s.unready = false
		c.ready = append(c.ready, s)
		c.readied.Signal()
		return
	case s.finIn:
		s.abort(syscall.EPROTO)
	case ok && need > s.window:
		if c.setWindow(s, need) {
			s.grant()
			return
		}
		s.abort(syscall.EAGAIN)
	default: // more comes
		return
	}
	s.unready = false
	s.closed = true // nobody will
}

// messageSize is how long the message that begins with b is in all; false: b
// does not say yet, or never will.
func messageSize(b []byte) (int, bool) {
	_, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, false
	}
	size, m := binary.Uvarint(b[n:])
	if m <= 0 {
		return 0, false
	}
	return n + m + int(min(size, 2*protocol.MaxMessage)), true
}
