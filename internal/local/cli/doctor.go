package cli

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/doctor"
	"github.com/mirrord-go/mirrord/internal/local/kube"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
)

func (a *app) doctorCommand() *cobra.Command {
	var settings map[string]config.Setting
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor [flags]",
		Short: "Check what a session needs, here and in the cluster",
		Long: `doctor looks at everything that a session needs of this machine and of the cluster,
starts nothing, and says for each thing that is missing how to mend it. It takes the
flags and the configuration of exec and looks at that session's target, if it has one.

The exit code is 0 if a session has all that it needs, 1 if not. A dash marks what
could not be looked at, or what a session does without.`,
		Example: `  mirrord doctor
  mirrord doctor -t deployment/shop -n staging
  mirrord doctor --json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			ctx, stop := interruptible()
			defer stop()
			ok, err := a.doctor(ctx, settings, asJSON)
			if err == nil && !ok {
				a.code = exitFailure
			}
			return err
		},
	}
	settings = sessionFlags(c.Flags())
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
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
		if f := c.Failure; f != nil {
			for text := range strings.Lines(f.What + "\n" + f.Why + "\n" + f.Do) {
				if text = strings.TrimRight(text, "\n"); text != "" {
					fmt.Println("      " + monitor.Clean(text))
				}
			}
			fmt.Printf("      (%s, see docs/errors.md)\n", f.Code)
		}
	}
}
