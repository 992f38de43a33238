package resume

import (
	"bufio"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// acks counts the ACK frames among what is written to a short pipe.
type acks struct {
	io.ReadWriteCloser
	w *io.PipeWriter

	mu sync.Mutex
	n  int
}

func (a *acks) Write(b []byte) (int, error) {
	_, _ = a.w.Write(b)
	return a.ReadWriteCloser.Write(b)
}

func (a *acks) Close() error {
	a.w.Close()
	return a.ReadWriteCloser.Close()
}

func (a *acks) data(uint64, []byte) error { return nil }
func (a *acks) ack(uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.n++
	return nil
}
func (a *acks) ping(uint64) error        { return nil }
func (a *acks) pong(uint64) error        { return nil }
func (a *acks) bye(uint64, string) error { return nil }

// TestAcksAreSeldom: beside a stream on a fast path there is an ACK every 2 ms at
// most, often enough that the sender is never held up, and the last byte is
// acknowledged though nothing follows.
func TestAcksAreSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, Options{})
		r, w := io.Pipe()
		var wg sync.WaitGroup
		defer wg.Wait()
		near, far := l.session(Options{})
		synctest.Wait() // the WELCOME is out
		far.mu.Lock()
		counter := &acks{ReadWriteCloser: far.cur.rw, w: w}
		far.cur.rw = counter
		far.mu.Unlock()
		wg.Go(func() { _ = readFrames(bufio.NewReaderSize(r, readBuffer), counter) })

		const part, gap, parts = 50_000, 200 * time.Microsecond, 1000 // 250 MB/s
		wg.Go(func() { _, _ = io.Copy(io.Discard, far) })
		begin := time.Now()
		for range parts {
			if _, err := near.Write(make([]byte, part)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(gap)
		}
		took := time.Since(begin)
		time.Sleep(2 * ackTime)
		near.mu.Lock()
		if near.out.n > 0 {
			t.Errorf("%d bytes are not acknowledged on an idle pipe", near.out.n)
		}
		near.mu.Unlock()
		if late := took - parts*gap; late > took/50 {
			t.Errorf("the sender was held up for %v of %v", late, took)
		}
		counter.mu.Lock()
		n, most := counter.n, int(took/ackGap)+5 // of the beginning and the end
		counter.mu.Unlock()
		t.Logf("%d acknowledgements in %v", n, took)
		if n > most || n < most/3 {
			t.Errorf("%d acknowledgements in %v, want at most one each %v: %d", n, took, ackGap, most)
		}
		near.Close()
		far.Close()
		l.server.Close()
		r.Close()
	})
}
