//go:build !linux

package doctor

import (
	"context"
	"io"
	"runtime"

	"github.com/mirrord-go/mirrord/internal/local/host"
)

// here says that sessions with a command are not to be had on this machine; other
// commands do without, so nothing is bad.
func (d *doctor) here(context.Context) {
	f := host.Elsewhere(runtime.GOOS, "exec", "...")
	d.o.Show(Check{Area: Machine, Name: "sandbox", State: Skipped, Text: f.What + ": " + f.Why, Do: f.Do})
}

// Mend cannot make a Linux of this machine.
func Mend(context.Context, io.Writer) error { return host.Elsewhere(runtime.GOOS, "doctor", "--fix") }
