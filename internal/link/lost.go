package link

import (
	"context"
	"fmt"
	"syscall"
	"time"
)

// BeginTime is how long something new waits for a lost link: longer than most
// changes of networks, shorter than people and programs wait for an answer
// before they take it for hung.
const BeginTime = 15 * time.Second

// ErrLost ends a stream on which nothing was heard within BeginTime of a loss.
// It wraps EHOSTUNREACH: what connect(2) says when there is no way, for the
// moment.
var ErrLost = fmt.Errorf("the link is lost, and did not come back within %v: %w", BeginTime, syscall.EHOSTUNREACH)

// lastingKey marks the context of Lasting.
type lastingKey struct{}

// Lasting gives a context for streams that belong to something that is open
// already, an open file for instance: while the link is lost they wait as long
// as the link may come back.
func Lasting(ctx context.Context) context.Context {
	return context.WithValue(ctx, lastingKey{}, true)
}

func lasting(ctx context.Context) bool { return ctx.Value(lastingKey{}) != nil }

// SetLost tells that the pipe below has been lost, or has come back. While it
// is lost, streams opened here on which nothing was heard yet end with ErrLost
// after BeginTime, except those opened with Lasting and those that were closed.
// Everything else waits for the pipe.
func (c *Conn) SetLost(lost bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if lost == c.isLost || c.err != nil {
		return
	}
	c.isLost, c.lostAt = lost, time.Since(c.start)
	if c.patience != nil {
		c.patience.Stop()
		c.patience = nil
	}
	if lost {
		c.patience = time.AfterFunc(BeginTime, c.giveUp)
	}
}

// giveUp ends the streams that have waited long enough, while the link is lost.
func (c *Conn) giveUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.isLost || c.err != nil {
		return
	}
	now := time.Since(c.start)
	next := BeginTime
	for _, s := range c.streams {
		if s.owner != c.role || s.lasts || s.closed || s.received > 0 || s.finIn || s.reset != nil {
			continue
		}
		if left := max(c.lostAt, s.opened) + BeginTime - now; left > 0 {
			next = min(next, left)
			continue
		}
		s.abortWith(syscall.ECANCELED, ErrLost) // it may have arrived there
	}
	c.patience = time.AfterFunc(next, c.giveUp)
}
