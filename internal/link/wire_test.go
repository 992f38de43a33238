package link

import (
	"io"
	"sync"
	"time"
)

// wire is one direction of an in-memory pipe, as a path through proxies is:
// what is written waits in a queue of size bytes, leaves it at rate bytes per
// second, and arrives a delay later.
type wire struct {
	size  int
	rate  float64 // 0: at once
	delay time.Duration

	mu     sync.Mutex
	cond   sync.Cond
	parts  []part
	queued int       // bytes that have not left the queue
	busy   time.Time // until then the queue is leaving
	writes int
	closed bool  // what is in it arrives, then EOF
	cut    bool  // what is in it is lost
	left   int64 // bytes until it is cut; 0: never
}

type part struct {
	b      []byte
	leaves time.Time
	queued bool
}

func newWire(size int, rate float64, delay time.Duration) *wire {
	w := &wire{size: size, rate: rate, delay: delay}
	w.cond.L = &w.mu
	return w
}

// wait waits for a change, or for t.
func (w *wire) wait(t time.Time) {
	if !t.IsZero() {
		timer := time.AfterFunc(time.Until(t), func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.cond.Broadcast()
		})
		defer timer.Stop()
	}
	w.cond.Wait()
}

// settle counts what has left the queue, and gives the time of the next leave.
func (w *wire) settle() (next time.Time) {
	now := time.Now()
	for i := range w.parts {
		p := &w.parts[i]
		if p.queued && !p.leaves.After(now) {
			p.queued = false
			w.queued -= len(p.b)
		} else if p.queued {
			return p.leaves
		}
	}
	return time.Time{}
}

func (w *wire) Write(p []byte) (n int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes++
	for n < len(p) {
		next := w.settle()
		if w.closed || w.cut {
			return n, io.ErrClosedPipe
		}
		room := w.size - w.queued
		if w.rate == 0 { // everything has left already: count what nobody read
			room = w.size
			for _, p := range w.parts {
				room -= len(p.b)
			}
		}
		if room < min(len(p)-n, w.size/8) { // not in crumbs
			w.wait(next)
			continue
		}
		// It arrives in pieces, as in packets, but not more often than every
		// half millisecond, or the tests take long.
		k := min(len(p)-n, room, max(1460, int(w.rate/2000)))
		if w.rate == 0 {
			k = min(len(p)-n, room)
		}
		leaves := time.Now()
		if w.rate > 0 {
			if w.busy.After(leaves) {
				leaves = w.busy
			}
			leaves = leaves.Add(time.Duration(float64(k) / w.rate * float64(time.Second)))
			w.busy = leaves
			w.queued += k
		}
		if w.left > 0 {
			if k = min(k, int(w.left)); k == int(w.left) {
				w.cut = true
			}
			w.left -= int64(k)
		}
		w.parts = append(w.parts, part{append([]byte(nil), p[n:n+k]...), leaves, w.rate > 0})
		n += k
		w.cond.Broadcast()
	}
	return n, nil
}

func (w *wire) Read(p []byte) (n int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		w.settle()
		var next time.Time
		for n < len(p) && len(w.parts) > 0 {
			first := &w.parts[0]
			if at := first.leaves.Add(w.delay); at.After(time.Now()) {
				next = at
				break
			}
			k := copy(p[n:], first.b)
			n += k
			if first.b = first.b[k:]; len(first.b) == 0 {
				w.parts = w.parts[1:]
			}
		}
		switch {
		case w.cut:
			return 0, io.ErrUnexpectedEOF
		case n > 0:
			w.cond.Broadcast()
			return n, nil
		case w.closed && len(w.parts) == 0:
			return 0, io.EOF
		}
		w.wait(next)
	}
}

func (w *wire) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	w.cond.Broadcast()
}

type end struct{ in, out *wire }

func (e end) Read(p []byte) (int, error)  { return e.in.Read(p) }
func (e end) Write(p []byte) (int, error) { return e.out.Write(p) }
func (e end) Close() error {
	e.out.set(func() { e.out.closed = true })
	e.in.set(func() { e.in.cut = true })
	return nil
}

// pair makes two ends, shaped alike both ways.
func pair(size int, rate float64, delay time.Duration) (a, b end) {
	ab, ba := newWire(size, rate, delay), newWire(size, rate, delay)
	return end{ba, ab}, end{ab, ba}
}
