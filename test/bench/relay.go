package main

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// relayChunk is the most that travels as one, in bytes.
	relayChunk = 64 << 10
	// relayQueue is how many chunks may be on the way in one direction of a
	// connection: with more waiting, the sender is held up.
	relayQueue = 1024
	// laneQueue is how long what is sent may wait for its turn where there is a
	// rate; then the sender is held up. It covers what a busy machine is late by,
	// and is short against what senders themselves keep ready.
	laneQueue = 20 * time.Millisecond
	// shapedBuffer is the receive buffer of a relay with a rate, in bytes: the
	// kernel's own would hide megabytes in front of the queue.
	shapedBuffer = 128 << 10
)

// A relay passes connections on over a line. It ends connections of both
// sides, so that neither feels how TCP starts and recovers over a distance.
type relay struct {
	ln      net.Listener
	to      string
	line    line
	out, in lane
	wg      sync.WaitGroup

	mu     sync.Mutex
	closed bool
	open   map[net.Conn]bool
}

func startRelay(to string, as line) (*relay, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{ln: ln, to: to, line: as, out: lane{rate: as.rate}, in: lane{rate: as.rate}, open: map[net.Conn]bool{}}
	r.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { r.pass(c) })
		}
	})
	return r, nil
}

// close cuts all connections and returns when nothing runs any more.
func (r *relay) close() error {
	err := r.ln.Close()
	r.mu.Lock()
	r.closed = true
	for c := range r.open {
		c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
	return err
}

// own has close cut c; it reports whether there is still time for that.
func (r *relay) own(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[c] = true
	return !r.closed
}

// pass owns near. When one side is done with sending, the other hears of it in
// its time; when both are, the connections are closed.
func (r *relay) pass(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", r.to)
	if err != nil {
		return // whoever dialed sees the end
	}
	defer far.Close()
	if !r.own(near) || !r.own(far) {
		return
	}
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.open, near)
		delete(r.open, far)
	}()
	if r.line.rate > 0 {
		for _, c := range []net.Conn{near, far} {
			_ = c.(*net.TCPConn).SetReadBuffer(shapedBuffer) // fails on a closed connection only
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { late(far, near, r.line.delay, &r.out) })
	wg.Go(func() { late(near, far, r.line.delay, &r.in) })
	wg.Wait()
}

// A lane is one direction of a line. All connections share it, in the order in
// which they send. It is safe for concurrent use.
type lane struct {
	rate int64 // bytes a second; 0: no limit

	mu   sync.Mutex
	free time.Time // when all that was sent so far has left
}

// leave gives the time at which n bytes that are sent now have left.
func (l *lane) leave(n int) time.Time {
	now := time.Now()
	if l.rate == 0 {
		return now
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(int64(n) * int64(time.Second) / l.rate))
	return l.free
}

// chunk is what arrived, and when it is due.
type chunk struct {
	bytes []byte
	due   time.Time
}

// late copies from src to dst until the end of either, each byte after its turn
// in the lane and the delay.
func late(dst, src net.Conn, delay time.Duration, l *lane) {
	under := make(chan chunk, relayQueue)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		var err error
		for c := range under {
			if err != nil {
				continue // until src is at its end, which it is once it is closed
			}
			time.Sleep(time.Until(c.due)) // the delay itself is what is wanted
			if _, err = dst.Write(c.bytes); err != nil {
				src.Close()
			}
		}
		if end, ok := dst.(interface{ CloseWrite() error }); ok {
			_ = end.CloseWrite() // it may be closed already
		}
	})
	defer close(under)
	for {
		buf := make([]byte, relayChunk)
		n, err := src.Read(buf)
		if n > 0 {
			left := l.leave(n)
			under <- chunk{buf[:n], left.Add(delay)}
			time.Sleep(time.Until(left.Add(-laneQueue))) // holds up the sender, which is wanted, too
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				dst.Close() // a reset is no orderly end
			}
			return
		}
	}
}
