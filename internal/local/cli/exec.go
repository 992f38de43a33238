package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/front"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// execFlags are the flags of exec; each beats its environment variable.
type execFlags struct {
	config.Config
	steal          bool
	quiet, verbose bool
}

func (a *app) execCommand() *cobra.Command {
	var f execFlags
	c := &cobra.Command{
		Use:   "exec [flags] [--] COMMAND [ARGS...]",
		Short: "Run a command in the context of a pod",
		Long: `exec runs a command of this machine in the context of a target.

Flags of mirrord end at the command; everything after it belongs to the command.
The command's exit code is passed on; where mirrord itself fails it is 1, for a
wrong command line 2.

Targets: pod/NAME, pod/NAME/container/C, process/PID (a process on this machine).
Without a target the command gets the cluster's network and names only.`,
		Example: `  mirrord exec -t pod/shop-7d4b9 python main.py
  mirrord exec -t pod/shop-7d4b9/container/api -n staging --steal -- node server.js
  mirrord exec psql postgresql://dbmaster:5433/mydb`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("exec needs a command to run, for example: mirrord exec -t pod/NAME python main.py")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			code, err := a.exec(&f, args)
			a.code = code
			return err
		},
	}
	fl := c.Flags()
	fl.SetInterspersed(false) // flags end at the first positional
	fl.StringVarP(&f.Target, "target", "t", os.Getenv("MIRRORD_IMPERSONATED_TARGET"), "what to run in the context of: pod/NAME[/container/C], process/PID")
	fl.StringVarP(&f.Namespace, "target-namespace", "n", os.Getenv("MIRRORD_TARGET_NAMESPACE"), "namespace of the target (default: the context's)")
	fl.StringVar(&f.Namespace, "namespace", f.Namespace, "the same as --target-namespace")
	_ = fl.MarkHidden("namespace")
	fl.StringVar(&f.Context, "context", os.Getenv("MIRRORD_KUBE_CONTEXT"), "kubeconfig context to use")
	fl.StringVar(&f.Kubeconfig, "kubeconfig", os.Getenv("MIRRORD_KUBECONFIG"), "kubeconfig file (default: as kubectl finds it)")
	fl.BoolVar(&f.steal, "steal", os.Getenv("MIRRORD_AGENT_TCP_STEAL_TRAFFIC") == "true", "take the target's traffic instead of a copy of it")
	fl.StringVarP(&f.Agent.Namespace, "agent-namespace", "a", os.Getenv("MIRRORD_AGENT_NAMESPACE"), "namespace to run the agent in (default: the target's)")
	fl.StringVarP(&f.Agent.Image, "agent-image", "i", os.Getenv("MIRRORD_AGENT_IMAGE"), "image of the agent (default: this build's)")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "show warnings and errors only")
	fl.BoolVarP(&f.verbose, "verbose", "v", os.Getenv("MIRRORD_VERBOSE") == "true", "show details")
	return c
}

// exec is the front of a session.
func (a *app) exec(f *execFlags, argv []string) (int, error) {
	if f.steal {
		f.Incoming.Mode = rules.IncomingSteal
	}
	if _, err := f.IncomingRules(); err != nil {
		return 0, err
	}
	if f.steal && f.Targetless() {
		return 0, &failure.Error{Code: "steal-without-target", What: "--steal needs a target", Exit: exitUsage,
			Why: "without a target there is no traffic that could be taken", Do: "name one: mirrord exec -t pod/NAME --steal COMMAND"}
	}
	dir, err := os.Getwd()
	if err != nil {
		return 0, failure.Wrap(err, "no-working-directory", "the working directory cannot be told", "cd to a directory that exists")
	}
	env := os.Environ() // the command's: as it is
	// The supervisor works elsewhere.
	f.Kubeconfig = absolute(f.Kubeconfig, dir)
	if list := os.Getenv("KUBECONFIG"); list != "" {
		os.Setenv("KUBECONFIG", absolute(list, dir))
	}
	options, err := json.Marshal(f.Config)
	if err != nil {
		return 0, err
	}
	m := a.monitor(f.quiet, f.verbose)
	return front.Run(front.Options{
		Argv: argv, Env: env, Dir: dir, Config: options,
		SupervisorName: supervisorName, Show: m.Show, CleanUp: cleanUp,
	})
}

// absolute makes each path of a list as in PATH absolute.
func absolute(list, dir string) string {
	paths := filepath.SplitList(list)
	for i, p := range paths {
		if p != "" && !filepath.IsAbs(p) {
			paths[i] = filepath.Join(dir, p)
		}
	}
	return strings.Join(paths, string(filepath.ListSeparator))
}
