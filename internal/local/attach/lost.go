package attach

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/link/resume"
	"github.com/mirrord-go/mirrord/internal/link/seal"
)

const (
	// blinkTime is how short a loss must be to be no news: a proxy that closes
	// what is old, for instance.
	blinkTime = time.Second
	// lostReplyTime is how long requests of others wait for a lost link when the
	// configuration says nothing: their clients wait longer for an answer.
	lostReplyTime = 15 * time.Second
	// sealTime bounds the handshake on a new pipe, which is two round trips of
	// small messages, and maxSilent how many of them in a row may meet an agent
	// that takes the connection and says nothing. It is stopped then, or its node
	// is: it holds what it has stolen, and nobody but the end of its Job gives it
	// back.
	sealTime  = 5 * time.Second
	maxSilent = 4
)

// errStopped says that the agent is there, and does nothing.
var errStopped = fmt.Errorf("the agent took %d connections, and said nothing for %v on each", maxSilent, sealTime)

// ResumeWindow is how long a lost link may take to come back.
func ResumeWindow(cfg *config.Config) time.Duration {
	if s := cfg.Agent.ResumeWindow; s > 0 {
		return time.Duration(s) * time.Second
	}
	return resume.DefaultWindow
}

// agentArguments are what the agent must know of a lost link: both ends agree
// on the window. They are flags of cmd/mirrord-agent.
func agentArguments(cfg *config.Config) []string {
	reply := lostReplyTime
	if s := cfg.Incoming.LostReply; s != nil {
		reply = time.Duration(*s) * time.Second
	}
	return []string{"-resume-window=" + ResumeWindow(cfg).String(), "-lost-reply=" + reply.String()}
}

// sealed gives what makes pipes to a: sealed, and never waiting long for an
// agent that does not speak.
func sealed(a Agent, key ed25519.PrivateKey, agentKey ed25519.PublicKey) resume.Connect {
	silent := 0 // tries in a row; one is under way at a time
	return func(ctx context.Context) (io.ReadWriteCloser, error) {
		raw, err := a.Dial(ctx)
		if err != nil {
			silent = 0
			return nil, err
		}
		limit, cancel := context.WithTimeout(ctx, sealTime)
		defer cancel()
		pipe, err := seal.Client(limit, raw, key, agentKey)
		if err == nil {
			silent = 0
			return pipe, nil
		}
		raw.Close()
		if ctx.Err() != nil || limit.Err() == nil {
			silent = 0
			return nil, err
		}
		if silent++; silent < maxSilent {
			return nil, fmt.Errorf("the agent takes the connection, but said nothing for %v", sealTime)
		}
		return nil, errStopped
	}
}

// loss follows the state of a session's pipe: it tells the link, so that
// nothing new waits for ever, and the user. Close it after the pipe.
type loss struct {
	window time.Duration
	emit   event.Sink
	states chan state // the newest that run has not seen; capacity 1
	wg     sync.WaitGroup

	mu    sync.Mutex
	link  *link.Conn // nil: not made yet
	lost  bool
	when  time.Time // the loss
	ended time.Time // the latest
}

// state of the pipe.
type state struct {
	resume.State
	err  error
	at   time.Time     // when it was noticed
	past time.Duration // of a loss, until then
	lost *state        // before this one, and not seen by run
}

// past is how long the link had been lost when that was noticed.
func past(err error) time.Duration {
	var silent *resume.SilentError
	if errors.As(err, &silent) {
		return silent.For
	}
	return 0
}

func newLoss(window time.Duration, emit event.Sink) *loss {
	l := &loss{window: window, emit: emit, states: make(chan state, 1)}
	l.wg.Go(l.run)
	return l
}

// options are those of the pipe to a.
func (l *loss) options(a Agent) resume.Options {
	return resume.Options{Window: l.window, OnState: l.note, Fatal: func(err error) bool {
		return errors.Is(err, seal.ErrRefused) || errors.Is(err, seal.ErrWrongKey) || errors.Is(err, seal.ErrVersion) || errors.Is(err, errStopped) || a.Gone(err)
	}}
}

// attach names the link on the pipe.
func (l *loss) attach(c *link.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.link = c
	c.SetLost(l.lost)
}

// note is called by the pipe, one at a time. It does not wait.
func (l *loss) note(s resume.State, err error) {
	now := state{State: s, err: err, at: time.Now(), past: past(err)}
	l.mu.Lock()
	if s == resume.Lost && !l.lost {
		l.when = now.at.Add(-now.past)
	}
	if l.lost = s == resume.Lost; !l.lost {
		l.ended = now.at
	}
	if l.link != nil {
		l.link.SetLost(l.lost)
	}
	l.mu.Unlock()
	select {
	case old := <-l.states: // nobody has looked; it is old now
		if old.State == resume.Lost {
			now.lost = &old
		}
	default:
	}
	l.states <- now
}

// since is when the link was lost; zero: it is not.
func (l *loss) since() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.lost {
		return time.Time{}
	}
	return l.when
}

// lostSince reports whether it was lost at any time since t.
func (l *loss) lostSince(t time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost || l.ended.After(t)
}

func (l *loss) close() {
	close(l.states)
	l.wg.Wait()
}

// run tells the user, until close.
func (l *loss) run() {
	var since state // of the loss; zero: there is none
	said := false
	late := time.NewTimer(blinkTime)
	late.Stop()
	defer late.Stop()
	lost := func(s state) {
		since, said = s, s.past >= blinkTime
		if said {
			l.tell(since)
			return
		}
		late.Reset(blinkTime - s.past)
	}
	for {
		select {
		case s, ok := <-l.states:
			if ok && s.lost != nil && since.at.IsZero() {
				lost(*s.lost)
			}
			switch {
			case !ok:
				return
			case s.State == resume.Lost && since.at.IsZero():
				lost(s)
			case s.State != resume.Lost:
				late.Stop()
				if s.State == resume.Back {
					l.back(since, s, said)
				}
				since = state{}
			}
		case <-late.C:
			said = true
			l.tell(since)
		}
	}
}

// tell tells of a loss.
func (l *loss) tell(since state) {
	until := since.at.Add(l.window)
	l.emit(event.Event{Level: event.Warning, Code: "link-lost",
		Text: fmt.Sprintf("the link to the agent is lost (%q): what is open waits for it until %s, what is new fails after %v; the agent gives the target its ports back",
			since.err, until.Format(time.TimeOnly), link.BeginTime),
		Facts: map[string]string{"until": until.Format(time.RFC3339)}})
}

// back tells of the end of a loss.
func (l *loss) back(since, now state, said bool) {
	e := event.Event{Level: event.Info, Code: "link-back", Text: "the link to the agent is back: everything goes on"}
	if !since.at.IsZero() {
		took := now.at.Sub(since.at) + since.past
		e.Text = fmt.Sprintf("the link to the agent is back after %v: everything goes on", took.Round(100*time.Millisecond))
		e.Facts = map[string]string{"after_ms": fmt.Sprint(took.Milliseconds())}
	}
	if !said {
		e.Level = event.Detail
	}
	l.emit(e)
}

// linkGone explains the end of a link that did not come back; nil: it ended for
// another reason.
func linkGone(err error, window time.Duration) *failure.Error {
	switch {
	case errors.Is(err, errStopped):
		return &failure.Error{Code: "agent-stopped", What: "the session has ended: the agent does not answer any more", Cause: err,
			Why: err.Error() + ": its process or its node is stopped", Do: "start the command again; look at the node: kubectl get nodes"}
	case errors.Is(err, resume.ErrGone):
		return &failure.Error{Code: "link-gone", What: fmt.Sprintf("the session has ended: the link to the agent was lost and did not come back within %v", window), Cause: err,
			Why: fmt.Sprintf("%q; should the agent not be reached to be removed, it ends by itself now", err.Error()), Do: "look at the way to the cluster: kubectl get nodes; to wait longer set agent.resume_window"}
	}
	return nil
}
