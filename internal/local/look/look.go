// Package look shows a session to the user's other programs: how it is, and what
// goes on in it, to those who come to its socket in the roster.
//
// The session says how it is and has a log of its activity; whoever looks is given
// both, and never waited for. It touches nothing but that socket.
package look

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/roster"
)

const (
	// maxLookers bounds those who look at a session at once; others are turned away.
	// It is more than a person has terminals, and all their queues, of control's
	// maxEvents each, take some 8 MiB if nobody reads.
	maxLookers = 16
	// wordTime is how long one may take to say what it wants.
	wordTime = 8 * time.Second
	// leaveTime bounds the last words to one that reads nothing.
	leaveTime = 200 * time.Millisecond
)

// Session is what can be looked at. Its functions may be called concurrently.
type Session struct {
	// Status is how the session of that id is now.
	Status   func(id string) *control.Status
	Activity *activity.Log
	Emit     event.Sink
	// Stop begins the session's end, when somebody asks for that. nil: who asks is
	// turned away.
	Stop func()
}

// looked is a session with a door.
type looked struct {
	Session
	id     string
	places chan struct{} // one for each looker
}

// Show lets others look at s through a socket in the first of dirs where that is
// possible, until done, which who has asked for the end waits for. An empty id
// stands for a new one, which is returned. A session that cannot be shown goes on,
// without an id.
func Show(ctx context.Context, dirs []string, id string, s Session) (shown string, done func()) {
	door, err := roster.Open(dirs, id)
	if err != nil {
		s.Emit(event.Event{Level: event.Detail, Code: "not-shown", Text: fmt.Sprintf("mirrord status will not find this session: %v", err)})
		return "", func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &looked{Session: s, id: door.ID(), places: make(chan struct{}, maxLookers)}
	var wg sync.WaitGroup
	wg.Go(func() { roster.Sweep(dirs, l.id) })
	wg.Go(func() { l.meetAll(ctx, door, &wg) })
	return l.id, func() {
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
	defer ctl.CloseWithin(leaveTime) // a looker that is stopped does not hold up the end
	_ = c.SetReadDeadline(time.Now().Add(wordTime))
	hurry := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Now()) })
	m, err := ctl.Receive()
	hurry()
	switch {
	case err != nil || ctx.Err() != nil:
	case m.Ask != nil:
		_ = ctl.Send(control.Message{Status: l.Status(l.id)})
	case m.Watch != nil:
		_ = c.SetReadDeadline(time.Time{})
		l.watch(ctx, c, ctl)
	case m.Stop != nil && l.Stop != nil:
		l.Stop()
		<-ctx.Done() // the end of the stream says that the session has ended
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
	defer l.Activity.Watch(func(e activity.Event) { _ = ctl.Send(control.Message{Activity: &e}) })()
	tick := time.NewTicker(control.BeatTime)
	defer tick.Stop()
	for {
		_ = ctl.Send(control.Message{Status: l.Status(l.id)})
		select {
		case <-tick.C:
		case <-gone:
			return
		}
	}
}
