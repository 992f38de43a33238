// Package front is what the user starts: the parent of the command.
//
// It owns the terminal, the signals and the exit code, and shows what the
// supervisor reports. Everything that serves the session is in the supervisor,
// a process of its own in a session of its own, so that neither Ctrl-C nor a
// closed terminal ends the clean-up, and nobody's child (package orphan), so that
// neither does a debugger that kills our whole tree. Front and supervisor guard each other:
// when the supervisor dies, the command's tree is ended by the helper that
// lives in the sandbox, and by the front if that one is gone too, and the front
// removes what the supervisor owned in the cluster; when the front dies, the
// supervisor ends the tree and cleans up. A supervisor that is stopped is told
// of, and ended with the command.
//
// Start is the front of a session that is kept: it goes when the session is
// ready. Join is that of a command in such a session, whose supervisor is the
// guardian of many; it is not ended with one of them.
package front

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/container"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/orphan"
	"github.com/mirrord-go/mirrord/internal/local/sandbox"
)

// Descriptors that the supervisor finds open.
const (
	ControlFD = 3 // its end of the control socket
	InitFD    = 4 // the socket of the sandbox's init
	EventsFD  = 5 // where events are written to, if there is such a place
)

const (
	// silentBeats is how many of the supervisor's signs of life may be missing in
	// a row. They are counted by our own clock, which stops when we are stopped.
	silentBeats = 4
	// toldBeats is how many more may be missing when the user wants the command to
	// end: a process that reads a file through the supervisor cannot be ended,
	// not even killed, before that one answers or dies.
	toldBeats = 2
	// releaseTime is how long the front waits, after the command has ended, for
	// the supervisor's last words, as long as it lives. It answers at once; only
	// a machine that is very busy takes longer.
	releaseTime = 10 * time.Second
	// dyingTime is how long after the command's end the supervisor's may be heard of
	// for that to be why the command has ended.
	dyingTime = time.Second
	// verdictTime is how long it waits for the reason when the sandbox ended
	// before the command ran.
	verdictTime = 10 * time.Second
	// cleanUpTime bounds the removal of the agent if the supervisor died.
	cleanUpTime = 10 * time.Second
	// treeTime bounds the end of the command's tree if the supervisor died.
	treeTime = 8 * time.Second
)

// Options of Run.
type Options struct {
	Argv   []string // empty for Start
	Env    []string // of the caller
	Dir    string
	Config json.RawMessage // for the supervisor; not for Join
	// SupervisorName is argv[0] of the supervisor, by which main knows the role; not
	// for Join.
	SupervisorName string
	Show           func(event.Event)
	// Container says that the command is an engine's, and runs this; only for Run.
	Container *container.Run
	// Learn asks the supervisor for a report of files, and for writing it to
	// LearnFile, absolute, if that is not empty. Learned gets it.
	Learn     bool
	LearnFile string
	Learned   func(json.RawMessage)
	// Events is where the supervisor writes what happens; nil: nowhere. It stays the
	// caller's.
	Events *os.File
	// Profiles is the secret of who may see the profiles of supervisor and agent, of
	// which an event with the code "profiles" tells the port; empty: nobody.
	Profiles string
	// Whole ends what the command leaves in the background with it.
	Whole bool
	// CleanUp removes what the supervisor owned in the cluster, as it described
	// it.
	CleanUp func(ctx context.Context, owned json.RawMessage) error
}

// front is one run.
type front struct {
	o          Options
	supervisor *orphan.Process
	control    *control.Conn
	words      chan control.Message // from the supervisor; closed when it is gone
	beats      *time.Ticker
	unheard    int  // beats since the supervisor's last word
	told       int  // of these, after the user wanted the command to end
	killed     bool // by us, since it was silent then

	owned    json.RawMessage
	running  bool
	session  string // the id of one that is kept
	joined   bool
	gone     bool // the supervisor
	failed   *failure.Error
	released bool
}

// Run runs the command in a session and returns its exit code in the manner of
// a shell. An error means that mirrord itself failed, and the code is to be
// ignored. Run, Start or Join must be called once, from the main goroutine.
func Run(o Options) (int, error) {
	_, code, err := launch(o)
	return code, err
}

// Start starts a session that is kept for commands that join it, and returns its
// id when it is ready. Without an id, and without an error, it was interrupted:
// the code is that of Run.
func Start(o Options) (id string, code int, err error) { return launch(o) }

func launch(o Options) (id string, code int, err error) {
	// The parent-death signal of the sandbox belongs to this thread.
	runtime.LockOSThread()
	f := newFront(o)
	defer f.beats.Stop()
	var as sandbox.As
	if c := o.Container; c != nil {
		as = sandbox.As{Root: true, Users: c.Users, Groups: c.Groups}
	}
	process, initSocket, err := sandbox.Launch(as)
	if err != nil {
		return "", 0, sandbox.Explain(err)
	}
	o.Show(event.Event{Level: event.Detail, Code: "sandbox-begun", Text: "the sandbox's first process is there"})
	if err := f.startSupervisor(initSocket); err != nil {
		process.Kill()
		process.Wait()
		return "", 0, err
	}
	defer f.supervisor.Close()
	code, err = f.attend(process)
	return f.session, code, err
}

func newFront(o Options) *front {
	return &front{o: o, words: make(chan control.Message), beats: time.NewTicker(control.BeatTime)}
}

// attend shows what happens until the command has ended.
func (f *front) attend(process *sandbox.Process) (int, error) {
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
			f.gone = !ok
			switch {
			case ok:
				f.take(m)
			case f.released: // it saw the command's end before we did: we were stopped
				f.words = nil
			case f.killed: // and the command can end now
				f.words = nil
				time.AfterFunc(treeTime, process.Kill)
			default:
				return f.orphaned(process, ended)
			}
			if f.failed != nil {
				process.Kill()
				<-ended
				return f.verdict(process, code)
			}
		case <-f.beats.C:
			f.beat()
			if f.unheard > silentBeats && process.Told() {
				f.told++
			}
			if f.told == toldBeats {
				f.killed = true
				f.supervisor.Kill() // the rest is takeOver's
			}
		case <-ended:
			return f.commandEnded(process, code)
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
	program := orphan.Program{
		Path:  "/proc/self/exe",
		Argv:  []string{f.o.SupervisorName, strconv.Itoa(os.Getpid())}, // the second one for package kin, and for people
		Dir:   "/",                                                     // holds no directory of the user's busy
		Files: []*os.File{nil, nil, nil, ControlFD: theirs, InitFD: initSocket},
	}
	if f.o.Events != nil {
		program.Files = append(program.Files, f.o.Events) // EventsFD
	}
	program.Env = (&exec.Cmd{Dir: program.Dir}).Environ()
	if path := os.Getenv("MIRRORD_SUPERVISOR_LOG"); path != "" { // crashes of the supervisor go there
		log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return failure.Wrap(err, "supervisor-log", "the file that MIRRORD_SUPERVISOR_LOG names cannot be opened", "unset MIRRORD_SUPERVISOR_LOG")
		}
		defer log.Close()
		program.Files[syscall.Stderr] = log
	}
	process, err := orphan.Start(program)
	if err != nil {
		ours.Close()
		return failure.Wrap(err, "no-supervisor", "mirrord could not start its second process", "look at your limits: ulimit -u")
	}
	f.supervisor, f.control = process, ours
	return ours.Send(control.Message{Start: &control.Start{
		Argv: f.o.Argv, Env: f.o.Env, Dir: f.o.Dir, Front: os.Getpid(), UID: os.Getuid(), GID: os.Getgid(), Options: f.o.Config,
		Container: f.o.Container, Learn: f.o.Learn, LearnFile: f.o.LearnFile, Events: f.o.Events != nil, Whole: f.o.Whole, Profiles: f.o.Profiles}})
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
	if f.unheard >= silentBeats {
		f.o.Show(event.Event{Level: event.Info, Code: "supervisor-back", Text: "mirrord's supervisor answers again"})
	}
	f.unheard, f.told = 0, 0
	switch {
	case m.Event != nil:
		f.o.Show(*m.Event)
	case m.Owned != nil:
		f.owned = m.Owned
	case m.Running != nil:
		f.running, f.session = true, m.Running.Session
	case m.Failed != nil:
		f.failed = m.Failed
	case m.Released != nil:
		f.released = true
	case m.Learned != nil && f.o.Learned != nil:
		f.o.Learned(m.Learned)
	}
}

// beat counts the time without a word of the supervisor.
func (f *front) beat() {
	if f.unheard++; f.unheard == silentBeats && !f.released {
		f.o.Show(event.Event{Level: event.Warning, Code: "supervisor-silent",
			Text: fmt.Sprintf("mirrord's supervisor (process %d) does not answer: it is stopped, or the machine is very busy; what needs the target waits for it", f.supervisor.PID())})
	}
}

// commandEnded hands over to the supervisor, or finds out why the command
// never ran.
func (f *front) commandEnded(process *sandbox.Process, code int) (int, error) {
	ended := time.Now()
	if len(f.o.Argv) > 0 {
		f.o.Show(event.Event{Level: event.Detail, Code: "command-ended", Text: fmt.Sprintf("the command has ended, code %d", code)})
	}
	gone := false
	if !f.running && code <= 128 {
		// The sandbox could not be made: the supervisor knows the reason.
		gone = !f.until(verdictTime, func() bool { return f.failed != nil || f.running })
	}
	if f.failed == nil && !f.released && !gone {
		_ = f.control.Send(control.Message{Exited: &control.Exited{Code: code}}) // it may just have gone, which is no news now
		gone = !f.until(releaseTime, func() bool { return f.failed != nil || f.released })
	}
	heard := time.Now()
	if gone && f.failed == nil && (f.gone || !f.joined) { // one that is silent serves others
		// By who ends the processes of a session without a supervisor. Whether that is
		// dead nobody can tell yet: a process that dies closes its descriptors first.
		if code > 128 && f.gone && !f.killed && f.running && heard.Sub(ended) < dyingTime {
			return 0, f.lost(process)
		}
		f.takeOver(process)
	}
	if !f.running && f.failed == nil && !interrupted(code) {
		f.failed = &failure.Error{Code: "sandbox-ended", What: "the sandbox ended before the command could run",
			Why: fmt.Sprintf("its first process ended with code %d", code), Do: "try again with: mirrord exec --verbose"}
	}
	return f.verdict(process, code)
}

// verdict is the result of a run that ended with code: the user's own Ctrl-C
// while the session was being made is no failure of it, though the supervisor
// finds the sandbox gone; the same signal of the sandbox's end after a failure is.
func (f *front) verdict(process *sandbox.Process, code int) (int, error) {
	if f.failed != nil && (f.running || !interrupted(code) || !process.Told()) {
		return 0, f.failed
	}
	return code, nil
}

// interrupted reports whether the command was ended by what a user, a terminal
// or a service manager sends.
func interrupted(code int) bool {
	switch syscall.Signal(code - 128) {
	case syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT:
		return true
	}
	return false
}

// until takes messages until done. It is false when there will be none, since
// the supervisor is gone, or silent, or takes longer than limit.
func (f *front) until(limit time.Duration, done func() bool) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for !done() {
		select {
		case m, ok := <-f.words:
			if !ok {
				f.gone = true
				return false
			}
			f.take(m)
		case <-f.beats.C:
			if f.beat(); f.unheard >= silentBeats {
				return false
			}
		case <-timer.C:
			return false
		}
	}
	return true
}

// takeOver does what a supervisor that died or is stopped has left to do after
// the command's end, and says so.
func (f *front) takeOver(process *sandbox.Process) {
	text := "mirrord's supervisor has ended unexpectedly after the command"
	if f.unheard >= silentBeats {
		text = "mirrord's supervisor does not answer and was killed, now that the command has ended"
	}
	f.supervisor.Kill()
	for _, why := range f.leave(process) {
		text += "; " + why
	}
	f.o.Show(event.Event{Level: event.Warning, Code: "supervisor-lost", Text: text})
}

// orphaned is the end of a session whose supervisor died.
func (f *front) orphaned(process *sandbox.Process, ended chan struct{}) (int, error) {
	process.Kill()
	lost := f.lost(process)
	<-ended
	return 0, lost
}

// lost cleans up after a supervisor that has died, and says so.
func (f *front) lost(process *sandbox.Process) *failure.Error {
	lost := &failure.Error{Code: "supervisor-lost", What: "mirrord's supervisor has ended unexpectedly, and the command with it",
		Why: "it was killed, or it crashed", Do: "start again; if it happens again, set MIRRORD_SUPERVISOR_LOG=FILE and look there"}
	if !f.running {
		lost.What = "mirrord's supervisor has ended unexpectedly, before the command could run"
	}
	for _, why := range f.leave(process) {
		lost.Why += "; " + why
	}
	return lost
}

// leave sees to it that nothing of a session is left whose supervisor is gone,
// here and in the cluster, and says what could not be removed.
func (f *front) leave(process *sandbox.Process) (left []string) {
	var removed error
	var wg sync.WaitGroup
	wg.Go(func() {
		if f.owned == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), cleanUpTime)
		defer cancel()
		removed = f.o.CleanUp(ctx, f.owned)
	})
	ctx, cancel := context.WithTimeout(context.Background(), treeTime)
	defer cancel()
	if err := process.EndTree(ctx); err != nil {
		left = append(left, fmt.Sprintf("processes of the command may be left (%v)", err))
	}
	if wg.Wait(); removed != nil {
		left = append(left, fmt.Sprintf("the agent could not be removed (%v) and will end by itself", removed))
	}
	return left
}
