// Package learn remembers what the programs of a session did with their files
// and makes a report of it: what came from the target, what was missing or
// refused, what they waited for, and which configuration would change that.
//
// The session puts a Tree around its own when the user asks for it, and nothing
// otherwise. While programs run only counts are kept, at most Memory bytes of
// them; the rules are asked when the report is made. Everything but the Tree is
// pure: what the two machines have is given.
//
// It sees what the session serves path by path. What is mounted as a whole from
// this machine the kernel serves alone.
package learn

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// maxPaths is how many paths are remembered by themselves; what is asked for
	// beyond them counts for the directory that it is in. It is more than a
	// person reads, and what an import of a large program asks for.
	maxPaths = 4096
	// maxText bounds the bytes of their names: they may have 4,096 each.
	maxText = 1 << 20
	// maxRefusals is how many different refusals of one path are told apart.
	maxRefusals = 4
	// Memory is what a Log holds at most, in bytes.
	Memory = maxText + maxPaths*512
)

// Log is what was done, by path. Its methods may be called concurrently.
type Log struct {
	mu     sync.Mutex
	paths  map[string]*seen
	text   int // bytes of the paths
	folded int // paths that were counted for a directory instead
}

// seen is what was done with one path.
type seen struct {
	lookups, opens, lists, changes int
	bytes                          int64
	waited                         time.Duration
	trips                          int
	target, here                   bool // where it was found
	missed                         int
	made                           bool // or removed, by the session: no wonder that it is missing
	refused                        []refusal
	folded                         int // calls for other paths that were counted here
}

// refusal is an error that a program got.
type refusal struct {
	what  deed
	errno syscall.Errno
	times int
}

// deed is what a program tried.
type deed uint8

const (
	reading deed = iota
	writing
	moving // or linking
)

func (d deed) String() string { return []string{"read", "write", "rename"}[d] }

// NewLog makes an empty one.
func NewLog() *Log { return &Log{paths: map[string]*seen{}} }

// at gives what is counted for p. For holders of the lock.
func (l *Log) at(p string) *seen {
	if s := l.paths[p]; s != nil {
		return s
	}
	if len(l.paths) < maxPaths && l.text+len(p) <= maxText || p == "/" {
		s := &seen{}
		l.paths[p] = s
		l.text += len(p)
		return s
	}
	l.folded++
	for d := parent(p); ; d = parent(d) {
		if s := l.paths[d]; s != nil || d == "/" {
			s = l.at(d)
			s.folded++
			return s
		}
	}
}

// parent is path.Dir of a clean, absolute path, without cleaning it.
func parent(p string) string { return p[:max(1, strings.LastIndexByte(p, '/'))] }

// own reports whether s is of p itself. For holders of the lock.
func (l *Log) own(p string, s *seen) bool { return l.paths[p] == s }

// tripsKey is where a context holds the round trips of one call.
type tripsKey struct{}

// Trip counts a round trip to the target for the call that ctx belongs to.
func Trip(ctx context.Context) {
	if n, ok := ctx.Value(tripsKey{}).(*atomic.Int32); ok {
		n.Add(1)
	}
}

// call is one call of a program's, under way.
type call struct {
	log   *Log
	began time.Time
	trips atomic.Int32
}

// begin begins a call, and gives the context to make it with.
func (l *Log) begin(ctx context.Context) (context.Context, *call) {
	c := &call{log: l, began: time.Now()}
	return context.WithValue(ctx, tripsKey{}, &c.trips), c
}

// end counts the call, which was about p and had the result err.
func (c *call) end(p string, what deed, err error, count func(s *seen)) {
	waited := time.Since(c.began)
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	s := c.log.at(p)
	s.waited += waited
	s.trips += int(c.trips.Load())
	if count != nil {
		count(s)
	}
	if errno, ok := refuses(err); ok && c.log.own(p, s) {
		s.refuse(what, errno)
	}
}

// refuses gives the errno of an error that says no, or that nobody could be
// asked.
func refuses(err error) (errno syscall.Errno, ok bool) {
	if err == nil || !errors.As(err, &errno) {
		return 0, false
	}
	switch errno {
	case syscall.EACCES, syscall.EPERM, syscall.EROFS, syscall.EXDEV, syscall.EIO, syscall.ETIMEDOUT:
		return errno, true
	}
	return 0, false
}

func (s *seen) refuse(what deed, errno syscall.Errno) {
	i := slices.IndexFunc(s.refused, func(r refusal) bool { return r.what == what && r.errno == errno })
	switch {
	case i >= 0:
		s.refused[i].times++
	case len(s.refused) < maxRefusals:
		s.refused = append(s.refused, refusal{what, errno, 1})
	}
}

// missing reports whether a program asked for what it did not find, and has
// neither found nor made it at another time, nor tried to.
func (s *seen) missing() bool {
	return s.missed > 0 && !s.target && !s.here && !s.made && len(s.refused) == 0
}
