package incoming

import (
	"context"
	"errors"
	"io"
	"syscall"
	"time"
)

// This file is about a connection that is divided no further: whose it is, and
// what still goes there.

// give gives the original all that is and comes.
func (s *split) give(ctx context.Context) {
	s.mu.Lock()
	x := s.sides[toOriginal]
	s.mu.Unlock()
	if x == nil {
		x = s.connect(ctx, toOriginal, nil)
	}
	if x != nil && s.bind(x) {
		s.listen(x)
		s.rest(x)
	}
}

// rest forwards everything to x, whose the connection is.
func (s *split) rest(x *side) {
	s.mu.Lock()
	sealed := s.sealed
	s.mu.Unlock()
	if sealed {
		s.spill(x)
		return
	}
	if err := s.in.ForwardRest(x.Conn); err != nil {
		s.muffle(x)
		return
	}
	_ = x.CloseWrite()
}

// muffle listens to the client without passing anything on: x does not want to
// hear any more, but may have a word to say.
func (s *split) muffle(x *side) {
	s.mu.Lock()
	s.deaf = true
	switch {
	case s.upgraded(): // nobody hears x
		s.failLocked(syscall.ECONNRESET)
	case x.ended:
		_ = s.client.SetReadDeadline(time.Now().Add(lingerTime))
	}
	s.mu.Unlock()
	err := s.discard()
	s.mu.Lock()
	done := s.over || x.ended
	s.mu.Unlock()
	if !done { // the client is gone, and x waits for it
		s.fail(err)
	}
}

// spill is rest for a sealed x: the client has said something behind its
// request, which nobody gets, so the connection ends with x's reply. Where that
// ends x must show by ending, and soon, for it may have nothing more to say.
func (s *split) spill(x *side) {
	s.mu.Lock()
	s.deaf = true
	switch {
	case x.ended:
		_ = s.client.SetReadDeadline(time.Now().Add(lingerTime))
	case !x.parts:
		_ = s.client.SetReadDeadline(time.Now().Add(graceTime))
	}
	parts := x.parts
	s.mu.Unlock()
	if !parts {
		_ = x.CloseWrite()
	}
	err := s.discard()
	s.mu.Lock()
	done := s.over || x.ended
	s.mu.Unlock()
	switch {
	case done:
	case errors.Is(err, io.EOF):
		_ = x.CloseWrite()
	default:
		s.fail(err)
	}
}

// discard reads until the client, or its deadline, ends it.
func (s *split) discard() error {
	s.in.Discard()
	for {
		if err := s.in.Fill(); err != nil {
			return err
		}
		s.in.Discard()
	}
}

// bind makes x the one whose the connection is; false if it is another's.
func (s *split) bind(x *side) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.over && s.bindLocked(x)
}

func (s *split) bindLocked(x *side) bool {
	switch {
	case s.upgraded(): // it is to go on in HTTP/2, or not at all
		return false
	case s.bound != nil:
		return s.bound == x
	}
	s.bound = x
	if x.role == toOriginal && s.counted == 0 { // what is no HTTP is one
		s.passed()
	}
	if other := s.sides[1-x.role]; other != nil {
		other.Close() // its hear ends
	}
	s.cond.Broadcast()
	return true
}

// seal binds x because of what it says, or does not. If x is local it gets
// nothing more than the request that it is answering.
func (s *split) seal(x *side) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.over && s.sealLocked(x)
}

func (s *split) sealLocked(x *side) bool {
	if s.bound == nil {
		s.sealed = x.role == toLocal
	}
	return s.bindLocked(x)
}
