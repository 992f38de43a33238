// Package session is the supervisor: it builds one session out of the rooms of
// this machine and owns its lifetime.
//
// It is the only local room that knows all flows and mechanisms. It knows no
// Kubernetes: a Reach starts the agent and connects to it. The front, the
// parent of the command, is at the other end of a control socket; when that
// closes without a word the session ends.
package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/local/attach"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/host"
	"github.com/mirrord-go/mirrord/internal/local/incoming"
	"github.com/mirrord-go/mirrord/internal/local/record"
	"github.com/mirrord-go/mirrord/internal/local/roster"
	"github.com/mirrord-go/mirrord/internal/local/sandbox"
)

const (
	// endTime bounds each step of the clean-up; after it the agent ends itself.
	endTime = 8 * time.Second
	// settleTime bounds the wait for the kernel's word that no process is left: it
	// comes some milliseconds after the command's end.
	settleTime = 200 * time.Millisecond
	// leaveTime bounds how long the front stays for the clean-up, which nobody
	// else would finish if this process were killed: goodbye and removal take a
	// round trip to the cluster each.
	leaveTime = 300 * time.Millisecond
)

// supervisor is one session.
type supervisor struct {
	ctl     *control.Conn
	init    *os.File // the socket of the sandbox's init
	start   *control.Start
	cfg     config.Config
	version string
	id      string // by which it is found while it runs

	hold   *attach.Hold
	others holds // beside other pods
	owned  possessions
	peer   *attach.Peer // of hold
	memory *memory

	delivery incoming.Delivery
	began    time.Time
	runs     atomic.Bool            // the command has been let go
	front    <-chan control.Message // how the command ended; nil when that is known
	left     sync.Once              // the front has been
	failed   sync.Once              // the front has been told why
	late     *time.Timer            // lets the front go that has waited for the end of all
	tally    tally
	summed   sync.Once // the last line is said

	activity *activity.Log

	debuggers debuggers
	learn     *learning  // nil: nobody asked
	container *contained // nil: the command is none of an engine
	kept      *keeper    // nil: the session is that of one command
}

// Run serves the session that start asks for, from the agent's start to the
// removal of its last trace. It owns ctl and initSocket. What goes wrong is
// told to the front; Run returns when all is done. note gets what happens in a
// session that is kept, which outlives its front. events is the descriptor that
// what goes on is written to, which Run owns; negative: none.
func Run(ctx context.Context, version string, ctl *control.Conn, initSocket *os.File, start *control.Start, cfg config.Config, reach attach.Reach, note event.Sink, events int) {
	s := &supervisor{ctl: ctl, init: initSocket, start: start, cfg: cfg, version: version, memory: newMemory(), began: time.Now()}
	s.activity = activity.New(s.memory.relayed)
	s.id = roster.NewID()
	s.owned.tell = s.tell
	if events >= 0 {
		defer record.Start(s.id, events, s.activity, s.unrecorded).Close()
	}
	s.attach(reach)
	s.debuggers.kinds = cfg.Debuggers
	if len(start.Argv) == 0 {
		s.kept = s.newKeeper(note)
		defer s.kept.done()
	} else {
		s.debuggers.command(start.Argv, start.Env)
	}
	if start.Learn {
		s.learn = s.newLearning(start.LearnFile)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer ctl.Close()
	defer initSocket.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	front := make(chan control.Message, 1)
	s.front = front
	wg.Go(func() { s.listen(front, cancel) }) // ends when ctl is closed
	over := make(chan struct{})
	defer close(over)
	wg.Go(func() { s.beat(over) })
	defer func() {
		s.hold.End()
		s.letGo()
		s.late.Stop()
	}()
	err := s.run(ctx)
	s.leave()
	s.fail(ctx, err)
}

// fail tells the front why there is no session, once: before the sandbox ends, whose
// end by a signal would look like the user's own.
func (s *supervisor) fail(ctx context.Context, err error) {
	if err != nil && !errors.Is(context.Cause(ctx), errFrontGone) {
		s.failed.Do(func() { _ = s.ctl.Send(control.Message{Failed: s.failure(err)}) })
	}
}

// attach makes the hold on the agent that reach starts.
func (s *supervisor) attach(reach attach.Reach) {
	s.hold = attach.New(attach.Options{Config: &s.cfg, Version: s.version, Reach: reach, Memory: s.memory.ofLink(), Emit: s.emit, Activity: s.activity,
		Owned: func(description json.RawMessage) { s.owned.set("", description) },
		Stays: "environment, hostname and addresses stay those of the start"})
	s.peer = s.hold.Peer()
}

var errFrontGone = errors.New("the process that the user started is gone")

// listen passes on how the command ended; the front's silent end cancels the
// session.
func (s *supervisor) listen(front chan<- control.Message, cancel context.CancelCauseFunc) {
	for {
		m, err := s.ctl.Receive()
		if err != nil {
			if s.kept == nil || !s.runs.Load() {
				cancel(errFrontGone)
			}
			return
		}
		if m.Exited != nil {
			if !s.runs.Load() { // interrupted, or no command: there will be no session
				cancel(errFrontGone)
			}
			front <- m
			return // what the front does from now on is its own affair
		}
	}
}

// beat tells the front that this process is not stopped, until over.
func (s *supervisor) beat(over <-chan struct{}) {
	tick := time.NewTicker(control.BeatTime)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.tell(control.Message{Beat: &control.Beat{}})
		case <-over:
			return
		}
	}
}

func (s *supervisor) run(ctx context.Context) error {
	var err error
	if s.delivery, err = incoming.NewDelivery(s.cfg.Incoming.TLSDelivery); err != nil {
		return err
	}
	if err := s.hold.Begin(ctx); err != nil {
		return err
	}
	b, err := s.build(ctx)
	if err != nil {
		return err
	}
	defer b.fleet.Close()
	defer b.close()
	profiled, err := s.serveProfiles(ctx)
	if err != nil {
		return err
	}
	defer profiled()
	if s.kept != nil {
		err = s.kept.run(ctx, b)
	} else {
		defer s.show(ctx, b, s.id)() // closed when the front may go
		err = s.serve(ctx, b)
	}
	s.leave()
	s.fail(ctx, err)
	return err
}

// serve lets the command run and serves it until the session ends.
func (s *supervisor) serve(ctx context.Context, b *built) error {
	if err := s.begin(b); err != nil {
		return err
	}
	over := b.box.Done()
	if lost := s.endure(ctx, b, over); lost != nil && !within(settleTime, over) {
		s.lose(ctx, b, lost)
		return nil
	}
	s.last(ctx, b)
	s.summarize(ctx, b) // where processes have outlived the command
	return nil
}

// begin lets the command run.
func (s *supervisor) begin(b *built) error {
	s.runs.Store(true)
	s.emit(event.Event{Level: event.Step, Code: "running", Text: runs(s.start.Argv, &s.cfg),
		Facts: map[string]string{"after_ms": fmt.Sprint(time.Since(s.began).Milliseconds())}})
	if err := b.box.Go(); err != nil {
		return sandbox.Explain(err)
	}
	s.without(b.box.Without())
	s.tellNoUnix(b.box.Filtered())
	_ = s.ctl.Send(control.Message{Running: &control.Running{}})
	return nil
}

// without says what the sandbox does without.
func (s *supervisor) without(pieces []host.Piece) {
	for _, p := range pieces {
		s.emit(lacking(p))
	}
}

func lacking(p host.Piece) event.Event {
	return event.Event{Level: event.Info, Code: "without", Text: "no " + p.Name + " here; what differs: " + p.Without + " (to have it: mirrord doctor)", Facts: map[string]string{"piece": p.Name}}
}

// endure waits until the session is over (nil), or ends by something else: the
// agent, the helper, the front, a signal. It follows the target meanwhile.
func (s *supervisor) endure(ctx context.Context, b *built, over <-chan struct{}) (lost error) {
	holding, stop := context.WithCancel(ctx)
	kept := make(chan error, 1)
	var wg sync.WaitGroup
	defer wg.Wait() // what follows the target has ended before anything else does
	defer stop()
	wg.Go(func() {
		kept <- s.hold.Keep(holding, func(at *attach.Attachment) {
			b.wg.Go(func() { s.acceptStreams(b.ctx, b.ctx, b, &b.wg, at) })
			b.wg.Go(func() {
				if w, ok := at.Agent().(attach.Workload); ok {
					b.fleet.Yield(w.ID())
				}
				b.ports.Renew(at.Link(), at.Agent().Probes())
			})
		})
	})
	wg.Go(func() { s.spread(holding, b) })
	for {
		select {
		case <-s.front:
			s.front = nil
			if s.kept != nil { // it was there for the start only
				s.letGo()
				continue
			}
			s.release(ctx, b)
		case <-over:
			return nil
		case err := <-kept:
			return err
		case err := <-b.helper:
			return &failure.Error{Code: "helper-lost", What: "the session has ended: the process that guards its sandbox has ended", Cause: err,
				Why: "it was killed; without it the program's processes would survive mirrord", Do: attach.StartAgain}
		}
	}
}

// within waits for done, not for longer than limit: what ends at the same time
// as the command is no failure of the session.
func within(limit time.Duration, done <-chan struct{}) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// lose ends a session that cannot go on, and what runs in it.
func (s *supervisor) lose(ctx context.Context, b *built, lost error) {
	s.learn.tell(false)
	s.summarize(ctx, b)
	s.tell(control.Message{Failed: s.failure(lost)})
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	b.box.End(end)
}

// last hears from the front how the command ended, if it has not, and lets it
// go.
func (s *supervisor) last(ctx context.Context, b *built) {
	s.learn.tell(false)
	timer := time.NewTimer(endTime)
	defer timer.Stop()
	told := ctx.Done()
	for s.front != nil && !errors.Is(context.Cause(ctx), errFrontGone) {
		select { // the front reports the end of its child a moment later
		case <-s.front:
			s.release(ctx, b)
			return
		case <-told: // to end, by somebody else
			told = nil
		case <-timer.C: // it is stopped; what it must know waits for it
			s.release(ctx, b)
			return
		}
	}
}

// release says what goes on without the front and lets it go: at once, or when
// all is done, in a moment. Where nothing may go on it ends what is left.
func (s *supervisor) release(ctx context.Context, b *built) {
	if s.start.Whole && !within(settleTime, b.box.Done()) {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
		defer cancel()
		b.box.End(end)
	}
	if within(settleTime, b.box.Done()) {
		s.learn.tell(false)
		s.summarize(ctx, b) // and Run lets it go
		return
	}
	s.learn.tell(true)
	s.emit(event.Event{Level: event.Info, Code: "background", Text: "processes that the command left keep the session; it ends with the last of them"})
	s.letGo()
}

// leave begins the end of the session: the front goes when all is done, or soon.
func (s *supervisor) leave() {
	if s.late == nil {
		s.late = time.AfterFunc(leaveTime, s.letGo)
	}
}

// letGo tells the front that it may go, once.
func (s *supervisor) letGo() {
	s.left.Do(func() { _ = s.ctl.Send(control.Message{Released: &control.Released{}}) })
}

// failure is the form of err for the user.
func (s *supervisor) failure(err error) *failure.Error {
	var f *failure.Error
	if errors.As(err, &f) {
		if s.kept != nil && f.Do == attach.StartAgain {
			kept := *f
			kept.Do = "start another session: mirrord session start"
			return &kept
		}
		return f
	}
	if errors.Is(err, context.Canceled) {
		return &failure.Error{Code: "session-stopped", What: "the session was ended", Why: "mirrord's supervisor was told to end, by a signal",
			Do: attach.StartAgain, Cause: err, Exit: 1}
	}
	f = &failure.Error{Code: "session-failed", What: "the session could not be started", Why: err.Error(),
		Do: "try again with: mirrord exec --verbose", Cause: err, Exit: 1}
	if s.runs.Load() {
		f.What = "the session has ended"
	}
	return f
}

func (s *supervisor) emit(e event.Event) {
	s.tally.count(e)
	s.activity.Say(e)
	s.tell(control.Message{Event: &e})
}

// tell passes a message to the front, and to those of commands that have joined.
func (s *supervisor) tell(m control.Message) {
	_ = s.ctl.Send(m)
	s.kept.tell(m)
}

// unrecorded says that events are not written any more.
func (s *supervisor) unrecorded(err error) {
	s.emit(event.Event{Level: event.Warning, Code: "events-file", Text: fmt.Sprintf("the file of --events gets no more of what happens: %v", err)})
}

// summarize says the session's last line, once.
func (s *supervisor) summarize(ctx context.Context, b *built) {
	s.summed.Do(func() { s.sum(context.WithoutCancel(ctx), b) })
}

func (s *supervisor) sum(ctx context.Context, b *built) {
	if b.ports.Asked() {
		s.others.count(ctx, s.hold)
	}
	target := s.cfg.Target
	if s.cfg.Targetless() {
		target = "no target"
	}
	text, facts := s.tally.summary(target, time.Since(s.began), s.activity.Counts().Ports)
	s.emit(event.Event{Level: event.Info, Code: "summary", Text: text, Facts: facts})
}
