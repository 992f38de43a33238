package link

import (
	"fmt"
	"net"
	"os"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// The memory that the other end can make this end use is the sum of what it may
// send and we have not read. Every stream takes its smallest window from the
// budget; what there is for larger ones is lent to streams that use it.
const (
	// maxStreams is how many streams of one opener exist at a time: 2,000
	// connections and room for files and control.
	maxStreams = 2560

	// minWindow is what an opener may send unasked, in bytes: any opening
	// message with the longest path (PATH_MAX is 4 KiB).
	minWindow = 8 << 10

	// firstWindow is what a stream begins with when memory is plentiful: at
	// 20 ms 13 MB/s, until growth has measured more; and a whole reply to most
	// reads of files, of 256 KiB and what is around them.
	firstWindow = 260 << 10

	// maxWindow bounds one stream: what package resume keeps in flight in all.
	maxWindow = 4 << 20

	// StreamCost is what every stream takes, in bytes: its smallest window, and
	// small writes that the other end does not take.
	StreamCost = minWindow + smallChunk + smallWrite

	// maxMessages bounds the large messages that Receive holds in all streams
	// together, in bytes: what it has taken from a window can be sent again, so
	// windows do not bound it. Those of less than smallMessage do not count.
	maxMessages  = 2 * protocol.MaxMessage
	smallMessage = 16 << 10

	// Fixed is what a link holds besides its streams, in bytes.
	Fixed = maxMessages + readBuffer + sendBuffer

	// pingEvery bounds how often the round trip is measured while data flows.
	pingEvery = time.Second
	// trips is how many round trips the smallest is taken from: their measure
	// includes the queue of our own bytes.
	trips = 8
)

// chunkSize is the size of the chunks that a stream with such a window uses.
func chunkSize(window int) int {
	if window <= minWindow {
		return smallChunk
	}
	return largeChunk
}

// cost is what a window takes from what can be lent.
func cost(window int) int {
	if window <= minWindow {
		return 0
	}
	return window + chunkSize(window) - minWindow - smallChunk
}

// take takes n bytes of a share until give, or the end of the link. mu is held.
func (c *Conn) take(from *budget.Share, n int) bool {
	if c.err != nil || !from.Take(n) {
		return false
	}
	c.taken[from] += n
	return true
}

// give gives n bytes back, which the end of the link has done already. mu is
// held.
func (c *Conn) give(to *budget.Share, n int) {
	if c.err == nil {
		c.taken[to] -= n
		to.Give(n)
	}
}

// share is where a stream's memory is from.
func (c *Conn) share(lane Lane, owner Role) *budget.Share {
	switch {
	case lane == Interactive:
		return c.memory.Interactive
	case owner == c.role:
		return c.memory.Opened
	}
	return c.memory.Accepted
}

// lend raises s's window to want bytes, as far as memory allows: a new stream
// gets no more than a sixteenth of what is left, so that the next get something
// too. mu is held.
func (c *Conn) lend(s *Stream, want int) {
	if want = min(want, c.memory.Windows.Free()/16); want > s.window {
		c.setWindow(s, want)
	}
}

// setWindow changes s's window; false: there is no memory for it. mu is held.
func (c *Conn) setWindow(s *Stream, window int) bool {
	switch more := cost(window) - cost(s.window); {
	case more < 0:
		c.give(c.memory.Windows, -more)
	case !c.take(c.memory.Windows, more):
		return false
	}
	s.window = window
	return true
}

// grow makes s's window larger if half of it was consumed in less than two round
// trips: then the window is what limits the stream (go-yamux and QUIC
// implementations use the same rule, and double it). Each step takes a round
// trip, of which a distant path has few in a transfer of some seconds: so it is
// four times as large, where memory is plentiful. mu is held.
func (c *Conn) grow(s *Stream, now time.Duration) {
	if now-c.pingAt > pingEvery && !c.pingDue {
		c.pingDue = true
		c.work.Signal()
	}
	if trip := c.trip(); trip > 0 && now-s.grownAt < 2*trip && s.window < maxWindow {
		for _, times := range [...]int{4, 2} {
			window := min(times*s.window, maxWindow)
			if cost(window)-cost(s.window) <= c.memory.Windows.Free()/4 {
				c.setWindow(s, window)
				break
			}
		}
	}
	s.grownAt = now
}

// Expect lets the other end send n bytes that were not read without a wait for the
// window to grow, as far as memory allows: for who has asked for so much, or is
// about to get it.
func (s *Stream) Expect(n int) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	n = min(n, maxWindow)
	if n <= s.window || s.closed || s.gone || s.finIn || cost(n)-cost(s.window) > c.memory.Windows.Free()/4 {
		return
	}
	if c.setWindow(s, n) && !s.openDue { // OPEN tells it
		s.grant()
	}
}

// trip is the smallest of the last round trips; 0: unknown. mu is held.
func (c *Conn) trip() (least time.Duration) {
	for _, t := range c.tripTimes {
		if t > 0 && (least == 0 || t < least) {
			least = t
		}
	}
	return least
}

// consumed gives credit for n bytes that were read, or dropped. mu is held.
func (s *Stream) wasConsumed(n int) {
	s.consumed += uint64(n)
	if s.finIn || s.gone || s.windowDue { // what is to be granted is counted when it is
		return
	}
	if s.consumed+uint64(s.window)-s.granted >= uint64(s.window/2) {
		s.c.grow(s, time.Since(s.c.start))
		s.grant()
	}
}

// grant sees to it that the other end learns what it may send. mu is held.
func (s *Stream) grant() {
	s.windowDue = true
	s.c.pushControl(s)
}

// reserve waits for room for a message of n bytes.
func (s *Stream) reserve(n int) error {
	if n <= smallMessage {
		return nil
	}
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.messages+n > maxMessages {
		switch {
		case s.closed:
			return fmt.Errorf("read: %w", net.ErrClosed)
		case s.reset != nil:
			return s.reset
		case s.readLimit.passed:
			return os.ErrDeadlineExceeded
		case c.err != nil:
			return c.err
		}
		c.roomless[s] = true
		s.readable.Wait()
		delete(c.roomless, s)
	}
	c.messages += n
	s.message = n
	return nil
}

// forgetMessage gives the room of the last message back. mu is held.
func (s *Stream) forgetMessage() {
	if s.message == 0 {
		return
	}
	s.c.messages -= s.message
	s.message = 0
	for waiting := range s.c.roomless {
		waiting.readable.Broadcast()
	}
}
