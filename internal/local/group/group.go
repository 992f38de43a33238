// Package group runs programs that begin together and end together.
//
// Only cli calls it. The programs are children of this process, in its process
// group, so that Ctrl-C on a terminal reaches all that they have started, as if
// each had been started alone. They are killed with this process, however it
// dies; what they have started is theirs to end. How a group ends is decided by
// course, which touches nothing.
package group

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// Descriptors that a member finds open.
const (
	ConfigFD   = 3 // Member.Config can be read from it
	ProgressFD = 4 // what is written there comes to Member.Progress
)

const (
	// hintTime is how long those who may have had the terminal's Ctrl-C have to
	// end before they are told once more: somebody may have meant this process
	// alone, which looks the same.
	hintTime = 5 * time.Second
	// graceTime is how long all have to end before they are killed, as long as
	// Docker gives containers.
	graceTime = 10 * time.Second
	// drainTime bounds the wait for the last of what a member wrote: a process that
	// it left behind may hold its output open.
	drainTime = time.Second
)

// Member is one of the programs.
type Member struct {
	Name   string
	Path   string
	Argv   []string // with the program's name
	Env    []string
	Dir    string
	Config []byte
	// They get what the member writes, each until the end of it, in a goroutine of
	// its own.
	Stdout, Stderr, Progress func(*os.File) error
}

// Run starts all and returns when all have ended: when one ends by itself, the
// others are told to, and when the user wants it. The code is that of the first
// one that ended, or what a shell gives for the signal that ended them. say is
// told, in words, why and how it ends. An error is a *failure.Error; then none
// runs any more. The caller's other goroutines must not start processes that
// are to outlive the thread of this one.
func Run(members []Member, say func(text string)) (int, error) {
	// The parent-death signal of the members belongs to this thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	g := &group{members: members, say: say, ended: make(chan end), processes: make([]*os.Process, len(members))}
	// The members' standard input: it never says anything, and never ends, since
	// some programs end with it.
	stdin, hold, err := os.Pipe()
	if err != nil {
		return 0, unstarted(members[0].Name, err)
	}
	defer hold.Close()
	signals := listen()
	defer signal.Stop(signals)
	for i := range members {
		if err = g.start(i, stdin); err != nil {
			break
		}
	}
	stdin.Close()
	if err != nil {
		g.kill()
		for g.running > 0 {
			<-g.ended
			g.running--
		}
		g.wg.Wait()
		return 0, err
	}
	code := g.attend(signals)
	g.wg.Wait()
	return code, nil
}

// unstarted is the failure of a member that could not be started.
func unstarted(name string, err error) error {
	return failure.Wrap(err, "up-not-started", fmt.Sprintf("the process for the service %s could not be started", name), "look at the directory that it is to run in, and at your limits: ulimit -u")
}

// listen gives the signals that end programs, but for those that this process
// was started to ignore (nohup).
func listen() chan os.Signal {
	signals := make(chan os.Signal, 8) // more at once are one
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	return signals
}

// group is one run.
type group struct {
	members   []Member
	processes []*os.Process // nil: not started, or ended
	say       func(string)
	ended     chan end
	running   int
	wg        sync.WaitGroup
}

// end is that of a member.
type end struct{ member, code int }

// start starts one, on the thread of Run.
func (g *group) start(i int, stdin *os.File) error {
	m := &g.members[i]
	var ours, theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	fail := func(err error) error {
		for _, f := range ours {
			f.Close()
		}
		return unstarted(m.Name, err)
	}
	for range 4 {
		r, w, err := os.Pipe()
		if err != nil {
			return fail(err)
		}
		ours, theirs = append(ours, r), append(theirs, w)
	}
	ours[0], theirs[0] = theirs[0], ours[0] // they read it
	cmd := exec.Cmd{Path: m.Path, Args: m.Argv, Env: m.Env, Dir: m.Dir, Stdin: stdin, Stdout: theirs[1], Stderr: theirs[2],
		ExtraFiles:  []*os.File{ConfigFD - 3: theirs[0], ProgressFD - 3: theirs[3]},
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}}
	if err := cmd.Start(); err != nil {
		return fail(err)
	}
	g.processes[i] = cmd.Process
	g.running++
	g.wg.Go(func() { g.watch(i, &cmd, ours) })
	return nil
}

// watch owns files, the ends of a member's pipes, and tells of its end.
func (g *group) watch(i int, cmd *exec.Cmd, files []*os.File) {
	m := &g.members[i]
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = files[0].Write(m.Config) // it may have ended
		files[0].Close()
	})
	for n, read := range []func(*os.File) error{m.Stdout, m.Stderr, m.Progress} {
		f := files[n+1]
		wg.Go(func() {
			if err := read(f); err != nil { // its place takes no more; the program must not be held up
				_ = f.SetReadDeadline(time.Time{})
				_, _ = io.Copy(io.Discard, f)
			}
		})
	}
	_ = cmd.Wait() // the code tells
	drained := time.AfterFunc(drainTime, func() {
		for _, f := range files {
			f.Close()
		}
	})
	wg.Wait()
	if drained.Stop() {
		for _, f := range files {
			f.Close()
		}
	}
	g.ended <- end{i, exitCode(cmd.ProcessState)}
}

// exitCode is the code in the manner of a shell.
func exitCode(state *os.ProcessState) int {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}

// attend follows the course of the group to its end.
func (g *group) attend(signals <-chan os.Signal) int {
	c := course{running: g.running}
	hint, grace := time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	hint.Stop()
	grace.Stop()
	defer hint.Stop()
	defer grace.Stop()
	for c.running > 0 {
		var does action
		select {
		case e := <-g.ended:
			g.processes[e.member] = nil
			does = c.ended(g.members[e.member].Name, e.code)
		case s := <-signals:
			does = c.told(s.(syscall.Signal), inForeground())
		case <-hint.C:
			does = c.hint()
		case <-grace.C:
			does = c.late()
		}
		if does.say != "" {
			g.say(does.say)
		}
		if does.ending {
			hint.Reset(hintTime)
			grace.Reset(graceTime)
		}
		if does.signal != 0 {
			g.signal(does.signal)
		}
	}
	return c.code
}

func (g *group) kill() { g.signal(syscall.SIGKILL) }

// signal tells all that run. That one has just ended is no error.
func (g *group) signal(s syscall.Signal) {
	for _, p := range g.processes {
		if p != nil {
			_ = p.Signal(s)
		}
	}
}

// inForeground tells whether this process belongs to the foreground process
// group of its terminal: then Ctrl-C reaches the members by itself.
func inForeground() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	c, err := tty.SyscallConn()
	if err != nil {
		return false
	}
	group := 0
	err = errors.Join(c.Control(func(fd uintptr) { group, err = unix.IoctlGetInt(int(fd), unix.TIOCGPGRP) }), err)
	return err == nil && group == unix.Getpgrp()
}
