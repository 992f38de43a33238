package resume

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestAwayForTheWindow: an agent that is gone when this side comes back after
// the window has ended as it should; one that goes earlier was ended.
func TestAwayForTheWindow(t *testing.T) {
	const window = time.Minute
	for _, c := range []struct {
		name  string
		slept time.Duration
		// alive: the other end has answered between the absence and the loss.
		alive bool
		// awake: the loss came first.
		awake bool
		gone  bool
	}{
		{"no absence", 0, false, false, false},
		{"a short absence", 30 * time.Second, false, false, false},
		{"a long absence", 2 * window, false, false, true},
		{"a long absence that the link survived", 2 * window, true, false, false},
		{"a long absence while the link was lost", 2 * window, false, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var slept atomic.Int64
				l := newLab(t, Options{Window: time.Hour})
				deleted, away := errors.New("the pod is deleted"), errors.New("no network")
				near, far := l.session(Options{Window: window, Fatal: func(err error) bool { return errors.Is(err, deleted) },
					suspended: func() time.Duration { return time.Duration(slept.Load()) }})
				time.Sleep(3 * time.Second)
				if c.awake {
					l.set(func(int) (a, b end, err error) { return a, b, away })
					l.current().Close()
					time.Sleep(3 * time.Second)
				}
				slept.Add(int64(c.slept))
				if c.alive {
					time.Sleep(10 * time.Second)
				}
				l.set(func(int) (a, b end, err error) { return a, b, deleted })
				l.current().Close()
				<-near.Done()
				if err := near.Err(); !errors.Is(err, deleted) || errors.Is(err, ErrGone) != c.gone {
					t.Errorf("ended with %v, want the window to be the reason: %v", err, c.gone)
				}
				near.Close()
				far.Close()
				l.server.Close()
			})
		})
	}
}

// TestLasted: a process that is stopped has no clock that tells, and one whose
// machine slept another.
func TestLasted(t *testing.T) {
	at := time.Now()
	for _, c := range []struct {
		name       string
		ran, slept time.Duration // since the last tick: by the clock that a suspend stops, and of it
		want       time.Duration
	}{
		{"it runs", time.Second, 0, 0},
		{"stopped", 12 * time.Second, 0, 12 * time.Second},
		{"the machine slept", time.Second, 9 * time.Second, 10 * time.Second},
	} {
		a := away{ran: moment{at, time.Hour}}
		now := moment{at.Add(c.ran), time.Hour + c.slept}
		a.tick(now)
		if got := a.lasted(now); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		later := moment{now.at.Add(time.Second), now.slept}
		a.tick(later)
		if got := a.lasted(later); c.want > 0 && got != c.want+time.Second {
			t.Errorf("%s, and a second later: %v", c.name, got)
		}
	}
}

// TestAway: a stop shows as a gap between ticks, and lasts until the other end
// has answered what was asked after it.
func TestAway(t *testing.T) {
	start := time.Now()
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	a := away{ran: moment{at: start}}
	left := func() int {
		if a.left.at.IsZero() {
			return -1
		}
		return int(a.left.at.Sub(start).Seconds())
	}
	for i, step := range []struct {
		tick, asked int // 0: not
		want        int // where the absence began; -1: there is none
	}{
		{tick: 1, want: -1},
		{tick: 3, want: -1}, // a busy machine
		{tick: 20, want: 3},
		{tick: 21, want: 3},
		{asked: 2, want: 3},  // its answer came before
		{tick: 40, want: 3},  // nothing was answered between the two
		{asked: 22, want: 3}, // nor does that tell of the second
		{asked: 41, want: -1},
		{tick: 41, want: -1},
	} {
		if step.tick > 0 {
			a.tick(moment{at: at(step.tick)})
		}
		if step.asked > 0 {
			a.answered(at(step.asked))
		}
		if got := left(); got != step.want {
			t.Errorf("step %d: absent since %d, want %d", i, got, step.want)
		}
	}
}
