package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/local/doctor"
	"github.com/mirrord-go/mirrord/internal/local/kube"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
)

func (a *app) doctorCommand() *cobra.Command {
	var cfg config.Config
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor [flags]",
		Short: "Check what a session needs, here and in the cluster",
		Long: `doctor looks at everything that a session needs of this machine and of the cluster,
starts nothing, and says for each thing that is missing how to mend it. With -t it
looks at that target as well.

The exit code is 0 if a session has all that it needs, 1 if not. A dash marks what
could not be looked at, or what a session does without.`,
		Example: `  mirrord doctor
  mirrord doctor -t deployment/shop -n staging
  mirrord doctor --json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			ctx, stop := interruptible()
			defer stop()
			ok, err := a.doctor(ctx, cfg, asJSON)
			if err == nil && !ok {
				a.code = exitFailure
			}
			return err
		},
	}
	fl := c.Flags()
	fl.StringVarP(&cfg.Target, "target", "t", os.Getenv("MIRRORD_IMPERSONATED_TARGET"), "target to look at, as for exec")
	fl.StringVarP(&cfg.Namespace, "target-namespace", "n", os.Getenv("MIRRORD_TARGET_NAMESPACE"), "namespace of the target (default: the context's)")
	fl.StringVar(&cfg.Context, "context", os.Getenv("MIRRORD_KUBE_CONTEXT"), "kubeconfig context to use")
	fl.StringVar(&cfg.Kubeconfig, "kubeconfig", os.Getenv("MIRRORD_KUBECONFIG"), "kubeconfig file (default: as kubectl finds it)")
	fl.StringVarP(&cfg.Agent.Namespace, "agent-namespace", "a", os.Getenv("MIRRORD_AGENT_NAMESPACE"), "namespace to run the agent in (default: the target's)")
	fl.StringVarP(&cfg.Agent.Image, "agent-image", "i", os.Getenv("MIRRORD_AGENT_IMAGE"), "image of the agent (default: this build's)")
	fl.BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

func (a *app) doctor(ctx context.Context, cfg config.Config, asJSON bool) (bool, error) {
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
	// Stealing needs the most: what may do that may do all.
	ok, err := doctor.Run(ctx, doctor.Options{Kube: options, Target: cfg.Target, Local: local, Show: show,
		Features: []kube.Feature{kube.FeatureNetwork, kube.FeatureFiles, kube.FeatureMirror, kube.FeatureSteal}})
	if err != nil || !asJSON {
		return ok, err
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	return ok, out.Encode(map[string]any{"ok": ok, "checks": checks})
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
