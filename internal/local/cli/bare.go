package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/bare"
	"github.com/mirrord-go/mirrord/internal/local/roster"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// bareFlags adds the flags of a session without a sandbox, and those that are
// named; the others of a session are taken, and have no effect.
func (f *execFlags) bareFlags(fl *pflag.FlagSet, more ...string) {
	used := append(more, "target", "target-namespace", "namespace", "config-file", "context", "kubeconfig", "accept-invalid-certificates",
		"agent-namespace", "agent-image", "ephemeral-container", "agent-startup-timeout", "agent-resume-window", "agent-log-level", "key",
		"no-telemetry", "disable-version-check", "skip-processes")
	f.settings = someFlags(fl, used...)
	idle := pflag.NewFlagSet("", pflag.ContinueOnError)
	sessionFlags(idle, used...)
	idle.VisitAll(func(p *pflag.Flag) {
		p.Value, p.Hidden = &idleFlag{p.Value, "it is for programs in a session, and this one runs none"}, true
		fl.AddFlag(p)
	})
	f.loudness(fl)
}

// withoutSandbox takes out of a configuration what only programs in a sandbox have:
// so the agent asks for nothing on their behalf. names: some resolve in the target.
func withoutSandbox(cfg *config.Config, names bool) {
	cfg.Files = rules.FilesOptions{Mode: rules.FilesLocal}
	cfg.Outgoing = rules.OutgoingOptions{}
	cfg.DNS = rules.DNSOptions{Local: !names}
}

// runBare runs a session without a sandbox, until it is interrupted, or stopped.
// The second interrupt ends this process at once, and the agent ends by itself.
func (a *app) runBare(ctx context.Context, b *begun, o bare.Options) error {
	debug.SetMemoryLimit(budget.SupervisorEager)
	keepNoCore()
	o.Config, o.Version, o.Reach, o.Emit, o.Argv, o.Dirs = b.cfg, a.version, reach(a.version, b.cfg), b.show, os.Args, runningDirs()
	err := bare.Run(ctx, o)
	var f *failure.Error
	if err != nil && !errors.As(err, &f) {
		err = failure.Wrap(err, "session-failed", "the session could not be started", "try again with --verbose")
	}
	b.done(err)
	return err
}

// runningDirs are where sessions are found.
func runningDirs() []string { return roster.Dirs(os.Getenv, roster.Running) }

// untilTold gives a context that ends with the signals that end programs, of which
// the second one does what it does by itself; and with the reader of stdout.
func untilTold() (context.Context, context.CancelFunc) {
	signal.Ignore(syscall.SIGPIPE) // the write's error tells, and the session ends in order
	ctx, stop := interruptible()
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
