// Package gear gives this process as many processors as it has work for.
//
// Go's scheduler keeps every processor that it may use on the look for work, and
// wakes one for each goroutine that becomes ready. In an agent, which waits most
// of the time, both take the processors' time from the target just when that
// is about to answer, and what one goroutine hands to the next crosses from one
// processor to another, at the price of an interrupt. One processor carries
// thousands of small requests a second by itself; who has more to do gets more.
package gear

import (
	"context"
	"runtime"
	"syscall"
	"time"
)

const (
	// lookTime is how often the load is looked at.
	lookTime = 250 * time.Millisecond
	// calmLooks is how many looks in a row must find too little work for the
	// processors that there are: changing their number stops the process for a
	// moment.
	calmLooks = 8
)

// Run changes GOMAXPROCS, between one and what it was, until the end of ctx; then
// it is what it was.
func Run(ctx context.Context) { run(ctx, lookTime, spent) }

func run(ctx context.Context, every time.Duration, spent func() time.Duration) {
	most := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(most)
	g := &gear{most: most, now: 1}
	tick := time.NewTicker(every)
	defer tick.Stop()
	at, used := time.Now(), spent()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now, total := time.Now(), spent()
		if before := g.now; g.look((total-used).Seconds()/now.Sub(at).Seconds()) != before {
			runtime.GOMAXPROCS(g.now)
		}
		at, used = now, total
	}
}

// spent is the processor time of this process.
func spent() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// gear is how many processors there are for how much work.
type gear struct {
	most, now int
	calm      int // looks in a row at which one less would have done
}

// look gives how many there should be: load is the processor time that was used
// per time since the last look.
func (g *gear) look(load float64) int {
	switch {
	case load > 0.7*float64(g.now):
		g.calm = 0
		g.now = min(g.now+1, g.most)
	case g.now > 1 && load < 0.5*float64(g.now-1):
		if g.calm++; g.calm == calmLooks {
			g.calm = 0
			g.now--
		}
	default:
		g.calm = 0
	}
	return g.now
}
