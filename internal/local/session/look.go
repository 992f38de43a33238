package session

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/roster"
)

// maxLookers bounds those who look at a session at once; others are turned away.
// It is more than a person has terminals, and all their queues, of control's
// maxEvents each, take some 8 MiB if nobody reads.
const maxLookers = 16

// looked is a session that can be looked at.
type looked struct {
	s      *supervisor
	b      *built
	id     string
	places chan struct{} // one for each looker
}

// show lets this user's other programs see what goes on, until done. id is that
// of a session that is kept; empty: a new one. A session that cannot be shown
// goes on.
func (s *supervisor) show(ctx context.Context, b *built, id string) (done func()) {
	dirs := roster.Dirs(func(name string) string { return variable(s.start.Env, name) }, roster.Running)
	door, err := roster.Open(dirs, id)
	if err != nil {
		s.emit(event.Event{Level: event.Detail, Code: "not-shown", Text: fmt.Sprintf("mirrord status will not find this session: %v", err)})
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &looked{s: s, b: b, id: door.ID(), places: make(chan struct{}, maxLookers)}
	var wg sync.WaitGroup
	wg.Go(func() { roster.Sweep(dirs) })
	wg.Go(func() { l.meetAll(ctx, door, &wg) })
	return func() {
		door.Close()
		cancel()
		wg.Wait()
	}
}

// meetAll meets whoever comes to the door, until that is closed.
func (l *looked) meetAll(ctx context.Context, door *roster.Host, wg *sync.WaitGroup) {
	for {
		c, err := door.Accept()
		if err != nil {
			return
		}
		select {
		case l.places <- struct{}{}:
			wg.Go(func() {
				l.meet(ctx, c)
				<-l.places
			})
		default:
			c.Close()
		}
	}
}

// meet owns c.
func (l *looked) meet(ctx context.Context, c *net.UnixConn) {
	ctl := control.On(c)
	defer ctl.CloseWithin(settleTime) // a looker that is stopped does not hold up the end
	_ = c.SetReadDeadline(time.Now().Add(endTime))
	hurry := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Now()) })
	m, err := ctl.Receive()
	hurry()
	switch {
	case err != nil || ctx.Err() != nil:
	case m.Ask != nil:
		_ = ctl.Send(control.Message{Status: l.status()})
	case m.Watch != nil:
		_ = c.SetReadDeadline(time.Time{})
		l.watch(ctx, c, ctl)
	}
}

// watch tells what happens, until the end of the session or of the one who
// watches.
func (l *looked) watch(ctx context.Context, c *net.UnixConn, ctl *control.Conn) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Now()) })()
	gone := make(chan struct{})
	wg.Go(func() { // ends with the connection, or ctx
		defer close(gone)
		for {
			if _, err := ctl.Receive(); err != nil {
				return
			}
		}
	})
	defer l.s.activity.Watch(func(e activity.Event) { _ = ctl.Send(control.Message{Activity: &e}) })()
	tick := time.NewTicker(control.BeatTime)
	defer tick.Stop()
	for {
		_ = ctl.Send(control.Message{Status: l.status()})
		select {
		case <-tick.C:
		case <-gone:
			return
		}
	}
}

// status is how the session is now.
func (l *looked) status() *control.Status {
	if l.s.kept != nil {
		return l.s.kept.status(l.b)
	}
	st := l.s.status(l.b)
	st.ID = l.id
	st.Commands = []control.Command{{Argv: l.s.start.Argv, PID: l.s.start.Front, Since: st.Since}}
	st.Events = []control.Happened{}
	return st
}

// status is what there is to say of any session.
func (s *supervisor) status(b *built) *control.Status {
	st := &control.Status{Version: s.version, PID: os.Getpid(), Target: s.cfg.Target, Namespace: s.cfg.Namespace, Context: s.cfg.Context,
		Since: s.began.UTC().Truncate(time.Second), Mode: incomingWord(&s.cfg), Ports: []control.Port{}, Counts: s.activity.Counts(), Replacing: s.peer.replacing()}
	at := s.current.Load()
	st.Hostname = at.pod.Hostname
	if since := at.loss.since(); !since.IsZero() {
		st.Lost = &since
	}
	for _, p := range b.ports.Ports() {
		st.Ports = append(st.Ports, control.Port(p))
	}
	return st
}
