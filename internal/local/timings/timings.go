// Package timings is the start and the end of a session as a table: what had
// happened after how long. It is a reader of the session's events, which say what;
// when is the time at which they come.
package timings

import (
	"fmt"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
)

// Codes of the events that tell where the start is over, and the end begins.
const (
	Running = "running"
	Ready   = "session-ready" // of a session that is kept
	Ended   = "command-ended"
)

// maxPhases bounds a start.
const maxPhases = 64

// Phase is what happened between two events, named by the second.
type Phase struct {
	Code string  `json:"code"`
	Text string  `json:"text"`
	At   float64 `json:"at_ms"`   // when it was over, in milliseconds since mirrord's start
	Took float64 `json:"took_ms"` // since the phase before
}

// Trace is what has happened. Its methods may be called concurrently; those of nil
// do nothing.
type Trace struct {
	mu     sync.Mutex
	began  time.Time
	phases []Phase
	over   bool      // the start
	ended  time.Time // the command; zero: it has not
}

// New makes the trace of a start that began then.
func New(began time.Time) *Trace { return &Trace{began: began} }

// Note takes an event that came at now. With the last of a start it gives the
// start's phases, once.
func (t *Trace) Note(e event.Event, now time.Time) (start []Phase) {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	last := e.Code == Running || e.Code == Ready
	switch {
	case e.Code == Ended:
		t.ended = now
		return nil
	case t.over || e.Level != event.Step && e.Level != event.Detail:
		return nil
	case len(t.phases) >= maxPhases && !last:
		return nil
	}
	p := Phase{Code: e.Code, Text: e.Text, At: milliseconds(now.Sub(t.began))}
	p.Took = p.At
	if n := len(t.phases); n > 0 {
		p.Took -= t.phases[n-1].At
	}
	t.phases = append(t.phases, p)
	if !last {
		return nil
	}
	t.over = true
	return t.phases
}

// End is how long mirrord has taken, at now, to end behind its command, in
// milliseconds; false: no command has ended.
func (t *Trace) End(now time.Time) (ms float64, ok bool) {
	if t == nil {
		return 0, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return milliseconds(now.Sub(t.ended)), !t.ended.IsZero()
}

func milliseconds(d time.Duration) float64 { return float64(d.Round(10*time.Microsecond)) / 1e6 }

// Lines are phases as a table.
func Lines(phases []Phase) []string {
	lines := []string{"     at    took"}
	for _, p := range phases {
		lines = append(lines, fmt.Sprintf("%7.1f %7.1f  %s", p.At, p.Took, p.Text))
	}
	return lines
}
