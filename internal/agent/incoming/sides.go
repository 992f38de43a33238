package incoming

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/mirrord-go/mirrord/internal/http1"
	"github.com/mirrord-go/mirrord/internal/relay"
)

// This file is about the two sides of a divided connection: whose a request is,
// and the way to it.

// role of a side.
type role int

const (
	toOriginal role = iota
	toLocal
)

// side is one of the two that answer.
type side struct {
	relay.Conn
	role   role
	guest  *guest        // toLocal: whose, nil for this agent's own session
	in     *http1.Reader // of its replies; hear's
	used   int           // requests that it got
	spoke  bool          // it has answered something to the last of them
	speaks bool          // and the client is being told, or has been
	ended  bool          // it will say nothing more
	heard  bool          // read has started its hear
	parts  bool          // it has said that it ends the connection
	unused bool          // it is not needed any more
}

// choose gives the side that q is for; nil: the connection has failed. whole:
// so is everything behind it. While the link is lost everything is the
// original's, one by one.
func (s *split) choose(ctx context.Context, q *http1.Request) (x *side, whole bool) {
	s.mu.Lock()
	s.invited = false
	s.mu.Unlock()
	ended := ctx.Err() != nil // what comes now is the original's, and then there is an end
	all := s.hub.among(s.conn)
	if !ended {
		if x = s.find(ctx, q, all); x != nil {
			return x, false
		}
		// Nobody wants it; or the link has ended or has no stream left: not a byte
		// of the request has gone anywhere.
	}
	s.mu.Lock()
	x = s.sides[toOriginal]
	s.mu.Unlock()
	if x == nil {
		x = s.connect(ctx, toOriginal, nil)
	}
	return x, len(all) == 0 && !ended && !s.hub.away()
}

// find gives the side of the first of all that wants q and can be reached; nil:
// there is none.
func (s *split) find(ctx context.Context, q *http1.Request, all []recipient) *side {
	port := s.conn.key.port
	for i, to := range all {
		if !s.hub.wants(port, to, s.conn.asked(q), func() (content, error) { return s.arrive(q, to.rule) }) {
			continue
		}
		there := to.there(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if !there {
			continue
		}
		s.hub.overlap(port, to, all[i+1:], s.conn.asked(q))
		s.mu.Lock()
		x := s.sides[toLocal]
		if x != nil && x.guest != to.guest { // it is idle: one request is under way at a time
			s.sides[toLocal] = nil
			x.Close()
			x = nil
		}
		s.mu.Unlock()
		if x == nil {
			x = s.connect(ctx, toLocal, to.guest)
		}
		if x != nil {
			return x
		}
	}
	return nil
}

// next gives who else wants a request of which this has been said, but those who
// have had the chance. It is called by who hears local.
func (s *split) next(ctx context.Context, said []byte, had []*guest) (to *guest, ok bool) {
	in := http1.NewReader(bytes.NewReader(said), nil)
	defer in.Close()
	q, err := in.Request()
	for errors.Is(err, http1.ErrIncomplete) && in.Fill() == nil {
		q, err = in.Request()
	}
	if err != nil {
		return nil, false
	}
	for _, to := range s.hub.among(s.conn) {
		arrive := func() (content, error) { return arrived(in, q, to.rule) }
		if !slices.Contains(had, to.guest) && s.hub.wants(s.conn.key.port, to, s.conn.asked(q), arrive) && to.there(ctx) {
			return to.guest, true
		}
	}
	return nil, false
}

// connect makes a side; nil: there is none, and for the original that is the
// end of the connection.
func (s *split) connect(ctx context.Context, to role, of *guest) *side {
	var c relay.Conn
	var err error
	x := &side{role: to, guest: of}
	if to == toLocal {
		var o *offer
		if o, err = s.hub.offer(ctx, s.conn, of); err != nil {
			return nil
		}
		o.moved = func() { s.moved(x) }
		had := []*guest{of}
		o.next = func(said []byte) (*guest, bool) {
			to, ok := s.next(ctx, said, had)
			had = append(had, to)
			return to, ok
		}
		o.passed = func(to *guest) {
			s.mu.Lock()
			defer s.mu.Unlock()
			x.guest = to
		}
		c = o
	} else if c, err = s.hub.original(ctx, s.conn); err != nil {
		s.fail(err)
		return nil
	}
	x.Conn, x.in = c, http1.NewReader(c, s.hub.o.Memory.Parsed)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		c.Close()
		return nil
	}
	s.sides[to] = x
	return x
}

// moved makes x, a local that has refused its first request, the original. The
// replies of an earlier connection to that have all been given: one request is
// under way at a time.
func (s *split) moved(x *side) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sides[toLocal] == x {
		s.sides[toLocal] = nil
	}
	if other := s.sides[toOriginal]; other != nil {
		other.Close() // its hear ends
	}
	s.sides[toOriginal] = x
	x.role, x.guest = toOriginal, nil
}

// local reports whether x is local, and has not refused. The split's mu is held.
func (x *side) local() bool { return x.role == toLocal && x.Conn.(*offer).local() }

// listen begins to hear x, unless it is heard already. It is read's.
func (s *split) listen(x *side) {
	if !x.heard {
		x.heard = true
		s.wg.Go(func() { s.hear(x) })
	}
}

// begin makes q the request under way, at x; false if the connection took
// another turn meanwhile.
func (s *split) begin(x *side, q *http1.Request, bind bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.bound != nil || s.sides[x.role] != x {
		return false
	}
	s.busy, s.method, s.expects, s.upgrades = x, q.Method, q.Expects, q.Upgrades
	s.continued, s.sent, s.answered = s.invited, false, false
	x.used++
	x.spoke, x.speaks = false, false
	if x.role == toOriginal {
		s.passed()
	}
	if bind {
		s.bindLocked(x)
	}
	return true
}
