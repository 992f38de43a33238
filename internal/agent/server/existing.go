package server

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/mirrord-go/mirrord/internal/agent/drain"
)

// existing are connections that clients made before their port was stolen.
type existing struct {
	drain  *drain.Drain
	notice func(code, text string)
	ended  atomic.Uint64
	wg     sync.WaitGroup // of notices
	mu     sync.Mutex
	said   map[uint16]bool // ports of which it is told that connections are ended
	cut    map[uint16]bool // ports whose connections were cut
}

// existing makes what ends those of the target; it does nothing yet.
func (s *session) existing() *existing {
	e := &existing{notice: s.notice, said: map[uint16]bool{}, cut: map[uint16]bool{}}
	e.drain = drain.New(drain.Options{Namespace: s.t, Passed: passed(), Heads: s.memory.ofIncoming().Parsed, Ended: e.end})
	return e
}

// Before implements incoming.Existing.
func (e *existing) Before(port uint16, cut bool) (begin func()) {
	if cut {
		e.mu.Lock()
		again := e.cut[port]
		e.cut[port] = true
		e.mu.Unlock()
		if again { // what is there by now is our own, passed on to the target
			return func() {}
		}
	}
	c, err := e.drain.Connections(port)
	return func() {
		n := c.Len()
		switch {
		case err != nil || n == 0:
		case cut:
			n, err = e.drain.Cut(c)
			e.ended.Add(uint64(n))
			if n > 0 {
				e.notice("connections-cut", fmt.Sprintf("port %d: connections that clients had before are cut: %d", port, n))
			}
		default:
			err = e.drain.Begin(c)
		}
		if err != nil {
			e.notice("connections-stay", fmt.Sprintf("port %d: connections that clients had before stay with the target until they end: %v", port, err))
		}
	}
}

// end counts one, and says the first of a port.
func (e *existing) end(port uint16) {
	e.ended.Add(1)
	e.mu.Lock()
	said := e.said[port]
	e.said[port] = true
	e.mu.Unlock()
	if !said {
		e.wg.Go(func() {
			e.notice("connections-ended", fmt.Sprintf("port %d: connections that clients had before are ended between two requests, so that they come anew; the session's last line has their number", port))
		})
	}
}

// close leaves everything alone, and waits for what is being told.
func (e *existing) close() {
	_ = e.drain.Close()
	e.wg.Wait()
}

// Forget implements incoming.Existing.
func (e *existing) Forget(port uint16) { e.drain.Forget(port) }

// Ended implements incoming.Existing.
func (e *existing) Ended() uint64 { return e.ended.Load() }
