package resume

import (
	"io"
	"sync"
)

// wire is one direction of an in-memory pipe: at most size bytes wait in it.
type wire struct {
	mu     sync.Mutex
	cond   sync.Cond
	buf    []byte
	size   int
	left   int64 // bytes until the cut; < 0: never
	cut    bool  // what is in it is lost
	closed bool  // what is in it arrives, then EOF
	onCut  func()
	frozen bool // nothing moves
	spent  bool // the cut is on its way
}

func newWire(size int, left int64) *wire {
	w := &wire{size: size, left: left}
	w.cond.L = &w.mu
	return w
}

func (w *wire) Write(p []byte) (n int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for n < len(p) {
		for !w.closed && !w.cut && (len(w.buf) >= w.size || w.frozen || w.spent) {
			w.cond.Wait()
		}
		if w.closed || w.cut {
			return n, io.ErrClosedPipe
		}
		k := min(len(p)-n, w.size-len(w.buf))
		if w.left >= 0 {
			k = min(k, int(w.left))
			w.left -= int64(k)
		}
		w.buf = append(w.buf, p[n:n+k]...)
		n += k
		w.cond.Broadcast()
		if w.left == 0 {
			go w.onCut()
			w.spent = true
		}
	}
	return n, nil
}

func (w *wire) Read(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		switch {
		case w.cut:
			return 0, io.ErrUnexpectedEOF
		case len(w.buf) > 0 && !w.frozen:
			n := copy(p, w.buf)
			w.buf = append(w.buf[:0], w.buf[n:]...)
			w.cond.Broadcast()
			return n, nil
		case w.closed:
			return 0, io.EOF
		}
		w.cond.Wait()
	}
}

func (w *wire) set(f func(w *wire)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(w)
	w.cond.Broadcast()
}

// end is one end of a pair of wires.
type end struct {
	in, out *wire
}

func (e end) Read(p []byte) (int, error)  { return e.in.Read(p) }
func (e end) Write(p []byte) (int, error) { return e.out.Write(p) }

// Close ends also Reads of this end, as that of a socket.
func (e end) Close() error {
	e.out.set(func(w *wire) { w.closed = true })
	e.in.set(func(w *wire) { w.cut = true })
	return nil
}

// pair makes a pipe that is cut after so many bytes in either direction.
func pair(size int, leftAB, leftBA int64) (a, b end) {
	ab, ba := newWire(size, leftAB), newWire(size, leftBA)
	cut := func() {
		ab.set(func(w *wire) { w.cut = true })
		ba.set(func(w *wire) { w.cut = true })
	}
	ab.onCut, ba.onCut = cut, cut
	return end{in: ba, out: ab}, end{in: ab, out: ba}
}
