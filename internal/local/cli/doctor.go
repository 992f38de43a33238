package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/doctor"
	"github.com/mirrord-go/mirrord/internal/local/host"
	"github.com/mirrord-go/mirrord/internal/local/kube"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
)

func (a *app) doctorCommand() *cobra.Command {
	var settings map[string]config.Setting
	var fix, devcontainer bool
	var wanted func() (bool, error)
	c := &cobra.Command{
		Use:   "doctor [flags]",
		Short: "Check what a session needs, here and in the cluster",
		Long: `doctor looks at everything that a session needs of this machine and of the cluster,
starts nothing, and says for each thing that is missing how to mend it. It takes the
flags and the configuration of exec and looks at that session's target, if it has one.

With --fix it first mends what this machine lacks: as root it runs the commands, each
written down before it runs; otherwise it prints them. Settings, modules, modes of
devices and an AppArmor profile can be mended so, on this machine and for its next
start. Without --fix nothing is changed.

With --devcontainer it only prints what a container must be started with, so that
sessions work in it.

The exit code is 0 if a session has all that it needs, 1 if not. A dash marks what
could not be looked at, or what a session does without. docs/hosts.md has all of it.`,
		Example: `  mirrord doctor
  mirrord doctor -t deployment/shop -n staging
  sudo mirrord doctor --fix
  mirrord doctor --devcontainer
  mirrord doctor --json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			asJSON, err := wanted()
			if err != nil {
				return err
			}
			ctx, stop := interruptible()
			defer stop()
			if devcontainer {
				return printContainer(os.Stdout, asJSON)
			}
			var mended error
			if fix {
				out := os.Stdout
				if asJSON {
					out = os.Stderr
				}
				if mended = doctor.Mend(ctx, out); mended != nil && !asJSON {
					return mended
				}
			}
			ok, err := a.doctor(ctx, settings, asJSON)
			err = cmp.Or(mended, err) // programs have their object all the same
			if err == nil && !ok {
				a.code = exitFailure
			}
			return err
		},
	}
	settings = sessionFlags(c.Flags())
	wanted = jsonWanted(c)
	c.Flags().BoolVar(&fix, "fix", false, "first mend what this machine lacks, as root")
	c.Flags().BoolVar(&devcontainer, "devcontainer", false, "print what a container must be started with")
	c.MarkFlagsMutuallyExclusive("fix", "devcontainer")
	return c
}

func (a *app) doctor(ctx context.Context, settings map[string]config.Setting, asJSON bool) (bool, error) {
	dir, err := os.Getwd()
	if err != nil {
		return false, failure.Wrap(err, "no-working-directory", "the working directory cannot be told", "cd to a directory that exists")
	}
	cfg, _, err := a.configuration(settings, os.Environ(), dir)
	if err != nil {
		return false, err
	}
	if err := a.chooseTarget(ctx, &cfg); err != nil {
		return false, err
	}
	options, err := clusterOptions(a.version, cfg)
	if err != nil {
		return false, err
	}
	if cfg.Targetless() {
		cfg.Target = ""
	}
	checks := []doctor.Check{}
	show := func(c doctor.Check) { checks = append(checks, c) }
	if !asJSON {
		show = checklist(os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(os.Stdout.Fd())))
	}
	_, local := cfg.Process()
	// Stealing needs the most: what may do that may do all. In the target's own
	// pod few clusters allow it, and a session asks for what it wants only.
	wanted := []kube.Feature{kube.FeatureNetwork, kube.FeatureFiles, kube.FeatureMirror, kube.FeatureSteal}
	if cfg.Agent.Ephemeral {
		wanted = features(cfg)
	}
	ok, err := doctor.Run(ctx, doctor.Options{Kube: options, Target: cfg.Target, Local: local, Show: show, Features: wanted, InPod: cfg.Agent.Ephemeral})
	if err != nil || !asJSON {
		return ok, err
	}
	return ok, monitor.WriteJSON(os.Stdout, map[string]any{"ok": ok, "checks": checks}, "  ")
}

// printContainer writes the arguments that a container needs.
func printContainer(out io.Writer, asJSON bool) error {
	var args []string
	for _, a := range host.RunArguments {
		args = append(args, a.Arg)
	}
	if asJSON {
		return monitor.WriteJSON(out, map[string]any{"runArgs": args, "arguments": host.RunArguments}, "  ")
	}
	list, err := json.MarshalIndent(args, "  ", "  ")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "in devcontainer.json:\n\n  \"runArgs\": %s\n\nor by hand, also with podman:\n\n  docker run %s IMAGE\n\n", list, strings.Join(args, " "))
	for _, a := range host.RunArguments {
		fmt.Fprintf(out, "%-38s %s\n", a.Arg, a.For)
	}
	_, err = fmt.Fprintln(out, "\nNo capability and no root is among them. In the container, mirrord doctor says what is still missing.")
	return err
}

// checklist prints each check as it comes, with a tick, a cross or a dash.
func checklist(colour bool) func(doctor.Check) {
	area := ""
	return func(c doctor.Check) {
		if c.Area != area {
			area = c.Area
			fmt.Println(area)
		}
		mark, paint := "✓", "\x1b[32m"
		switch c.State {
		case doctor.Bad:
			mark, paint = "✗", "\x1b[31m"
		case doctor.Skipped:
			mark, paint = "–", "\x1b[2m"
		}
		if colour {
			mark = paint + mark + "\x1b[0m"
		}
		line := "  " + mark + " " + monitor.Clean(c.Name)
		if c.Text != "" {
			line += ": " + monitor.Clean(c.Text)
		}
		fmt.Println(line)
		more := c.Do
		if f := c.Failure; f != nil {
			more = f.What + "\n" + f.Why + "\n" + f.Do + "\n(" + f.Code + ", see docs/errors.md)"
		}
		for text := range strings.Lines(more) {
			if text = strings.TrimRight(text, "\n"); text != "" {
				fmt.Println("      " + monitor.Clean(text))
			}
		}
	}
}
