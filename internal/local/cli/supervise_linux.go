package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/front"
	"github.com/mirrord-go/mirrord/internal/local/session"
	"github.com/mirrord-go/mirrord/internal/vitals"
)

// supervisorName is argv[0] of the supervisor, the process that serves a
// session.
const supervisorName = "mirrord-supervisor"

// supervise is the supervisor's main. It returns when the session has ended
// and nothing of it is left.
func supervise(version string) {
	ctl, err := control.Open(os.NewFile(front.ControlFD, "control"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "mirrord-supervisor: this program is started by mirrord exec:", err)
		os.Exit(exitUsage)
	}
	syscall.CloseOnExec(front.InitFD)
	initSocket := os.NewFile(front.InitFD, "init")
	// Its own end is decided by the session; a terminal's hang-up or a stray
	// SIGPIPE must not cut the clean-up short.
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
	debug.SetMemoryLimit(budget.SupervisorEager)
	// The kernel has applied the program's own mask to what it creates.
	syscall.Umask(0)
	keepNoCore()
	vitals.Tell(os.Stderr)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	m, err := ctl.Receive()
	if err != nil || m.Start == nil {
		return // the front is gone already
	}
	var cfg config.Config
	if err := json.Unmarshal(m.Start.Options, &cfg); err != nil {
		_ = ctl.Send(control.Message{Failed: failure.From(err)})
		return
	}
	note := event.Discard
	if len(m.Start.Argv) == 0 { // its front keeps no journal
		j := (&app{version: version}).keepJournal(cfg)
		defer j.Close()
		note = j.Note
	}
	events := -1
	if m.Start.Events {
		events = front.EventsFD
		syscall.CloseOnExec(events)
	}
	session.Run(ctx, version, ctl, initSocket, m.Start, cfg, reach(version, cfg), note, events)
}

// keepNoCore makes sure that no core dump of this process is written, with the
// session's key and the target's variables. The command is none of its
// children and keeps its limit. A limit of one byte holds for handlers behind
// a pipe too (core_pattern, core(5)), which 0 does not (do_coredump in
// fs/coredump.c).
func keepNoCore() {
	var core syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_CORE, &core) == nil {
		core.Cur = min(1, core.Max)
		_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &core) // less is always allowed
	}
}
