// Package front is what the user starts: the parent of the command.
//
// It owns the terminal, the signals and the exit code, and shows what the
// supervisor reports. Everything that serves the session is in the supervisor,
// a process of its own in a session of its own, so that neither Ctrl-C nor a
// closed terminal ends the clean-up. Front and supervisor guard each other:
// when the supervisor dies, the command's tree is ended by the helper that
// lives in the sandbox, and the front removes what the supervisor owned in the
// cluster; when the front dies, the supervisor ends the tree and cleans up.
package front

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/sandbox"
)

// Descriptors that the supervisor finds open.
const (
	ControlFD = 3 // its end of the control socket
	InitFD    = 4 // the socket of the sandbox's init
)

const (
	// releaseTime is how long the front waits, after the command has ended, for
	// the supervisor's last words. The supervisor answers at once; only a
	// stopped or dying one does not.
	releaseTime = 2 * time.Second
	// verdictTime is how long it waits for the reason when the sandbox ended
	// before the command ran.
	verdictTime = 10 * time.Second
	// cleanUpTime bounds the removal of the agent if the supervisor died.
	cleanUpTime = 10 * time.Second
)

// Options of Run.
type Options struct {
	Argv   []string
	Env    []string // of the caller
	Dir    string
	Config json.RawMessage // for the supervisor
	// SupervisorName is argv[0] of the supervisor, by which main knows the role.
	SupervisorName string
	Show           func(event.Event)
	// CleanUp removes what the supervisor owned in the cluster, as it described
	// it.
	CleanUp func(ctx context.Context, owned json.RawMessage) error
}

// front is one run.
type front struct {
	o       Options
	control *control.Conn
	words   chan control.Message // from the supervisor; closed when it is gone
	owned   json.RawMessage
	running bool
	failed  *failure.Error
	left    bool // the supervisor ended without releasing us
}

// Run runs the command in a session and returns its exit code in the manner of
// a shell. An error means that mirrord itself failed, and the code is to be
// ignored. Run must be called once, from the main goroutine.
func Run(o Options) (int, error) {
	// The parent-death signal of the sandbox belongs to this thread.
	runtime.LockOSThread()
	f := &front{o: o, words: make(chan control.Message)}
	process, initSocket, err := sandbox.Launch()
	if err != nil {
		return 0, sandbox.Explain(err)
	}
	if err := f.startSupervisor(initSocket); err != nil {
		process.Kill()
		process.Wait()
		return 0, err
	}
	defer f.control.Close()
	go f.listen() // ends with the control socket; the process ends with Run

	ended := make(chan struct{})
	var code int
	go func() { // must not be the thread above: it waits, and signals arrive
		defer close(ended)
		code = process.Wait()
	}()
	for {
		select {
		case m, ok := <-f.words:
			if !ok {
				return f.orphaned(process, ended)
			}
			f.take(m)
			if f.failed != nil {
				process.Kill()
				<-ended
				return f.verdict(code)
			}
		case <-ended:
			return f.commandEnded(code)
		}
	}
}

func (f *front) startSupervisor(initSocket *os.File) error {
	defer initSocket.Close()
	ours, theirs, err := control.Pair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{f.o.SupervisorName}
	cmd.ExtraFiles = []*os.File{theirs, initSocket} // ControlFD, InitFD
	cmd.Dir = "/"                                   // holds no directory of the user's busy
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if path := os.Getenv("MIRRORD_SUPERVISOR_LOG"); path != "" { // crashes of the supervisor go there
		log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return failure.Wrap(err, "supervisor-log", "the file that MIRRORD_SUPERVISOR_LOG names cannot be opened", "unset MIRRORD_SUPERVISOR_LOG")
		}
		defer log.Close()
		cmd.Stderr = log
	}
	if err := cmd.Start(); err != nil {
		ours.Close()
		return failure.Wrap(err, "no-supervisor", "mirrord could not start its second process", "look at your limits: ulimit -u")
	}
	go cmd.Wait() // it outlives us; a zombie it must not be while we run
	f.control = ours
	return ours.Send(control.Message{Start: &control.Start{
		Argv: f.o.Argv, Env: f.o.Env, Dir: f.o.Dir, UID: os.Getuid(), GID: os.Getgid(), Options: f.o.Config}})
}

func (f *front) listen() {
	defer close(f.words)
	for {
		m, err := f.control.Receive()
		if err != nil {
			return
		}
		f.words <- m
	}
}

// take handles a message that ends nothing.
func (f *front) take(m control.Message) {
	switch {
	case m.Event != nil:
		f.o.Show(*m.Event)
	case m.Owned != nil:
		f.owned = m.Owned
	case m.Running != nil:
		f.running = true
	case m.Failed != nil:
		f.failed = m.Failed
	}
}

// commandEnded hands over to the supervisor, or finds out why the command
// never ran.
func (f *front) commandEnded(code int) (int, error) {
	if !f.running && code <= 128 {
		// The sandbox could not be made: the supervisor knows the reason.
		f.until(verdictTime, func() bool { return f.failed != nil || f.running })
		if f.failed != nil {
			return 0, f.failed
		}
		if !f.running {
			f.cleanUp()
			return 0, &failure.Error{Code: "sandbox-ended", What: "the sandbox ended before the command could run",
				Why: fmt.Sprintf("its first process ended with code %d", code), Do: "try again with: mirrord exec --verbose"}
		}
	}
	_ = f.control.Send(control.Message{Exited: &control.Exited{Code: code}}) // it may just have gone, which is no news now
	f.until(releaseTime, func() bool { return f.failed != nil })
	return f.verdict(code)
}

// verdict is the result of a run that ended with code: the user's own Ctrl-C
// while the session was being made is no failure of it, though the supervisor
// finds the sandbox gone.
func (f *front) verdict(code int) (int, error) {
	interrupted := code == 128+int(syscall.SIGINT) || code == 128+int(syscall.SIGTERM) || code == 128+int(syscall.SIGHUP) || code == 128+int(syscall.SIGQUIT)
	if f.left && f.failed == nil {
		if why := f.cleanUp(); why != "" {
			f.o.Show(event.Event{Level: event.Warning, Code: "agent-left", Text: why})
		}
	}
	if f.failed != nil && (f.running || !interrupted) {
		return 0, f.failed
	}
	return code, nil
}

// until takes messages until done, the supervisor's release or end, or time
// runs out.
func (f *front) until(limit time.Duration, done func() bool) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for !done() {
		select {
		case m, ok := <-f.words:
			if !ok || m.Released != nil {
				f.left = !ok
				return
			}
			f.take(m)
		case <-timer.C:
			return
		}
	}
}

// orphaned is the end of a session whose supervisor died.
func (f *front) orphaned(process *sandbox.Process, ended chan struct{}) (int, error) {
	process.Kill() // the rest of the tree is ended by the helper in the sandbox
	<-ended
	lost := &failure.Error{Code: "supervisor-lost", What: "mirrord's supervisor has ended unexpectedly, and the command with it",
		Why: "it was killed, or it crashed", Do: "start again; if it happens again, set MIRRORD_SUPERVISOR_LOG=FILE and look there"}
	if why := f.cleanUp(); why != "" {
		lost.Why += "; " + why
	}
	return 0, lost
}

// cleanUp removes what a supervisor that died has left in the cluster, and says
// why that failed.
func (f *front) cleanUp() (why string) {
	if f.owned == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), cleanUpTime)
	defer cancel()
	if err := f.o.CleanUp(ctx, f.owned); err != nil {
		return fmt.Sprintf("the agent could not be removed (%v) and will end by itself", err)
	}
	return ""
}
