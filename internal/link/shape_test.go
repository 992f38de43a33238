package link

import (
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// A path as a port-forward through a distant cluster: what it carries, and the
// megabytes that the proxies and sockets on it take before they push back.
const (
	pathQueue = 4 << 20
	pathDelay = 10 * time.Millisecond // one way
)

// serveReads answers every question with 4 KiB, as a small remote read.
func serveReads(t *testing.T, l *Conn, wg *sync.WaitGroup) {
	reply := &protocol.Data{Bytes: make([]byte, 4<<10)}
	wg.Go(func() {
		for {
			s, m, err := l.Accept(t.Context())
			if err != nil {
				return
			}
			wg.Go(func() {
				defer s.Close()
				if _, ok := m.(*protocol.Readlink); ok {
					s.Send(reply)
					return
				}
				buf := make([]byte, 64<<10)
				for { // a download
					if _, err := s.Write(buf); err != nil {
						return
					}
				}
			})
		}
	})
}

// p99 of n calls.
func p99(t *testing.T, l *Conn, n int) time.Duration {
	t.Helper()
	var took []time.Duration
	for range n {
		start := time.Now()
		if _, err := l.Call(t.Context(), question("/")); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(start))
		time.Sleep(7 * time.Millisecond)
	}
	slices.Sort(took)
	return took[n*99/100]
}

// TestInteractiveBesideBulk: while bulk transfers fill the path both ways, a
// small read takes at most five times as long as on an idle one, and the path
// stays full.
func TestInteractiveBesideBulk(t *testing.T) {
	for _, rate := range []float64{10e6 / 8, 200e6 / 8, 1000e6 / 8} {
		for _, name := range []string{"resume", "resume+seal"} {
			if rate > 100e6 && name == "resume+seal" {
				continue // the same again, and slow under the race detector
			}
			t.Run(time.Duration(1e9*1e6/rate).String()+" per MB/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					x, y, after := modes[name](t, func() (a, b end) { return pair(pathQueue, rate, pathDelay) })
					near, far := New(x, Local, Options{}), New(y, Agent, Options{})
					var wg sync.WaitGroup
					serveReads(t, far, &wg)
					idle := p99(t, near, 50)
					var down []*Stream
					var mu sync.Mutex
					got := 0
					for range 3 {
						s, err := near.Open(t.Context(), Bulk, &protocol.Dial{})
						if err != nil {
							t.Fatal(err)
						}
						down = append(down, s)
						wg.Go(func() {
							buf := make([]byte, 64<<10)
							for {
								n, err := s.Read(buf)
								mu.Lock()
								got += n
								mu.Unlock()
								if err != nil {
									return
								}
							}
						})
					}
					time.Sleep(time.Second) // until the windows have grown
					mu.Lock()
					got = 0
					mu.Unlock()
					start := time.Now()
					busy := p99(t, near, 100)
					mu.Lock()
					share := float64(got) / time.Since(start).Seconds() / rate
					mu.Unlock()
					t.Logf("p99 idle %v, beside bulk %v (%.1f times); bulk had %.0f %% of the path", idle, busy, float64(busy)/float64(idle), 100*share)
					if busy > 5*idle {
						t.Errorf("p99 %v beside bulk, more than 5 times %v", busy, idle)
					}
					if want := 0.95 - 4096*100/time.Since(start).Seconds()/rate; share < want {
						t.Errorf("bulk had %.0f %% of the path, want %.0f %%", 100*share, 100*want)
					}
					for _, s := range down {
						s.Reset(0)
						s.Close()
					}
					near.Close("")
					far.Close("")
					wg.Wait()
					after()
				})
			})
		}
	}
}

// TestLanesOnADirectPipe: without package resume the pipe must be shallow, as
// a socket between two processes; then the lanes alone do it.
func TestLanesOnADirectPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, y := pair(64<<10, 200e6/8, pathDelay)
		near, far := New(x, Local, Options{}), New(y, Agent, Options{})
		var wg sync.WaitGroup
		serveReads(t, far, &wg)
		idle := p99(t, near, 50)
		s, err := near.Open(t.Context(), Bulk, &protocol.Dial{})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { io.Copy(io.Discard, s) })
		time.Sleep(time.Second)
		busy := p99(t, near, 100)
		t.Logf("p99 idle %v, beside bulk %v", idle, busy)
		if busy > 2*idle {
			t.Errorf("p99 %v beside bulk, more than twice %v", busy, idle)
		}
		s.Reset(0)
		near.Close("")
		far.Close("")
		wg.Wait()
	})
}

// TestFairness: streams of a lane take turns.
func TestFairness(t *testing.T) {
	run(t, func() (a, b end) { return pair(256<<10, 200e6/8, pathDelay) }, func(t *testing.T, near, far *Conn) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		got := [4]int{}
		var all []*Stream
		lots := make([]byte, 4<<10<<9)
		for i := range got {
			a, b := opened(t, near, far, Bulk)
			all = append(all, a, b)
			wg.Go(func() {
				for {
					// The first writes in crumbs, the last all at once.
					if _, err := a.Write(lots[:4<<10<<(3*i)]); err != nil {
						return
					}
				}
			})
			wg.Go(func() {
				buf := make([]byte, 64<<10)
				for {
					n, err := b.Read(buf)
					mu.Lock()
					got[i] += n
					mu.Unlock()
					if err != nil {
						return
					}
				}
			})
		}
		time.Sleep(time.Second)
		mu.Lock()
		got = [4]int{}
		mu.Unlock()
		time.Sleep(time.Second)
		mu.Lock()
		t.Logf("bytes: %v", got)
		for i, n := range got[1:] { // the first may miss turns between its writes
			if m := got[3]; n*10 < m*7 || n*7 > m*10 {
				t.Errorf("stream %d got %d bytes, another %d", i+1, n, m)
			}
		}
		mu.Unlock()
		for _, s := range all {
			s.Reset(0)
			s.Close()
		}
		wg.Wait()
	})
}
