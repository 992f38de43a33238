package gear

import (
	"context"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

func TestLook(t *testing.T) {
	calm := slices.Repeat([]float64{0.1}, calmLooks)
	for _, c := range []struct {
		name  string
		most  int
		loads []float64
		want  int
	}{
		{"nothing to do", 4, calm, 1},
		{"some work", 4, []float64{0.6, 0.6, 0.6}, 1},
		{"much work", 4, []float64{0.9}, 2},
		{"more and more", 4, []float64{0.9, 1.8, 2.7}, 4},
		{"no more than there are", 2, []float64{1, 2, 2}, 2},
		{"one is all there is", 1, []float64{1, 1}, 1},
		{"a short rest", 4, append([]float64{0.9}, calm[1:]...), 2},
		{"a long one", 4, append([]float64{0.9}, calm...), 1},
		{"a rest with work in it", 4, append(append([]float64{0.9}, calm[1:]...), 1, 0.1), 2},
		{"one by one", 4, append([]float64{0.9, 1.8, 2.7}, calm...), 3},
		{"just enough", 4, append([]float64{0.9}, slices.Repeat([]float64{0.6}, 3*calmLooks)...), 2},
	} {
		g := &gear{most: c.most, now: 1}
		for _, l := range c.loads {
			g.look(l)
		}
		if g.now != c.want {
			t.Errorf("%s: got %d processors, want %d", c.name, g.now, c.want)
		}
	}
}

// The process has one processor until it works.
func TestRun(t *testing.T) {
	before := runtime.GOMAXPROCS(2)
	defer runtime.GOMAXPROCS(before)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	done := make(chan struct{})
	var works atomic.Bool
	go func() {
		defer close(done)
		var used time.Duration
		run(ctx, time.Millisecond, func() time.Duration {
			if works.Load() {
				used += time.Hour
			}
			return used
		})
	}()
	for _, want := range []int{1, 2, 1} {
		works.Store(want == 2)
		for runtime.GOMAXPROCS(0) != want {
			if ctx.Err() != nil {
				t.Fatalf("got %d processors, want %d", runtime.GOMAXPROCS(0), want)
			}
			time.Sleep(time.Millisecond)
		}
	}
	cancel()
	<-done
	if got := runtime.GOMAXPROCS(0); got != 2 {
		t.Errorf("got %d processors at the end, want 2", got)
	}
	if spent() <= 0 {
		t.Error("this process has used no processor time")
	}
}
