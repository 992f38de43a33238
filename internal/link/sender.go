package link

import (
	"encoding/binary"
	"fmt"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// What goes into one write of the pipe, in bytes. All of it is in the way of
// whatever becomes urgent a moment later, but each write costs system calls.
const (
	maxControlBatch     = 16 << 10
	maxInteractiveBatch = 64 << 10
	maxBulkBatch        = 2 * maxPayload
	// maxRoomyBatch is bulk's where the pipe takes it at once.
	maxRoomyBatch = 4 * maxPayload

	sendBuffer = maxControlBatch + maxInteractiveBatch + maxRoomyBatch + 4*(headerSize+maxPayload)
)

// roomy is a pipe that says how many bytes it would take without a wait: what fits
// there is as much in the way in two writes as in one.
type roomy interface{ Room() int }

// bulkRoom is how much of bulk goes into the next write.
func (c *Conn) bulkRoom() int {
	if r, ok := c.pipe.(roomy); ok {
		return min(max(r.Room(), maxBulkBatch), maxRoomyBatch)
	}
	return maxBulkBatch
}

// goodbyeTime is how long the receiver may look for the other end's reason
// after writing has failed.
const goodbyeTime = 500 * time.Millisecond

// A stream can wait in its lane, for data, and in control.
const (
	inLane = iota
	inControl
	queueKinds
)

// queue is a list of streams that take turns.
type queue struct {
	first, last *Stream
}

func (q *queue) push(s *Stream, kind int) {
	if s.queued[kind] {
		return
	}
	s.queued[kind] = true
	if q.last == nil {
		q.first = s
	} else {
		q.last.next[kind] = s
	}
	q.last = s
}

func (q *queue) pop(kind int) *Stream {
	s := q.first
	q.first = s.next[kind]
	if q.first == nil {
		q.last = nil
	}
	s.next[kind], s.queued[kind] = nil, false
	return s
}

// refusal is a RESET for a stream that was never made.
type refusal struct {
	id    uint64
	errno syscall.Errno
}

// sendable reports whether s has a frame for its lane. mu is held.
func (s *Stream) sendable() bool {
	switch {
	case s.gone || s.finOut:
		return false
	case s.openDue:
		return true
	case s.unsent() > 0:
		return s.credit > 0
	default:
		return s.finDue
	}
}

// unsent is how many bytes are to be sent. mu is held.
func (s *Stream) unsent() int {
	if s.stopped {
		return 0
	}
	return len(s.held) + len(s.direct)
}

// push gives s its turn if it has something to send. mu is held.
func (c *Conn) push(s *Stream) {
	if !s.sendable() || c.err != nil {
		return
	}
	lane := s.lane
	if s.openDue { // opening is interactive, whatever follows
		lane = Interactive
	}
	c.queues[lane].push(s, inLane)
	c.work.Signal()
}

// pushControl gives s's WINDOW, STOP or RESET its turn. mu is held.
func (c *Conn) pushControl(s *Stream) {
	if c.err != nil {
		return
	}
	c.control.push(s, inControl)
	c.work.Signal()
}

// due reports whether there is something to send. mu is held.
func (c *Conn) due() bool {
	return c.control.first != nil || len(c.refusals) > 0 || c.pingDue || c.pongDue ||
		c.queues[Interactive].first != nil || c.queues[Bulk].first != nil
}

// send is the goroutine that writes the pipe.
func (c *Conn) send() {
	buf := make([]byte, 0, sendBuffer)
	for {
		c.mu.Lock()
		for c.err == nil && !c.due() && !c.closing {
			c.work.Wait()
		}
		if c.err != nil {
			c.mu.Unlock()
			return
		}
		last := !c.due()
		if last { // closing, and all is sent that can be
			c.saidBye = true
			buf = appendGoAway(buf[:0], 0, c.reason)
		} else {
			buf = c.compose(buf[:0], c.bulkRoom())
		}
		reason := c.reason
		c.mu.Unlock()
		if _, err := c.pipe.Write(buf); err != nil {
			// The receiver may be about to read why.
			t := time.AfterFunc(goodbyeTime, func() { c.fail(fmt.Errorf("write: %w", err)) })
			<-c.done
			t.Stop()
			return
		}
		if last {
			c.fail(&ClosedError{Reason: reason})
			return
		}
	}
}

// compose appends the next frames to buf. mu is held.
//
// Control frames come first: they concern only streams whose OPEN has been
// sent. Then what is interactive. Bulk follows in the room that is left, one
// frame at least, so that it is never shut out.
func (c *Conn) compose(buf []byte, room int) []byte {
	if c.pongDue {
		buf = appendToken(buf, typePong, c.token)
		c.pongDue = false
	}
	if c.pingDue {
		c.pingAt = max(1, time.Since(c.start)) // 0 is no time
		buf = appendToken(buf, typePing, uint64(c.pingAt))
		c.pingDue = false
	}
	for len(c.refusals) > 0 && len(buf) < maxControlBatch {
		r := c.refusals[0]
		c.refusals = c.refusals[1:]
		buf = appendNumber(buf, typeReset, r.id, protocol.Number(r.errno))
	}
	for c.control.first != nil && len(buf) < maxControlBatch {
		buf = c.control.pop(inControl).appendControl(buf)
	}
	start := len(buf)
	for q := &c.queues[Interactive]; q.first != nil && len(buf)-start < maxInteractiveBatch; {
		buf = c.appendTurn(buf, q.pop(inLane))
	}
	if c.queues[Interactive].first != nil {
		room = 1
	}
	start = len(buf)
	for q := &c.queues[Bulk]; q.first != nil && len(buf)-start < room; {
		buf = c.appendTurn(buf, q.pop(inLane))
	}
	return buf
}

// appendControl appends WINDOW, STOP and RESET of s. mu is held.
func (s *Stream) appendControl(buf []byte) []byte {
	if s.resetDue {
		s.resetDue = false
		return appendNumber(buf, typeReset, s.id, protocol.Number(s.errno))
	}
	if s.gone {
		return buf
	}
	if s.openDue { // OPEN says the window; the rest must wait for it
		return buf
	}
	if more := s.consumed + uint64(s.window) - s.granted; s.windowDue && more > 0 && !s.closed && !s.finIn {
		s.granted += more
		buf = appendNumber(buf, typeWindow, s.id, uint32(more))
	}
	s.windowDue = false
	if s.stopDue {
		s.stopDue = false
		buf = appendHeader(buf, header{typ: typeStop, stream: s.id})
	}
	return buf
}

// appendTurn appends one frame of s, OPEN or DATA, and gives s another turn if
// it has more. mu is held.
func (c *Conn) appendTurn(buf []byte, s *Stream) []byte {
	if !s.sendable() { // reset meanwhile
		return buf
	}
	h := header{typ: typeData, stream: s.id}
	room := maxPayload
	opening := s.openDue
	if opening {
		h.typ, room = typeOpen, maxPayload-4
		if s.lane == Bulk {
			h.flags |= flagBulk
		}
	}
	n := min(room, s.credit, s.unsent())
	h.n = n
	if opening {
		h.n += 4
	}
	if s.finDue && n == s.unsent() {
		h.flags |= flagFin
		s.finOut = true
	}
	buf = appendHeader(buf, h)
	if opening {
		s.openDue = false
		s.granted = uint64(s.window)
		buf = binary.BigEndian.AppendUint32(buf, uint32(s.window))
		if s.stopDue { // closed before it was opened
			c.pushControl(s)
		}
	}
	s.credit -= n
	k := min(n, len(s.held))
	buf = append(buf, s.held[:k]...)
	if s.held = s.held[k:]; len(s.held) == 0 {
		s.release()
	}
	if n -= k; n > 0 {
		buf = append(buf, s.direct[:n]...)
		if s.direct = s.direct[n:]; len(s.direct) == 0 {
			s.taken.Signal()
		}
	}
	if s.finOut {
		s.retire()
	}
	c.push(s)
	return buf
}
