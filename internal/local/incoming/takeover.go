package incoming

import (
	"errors"
	"fmt"
	"io"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// This file is about a port that another session has taken over
// (on_concurrent_steal: override). It is not asked for again, in no pod where it was
// taken: only a listener to come asks anew.

// pod is what was said of a port with another pod of the workload.
type pod uint8

const (
	podAsked pod = 1 + iota // its agent, or another before
	podTaken                // another session has taken it there
)

// lastWord waits for the end of a subscription. taken: another session has what it
// gave; else err is what it ended with, nil in order.
func lastWord(s *link.Stream) (taken *protocol.Answer, err error) {
	for {
		m, err := s.Receive()
		var unknown *protocol.UnknownKindError
		switch a, ok := m.(*protocol.Answer); {
		case errors.As(err, &unknown): // a newer agent's
		case errors.Is(err, io.EOF):
			return nil, nil
		case err != nil:
			return nil, err
		case ok && a.Cause == protocol.CauseTaken:
			return a, nil
		}
	}
}

// first reports whether a pod is asked for the first time.
func (s *subscription) first(at *Site) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.pods[at.Name] == 0
	s.pods[at.Name] = max(s.pods[at.Name], podAsked)
	return first
}

// lost tells that another session has taken the port where the session's target is,
// and gives it back everywhere else: it is had as a whole.
func (p *Ports) lost(sub *subscription, by *protocol.Answer) {
	sub.mu.Lock()
	over := sub.over
	sub.over = true
	if !over {
		sub.release()
		sub.stream = nil
		clear(sub.at)
	}
	sub.mu.Unlock()
	if over { // the program has just ended it
		return
	}
	p.o.Emit(event.Event{Level: event.Warning, Code: "port-taken", Flow: "incoming",
		Text: p.alone(sub) + ": " + by.Text + again, Facts: sub.port.facts(map[string]string{"target": fmt.Sprint(sub.wish.Port)})})
}

// lostAt tells the same of another pod.
func (p *Ports) lostAt(s *Site, sub *subscription, by *protocol.Answer) {
	p.o.Emit(event.Event{Level: event.Warning, Code: "port-taken", Flow: "incoming",
		Text: "the traffic of pod " + s.Name + " does not come here any more: " + by.Text + again, Facts: sub.target().facts(map[string]string{"pod": s.Name})})
}

// again is what can be done.
const again = "; the session goes on without it, and does not get it back by itself: when that session has ended restart the server that listens, " +
	"or take it back at once in the same way (feature.network.incoming.on_concurrent_steal override); sessions share a port if each has a filter of its own: --header 'NAME: VALUE'"

// lostAt forgets what a pod gave, for good; false: it was given back already.
func (s *subscription) lostAt(at *Site) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.at[at]
	delete(s.at, at)
	s.pods[at.Name] = podTaken
	return g != nil && !s.over
}
