// Package env is the agent's half of the env flow: it says which environment
// the target's process has.
//
// The session's server hands it the requests of the link; what to take of the
// answer is decided on the developer's machine. An environment that cannot be
// read is told by the errno of the target's kernel.
package env

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

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
)

// Serve answers an EnvRequest with what environ gives, "NAME=value" strings,
// and closes s, which it owns. Strings without a name are left out: a program
// that overwrote its argument area leaves such. The error is that of sending.
func Serve(s *link.Stream, environ func() ([]string, error)) error {
	defer s.Close()
	return s.Send(answer(environ()))
}

func answer(vars []string, err error) protocol.Message {
	if err != nil {
		a := &protocol.Answer{Errno: syscall.EIO, Cause: protocol.CauseTarget, Text: fmt.Sprintf("read the target's environment: %v", err)}
		if errors.As(err, &a.Errno) && (a.Errno == syscall.EACCES || a.Errno == syscall.EPERM) {
			a.Cause = protocol.CauseDenied
		}
		return a
	}
	m, size := &protocol.Env{}, 0
	for _, v := range vars {
		if strings.Index(v, "=") < 1 {
			continue
		}
		m.Vars = append(m.Vars, v)
		size += perVar + len(v)
	}
	if size > protocol.MaxMessage || len(m.Vars) > maxVars {
		return &protocol.Answer{Errno: syscall.E2BIG, Cause: protocol.CauseUnsupported,
			Text: fmt.Sprintf("the target's environment (%d variables, %d bytes) is larger than one message", len(m.Vars), size)}
	}
	return m
}
