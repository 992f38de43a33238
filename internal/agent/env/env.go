// Package env is the agent's half of the env flow: it says which environment
// the target's process has.
//
// The session's server hands it the requests of the link; what to take of the
// answer is decided on the developer's machine. An environment that cannot be
// read is told by the errno of the target's kernel.
package env

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

const (
	// maxVars bounds the variables of one answer: what a reader of repeated
	// fields takes.
	maxVars = 64 << 10
	// perVar is the most that a variable costs on the wire beside its bytes: a
	// field's number and length.
	perVar = 6
	// listed is what a variable takes in the list of an answer, in bytes, and times
	// how often its own are held while that is sent: as it grows.
	listed, times = 16, 2
	// answerTime is how long an answer waits for room. All of it is taken only if
	// local asks and does not read.
	answerTime = 20 * time.Second
)

// Serve answers an EnvRequest with what environ gives, "NAME=value" strings,
// and closes s, which it owns. Strings without a name are left out: a program
// that overwrote its argument area leaves such. What the answer holds is taken from
// room, which has no end if it is nil, until it is sent; without room it is EAGAIN.
// The error is that of sending.
func Serve(ctx context.Context, s *link.Stream, room *budget.Share, environ func() ([]string, error)) error {
	defer s.Close()
	vars, err := environ()
	if err != nil {
		return s.Send(failed(err))
	}
	n, size := measure(vars)
	if size > protocol.MaxMessage || n > maxVars {
		return s.Send(&protocol.Answer{Errno: syscall.E2BIG, Cause: protocol.CauseUnsupported,
			Text: fmt.Sprintf("the target's environment (%d variables, %d bytes) is larger than one message", n, size)})
	}
	cost := listed*n + times*size
	ctx, cancel := context.WithTimeoutCause(ctx, answerTime, syscall.EAGAIN)
	defer cancel()
	if room.Wait(ctx, cost) != nil {
		return s.Send(&protocol.Answer{Errno: syscall.EAGAIN, Text: "there is no memory for the target's environment: earlier answers were not read"})
	}
	defer room.Give(cost)
	m := &protocol.Env{Vars: make([]string, 0, n)}
	for _, v := range vars {
		if named(v) {
			m.Vars = append(m.Vars, v)
		}
	}
	return s.Send(m)
}

func failed(err error) *protocol.Answer {
	a := &protocol.Answer{Errno: syscall.EIO, Cause: protocol.CauseTarget, Text: fmt.Sprintf("read the target's environment: %v", err)}
	if errors.As(err, &a.Errno) && (a.Errno == syscall.EACCES || a.Errno == syscall.EPERM) {
		a.Cause = protocol.CauseDenied
	}
	return a
}

func named(v string) bool { return strings.Index(v, "=") >= 1 }

// measure is how many variables there are, and how long they are as a message.
func measure(vars []string) (n, size int) {
	for _, v := range vars {
		if named(v) {
			n++
			size += perVar + len(v)
		}
	}
	return n, size
}
