package relay

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/leak"
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
