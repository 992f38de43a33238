// Package bare is a session without a sandbox, in the process that the user has
// started: it holds on to an agent and lets a command serve what comes and goes
// over the link.
//
// Whoever calls Run owns the terminal and the signals; nothing is printed here, and
// no other process is started. What a session with a sandbox does at the end of one
// of its processes, the agent does alone when this one is killed: it gives the
// target its ports back at once, and ends when its link does not come back.
package bare

import (
	"context"
	"encoding/json"
	"os"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/link/resume"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/local/attach"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/look"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// removeTime bounds the removal of the agent, for which the user waits: it is told
// that the session ends before, and ends by itself.
const removeTime = 3 * time.Second

// Options of Run.
type Options struct {
	Config  config.Config
	Version string // of this mirrord
	Reach   attach.Reach
	Emit    event.Sink
	Kind    string   // what the session is, for Status
	Argv    []string // the command line, for the same
	Dirs    []string // of sockets in the roster
	// Watch gets what goes on, and must not wait; nil: nobody wants it.
	Watch func(activity.Event)
	// Begin makes what serves the session, and returns when all is ready. It is called
	// once, and what it gives is closed at the end.
	Begin func(ctx context.Context, s *Session) (Server, error)
}

// Server is what a command does with a session. Its methods may be called
// concurrently.
type Server interface {
	// Incoming takes a connection of the target's; it owns the stream, and returns
	// when the connection has ended, or ctx.
	Incoming(ctx context.Context, s *link.Stream, m *protocol.Incoming)
	// Renewed hears that another agent has taken over beside the target's successor.
	Renewed(at *attach.Attachment)
	// Status adds what the session does to st.
	Status(st *control.Status)
	// Ready tells the user; id is the session's in the roster, empty if it has no
	// place there.
	Ready(id string)
	// Close ends it, and returns when nothing of it is left.
	Close()
}

// Session is what a Server is made of.
type Session struct {
	Config   *config.Config
	Hold     *attach.Hold
	Activity *activity.Log
	Emit     event.Sink
	Relayed  *budget.Share // for large buffers

	o     *Options
	began time.Time
}

// Run serves the session until ctx ends, which is no error, or the agent is lost
// for good.
func Run(ctx context.Context, o Options) error {
	b := budget.New(budget.Supervisor)
	b.Reserve(link.Fixed + resume.Memory)
	s := &Session{Config: &o.Config, Relayed: b.Share(1*mib, 8*mib), o: &o, began: time.Now()}
	s.Activity = activity.New(s.Relayed)
	if o.Watch != nil {
		defer s.Activity.Watch(o.Watch)()
	}
	s.Emit = func(e event.Event) {
		s.Activity.Say(e)
		o.Emit(e)
	}
	s.Hold = attach.New(attach.Options{Config: s.Config, Version: o.Version, Reach: o.Reach, Emit: s.Emit, Activity: s.Activity,
		Owned:      func(json.RawMessage) {}, // there is nobody else who could remove it
		RemoveTime: removeTime,
		Memory: link.Memory{Interactive: b.Share(8*mib, budget.All), Opened: b.Share(4*mib, budget.All), Accepted: b.Share(4*mib, budget.All),
			Windows: b.Share(4*mib, 64*mib)}})
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	err := s.Hold.Begin(ctx)
	shown := func() {}
	if err == nil {
		shown, err = s.serve(ctx, stop)
	}
	ended := ctx.Err() != nil
	s.Hold.End()
	shown() // who has asked for the end waits until here
	if ended {
		return nil
	}
	return err
}

const mib = 1 << 20

// serve lets the server serve, and others look on, until the end.
func (s *Session) serve(ctx context.Context, stop context.CancelFunc) (shown func(), err error) {
	server, err := s.o.Begin(ctx, s)
	if err != nil {
		return func() {}, err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer server.Close()
	looking := context.WithoutCancel(ctx) // ends with shown
	id, shown := look.Show(looking, s.o.Dirs, "", look.Session{Activity: s.Activity, Emit: s.Emit, Stop: stop, Status: func(id string) *control.Status { return s.status(id, server) }})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server.Ready(id)
	accept := func(at *attach.Attachment) { s.accept(ctx, at, server, &wg) }
	wg.Go(func() { accept(s.Hold.First()) })
	return shown, s.Hold.Keep(ctx, func(at *attach.Attachment) {
		wg.Go(func() { accept(at) })
		wg.Go(func() { server.Renewed(at) })
	})
}

// accept hands the target's connections to the server until the agent's link
// ends, or ctx.
func (s *Session) accept(ctx context.Context, at *attach.Attachment, server Server, wg *sync.WaitGroup) {
	at.Incoming(ctx, func(stream *link.Stream, in *protocol.Incoming) {
		wg.Go(func() { server.Incoming(ctx, stream, in) })
	})
}

// status is how the session is now.
func (s *Session) status(id string, server Server) *control.Status {
	cfg, since := s.Config, s.began.UTC().Truncate(time.Second)
	st := &control.Status{ID: id, Kind: s.o.Kind, Version: s.o.Version, PID: os.Getpid(), Target: cfg.Target, Key: cfg.Key,
		Since: since, Mode: s.o.Kind, Ports: []control.Port{}, Counts: s.Activity.Counts(), Events: []control.Happened{},
		Commands: []control.Command{{Argv: s.o.Argv, PID: os.Getpid(), Since: since}}}
	st.Namespace, st.Context = s.Hold.Place()
	st.Hostname, st.Lost, st.Replacing = s.Hold.Status()
	server.Status(st)
	return st
}
