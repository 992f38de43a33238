package resume

import (
	"fmt"
	"time"
)

// absence is how long a gap between two ticks shows that we did not run: the
// machine slept, or we were stopped. A busy machine's are shorter.
const absence = 2 * tick

// moment is a point in time. Other than by the clock of time.Time, the time that
// the machine sleeps counts.
type moment struct {
	at    time.Time
	slept time.Duration
}

func (p *Pipe) now() moment { return moment{time.Now(), p.opts.suspended()} }

func (m moment) since(earlier moment) time.Duration {
	return m.at.Sub(earlier.at) + m.slept - earlier.slept
}

// away knows since when the other end may have heard nothing of us, because we
// did not run. What we read afterwards proves nothing: it may have come before.
type away struct {
	ran  moment // the last time that we know of
	left moment // where an absence began that the other end may not have survived; zero: there was none
	back time.Time
}

// tick says that we run now.
func (a *away) tick(now moment) {
	if now.since(a.ran) > absence {
		if a.back = now.at; a.left.at.IsZero() {
			a.left = a.ran
		}
	}
	a.ran = now
}

// answered says that the other end has answered what was asked then.
func (a *away) answered(asked time.Time) {
	if !asked.Before(a.back) {
		a.left = moment{}
	}
}

// lasted is how long the other end may have heard nothing of us; 0: it has.
func (a *away) lasted(now moment) time.Duration {
	if a.left.at.IsZero() {
		return 0
	}
	return now.since(a.left)
}

// ran says that we run, if s is still the short pipe, and reports whether we did
// not for so long that the other end may have given s up.
func (p *Pipe) ran(s *short) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cur != s {
		return false
	}
	before, now := p.absent.ran, p.now()
	p.absent.tick(now)
	return now.slept-before.slept > tick || now.since(before) >= maxSilent
}

// expired explains the error that ends the search for the other end: after the
// window that one has ended, as it should. mu is held.
func (p *Pipe) expired(err error) error {
	since := p.absent.left
	if since.at.IsZero() {
		since = p.lostAt
	}
	silent := p.now().since(since)
	if silent < p.opts.Window {
		return err
	}
	return fmt.Errorf("%w within %v: this side was silent for %v: %w", ErrGone, p.opts.Window, silent.Round(time.Second), err)
}
