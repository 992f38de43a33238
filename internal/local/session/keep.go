package session

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/outgoing"
	"github.com/mirrord-go/mirrord/internal/local/places"
	"github.com/mirrord-go/mirrord/internal/local/roster"
	"github.com/mirrord-go/mirrord/internal/local/sandbox"
	"github.com/mirrord-go/mirrord/internal/rules"
)

const (
	// defaultTTL is how long a session is kept without a command when nobody says
	// otherwise: longer than a person looks at code between two runs, shorter than
	// the time that somebody else's cluster should hold an agent for nobody.
	defaultTTL = time.Hour
	// thereTime is how often a session looks whether it can still be found.
	thereTime = 5 * time.Second
	// maxEvents is how many events a session remembers for whoever asks later.
	maxEvents = 50
)

// keeper is what a session has that is kept for commands that join it.
type keeper struct {
	s     *supervisor
	note  event.Sink // what happens, for its journal
	dirs  []string
	vars  []string     // the target's variables, of the start
	files *rules.Files // whose a path is
	ttl   time.Duration
	id    string        // set before the door is open
	over  chan struct{} // closed when it is to end, in order

	mu     sync.Mutex
	ended  bool // or ending: nobody joins any more
	guests map[*guest]bool
	served sync.WaitGroup // the guests
	idle   *time.Timer    // ends the session; nil before it is ready
	until  time.Time      // when; zero: there are commands
	events []control.Happened
	owned  json.RawMessage
	stops  []*control.Conn // who waits for the end
}

func (s *supervisor) newKeeper(note event.Sink) *keeper {
	ttl := defaultTTL
	if s.cfg.Agent.TTL != nil {
		ttl = time.Duration(*s.cfg.Agent.TTL) * time.Second
	}
	return &keeper{s: s, note: note, dirs: roster.Dirs(func(name string) string { return places.Variable(s.start.Env, name) }, roster.Kept), ttl: ttl, over: make(chan struct{}), guests: map[*guest]bool{}}
}

// run serves the session until it ends.
func (k *keeper) run(ctx context.Context, b *built) error {
	door, err := roster.Open(k.dirs, k.s.id)
	if err != nil {
		return failure.Wrap(err, "session-no-socket", "the session cannot be kept: there is no place for its socket", "set XDG_RUNTIME_DIR, or make ~/.local/state writable")
	}
	k.id = door.ID()
	k.s.runs.Store(true)
	if err := b.box.Go(); err != nil {
		door.Close()
		return sandbox.Explain(err)
	}
	k.s.without(b.box.Without())
	defer k.s.show(ctx, b, k.id)()
	var wg sync.WaitGroup
	meeting, stop := context.WithCancel(ctx)
	k.ready()
	wg.Go(func() { k.meetAll(meeting, b, door, &wg) })
	wg.Go(func() { k.stayThere(meeting, door) })
	k.s.emit(event.Event{Level: event.Step, Code: "session-ready", Text: "session " + door.ID() + " is ready: mirrord exec --session " + door.ID() + " COMMAND",
		Facts: map[string]string{"session": door.ID(), "after_ms": fmt.Sprint(time.Since(k.s.began).Milliseconds())}})
	_ = k.s.ctl.Send(control.Message{Running: &control.Running{Session: door.ID()}})
	lost := k.s.endure(ctx, b, k.over)
	k.close()
	door.Close()
	if lost != nil {
		k.s.lose(ctx, b, lost)
	} else {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
		b.box.End(end)
		within(endTime, ended(&k.served)) // their fronts are told how it ended
		cancel()
	}
	stop()
	wg.Wait()
	k.s.summarize(ctx, b)
	return nil
}

// ended gives a channel that is closed when wg is done.
func ended(wg *sync.WaitGroup) <-chan struct{} {
	done := make(chan struct{})
	go func() { // ends with them, which the caller ends
		defer close(done)
		wg.Wait()
	}()
	return done
}

// end ends the session in order, and says why, unless it is ending already.
func (k *keeper) end(level event.Level, why string) {
	if k.close() {
		k.s.emit(event.Event{Level: level, Code: "session-stopping", Text: why})
		close(k.over)
	}
}

// close lets nobody join any more; first: somebody could, until now.
func (k *keeper) close() (first bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	first, k.ended = !k.ended, true
	k.idle.Stop()
	return first
}

// ready begins the time that the session is kept without a command.
func (k *keeper) ready() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.idle = time.AfterFunc(defaultTTL, k.expire) // rest says when
	k.rest()
}

// rest is called with mu held when there is no command.
func (k *keeper) rest() {
	k.idle.Stop()
	if k.ttl > 0 && !k.ended {
		k.idle.Reset(k.ttl)
		k.until = time.Now().Add(k.ttl)
	}
}

// expire ends the session if nobody has joined meanwhile.
func (k *keeper) expire() {
	k.mu.Lock()
	alone := len(k.guests) == 0 && !time.Now().Before(k.until)
	k.mu.Unlock()
	if alone {
		k.end(event.Info, fmt.Sprintf("the session ends: there was no command for %v", k.ttl))
	}
}

// enter counts a guest, unless the session ends.
func (k *keeper) enter(g *guest) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ended {
		return false
	}
	k.idle.Stop()
	k.until = time.Time{}
	k.guests[g] = true
	k.served.Add(1)
	return true
}

// leave is the end of a guest.
func (k *keeper) leave(g *guest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.served.Done()
	if delete(k.guests, g); len(k.guests) == 0 {
		k.rest()
	}
}

// toBackground notes that a guest's command has ended, and left processes.
func (k *keeper) toBackground(g *guest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	g.background = true
}

// own is what the session owns in the cluster.
func (k *keeper) own() json.RawMessage {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.owned
}

// tell passes a message to all fronts of commands. On nil it does nothing.
func (k *keeper) tell(m control.Message) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case m.Event != nil:
		k.note(*m.Event)
		k.remember(*m.Event)
	case m.Failed != nil:
		k.note(event.Event{Level: event.Error, Code: m.Failed.Code, Text: m.Failed.Error()})
	case m.Owned != nil:
		k.owned = m.Owned
	}
	for g := range k.guests {
		_ = g.ctl.Send(m)
	}
}

// remember keeps an event for whoever asks. mu is held.
func (k *keeper) remember(e event.Event) {
	if e.Level == event.Detail {
		return
	}
	if len(k.events) == maxEvents {
		k.events = slices.Delete(k.events, 0, 1)
	}
	k.events = append(k.events, control.Happened{At: time.Now().UTC().Truncate(time.Millisecond), Event: e})
}

// listener finds who of this machine listens at an address, a relative of one of
// the commands first: whose connection it is, nobody knows.
func (k *keeper) listener(at netip.AddrPort) (found outgoing.Listener, ok bool) {
	k.mu.Lock()
	var all []*guest
	for g := range k.guests {
		all = append(all, g)
	}
	k.mu.Unlock()
	for _, g := range all {
		switch l, is := g.family.Listener(at); {
		case is && l.Relative:
			return outgoing.Listener(l), true
		case is:
			found, ok = outgoing.Listener(l), true
		}
	}
	return found, ok
}
