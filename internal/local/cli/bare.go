package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/local/bare"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
	"github.com/mirrord-go/mirrord/internal/local/roster"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// bareFlags adds the flags of a session without a sandbox, and those that are
// named.
func (f *execFlags) bareFlags(fl *pflag.FlagSet, more ...string) {
	f.settings = someFlags(fl, append(more, "target", "target-namespace", "namespace", "config-file", "context", "kubeconfig", "accept-invalid-certificates",
		"agent-namespace", "agent-image", "ephemeral-container", "agent-startup-timeout", "agent-resume-window", "agent-log-level", "key",
		"no-telemetry", "disable-version-check")...)
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

const (
	// maxLines is how many lines may wait for the reader of stdout, who does not hold
	// up the traffic; what it misses is counted.
	maxLines = 1024
	// lastTime is how long the last ones may take.
	lastTime = 2 * time.Second
)

// lines writes values to stdout, each as a line of JSON. Its methods may be called
// concurrently, and on nil, which writes nothing.
type lines struct {
	queue chan any
	ended chan struct{} // closed when nothing is written any more

	mu     sync.Mutex // sends to queue
	closed bool
	missed int // since the last that was queued
}

// newLines begins to write; gone is called when nobody reads any more.
func newLines(gone func()) *lines {
	l := &lines{queue: make(chan any, maxLines), ended: make(chan struct{})}
	go func() { // ends with close
		defer close(l.ended)
		for v := range l.queue {
			if monitor.WriteJSON(os.Stdout, v, "") != nil {
				gone()
				return
			}
		}
	}()
	return l
}

// put writes v soon, and does not wait.
func (l *lines) put(v any) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if l.missed > 0 && len(l.queue) < maxLines-1 {
		l.queue <- activity.Event{At: time.Now().UTC(), Kind: activity.Missed, Count: l.missed}
		l.missed = 0
	}
	select {
	case l.queue <- v:
	default:
		l.missed++
	}
}

// close writes what is queued, for a short time.
func (l *lines) close() {
	if l == nil {
		return
	}
	l.mu.Lock()
	l.closed = true
	close(l.queue)
	l.mu.Unlock()
	select {
	case <-l.ended:
	case <-time.After(lastTime): // the reader is stopped
	}
}
