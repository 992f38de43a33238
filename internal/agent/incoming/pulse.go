package incoming

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/link"
)

// This file is about agents that share a port, and one of them that is stopped, or
// starves: its connections stay, and nothing is heard of it.

const (
	// beatTime is how often an agent asks another one for a sign of life. The other
	// end is a process of this node, which answers within a millisecond.
	beatTime = 500 * time.Millisecond
	// lateBeats is how many of them may be in vain before nothing more is given to
	// it for the time being, and silentBeats before it counts as gone, after 3 s: a
	// container that has used up its share of the processor waits for tenths of a
	// second.
	lateBeats, silentBeats = 2, 6
)

// pulse is whether another agent runs.
type pulse struct {
	mu      sync.Mutex
	vain    int           // beats in a row of which nothing was heard
	changed chan struct{} // closed, and another, with vain
}

func newPulse() *pulse { return &pulse{changed: make(chan struct{})} }

// watch beats until l has ended. silent is called when the other end has become
// silent.
func (p *pulse) watch(l *link.Conn, beat time.Duration, silent func()) {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	defer p.set(silentBeats)
	heard, vain := l.Heard(), 0
	for {
		l.Ping()
		select {
		case <-l.Done():
			return
		case <-tick.C: // only one of those that came while this process was stopped
		}
		if now := l.Heard(); now != heard {
			heard, vain = now, 0
		} else {
			vain++
		}
		p.set(vain)
		if vain == silentBeats {
			silent()
		}
	}
}

func (p *pulse) set(vain int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if vain != p.vain {
		p.vain = vain
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

// look gives how many beats were in vain, and what is closed when that changes.
func (p *pulse) look() (vain int, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.vain, p.changed
}

// runs reports whether the other end is there to be given something. While that is
// in doubt it waits.
func (p *pulse) runs(ctx context.Context) bool {
	for {
		vain, changed := p.look()
		switch {
		case vain < lateBeats:
			return true
		case vain >= silentBeats:
			return false
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// there reports whether to can be given a request: this agent's own session always.
func (to recipient) there(ctx context.Context) bool {
	return to.guest == nil || to.guest.pulse.runs(ctx)
}

// surely is there without a wait: no, while that is in doubt.
func (to recipient) surely() bool {
	if to.guest == nil {
		return true
	}
	vain, _ := to.guest.pulse.look()
	return vain < lateBeats
}

// silentCode is that of notices about an agent that says nothing.
const silentCode = "sharing-silent"

// silentGuest tells that a guest is silent, which gets nothing more until it asks anew.
func (h *Hub) silentGuest(g *guest) {
	h.notice(g.port, silentCode, fmt.Sprintf("port %d: the agent of another session, %v, has said nothing for %v, as if it were stopped: its requests go to the target, or to the next session whose filter matches, until it speaks",
		g.port, g.session, silentBeats*h.beat))
}

// silentHolder tells that whoever has j's port is silent.
func (h *Hub) silentHolder(j *joined) {
	h.notice(j.key.port, silentCode, fmt.Sprintf("port %d: the agent of another session, which has the port and gives this one its requests, has said nothing for %v, as if it were stopped: until it speaks, or ends, requests go to the target",
		j.key.port, silentBeats*h.beat))
}
