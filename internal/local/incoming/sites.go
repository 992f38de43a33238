package incoming

import (
	"fmt"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/link"
)

// Site is another pod of the target's workload, with an agent of its own: what
// the program listens on is asked for there, too.
type Site struct {
	Name   string // of the pod, for a person
	Link   Opener
	Probes map[uint16][]string // as in Options
}

// leaveTime bounds how long Leave waits for the agent: a link that is lost.
const leaveTime = 2 * time.Second

// given is what a site gives for one port.
type given struct {
	*link.Stream
	over chan struct{} // closed when the agent has ended it
}

// Join asks s for every port that the target gives, now and later, until Leave.
// What it does not give is told, and stays with that pod. It returns when all
// has been answered, or after Close.
func (p *Ports) Join(s *Site) {
	if !p.enter() {
		return
	}
	defer p.wg.Done()
	p.mu.Lock()
	p.sites[s] = true
	p.mu.Unlock()
	var asked sync.WaitGroup
	for _, sh := range p.subscriptions.begun() {
		if sh.value.given() {
			asked.Go(func() { p.orderAt(s, sh.value) })
		}
	}
	asked.Wait()
}

// Leave gives s its ports back. It returns when the agent has done so: another
// may take them then. What was delivered goes on.
func (p *Ports) Leave(s *Site) {
	if !p.enter() {
		return // Close does that
	}
	defer p.wg.Done()
	p.mu.Lock()
	delete(p.sites, s)
	p.mu.Unlock()
	timer := time.NewTimer(leaveTime)
	defer timer.Stop()
	for _, sh := range p.subscriptions.begun() {
		g := sh.value.leave(s)
		if g == nil {
			continue
		}
		_ = g.CloseWrite()
		select {
		case <-g.over:
		case <-timer.C:
			timer.Reset(0) // for none of the others either
		}
		g.Close()
	}
}

// spread asks all sites for what the target gives. Nobody waits for them: what
// comes to the target itself comes here already.
func (p *Ports) spread(sub *subscription) {
	if p.o.Subscribed != nil {
		p.o.Subscribed()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.sites {
		p.wg.Go(func() { p.orderAt(s, sub) })
	}
}

// orderAt asks s for what sub wishes, unless somebody has.
func (p *Ports) orderAt(s *Site, sub *subscription) {
	if !sub.reserve(s) {
		return
	}
	m := *sub.wish
	m.Override = p.overrides(sub) && sub.first(s)
	if !sub.port.udp {
		m.Probes = s.Probes[m.Port]
	}
	stream, err := p.ask(p.ctx, s.Link, &m)
	var g *given
	if err == nil {
		g = &given{stream, make(chan struct{})}
	}
	switch taken := sub.takeAt(s, g); {
	case taken:
		p.wg.Go(func() { p.followAt(s, g, sub) })
	case err == nil:
		stream.Close()
	case p.ctx.Err() == nil && p.joined(s):
		p.o.Emit(event.Event{Level: event.Warning, Code: "port-not-everywhere", Flow: "incoming",
			Text:  fmt.Sprintf("the traffic of pod %s for %v does not come here: %v", s.Name, sub.target(), err),
			Facts: sub.target().facts(map[string]string{"pod": s.Name})})
	}
}

// followAt waits for the end of what s gives, and tells if the agent has ended it.
func (p *Ports) followAt(s *Site, g *given, sub *subscription) {
	port := sub.target()
	taken, err := lastWord(g.Stream)
	if taken != nil && sub.lostAt(s) {
		g.Close()
		p.lostAt(s, sub, taken)
	}
	close(g.over)
	if taken == nil && tookBack(err) && p.joined(s) {
		g.Close()
		p.o.Emit(event.Event{Level: event.Warning, Code: "port-lost", Flow: "incoming",
			Text:  fmt.Sprintf("the traffic of pod %s for %v does not come here any more: the agent gave it back", s.Name, port),
			Facts: port.facts(map[string]string{"pod": s.Name})})
	}
}

func (p *Ports) joined(s *Site) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sites[s]
}

// reserve begins the question of s; false: it was asked.
func (s *subscription) reserve(at *Site) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, asked := s.at[at]; asked || s.over || s.pods[at.Name] == podTaken {
		return false
	}
	s.at[at] = nil
	return true
}

// takeAt ends the question, with nil for a no; false: there is nothing, or nobody
// wants it any more.
func (s *subscription) takeAt(at *Site, g *given) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, wanted := s.at[at]; !wanted || s.over {
		return false
	}
	if s.at[at] = g; g == nil {
		delete(s.at, at)
	}
	return g != nil
}

// leave forgets what a site gives; nil: it gives nothing.
func (s *subscription) leave(at *Site) *given {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.at[at]
	delete(s.at, at)
	return g
}
