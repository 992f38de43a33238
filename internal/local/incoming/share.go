package incoming

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"syscall"
)

// portKey is a port: of TCP, or of UDP.
type portKey struct {
	number uint16
	udp    bool
}

// String is how a person calls it.
func (k portKey) String() string {
	if k.udp {
		return fmt.Sprintf("UDP port %d", k.number)
	}
	return fmt.Sprintf("port %d", k.number)
}

func (k portKey) network() string {
	if k.udp {
		return "udp"
	}
	return "tcp"
}

// facts are those of an event about the port, with others.
func (k portKey) facts(others map[string]string) map[string]string {
	all := map[string]string{"port": fmt.Sprint(k.number)}
	if k.udp {
		all["network"] = "udp"
	}
	maps.Copy(all, others)
	return all
}

// shares are things that several listeners have in common, by a port:
// begun for the first listener, ended with the last. Whoever comes while one is
// being ended waits for that and begins it anew, so that a program which
// restarts its server finds everything as it was.
type shares[T any] struct {
	end func(port portKey, value T)

	mu     sync.Mutex
	closed bool
	of     map[portKey]*share[T]
}

type share[T any] struct {
	port         portKey
	count        int           // listeners; guarded by shares.mu
	ending       bool          // nobody joins any more; guarded by shares.mu
	ready, ended chan struct{} // closed when the fields below are set; when nothing is left of it
	value        T
	err          error // why it could not be begun
}

// join takes part in the share of a port; began tells that it did not exist.
// The caller leaves it, unless there is an error: what begin failed with,
// whoever called it, EINTR when ctx ends, ESHUTDOWN after close. begin fails
// with EINTR when, and only when, its caller's ctx has ended.
func (s *shares[T]) join(ctx context.Context, port portKey, begin func() (T, error)) (_ *share[T], began bool, err error) {
	for {
		sh, first, err := s.enter(ctx, port)
		if err != nil {
			return nil, false, err
		}
		if first {
			if sh.value, sh.err = begin(); sh.err != nil {
				s.mu.Lock()
				delete(s.of, port) // the next one asks anew
				s.mu.Unlock()
				close(sh.ended)
			}
			close(sh.ready)
		}
		select {
		case <-sh.ready:
		case <-ctx.Done():
			s.leave(sh)
			return nil, false, syscall.EINTR
		}
		switch {
		case sh.err == nil:
			return sh, first, nil
		case errors.Is(sh.err, syscall.EINTR) && ctx.Err() == nil: // that was another caller's ctx
		default:
			return nil, false, sh.err
		}
	}
}

func (s *shares[T]) enter(ctx context.Context, port portKey) (_ *share[T], first bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		sh := s.of[port]
		switch {
		case s.closed:
			return nil, false, syscall.ESHUTDOWN
		case sh == nil:
			sh = &share[T]{port: port, count: 1, ready: make(chan struct{}), ended: make(chan struct{})}
			s.of[port] = sh
			return sh, true, nil
		case !sh.ending:
			sh.count++
			return sh, false, nil
		}
		s.mu.Unlock()
		select {
		case <-sh.ended:
		case <-ctx.Done():
			err = syscall.EINTR
		}
		s.mu.Lock()
		if err != nil {
			return nil, false, err
		}
	}
}

// leave gives up a part in sh; the last one ends it, before anybody can begin
// it anew.
func (s *shares[T]) leave(sh *share[T]) {
	s.mu.Lock()
	sh.count--
	if sh.count > 0 || sh.ending {
		s.mu.Unlock()
		return
	}
	sh.ending = true
	s.mu.Unlock()
	s.finish(sh)
}

// finish ends a share that nobody joins any more. One that was never begun has
// nothing to end.
func (s *shares[T]) finish(sh *share[T]) {
	<-sh.ready
	if sh.err != nil {
		return
	}
	s.end(sh.port, sh.value)
	s.mu.Lock()
	delete(s.of, sh.port)
	s.mu.Unlock()
	close(sh.ended)
}

// begun gives the shares that are there now, each begun.
func (s *shares[T]) begun() (all []*share[T]) {
	s.mu.Lock()
	of := slices.Collect(maps.Values(s.of))
	s.mu.Unlock()
	for _, sh := range of {
		if <-sh.ready; sh.err == nil {
			all = append(all, sh)
		}
	}
	return all
}

// shut lets nobody join any more, and gives the shares that are still to be
// finished.
func (s *shares[T]) shut() (all []*share[T]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, sh := range s.of {
		if !sh.ending {
			sh.ending = true
			all = append(all, sh)
		}
	}
	return all
}
