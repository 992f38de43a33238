package cli

import (
	"github.com/spf13/cobra"

	"github.com/mirrord-go/mirrord/internal/local/demo"
)

// What needs Linux is in the files of this room that are named for it, and
// reached from here; platform_other.go stands in for it elsewhere.

// sessionCommands are the commands that make sessions with a sandbox, or show any.
func (a *app) sessionCommands() []*cobra.Command {
	return []*cobra.Command{a.execCommand(), a.containerCommand(), a.upCommand(), a.statusCommand(), a.sessionCommand(), a.killCommand(), a.demoCommand()}
}

// playRole plays the hidden role that has this name, to its end, if there is one.
func playRole(version, name string) bool {
	switch name {
	case supervisorName:
		supervise(version)
		return true
	case demo.Name:
		demo.Main()
	}
	return false
}
