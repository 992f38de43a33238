// Package attach is a session's hold on its agent: it starts one beside the
// target, greets it, goes with the target to what takes its place, tells the user
// of a link that is lost and of its return, and removes the agent at the end.
//
// What is served over the link is for others: exec, with a sandbox, and those
// commands that have none are built on the same hold. It knows no Kubernetes: a
// Reach starts agents and connects to them.
package attach

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// Request is what an agent must know to serve a session.
type Request struct {
	PublicKey string // of the session, as text
	Session   string
	User      string   // who the agent is for, for a person
	Arguments []string // more of the agent's, for its process
	// Owned is called as soon as something may exist that must be removed
	// again, with a description that any process of this version can remove it
	// by. A later call replaces an earlier one.
	Owned func(json.RawMessage)
	Emit  event.Sink
}

// Agent is a running agent.
type Agent interface {
	// Announced is what the agent says of itself.
	Announced() protocol.Announcement
	// Image is what the agent was started from; empty: this very program.
	Image() string
	// Place is where the target is: its namespace, and the cluster's context of the
	// kubeconfig; empty outside of a cluster.
	Place() (namespace, context string)
	// Dial gives a fresh byte pipe to it, again and again.
	Dial(ctx context.Context) (io.ReadWriteCloser, error)
	// Probes are the paths, by port, on which the target's node asks over HTTP
	// how its pod is. The caller must not change them.
	Probes() map[uint16][]string
	// Gone reports whether an error of Dial says that there is no agent any
	// more.
	Gone(err error) bool
	// Follow waits for what takes the place of the target, and starts an agent
	// beside it. ended says that the target has surely ended; otherwise Follow
	// finds out first. It fails with ErrNotReplaced where there is no such thing.
	Follow(ctx context.Context, ended bool, r Request) (Agent, error)
	// Close removes the agent and everything that belongs to it.
	Close(ctx context.Context) error
}

// A Workload is an Agent beside a pod that others of its kind share their work
// with.
type Workload interface {
	Agent
	// ID is that of the container that the agent is beside.
	ID() string
	// Replicas tells of the containers of all pods of the workload that are ready,
	// its own among them, at once and whenever that may have changed, until ctx ends
	// or there are none but its own.
	Replicas(ctx context.Context, tell func([]Replica))
}

// Replica is a container of the workload's.
type Replica struct {
	ID  string // of the container
	Pod string // its name
	// Reach starts an agent there that serves incoming traffic and nothing else, and
	// has no successor.
	Reach Reach
}

// ErrNotReplaced says that the target has not ended, or will not be replaced.
var ErrNotReplaced = errors.New("the target has no successor")

// Reach starts an agent beside the target.
type Reach func(ctx context.Context, r Request) (Agent, error)

const (
	// removeTime bounds the removal of the agent where nobody waits for it: an API
	// server that restarts is away for that long. After it the agent ends itself.
	removeTime = 30 * time.Second
	// goneTime bounds it where the API server has been away for the whole window.
	goneTime = 8 * time.Second
)

// StartAgain is all that is to be done about a session that ended in the middle.
const StartAgain = "start the command again"

// Options of New.
type Options struct {
	// Config is the session's. What the first agent cannot do, and nobody has asked
	// for by name, is turned off in it.
	Config   *config.Config
	Version  string // of this mirrord
	Reach    Reach
	Memory   link.Memory
	Emit     event.Sink
	Owned    func(json.RawMessage) // see Request
	Activity *activity.Log
	// RemoveTime bounds the removal of the agent, after which it ends by itself; 0:
	// nobody waits for it.
	RemoveTime time.Duration
	// Stays is what does not follow the target to its successor, for the line that
	// tells of it; empty: there is no such thing.
	Stays string
}

// Hold is a session's hold on its agent, whichever that is. Begin comes first; then
// its methods may be called concurrently, Keep once.
type Hold struct {
	o       Options
	peer    Peer
	first   *Attachment                // set once
	current atomic.Pointer[Attachment] // nil: there is nothing to be ended
	losing  sync.Once                  // mirrored traffic: it was said
}

// New makes a hold on nothing yet.
func New(o Options) *Hold { return &Hold{o: o} }

// Begin starts an agent and greets it. End must be called, also after an error.
func (h *Hold) Begin(ctx context.Context) error {
	at, err := h.attach(ctx, h.o.Reach)
	h.current.Store(at)
	if err != nil {
		return err
	}
	h.first = at
	h.peer.set(at.link)
	return nil
}

// End says goodbye to the agent and removes what is left of it in the cluster.
func (h *Hold) End() {
	if at := h.current.Load(); at != nil {
		h.detach(at)
	}
}

// Peer is the agent for those who ask it.
func (h *Hold) Peer() *Peer { return &h.peer }

// First is the attachment that the session began with.
func (h *Hold) First() *Attachment { return h.first }

// Now is the present one.
func (h *Hold) Now() *Attachment { return h.current.Load() }

// Place is where the target is: see Agent.
func (h *Hold) Place() (namespace, context string) { return h.Now().agent.Place() }

// Status is how it is now: the target's hostname, since when there is no link to
// the agent, nil for not at all, and whether the target is being replaced.
func (h *Hold) Status() (hostname string, lost *time.Time, replacing bool) {
	at := h.Now()
	if since := at.loss.since(); !since.IsZero() {
		lost = &since
	}
	return at.pod.Hostname, lost, h.peer.Replacing()
}

// Keep holds on until ctx ends, which it returns the cause of, or the agent is
// lost for good. It follows the target; renewed hears of each new attachment.
func (h *Hold) Keep(ctx context.Context, renewed func(*Attachment)) error {
	for {
		at := h.Now()
		select {
		case <-at.link.Done():
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		at, err := h.follow(ctx, at)
		switch {
		case err != nil && ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		}
		renewed(at)
	}
}

// lastTime bounds asking an agent for its counts at the end: the session's front
// waits for the answer.
const lastTime = 300 * time.Millisecond

// Count asks the agent what has become of what reached the target's ports, for
// the activity's counts. Without an answer they stay as they are.
func (h *Hold) Count(ctx context.Context) {
	at := h.Now()
	if at == nil || !at.Lost().IsZero() || !slices.Contains(at.pod.Features, protocol.FeatureCounts) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lastTime)
	defer cancel()
	m, err := at.link.Call(ctx, &protocol.CountsRequest{})
	if counts, ok := m.(*protocol.Counts); ok && err == nil {
		h.counted(at, counts)
	}
}

// counted takes what the agent at has counted.
func (h *Hold) counted(at *Attachment, m *protocol.Counts) {
	at.counts.Passed(activity.Passed{Passed: int64(m.Passed), Returned: int64(m.Returned), Refused: int64(m.Refused), Ended: int64(m.Ended)})
	if m.Packets > 0 || m.Copies > 0 {
		h.lost(at, &protocol.Lost{Packets: m.Packets, Copies: m.Copies})
	}
}

// lost counts what could not be mirrored, and says it once.
func (h *Hold) lost(at *Attachment, m *protocol.Lost) {
	at.counts.Lost(activity.Loss{Packets: int64(m.Packets), Copies: int64(m.Copies)})
	h.losing.Do(func() {
		h.o.Emit(event.Event{Level: event.Warning, Code: "mirror-lost", Flow: "incoming",
			Text:  fmt.Sprintf("more is sent to the target than can be mirrored: %d packets are lost, %d connections not copied as a whole; mirrord status goes on counting", m.Packets, m.Copies),
			Facts: map[string]string{"packets": fmt.Sprint(m.Packets), "copies": fmt.Sprint(m.Copies)}})
	})
}
