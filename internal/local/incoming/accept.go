package incoming

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
)

// This file is about a program that accepts nothing, since it stands at a
// breakpoint or is busy: what comes for it meanwhile is the target's again.
//
// A program is told nothing on a connection before it has accepted it. Else it
// would read, when it goes on, what the target has answered already: the kernel
// keeps what is in a connection's queue also when that is reset.

const (
	// lateTime is how long a connection may wait at a port where none was accepted in
	// time, if nobody else waits there: the program may go on now.
	lateTime = 500 * time.Millisecond
	// firstPause is between the first looks: a program that waits in accept(2) has a
	// connection within some tens of microseconds.
	firstPause = 100 * time.Microsecond
	// longPause is between later ones, with sharedPause for each connection that waits
	// as well: a look costs some microseconds.
	longPause, sharedPause = 10 * time.Millisecond, 50 * time.Microsecond
)

// errNotAccepted is why a connection is handed back.
var errNotAccepted = errors.New("the program does not accept it")

// Queues is what the kernel knows of the program's listeners. Its methods may be
// called concurrently.
type Queues interface {
	// Waiting reports whether every listener at a port of the program has a
	// connection that it has not accepted.
	Waiting(port uint16) bool
	// Stopped are the program's processes that are stopped, by a debugger or a
	// signal.
	Stopped() []int
}

// waitTime is how long a connection may wait to be accepted, where limit is the
// time for it; late: another has waited in vain; queued: somebody waits there now.
func waitTime(limit time.Duration, late, queued bool) time.Duration {
	switch {
	case !late:
		return limit
	case queued: // by which it is seen that the program has not gone on
		return 0
	}
	return min(limit, lateTime)
}

// pause is how long to wait for the next look at a connection that has waited so
// long, one of so many.
func pause(waited time.Duration, waiting int64) time.Duration {
	return max(firstPause, min(waited/2, longPause+time.Duration(waiting)*sharedPause))
}

// lates are the ports of the program at which a connection was not accepted in time.
type lates struct {
	mu sync.Mutex
	of map[uint16]bool
}

func (l *lates) has(port uint16) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of[port]
}

// set enters a port, or forgets it, and reports whether that is news.
func (l *lates) set(port uint16, late bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	news := l.of[port] != late
	if l.of == nil {
		l.of = map[uint16]bool{}
	}
	if l.of[port] = late; !late {
		delete(l.of, port)
	}
	return news
}

// patience is how long a may wait to be accepted at a port of the program; bounded:
// not for ever.
func (p *Ports) patience(a arrival) (port uint16, limit time.Duration, bounded bool) {
	at := p.listening(a)
	if !a.target || a.copied || p.o.Accept == 0 || p.o.Queues == nil || len(at) == 0 {
		return 0, deliverTime, false
	}
	port = at[0].Port()
	late := p.lates.has(port)
	return port, waitTime(p.o.Accept, late, late && p.o.Queues.Waiting(port)), true
}

// accepts tells that the program has accepted a connection at a port of its own.
func (p *Ports) accepts(port uint16) {
	if p.lates.set(port, false) {
		p.o.Emit(event.Event{Level: event.Info, Code: "port-accepting", Flow: "incoming", Text: fmt.Sprintf("port %d: the program accepts connections again", port),
			Facts: map[string]string{"port": fmt.Sprint(port)}})
	}
}

// isLate tells that the program has not accepted one in time.
func (p *Ports) isLate(port uint16) {
	if !p.lates.set(port, true) {
		return
	}
	why := "it stands at a breakpoint, or is busy"
	if stopped := p.o.Queues.Stopped(); len(stopped) > 0 {
		why = fmt.Sprintf("process %d is stopped, by a debugger or a signal", stopped[0])
	}
	p.o.Emit(event.Event{Level: event.Warning, Code: "port-not-accepting", Flow: "incoming",
		Text: fmt.Sprintf("port %d: the program has not accepted a connection for %v (%s): the target answers meanwhile; to let clients wait: feature.network.incoming.accept_timeout 0",
			port, p.o.Accept, why),
		Facts: map[string]string{"port": fmt.Sprint(port), "why": why}})
}

// await lets t be told something when the program has accepted it at a port of its
// own. It fails with errNotAccepted when that is not until then, or when another has
// waited there as long in vain: then the program is told nothing any more.
func (p *Ports) await(ctx context.Context, t *taken, port uint16, until time.Time) error {
	waiting := p.queued.Add(1)
	defer p.queued.Add(-1)
	began := time.Now()
	timer := time.NewTimer(firstPause)
	defer timer.Stop()
	for {
		switch queued, accepted := t.peer.Place(); {
		case accepted:
			p.accepts(port)
			fallthrough
		case !queued:
			t.admit()
			return nil
		case time.Now().Before(until) && !(p.lates.has(port) && time.Since(began) >= lateTime):
		case t.withdraw():
			p.isLate(port)
			return errNotAccepted
		default: // it has just been told, or has ended
			return nil
		}
		timer.Reset(min(time.Until(until), pause(time.Since(began), waiting)))
		select {
		case <-timer.C:
		case <-t.admitted:
			return nil
		case <-t.over:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}
