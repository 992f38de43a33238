package link

import (
	"fmt"
	"net"
	"os"
	"time"
)

// The memory that the other end can make this end use is the sum of what it may
// send and we have not read. Every stream that may exist has its smallest
// window set aside; what a budget has beyond that is lent to streams that use
// it.
const (
	// maxStreams is how many streams of one opener exist at a time: 2,000
	// connections and room for files and control.
	maxStreams = 2560

	// minWindow is what an opener may send unasked, in bytes: any opening
	// message with the longest path (PATH_MAX is 4 KiB).
	minWindow = 8 << 10

	// firstWindow is what a stream begins with when memory is plentiful: at
	// 20 ms 13 MB/s, until growth has measured more; and a whole reply to most
	// reads of files.
	firstWindow = 256 << 10

	// maxWindow bounds one stream: what package resume keeps in flight in all.
	maxWindow = 4 << 20

	// DefaultBudget is 60 MiB set aside and 36 MiB to lend.
	DefaultBudget = 96 << 20

	setAside = 2 * maxStreams * (minWindow + smallChunk)

	// maxMessages bounds the large messages that Receive holds in all streams
	// together, in bytes: what it has taken from a window can be sent again, so
	// windows do not bound it. Those of less than smallMessage do not count.
	maxMessages  = 16 << 20
	smallMessage = 16 << 10

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

// lend raises s's window to want bytes, as far as memory allows: a new stream
// gets no more than a sixteenth of what is left, so that the next get something
// too. mu is held.
func (c *Conn) lend(s *Stream, want int) {
	if want = min(want, c.lendable/16); want > s.window {
		c.setWindow(s, want)
	}
}

// setWindow changes s's window. mu is held.
func (c *Conn) setWindow(s *Stream, window int) {
	c.lendable += cost(s.window) - cost(window)
	s.window = window
}

// grow doubles s's window if half of it was consumed in less than two round
// trips: then the window is what limits the stream (go-yamux and QUIC
// implementations use the same rule). mu is held.
func (c *Conn) grow(s *Stream, now time.Duration) {
	if now-c.pingAt > pingEvery && !c.pingDue {
		c.pingDue = true
		c.work.Signal()
	}
	if trip := c.trip(); trip > 0 && now-s.grownAt < 2*trip && s.window < maxWindow {
		window := min(2*s.window, maxWindow)
		if cost(window)-cost(s.window) <= c.lendable/4 {
			c.setWindow(s, window)
		}
	}
	s.grownAt = now
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
	if s.finIn || s.gone {
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
