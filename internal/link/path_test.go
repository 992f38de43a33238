package link

import (
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestTransfer: what a transfer over a distant path loses, beside what its bytes
// take, is a few round trips; fewer when it is not the session's first.
func TestTransfer(t *testing.T) {
	const rate, amount = 200e6 / 8, 50_000_000
	for _, buffer := range []int{64 << 10, 4 << 20} {
		for _, trip := range []time.Duration{20 * time.Millisecond, 40 * time.Millisecond} {
			for _, way := range []string{"up", "down"} {
				t.Run(fmt.Sprintf("%d KiB/%v/%s", buffer>>10, trip, way), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						x, y, after := modes["resume"](t, func() (a, b end) { return pair(buffer, rate, trip/2) })
						near, far := New(x, Local, Options{}), New(y, Agent, Options{})
						for i, trips := range []float64{5.5, 3} {
							took := transfer(t, near, far, way, amount)
							lost := float64(took-time.Duration(amount/rate*1e9)) / float64(trip)
							t.Logf("transfer %d: %v, %.1f round trips lost", i, took, lost)
							if lost > trips {
								t.Errorf("transfer %d: %.1f round trips lost, want %.1f", i, lost, trips)
							}
						}
						near.Close("")
						far.Close("")
						after()
					})
				})
			}
		}
	}
}

// transfer sends n bytes on a new stream, up or down, and returns how long that
// took until the last had come.
func transfer(t *testing.T, near, far *Conn, way string, n int) time.Duration {
	t.Helper()
	start := time.Now()
	from, to := opened(t, near, far, Bulk)
	defer from.Close()
	defer to.Close()
	if way == "down" {
		from, to = to, from
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	buf := make([]byte, 128<<10)
	wg.Go(func() {
		for left := n; left > 0; left -= len(buf) {
			if _, err := from.Write(buf[:min(left, len(buf))]); err != nil {
				t.Error(err)
			}
		}
		from.CloseWrite()
	})
	if _, err := io.Copy(io.Discard, to); err != nil {
		t.Error(err)
	}
	wg.Wait()
	return time.Since(start)
}

// TestExpect: who says how much it expects gets it without a wait for the window.
func TestExpect(t *testing.T) {
	const amount, trip = 3 << 20, 40 * time.Millisecond
	run(t, func() (a, b end) { return pair(4<<20, 1e9, trip/2) }, func(t *testing.T, near, far *Conn) {
		for range 2 { // how the pipe below starts is another matter
			transfer(t, near, far, "down", 100_000_000)
		}
		a, b := opened(t, near, far, Bulk)
		defer a.Close()
		defer b.Close()
		a.Expect(amount)
		time.Sleep(trip) // until it is known there
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { b.Write(make([]byte, amount)) })
		if _, err := io.CopyN(io.Discard, a, amount); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > trip {
			t.Errorf("the bytes took %v, want less than a round trip of %v", took, trip)
		}
		wg.Wait()
	})
}
