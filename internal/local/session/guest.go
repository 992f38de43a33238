package session

import (
	"context"
	"fmt"
	"os"
	"path"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/kin"
	"github.com/mirrord-go/mirrord/internal/local/places"
	"github.com/mirrord-go/mirrord/internal/local/sandbox"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// guest is a command that joins a session that is kept, from the first word of
// its front to the end of its last process.
type guest struct {
	k      *keeper
	ctl    *control.Conn
	start  *control.Start
	pid    int // of the front
	since  time.Time
	family *kin.Family

	background bool // the command has ended, and left processes; guarded by keeper.mu
}

// serve owns the guest's ctl and sock, the socket of the command's init.
func (g *guest) serve(ctx context.Context, b *built, sock *os.File) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer g.ctl.Close()
	if !g.k.enter(g) {
		sock.Close()
		g.fail(&failure.Error{Code: "session-ends", What: "the session is just ending", Why: "it was stopped, or has lost its target", Do: "start another one: mirrord session start"})
		return
	}
	defer g.k.leave(g)
	words := make(chan control.Message, 1)
	wg.Go(func() { g.listen(words) }) // ends with ctl
	command, err := g.join(ctx, b, sock)
	if err != nil {
		g.fail(err)
		return
	}
	g.attend(ctx, command, words)
}

// listen passes on how the command ended, and closes words when the front is
// gone.
func (g *guest) listen(words chan<- control.Message) {
	defer close(words)
	for told := false; ; {
		m, err := g.ctl.Receive()
		if err != nil {
			return
		}
		if m.Exited != nil && !told {
			told = true
			words <- m
		}
	}
}

// join lets the command run. Nothing here asks the target or the cluster.
func (g *guest) join(ctx context.Context, b *built, sock *os.File) (*sandbox.Command, error) {
	s := g.k.s
	if f := g.k.elsewhere(g.start); f != nil {
		sock.Close()
		return nil, f
	}
	env, err := s.cfg.Variables(os.ReadFile)
	if err != nil {
		sock.Close()
		return nil, err
	}
	_ = g.ctl.Send(control.Message{Owned: g.k.own()})
	s.debuggers.command(g.start.Argv, g.start.Env)
	c, err := b.box.Join(ctx, sock, handoff.Spec{Argv: g.start.Argv, Env: env.Merge(g.start.Env, g.k.vars), Dir: g.start.Dir, NoIPv6: s.cfg.IPv6Off,
		Connects: len(s.cfg.Outgoing.UnixStreams) > 0})
	if err != nil {
		return nil, sandbox.Explain(err)
	}
	g.say(event.Event{Level: event.Step, Code: "running", Text: runs(g.start.Argv, &s.cfg),
		Facts: map[string]string{"after_ms": fmt.Sprint(time.Since(g.since).Milliseconds())}})
	if err := c.Go(ctx); err != nil {
		return nil, sandbox.Explain(err)
	}
	_ = g.ctl.Send(control.Message{Running: &control.Running{}})
	for _, p := range c.Without() {
		g.say(lacking(p))
	}
	s.tellNoUnix(c.Filtered())
	return c, nil
}

// attend waits for the command's last process, and lets its front go when the
// command itself has ended.
func (g *guest) attend(ctx context.Context, c *sandbox.Command, words <-chan control.Message) {
	for {
		select {
		case _, ok := <-words:
			if words = nil; !ok { // the front was killed: what it had started ends
				end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
				defer cancel()
				_ = c.End(end) // what is left ends with the session
				within(settleTime, c.Done())
				return
			}
			if !within(settleTime, c.Done()) {
				g.k.toBackground(g)
				g.say(event.Event{Level: event.Info, Code: "background", Text: "processes that the command left live on in the session, until they or it end"})
			}
			_ = g.ctl.Send(control.Message{Released: &control.Released{}})
		case <-c.Done():
			if words == nil {
				return
			}
			timer := time.NewTimer(endTime)
			defer timer.Stop()
			select { // the front reports the end of its child a moment later
			case <-words:
			case <-timer.C: // it is stopped; what it must know waits for it
			case <-ctx.Done():
			}
			_ = g.ctl.Send(control.Message{Released: &control.Released{}})
			return
		case <-ctx.Done(): // the session is over; a front that is stopped will see why
			_ = g.ctl.Send(control.Message{Released: &control.Released{}})
			return
		}
	}
}

// say tells the command's own front.
func (g *guest) say(e event.Event) { _ = g.ctl.Send(control.Message{Event: &e}) }

func (g *guest) fail(err error) { _ = g.ctl.Send(control.Message{Failed: g.k.s.failure(err)}) }

// elsewhere refuses a command whose directory or program is the target's in the
// session: the places of this machine that a session shows are those that it was
// started with. nil: all is here.
func (k *keeper) elsewhere(start *control.Start) *failure.Error {
	refuse := func(what, p string, d rules.FileDecision) *failure.Error {
		return &failure.Error{Code: "session-elsewhere", What: fmt.Sprintf("%s %s cannot be used in this session", what, p),
			Why: fmt.Sprintf("there it is the target's: %s; the session shows the places of this machine that it was started with", d.Why),
			Do:  "start a session there, or one with that directory in feature.fs.local: mirrord session start", Exit: failure.ExitUsage}
	}
	here := func(p string) (rules.FileDecision, bool) {
		d := k.files.Decide(p, rules.Read)
		return d, d.Where == rules.Local && d.Path == p || p == "/" // which shows both sides to everybody
	}
	for _, p := range []string{path.Join("/", start.Dir), places.Real(start.Dir)} {
		if d, ok := here(p); !ok {
			return refuse("the working directory", p, d)
		}
	}
	program := places.Find(start.Argv[0], places.Variable(start.Env, "PATH"), start.Dir)
	if fi, err := os.Stat(program); err != nil || !fi.Mode().IsRegular() {
		return nil // the target's may be meant; if it has none either, that is said
	}
	if d, ok := here(places.Real(program)); !ok {
		return refuse("the program", program, d)
	}
	return nil
}
