package cli

import (
	"context"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/demo"
	"github.com/mirrord-go/mirrord/internal/local/sandbox"
)

func (a *app) demoCommand() *cobra.Command {
	var keep bool
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show a whole session against a small pod made on this machine",
		Long: `demo makes a small "pod" out of namespaces on this machine and runs real sessions
against it, step by step, each with the command that did it. It needs no cluster,
no root and no network, and leaves nothing behind.`,
		Example: "  mirrord demo\n  mirrord demo --keep",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			ctx, stop := interruptible()
			defer stop()
			self, err := os.Executable()
			if err != nil {
				return err
			}
			err = demo.Run(ctx, os.Stdout, self, demo.Options{
				Keep:   keep,
				Colour: os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(os.Stdout.Fd())),
			})
			return whyNoPod(ctx, err)
		},
	}
	c.Flags().BoolVar(&keep, "keep", false, "keep the pod until Ctrl-C, for commands of your own")
	// The local programs of the demo's own steps, for machines without any.
	for name, run := range map[string]func([]string) error{"serve": demo.Serve, "ask": demo.Ask} {
		c.AddCommand(&cobra.Command{Use: name, Hidden: true, DisableFlagParsing: true,
			RunE: func(_ *cobra.Command, args []string) error { return run(args) }})
	}
	return c
}

// whyNoPod explains a pod that could not be made by what this machine lacks
// for a session, too, if it does.
func whyNoPod(ctx context.Context, err error) error {
	if err == nil || failure.From(err).Code != "demo-pod" {
		return err
	}
	found, _ := sandbox.Probe(ctx) // that it cannot be told is not what went wrong
	for _, a := range found {
		if a.Err != nil && !a.Instead {
			return a.Err
		}
	}
	return err
}
