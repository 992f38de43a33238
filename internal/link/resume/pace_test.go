package resume

import (
	"testing"
	"time"
)

// path is a simulated one: bytes leave a queue at rate and are acknowledged a
// round trip later.
type path struct {
	pace
	rate   float64
	rtt    time.Duration
	now    time.Duration
	busy   time.Duration
	sentTo uint64
	acked  uint64
	flying []flight
	pings  []flight
	worst  time.Duration // of the queue
}

type flight struct {
	to       uint64
	sent, at time.Duration
}

// run lets a sender with more than enough to say have the path for d.
func (p *path) run(d time.Duration) (bytes uint64) {
	from, end := p.acked, p.now+d
	p.worst = 0
	for p.now < end {
		for len(p.flying) > 0 && p.flying[0].at <= p.now {
			p.acked = p.flying[0].to
			p.ack(p.acked, p.now)
			p.flying = p.flying[1:]
			if p.probe(int(p.sentTo-p.acked), p.now) {
				at := max(p.busy, p.now) + p.rtt
				p.pings = append(p.pings, flight{0, p.now, at})
			}
		}
		for len(p.pings) > 0 && p.pings[0].at <= p.now {
			p.pong(p.pings[0].sent, p.now, int(p.sentTo-p.acked))
			p.pings = p.pings[1:]
		}
		for n := p.quantum(); p.limit()-int(p.sentTo-p.acked) >= n; {
			p.busy = max(p.busy, p.now) + time.Duration(float64(n)/p.rate*1e9)
			p.worst = max(p.worst, p.busy-p.now)
			p.sentTo += uint64(n)
			p.flying = append(p.flying, flight{p.sentTo, p.now, p.busy + p.rtt})
			p.sent(p.sentTo, p.acked, true, p.now)
		}
		p.now += 100 * time.Microsecond
	}
	return p.acked - from
}

// TestPace: the estimate fills every path, keeps the queue short, and follows
// when the path changes under load.
func TestPace(t *testing.T) {
	p := &path{now: time.Second}
	for _, step := range []struct {
		rate float64
		rtt  time.Duration
	}{
		{25e6, 20 * time.Millisecond},
		{25e6, 80 * time.Millisecond}, // another route: as long as TCP lives
		{5e6, 80 * time.Millisecond},
		{5e6, 10 * time.Millisecond},
		{50e6, 10 * time.Millisecond},
		{2e6, 2 * time.Millisecond},
	} {
		p.rate, p.rtt = step.rate, step.rtt
		p.run(25 * time.Second) // two measures of the round trip
		got := float64(p.run(20*time.Second)) / 20 / p.rate
		most := step.rtt + 2*slack + time.Duration(2*minFlight/step.rate*1e9)
		t.Logf("%.0f MB/s, %v: %.1f %% used, queue up to %v", step.rate/1e6, step.rtt, 100*got, p.worst)
		if got < 0.96 {
			t.Errorf("%.0f MB/s, %v: %.0f %% used, want 96 %%", step.rate/1e6, step.rtt, 100*got)
		}
		if p.worst > 2*most {
			t.Errorf("%.0f MB/s, %v: queue up to %v, want %v", step.rate/1e6, step.rtt, p.worst, 2*most)
		}
	}
}

// TestStart: a path of which nothing is known is used within a few round trips,
// and its queue is not filled for that.
func TestStart(t *testing.T) {
	for _, path := range []path{
		{rate: 1.25e6, rtt: 20 * time.Millisecond},
		{rate: 1.25e6, rtt: 100 * time.Millisecond},
		{rate: 25e6, rtt: 2 * time.Millisecond},
		{rate: 25e6, rtt: 20 * time.Millisecond},
		{rate: 25e6, rtt: 40 * time.Millisecond},
		{rate: 25e6, rtt: 100 * time.Millisecond},
		{rate: 125e6, rtt: 20 * time.Millisecond},
	} {
		p := &path
		p.now = time.Second // 0 is no time
		const all = 2 * time.Second
		lost := all - time.Duration(float64(p.run(all))/p.rate*1e9)
		most := time.Duration(firstFlight/p.rate*1e9) + 3*p.rtt + 2*slack
		t.Logf("%.1f MB/s, %v: %v lost, queue up to %v", p.rate/1e6, p.rtt, lost.Round(time.Millisecond), p.worst)
		if lost > 5*p.rtt+slack {
			t.Errorf("%.1f MB/s, %v: %v lost, want at most five round trips", p.rate/1e6, p.rtt, lost)
		}
		if p.worst > most {
			t.Errorf("%.1f MB/s, %v: queue up to %v, want %v", p.rate/1e6, p.rtt, p.worst, most)
		}
	}
}
