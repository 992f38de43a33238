package relay

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

// However many connections are stuck in the middle of much, the large buffers
// are bounded, another connection goes on, and those that wait hold none.
func TestLargeBuffersAreBounded(t *testing.T) {
	leak.Check(t)
	const maxLarge = 128
	large := budget.New(maxLarge*largeBuffer).Share(0, budget.All)
	much := bytes.Repeat([]byte("m"), 8<<20) // more than the kernel keeps for a connection
	for range maxLarge + 20 {
		a, b, _ := joined(t, t.Context(), large)
		t.Cleanup(func() { b.Close() })
		written := make(chan struct{})
		go func() {
			defer close(written)
			_, _ = a.Write(much) // nobody reads at b
		}()
		t.Cleanup(func() { a.SetLinger(0); a.Close(); <-written })
	}
	for begin := time.Now(); large.Free() > 0; time.Sleep(time.Millisecond) {
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("%d large buffers are in use, want %d: nothing is tried here", large.Used()/largeBuffer, maxLarge)
		}
	}
	a, b, done := joined(t, t.Context(), large)
	go func() { a.Write(much); a.CloseWrite() }()
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, much) {
		t.Errorf("beside the stuck ones: %d bytes, %v, want %d", len(got), err, len(much))
	}
	b.Close()
	<-done
}

func TestWaitingHoldsNoLargeBuffer(t *testing.T) {
	leak.Check(t)
	large := budget.New(1<<20).Share(0, budget.All)
	a, b, done := joined(t, t.Context(), large)
	const much = 1 << 20
	go a.Write(make([]byte, much))
	if _, err := io.ReadFull(b, make([]byte, much)); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); large.Used() > 0; time.Sleep(time.Millisecond) {
		if time.Since(begin) > 5*time.Second {
			t.Fatalf("a connection that waits holds %d bytes of large buffers", large.Used())
		}
	}
	a.Close()
	b.Close()
	<-done
}

// sizes keeps how long each Write was, and forgets the bytes.
type sizes struct {
	all   []int
	after chan int // gets each
}

func (s *sizes) Write(b []byte) (int, error) {
	s.all = append(s.all, len(b))
	s.after <- len(b)
	return len(b), nil
}

// burst says what it is told to, as much at a time as there is, and knows when it has more.
type burst struct {
	told chan int
	left int
}

func (b *burst) Ready() int {
	if b.left == 0 {
		b.left = <-b.told
	}
	return b.left
}

func (b *burst) Buffered() int { return b.left }

func (b *burst) Read(p []byte) (int, error) {
	if b.Ready() == 0 {
		return 0, io.EOF
	}
	n := min(len(p), b.left)
	b.left -= n
	return n, nil
}

// TestBurstsAreNotCut: what has come while a direction waited goes on as one, not
// with a small piece in front.
func TestBurstsAreNotCut(t *testing.T) {
	leak.Check(t)
	const size, times = 32 << 10, 10
	run := func(t *testing.T, src io.Reader, say func(n int), end func()) {
		large := budget.New(1<<20).Share(0, budget.All)
		dst := &sizes{after: make(chan int, 1000)}
		done := make(chan int64)
		go func() {
			n, _ := copyBuffered(large, dst, src)
			done <- n
		}()
		for range times {
			say(size)
			for left := size; left > 0; {
				left -= <-dst.after
			}
			for begin := time.Now(); large.Used() > 0; time.Sleep(time.Millisecond) { // until it waits again
				if time.Since(begin) > 5*time.Second {
					t.Fatalf("%d bytes of large buffers are held while waiting", large.Used())
				}
			}
		}
		end()
		if n := <-done; n != size*times {
			t.Errorf("%d bytes were copied, want %d", n, size*times)
		}
		// The first may have begun small.
		if len(dst.all) > times+1 {
			t.Errorf("%d bursts went on as %d: %v", times, len(dst.all), dst.all)
		}
	}
	t.Run("socket", func(t *testing.T) {
		near, far := testnet.Pair(t)
		data := make([]byte, size)
		run(t, far, func(n int) { near.Write(data[:n]) }, func() { near.Close() })
		far.Close()
	})
	t.Run("stream", func(t *testing.T) {
		b := &burst{told: make(chan int)}
		run(t, b, func(n int) { b.told <- n }, func() { close(b.told) })
	})
}
