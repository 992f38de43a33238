package cli

import (
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mirrord-go/mirrord/internal/local/demo"
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
			return demo.Run(ctx, os.Stdout, self, demo.Options{
				Keep:   keep,
				Colour: os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(os.Stdout.Fd())),
			})
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
