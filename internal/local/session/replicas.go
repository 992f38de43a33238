package session

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/link/resume"
	"github.com/mirrord-go/mirrord/internal/local/attach"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/incoming"
	"github.com/mirrord-go/mirrord/internal/local/replicas"
)

// This file is about the other pods of the target's workload: what comes to
// them comes here as well, as soon as the program listens.

// replicaCost is what a further agent's link holds, in bytes.
const replicaCost = link.Fixed + resume.Memory

// lingerTime is how long requests may take that came from a pod which has become
// the target.
const lingerTime = 30 * time.Second

// spread lets the other pods take part from the first port on, until ctx ends.
func (s *supervisor) spread(ctx context.Context, b *built) {
	w, ok := s.hold.First().Agent().(attach.Workload)
	if !ok || s.cfg.OneReplica {
		return
	}
	select {
	case <-b.subscribed:
		w.Replicas(ctx, b.fleet.Look)
	case <-ctx.Done():
	}
}

// newFleet makes the fleet of a session.
func (s *supervisor) newFleet(b *built) *replicas.Fleet {
	return replicas.New(replicas.Options{
		Target: func() string {
			if w, ok := s.hold.Now().Agent().(attach.Workload); ok {
				return w.ID()
			}
			return ""
		},
		Serve: func(ctx context.Context, r attach.Replica, turn replicas.Turn) error {
			return s.serveReplica(ctx, b, r, turn)
		},
		Emit: s.emit,
	})
}

// serveReplica is replicas.Options.Serve.
func (s *supervisor) serveReplica(ctx context.Context, b *built, r attach.Replica, turn replicas.Turn) error {
	if !s.memory.replicas.Take(replicaCost) {
		return errors.New("there is no memory left for another link")
	}
	defer s.memory.replicas.Give(replicaCost)
	cfg := s.cfg.IncomingOnly()
	quiet := func(e event.Event) { // what is worth more than a detail is said of the whole
		e.Level, e.Text = event.Detail, "pod "+r.Pod+": "+e.Text
		s.emit(e)
	}
	hold := attach.New(attach.Options{Config: &cfg, Version: s.version, Reach: r.Reach, Memory: s.memory.ofLink(), Emit: quiet, Activity: s.activity,
		Owned: func(description json.RawMessage) { s.owned.set(r.ID, description) }})
	var carried sync.WaitGroup
	defer carried.Wait()
	defer s.owned.set(r.ID, nil)
	defer hold.End() // and with it what is carried
	if err := hold.Begin(turn.Taking); err != nil {
		return unless(turn.Taking, err)
	}
	defer s.others.add(hold)()
	defer hold.Count(ctx) // later it cannot be asked
	at := hold.First()
	accepting, stop := context.WithCancel(ctx)
	defer stop()
	carried.Go(func() { s.acceptStreams(ctx, accepting, b, &carried, at) })
	site := &incoming.Site{Name: r.Pod, Link: hold.Peer(), Probes: at.Agent().Probes()}
	b.ports.Join(site)
	turn.Ready()
	err := hold.Keep(turn.Taking, func(*attach.Attachment) {})
	b.ports.Leave(site)
	turn.Left()
	if turn.Taking.Err() != nil && ctx.Err() == nil { // the target has come here
		stop()
		select {
		case <-ended(&carried):
		case <-time.After(lingerTime):
		case <-ctx.Done():
		}
	}
	if attach.TargetEnded(err) {
		return nil
	}
	return unless(turn.Taking, err)
}

// unless is err, or nil if ctx has ended.
func unless(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// holds are those on the agents beside other pods than the target.
type holds struct {
	mu sync.Mutex
	of map[*attach.Hold]bool
}

// add enters h, until remove.
func (s *holds) add(h *attach.Hold) (remove func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = map[*attach.Hold]bool{}
	}
	s.of[h] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.of, h)
	}
}

// count asks all agents at once, the target's own too, what has become of what
// reached their ports.
func (s *holds) count(ctx context.Context, own *attach.Hold) {
	var asked sync.WaitGroup
	defer asked.Wait()
	asked.Go(func() { own.Count(ctx) })
	s.mu.Lock()
	defer s.mu.Unlock()
	for h := range s.of {
		asked.Go(func() { h.Count(ctx) })
	}
}

// possessions are what must be removed in the cluster if this process dies, a
// description for each agent.
type possessions struct {
	tell func(control.Message)

	mu sync.Mutex
	of map[string]json.RawMessage
}

// set has description be what is owned by the name of id; nil: nothing is.
func (p *possessions) set(id string, description json.RawMessage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == nil {
		p.of = map[string]json.RawMessage{}
	}
	p.of[id] = description
	if description == nil {
		delete(p.of, id)
	}
	var all []json.RawMessage
	for _, id := range slices.Sorted(maps.Keys(p.of)) {
		all = append(all, p.of[id])
	}
	if b, err := json.Marshal(all); err == nil {
		p.tell(control.Message{Owned: b})
	}
}
