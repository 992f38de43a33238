// Package env is the agent's half of the env flow: it says which environment
// the target's process has.
//
// The session's server hands it the requests of the link; what to take of the
// answer is decided on the developer's machine.
package env

import (
	"fmt"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// Serve answers an EnvRequest with what environ gives, "NAME=value" strings,
// and closes s, which it owns. Strings without a name are left out: a program
// that overwrote its argument area leaves such.
func Serve(s *link.Stream, environ func() ([]string, error)) error {
	defer s.Close()
	vars, err := environ()
	if err != nil {
		return s.Send(&protocol.Answer{Errno: syscall.EIO, Cause: protocol.CauseTarget, Text: fmt.Sprintf("read the target's environment: %v", err)})
	}
	var clean []string
	for _, v := range vars {
		for i := range len(v) {
			if v[i] == '=' {
				if i > 0 {
					clean = append(clean, v)
				}
				break
			}
		}
	}
	return s.Send(&protocol.Env{Vars: clean})
}
