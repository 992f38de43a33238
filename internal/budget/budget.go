// Package budget shares out the memory of one side of a session.
//
// Each side, the agent's process and the supervisor's, has one Budget, made
// where its rooms are put together: a number of bytes, and for every kind of
// use a Share of it. A share has its least for sure, whatever the others do;
// beyond that it borrows what nobody has for sure, up to its most. So no kind
// can starve another, and the sum holds with everything at its worst.
//
// What is counted is what others can make this side hold: a connection, a
// window, a buffer, when it is taken and not byte by byte. It allocates
// nothing, and trusts its users to give back what they took.
package budget

import (
	"context"
	"fmt"
	"math"
	"sync"
)

// What the two sides may use, in bytes.
const (
	// AgentPod is the limit of the agent's pod. Beside the process there is in
	// it what the kernel holds for it: sockets, some 4 KiB each and what is in
	// their queues, and the 8 MiB of the packet ring of a session that mirrors.
	AgentPod = 192 << 20
	// AgentProcess is where the agent's garbage collector begins to work as hard
	// as it takes (GOMEMLIMIT): its Budget, some 4 MiB of its own, and what is not
	// collected yet. The program's text is another 8 MiB.
	AgentProcess = 164 << 20
	// Agent is the agent's Budget: 2,000 connections of 28 KiB each way at once, with
	// large windows for some, and the least of everything else.
	Agent = 152 << 20
	// Supervisor is the supervisor's Budget: 2,000 connections of 176 KiB each way
	// at once, most of which are buffers towards the program, with larger ones for
	// some, and the least of everything else.
	Supervisor = 832 << 20
	// SupervisorEager is how much a supervisor uses before its garbage collector
	// works as hard as it may: it is on somebody's desk, where nothing else
	// limits it. What it must hold may be more.
	SupervisorEager = 192 << 20
)

// Budget is a number of bytes that shares have in common.
type Budget struct {
	mu     sync.Mutex    // guards what follows, and used of all shares
	common int           // bytes that no share has for sure and none has borrowed
	freed  chan struct{} // closed when something is given back; nil: nobody waits
}

// New makes a budget of so many bytes.
func New(total int) *Budget { return &Budget{common: total} }

// Reserve takes n bytes for good, for what is held from the beginning to the
// end. Like Share it panics if there are no more: the sum is wrong.
func (b *Budget) Reserve(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > b.common {
		panic(fmt.Sprintf("budget: %d bytes for sure, and %d are left", n, b.common))
	}
	b.common -= n
}

// All, as the most of a share, is whatever there is.
const All = math.MaxInt

// Share makes a share that has least bytes for sure, and at most most.
func (b *Budget) Share(least, most int) *Share {
	b.Reserve(least)
	return &Share{b: b, least: least, most: max(least, most), turn: make(chan struct{}, 1)}
}

// Share is what one kind of use may take. Its methods may be called
// concurrently, and never block but for Wait. A nil Share has no end.
type Share struct {
	b           *Budget
	least, most int
	turn        chan struct{} // held by who waits
	used        int           // guarded by b.mu
}

// Take takes n bytes; false: there is no room for them.
func (s *Share) Take(n int) bool {
	if s == nil {
		return true
	}
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	return s.take(n)
}

func (s *Share) take(n int) bool {
	if n > s.free() {
		return false
	}
	s.b.common -= s.borrowed(s.used+n) - s.borrowed(s.used)
	s.used += n
	return true
}

// borrowed is how much of n bytes in use is not the share's own.
func (s *Share) borrowed(n int) int { return max(0, n-s.least) }

// free is what Take would give. b.mu is held.
func (s *Share) free() int { return min(s.most-s.used, max(0, s.least-s.used)+s.b.common) }

// Give gives back n bytes that were taken.
func (s *Share) Give(n int) {
	if s == nil || n == 0 {
		return
	}
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if n > s.used {
		panic(fmt.Sprintf("budget: %d bytes are given back of %d that were taken", n, s.used))
	}
	s.b.common += s.borrowed(s.used) - s.borrowed(s.used-n)
	s.used -= n
	if s.b.freed != nil {
		close(s.b.freed)
		s.b.freed = nil
	}
}

// Free is how many bytes there are to be taken now.
func (s *Share) Free() int {
	if s == nil {
		return All
	}
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	return s.free()
}

// Used is how many bytes are taken now.
func (s *Share) Used() int {
	if s == nil {
		return 0
	}
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	return s.used
}

// Wait is Take for who can wait for room, in turn with others who Wait for
// this share. It fails with the cause of ctx.
func (s *Share) Wait(ctx context.Context, n int) error {
	if s == nil {
		return nil
	}
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-s.turn }()
	for {
		s.b.mu.Lock()
		if s.take(n) {
			s.b.mu.Unlock()
			return nil
		}
		if s.b.freed == nil {
			s.b.freed = make(chan struct{})
		}
		freed := s.b.freed
		s.b.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
