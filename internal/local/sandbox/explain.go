package sandbox

import (
	"github.com/mirrord-go/mirrord/internal/local/host"
)

// Explain gives an error of Launch or Attach the form for a person: why the
// sandbox could not be made, or the command not be started in it, and what to
// do. Errors that are no *handoff.Error come back as they are.
func Explain(err error) error {
	err, _ = host.Explain(err, host.Look())
	return err
}
