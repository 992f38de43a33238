package incoming

import (
	"errors"
	"io"
	"time"

	"github.com/mirrord-go/mirrord/internal/http1"
	"github.com/mirrord-go/mirrord/internal/relay"
)

// hear passes on what x says, as long as it is the client's to hear.
func (s *split) hear(x *side) {
	defer x.in.Close()
	for {
		var err error
		if len(x.in.Buffered()) == 0 {
			err = x.in.Fill()
		}
		switch s.entitled(x, err) {
		case silenced:
			x.Close()
			return
		case replying:
			if err == nil && s.reply(x) {
				continue
			}
			if err == nil {
				return
			}
		}
		if err == nil {
			if err = x.in.ForwardRest(s.client); err == nil {
				err = io.EOF
			}
		}
		s.ended(x, err)
		return
	}
}

// entitlement is what becomes of something that a side says.
type entitlement int

const (
	silenced entitlement = iota // nothing: nobody asked
	replying                    // it is a reply, or should be one
	bound                       // all of it is the client's
)

// entitled decides about x, which has said something, or ended with err.
func (s *split) entitled(x *side, err error) entitlement {
	s.mu.Lock()
	defer s.mu.Unlock()
	owes := s.busy == x && !s.answered
	switch {
	case s.over, x.unused, s.bound != nil && s.bound != x:
		return s.silence(x)
	case s.bound == x:
		x.spoke = x.spoke || err == nil
		x.speaks = x.speaks || err == nil
		return bound
	case owes:
		x.spoke = x.spoke || err == nil
		return replying
	case s.busy == x: // it has replied before it got the whole request, and goes on
	case s.busy != nil:
		return s.silence(x)
	case x.role == toLocal: // its idle connection has ended; the next request makes another
		return s.silence(x)
	case s.last != nil && s.last != x: // local has the client's attention
		return s.silence(x)
	}
	// The original ends an idle connection, or speaks first.
	s.sealLocked(x)
	return bound
}

// silence takes x out. mu is held.
func (s *split) silence(x *side) entitlement {
	if s.sides[x.role] == x {
		s.sides[x.role] = nil
	}
	return silenced
}

// reply forwards one reply, interim ones included. After true x may be heard
// further.
func (s *split) reply(x *side) bool {
	s.mu.Lock()
	method, upgrades := s.method, s.upgrades
	s.mu.Unlock()
	for {
		r, err := x.in.Response(method)
		if errors.Is(err, http1.ErrIncomplete) {
			if err = x.in.Fill(); err == nil {
				continue
			}
			if !errors.Is(err, io.EOF) {
				s.ended(x, err)
				return false
			}
			// Half a head is passed on as it is, by being bound.
		}
		switch {
		case err != nil:
			return s.seal(x)
		case r.Agrees && s.agrees(x, r):
			return false
		case r.Switches && upgrades && r.Agrees && x.local(): // to what it was not offered
			return s.seal(x)
		case r.Switches && upgrades:
			return s.bind(x)
		case r.Unbounded || r.Last:
			s.mu.Lock()
			x.parts = !r.Switches
			s.mu.Unlock()
			return s.seal(x)
		}
		if !s.speak(x, true) {
			return false
		}
		to := io.Writer(s.client)
		if r.Status == 100 && s.told() {
			to = io.Discard
		}
		err = x.in.Forward(to, &r.Message)
		switch {
		case err == nil:
		case errors.Is(err, http1.ErrAmbiguous), errors.Is(err, io.ErrUnexpectedEOF):
			return s.seal(x)
		default:
			s.ended(x, err)
			return false
		}
		if !r.Interim {
			s.answeredBy(x)
			return true
		}
		if r.Status == 100 {
			s.mu.Lock()
			s.continued = true
			s.mu.Unlock()
		}
		s.speak(x, false) // the reply itself is still owed
	}
}

// speak tells that x begins or has ceased to tell the client something; false:
// the client has been answered already.
func (s *split) speak(x *side, begins bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	x.speaks = begins
	return !s.over
}

// answeredBy tells that x has given its whole reply.
func (s *split) answeredBy(x *side) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answered, s.last = true, x
	if s.expects && !s.continued && !s.sent {
		// Does the body still come, or the next request? x knows what it meant.
		// Local must not learn the next request by that: it has answered, and the
		// client closes or sees the end.
		s.bindLocked(x)
		if x.role == toLocal {
			s.over, x.ended = true, true
			_ = s.conn.CloseWrite()
			_ = s.client.SetReadDeadline(time.Now().Add(lingerTime))
			x.Close() // what the client says now goes nowhere
		}
	}
	s.settle()
}

// ended passes on that x says nothing more: io.EOF in order, anything else as
// a reset. If it was to answer and has not begun, and is local, the client gets
// an answer that says so.
func (s *split) ended(x *side, err error) {
	orderly := errors.Is(err, io.EOF)
	s.mu.Lock()
	unanswered := s.busy == x && !x.spoke
	// An idle connection that was ended when the request was on its way: the
	// client knows how to deal with that.
	stale := orderly && x.used > 1
	over, ending := s.over, s.ending
	s.mu.Unlock()
	switch {
	case over:
		return
	case x.role == toLocal && unanswered && !stale && !ending:
		s.badGateway(err)
	case !orderly:
		s.fail(err)
		return
	}
	_ = s.conn.CloseWrite()
	s.mu.Lock()
	defer s.mu.Unlock()
	x.ended = true
	if s.bound == nil {
		s.sealLocked(x)
	}
	s.expire()
	if s.deaf || s.over {
		_ = s.client.SetReadDeadline(time.Now().Add(lingerTime))
	}
}

// badGateway answers in place of local.
func (s *split) badGateway(err error) {
	why := "it closed the connection without an answer"
	if !errors.Is(err, io.EOF) {
		why = relay.Errno(err).Error()
	}
	s.mu.Lock()
	if s.over { // answered by abandon a moment ago
		s.mu.Unlock()
		return
	}
	s.over = true
	head := s.method == "HEAD"
	s.cond.Broadcast()
	s.mu.Unlock()
	_, _ = io.WriteString(s.client, gatewayReply(head, why))
}
