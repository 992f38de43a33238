//go:build !linux

package cli

import (
	"context"
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/mirrord-go/mirrord/internal/local/attach"
	"github.com/mirrord-go/mirrord/internal/local/host"
)

// sessionCommands are the commands that make sessions with a sandbox, or show any:
// here they say where they can be run.
func (a *app) sessionCommands() (all []*cobra.Command) {
	for _, c := range []cobra.Command{
		{Use: "exec [flags] [--] COMMAND [ARGS...]", Short: "Run a command in the context of a pod"},
		{Use: "container [flags] [--] podman run [OPTIONS] IMAGE [ARGS...]", Short: "Run a local container in the context of a pod"},
		{Use: "up [SERVICE...]", Short: "Run several services, each in the context of its target"},
		{Use: "status [ID]", Short: "Show running sessions, and what goes on in them"},
		{Use: "session", Aliases: []string{"sessions"}, Short: "Keep a session for several commands"},
		{Use: "demo", Short: "Show a whole session against a small pod made on this machine"},
	} {
		c.Short += " (needs Linux)"
		f := host.Elsewhere(runtime.GOOS, c.Name(), "...")
		c.Long = f.What + ":\n" + f.Why + ".\n\n" + f.Do
		c.DisableFlagParsing = true // it is for the other mirrord
		c.RunE = func(c *cobra.Command, args []string) error {
			if len(args) > 0 && (args[0] == "-h" || args[0] == "--help") {
				return c.Help()
			}
			return host.Elsewhere(runtime.GOOS, os.Args[1:]...)
		}
		all = append(all, &c)
	}
	return all
}

// playRole is for Linux: here there are no hidden roles.
func playRole(string, string) bool { return false }

// reachProcess and processMounts are for Linux: a process of this machine is no
// target here.
func reachProcess(string) attach.Reach {
	return func(context.Context, attach.Request) (attach.Agent, error) {
		return nil, host.Elsewhere(runtime.GOOS, os.Args[1:]...)
	}
}

func processMounts(int) ([]string, error) { return nil, host.Elsewhere(runtime.GOOS, os.Args[1:]...) }

// passedProgress and read are for Linux: here no program passes descriptors.
func passedProgress() *os.File { return nil }

func (a *app) read(name string) ([]byte, error) { return os.ReadFile(name) }

// keepNoCore is for Linux, where a handler of core dumps may be another program.
func keepNoCore() {}
