package resume

import "time"

// What is in flight lies in buffers of sockets and proxies, first come first
// served: an interactive request waits behind all of it. These buffers take
// megabytes if they are given megabytes, so a sender must know by itself how
// much the path can hold. The estimate is that of BBR (draft-ietf-ccwg-bbr):
// the smallest round trip times the largest rate at which bytes were
// acknowledged.
const (
	// minFlight is allowed on any path: two TLS records; 26 ms at 10 Mbit/s.
	minFlight = 32 << 10
	// firstFlight is allowed while little is known of the path, about what
	// TCP itself would send within its first few round trips.
	firstFlight = 128 << 10
	// startGain is how many times the path is allowed until a queue shows that it
	// has been full. A measure is of what was sent in the round trip before, so
	// this is twice as much in each, as when TCP and BBR start.
	startGain = 4
	// slack is how long scheduling and delayed acknowledgements may hold the
	// two ends up without the path running dry.
	slack = 5 * time.Millisecond
	// minQuantum is what is sent at once at least. A TLS record, and with it the
	// acknowledgement of its first byte, is read when its last byte has come:
	// on a slow path large ones leave gaps.
	minQuantum = 4 << 10
	// maxQuantum is what is sent at once at most: with all that is put around it
	// four TLS records and two frames of a port-forward, all of them full.
	maxQuantum = 63 << 10
	// minAhead and maxAhead bound what waits here to be sent, in bytes.
	minAhead = 16 << 10
	maxAhead = 256 << 10
	// rttAge is how long the smallest round trip is believed: paths change.
	rttAge = 10 * time.Second
	// maxProbe bounds the time in which little is sent to measure it anew.
	maxProbe = time.Second
	// rates is how many samples the largest rate is taken from, one a round
	// trip: a few bad ones in a row are chance, more are the path.
	rates = 10
)

// pace estimates the path of one short pipe. Times are since the Pipe's start.
type pace struct {
	rtt   time.Duration // the smallest; 0: unknown
	rttAt time.Duration // when it was last seen

	rate [rates]float64 // bytes per second
	i    int

	// One round trip is measured at a time, from when mark was sent.
	marked  bool
	mark    uint64
	markAt  time.Duration
	acked   uint64 // then
	limited bool   // limit kept bytes back meanwhile

	full bool // the path has been

	probing bool          // little is sent until a pong came
	probeAt time.Duration // since when
	pinged  time.Duration // when its PING was due; 0: not yet
}

func (p *pace) bandwidth() float64 {
	var top float64
	for _, r := range p.rate {
		top = max(top, r)
	}
	return top
}

// limit is how many bytes may be in flight.
func (p *pace) limit() int {
	// Twice the path, so that the estimate can grow: half of it is flying,
	// half is what the next acknowledgements release.
	least, gain := minFlight, time.Duration(2)
	switch {
	case p.probing:
		return minFlight
	case !p.full:
		least, gain = firstFlight, startGain
	}
	return bound(p.bandwidth()*(gain*p.rtt+slack).Seconds(), least, maxRing)
}

// quantum is how many bytes are sent at once: about slack's worth.
func (p *pace) quantum() int {
	rate := p.bandwidth()
	if rate == 0 {
		return minFlight / 2
	}
	return bound(rate*slack.Seconds(), minQuantum, maxQuantum)
}

// ahead is how many bytes may wait to be sent.
func (p *pace) ahead() int { return bound(p.bandwidth()*slack.Seconds(), minAhead, maxAhead) }

func bound(v float64, low, high int) int {
	if v > float64(high) { // before the conversion, which has no room for it
		return high
	}
	return max(low, int(v))
}

// sent notes that bytes up to next were sent; more says that limit kept others
// back.
func (p *pace) sent(next, acked uint64, more bool, now time.Duration) {
	if !p.marked {
		p.marked, p.mark, p.markAt, p.acked, p.limited = true, next, now, acked, false
	}
	p.limited = p.limited || more
}

// ack notes an acknowledgement.
func (p *pace) ack(o uint64, now time.Duration) {
	if !p.marked || o < p.mark || now <= p.markAt {
		return
	}
	p.marked = false
	took := now - p.markAt
	p.trip(took, now)
	p.full = p.full || took > 2*p.rtt+slack // it has a queue
	// A sender with little to say measures itself, not the path.
	if r := float64(o-p.acked) / took.Seconds(); (p.limited && !p.probing) || r > p.bandwidth() {
		p.rate[p.i%rates] = r
		p.i++
	}
}

// trip notes a round trip.
func (p *pace) trip(took, now time.Duration) {
	switch {
	case p.rtt == 0 || took <= p.rtt:
		p.rtt, p.rttAt = took, now
	case took <= p.rtt+p.rtt/4: // still true
		p.rttAt = now
	}
}

// pong notes the answer to a PING sent at that time; flight is what is in
// flight now, in bytes.
func (p *pace) pong(sent, now time.Duration, flight int) {
	if sent <= 0 || sent >= now {
		return
	}
	switch {
	case p.probing && p.pinged > 0 && sent >= p.pinged:
		p.probing, p.rtt = false, 0
	case !p.probing && flight <= minFlight && now-p.rttAt > rttAge:
		p.rtt = 0
	}
	p.trip(now-sent, now)
}

// probe reports whether a PING should be sent now to measure the path anew:
// once the smallest round trip is old and, for that purpose, little is in
// flight. A full path shows only its own queue.
func (p *pace) probe(flight int, now time.Duration) bool {
	if !p.probing {
		if p.rtt == 0 || flight == 0 || now-p.rttAt <= rttAge {
			return false
		}
		p.probing, p.probeAt, p.pinged = true, now, 0
	}
	if now-p.probeAt > maxProbe { // the pong is late: keep what we have
		p.probing, p.rttAt = false, now
		return false
	}
	if p.pinged > 0 || flight > minFlight {
		return false
	}
	p.pinged = now
	return true
}
