// Package cli holds the commands of mirrord: flags, help, and which rooms a
// command puts together.
//
// It is the only room that knows all ways to an agent. Commands return errors;
// Main shows them once and turns them into exit codes.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
)

// Exit codes of mirrord itself; a command's own code passes through.
const (
	exitFailure = 1 // a failure.Error may hold another
	exitUsage   = 2
)

// app is what all commands share.
type app struct {
	version string
	began   time.Time
	code    int  // of the command that ran, for Main
	ran     bool // the command line was understood

	progress *os.File          // where events go as lines of JSON; nil: to stderr
	passed   map[string][]byte // what was read from descriptors that are not the command's
}

// Main runs a command line, which begins with the program's name, and returns
// the exit code. By other names the program plays its own hidden roles.
func Main(version string, args []string) int {
	if playRole(version, args[0]) {
		return 0
	}
	return (&app{version: version, began: time.Now(), progress: passedProgress()}).run(args[1:])
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "mirrord",
		Short: "Run a local process in the context of a Kubernetes pod",
		Long: `mirrord runs a program of this machine in the context of a Kubernetes pod: it
sees the pod's environment, files, names, network and hostname, and traffic that
reaches the pod is copied to it or handed to it. Nothing is installed, neither
here nor in the cluster.`,
		Example: `  mirrord exec -t pod/shop-7d4b9 python main.py
  mirrord exec psql postgresql://dbmaster:5432/mydb
  mirrord demo`,
		PersistentPreRun: func(c *cobra.Command, _ []string) {
			a.ran = true
			a.tellIdle(c.Flags())
		},
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       a.version,
	}
	root.SetVersionTemplate("mirrord {{.Version}}\n")
	root.AddCommand(a.sessionCommands()...)
	root.AddCommand(a.portForwardCommand(), a.dumpCommand(), a.lsCommand(), a.explainCommand(), a.verifyCommand(), a.configCommand(), a.doctorCommand(), a.rbacCommand(), a.diagnoseCommand(), a.agentCommand(), a.debugConfigCommand(), a.extCommand(), a.versionCommand())
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title})
		for _, c := range root.Commands() {
			if slices.Contains(strings.Fields(g.commands), c.Name()) {
				c.GroupID = g.title
			}
		}
	}
	return root
}

// groups are the commands by what one wants, as the help shows them.
var groups = []struct{ title, commands string }{
	{"Run something in the context of a pod:", "exec container session up port-forward demo"},
	{"Look at the cluster, and at sessions:", "ls status dump explain"},
	{"Write a configuration:", "config verify-config debug-config ext"},
	{"Prepare machine and cluster, find what is wrong:", "doctor agent rbac diagnose"},
}

func (a *app) run(args []string) int {
	root := a.root()
	root.InitDefaultCompletionCmd(args...)
	if c, _, err := root.Find([]string{"completion"}); err == nil {
		c.Aliases = []string{"completions"} // as mirrord calls it
		c.Example = "  source <(mirrord completion bash)\n  mirrord completion fish > ~/.config/fish/completions/mirrord.fish"
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() } // else a shell that there is not would be help asked for
	}
	a.completions(root)
	if c, rest, err := root.Find(args); err == nil && c.Flags().Lookup("config-file") != nil { // sessionFlags
		args = append(strings.Fields(c.CommandPath())[1:], fillIn(c.Flags(), rest)...)
	}
	root.SetArgs(args)
	root.SetOut(os.Stdout)
	root.SetErr(os.Stderr)
	err := root.Execute()
	if err == nil {
		return a.code
	}
	var f *failure.Error
	if !errors.As(err, &f) && a.ran {
		f = failure.From(err)
	}
	if f == nil && !a.ran {
		f = notHere(args)
	}
	if f == nil {
		f = misused(root, args, err)
	}
	a.monitor(false, false).Fail(f)
	if f.Exit != 0 {
		return f.Exit
	}
	return exitFailure
}

// misused is the failure of a command line that was not understood.
func misused(root *cobra.Command, args []string, err error) *failure.Error {
	c, _, ferr := root.Find(args)
	if ferr != nil {
		c = root
	}
	what, near, _ := strings.Cut(err.Error(), "\n\nDid you mean this?\n")
	names := strings.Fields(near)
	if flag, ok := errors.AsType[*pflag.NotExistError](err); ok && flag.GetSpecifiedShortnames() == "" {
		var all []string
		c.Flags().VisitAll(func(f *pflag.Flag) { all = append(all, f.Name) })
		if name := config.Nearest(flag.GetSpecifiedName(), all); name != "" {
			names = []string{"--" + name}
		}
	}
	f := &failure.Error{Code: "usage", What: what, Do: c.CommandPath() + " --help", Exit: exitUsage}
	if len(names) > 0 {
		f.Why = "did you mean: " + strings.Join(names, ", ")
	}
	return f
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  mirrord version",
		Args:    cobra.NoArgs,
		Run: func(*cobra.Command, []string) {
			fmt.Printf("mirrord %s %s/%s %s\n", a.version, runtime.GOOS, runtime.GOARCH, runtime.Version())
		},
	}
}

// progressModes are the words for how to show progress.
var progressModes = []string{"", "std", "standard", "plain", "dumb", "simple", "json", "off"}

// monitor shows events on stderr in the way that the environment asks for.
func (a *app) monitor(quiet, details bool) *monitor.Monitor {
	return a.monitorOn(os.Stderr, quiet, details)
}

// monitorOn is monitor for what ends on stderr.
func (a *app) monitorOn(out io.Writer, quiet, details bool) *monitor.Monitor {
	if a.progress != nil {
		return monitor.New(a.progress, monitor.JSON, true)
	}
	mode := monitor.Plain
	switch progress := os.Getenv("MIRRORD_PROGRESS_MODE"); {
	case quiet || progress == "off":
		mode = monitor.Quiet
	case progress == "json":
		mode = monitor.JSON
	case progress == "dumb" || progress == "simple" || progress == "plain":
	case os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(os.Stderr.Fd())):
		mode = monitor.Colour
	}
	return monitor.New(out, mode, details)
}

// interruptible gives a context that ends with the signals that end programs, but
// for those that are ignored, as nohup wants it: to listen to one would make it
// count again, for the command as well.
func interruptible() (context.Context, context.CancelFunc) {
	heard := slices.DeleteFunc([]os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}, signal.Ignored)
	if len(heard) == 0 { // to the package none means all
		return context.WithCancel(context.Background())
	}
	return signal.NotifyContext(context.Background(), heard...)
}
