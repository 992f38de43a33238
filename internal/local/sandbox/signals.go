package sandbox

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/tree"
)

const (
	// settleTime is how long a stop of the command must last, without this process
	// being continued, to count as its own. After a SIGSTOP to the whole group and
	// fg the kernel still reports the old stop, and the shell's SIGCONT reaches the
	// members of the group one after another.
	settleTime = 10 * time.Millisecond
	// resumeTime bounds the wait for the word of a SIGCONT that has come already,
	// on a machine that is busy.
	resumeTime = 5 * time.Second
)

// signalBuffer is how many signals may wait for the forwarder, which never
// blocks; more at once are merged, as the kernel merges them too.
const signalBuffer = 32

// forwarding passes signals to the command.
type forwarding struct {
	ch   chan os.Signal
	quit chan struct{}
	wg   sync.WaitGroup
	once sync.Once
}

// forward begins to collect signals; they are delivered after to.
func forward() *forwarding {
	f := &forwarding{ch: make(chan os.Signal, signalBuffer), quit: make(chan struct{})}
	for _, s := range []os.Signal{
		unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2,
		unix.SIGALRM, unix.SIGWINCH, unix.SIGCONT, unix.SIGTSTP,
	} {
		// What was ignored at our start (nohup, background jobs of scripts) the
		// command must ignore too: a handler would undo that at its execve.
		if !signal.Ignored(s) {
			signal.Notify(f.ch, s)
		}
	}
	return f
}

// to delivers signals to p from now on.
func (f *forwarding) to(p *Process) {
	f.wg.Go(func() {
		for {
			select {
			case s := <-f.ch:
				p.signal(s.(syscall.Signal))
			case <-f.quit:
				return
			}
		}
	})
}

// stop ends the forwarding; it may be called again.
func (f *forwarding) stop() {
	f.once.Do(func() {
		signal.Stop(f.ch)
		close(f.quit)
	})
	f.wg.Wait()
}

// signal forwards one. What the terminal sends (Ctrl-C, Ctrl-\, Ctrl-Z, a new
// window size) has reached the command already, which is in the same foreground
// process group, and must not be sent twice. A SIGINT that somebody sends to
// this process alone while it is in the foreground cannot be told from Ctrl-C
// and is not forwarded. Whether and when Ctrl-Z stops the command is its own
// affair; stopped follows it.
func (p *Process) signal(s syscall.Signal) {
	switch s {
	case unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT:
		p.told.Store(true)
	}
	switch s {
	case unix.SIGCONT:
		select { // the newest counts
		case <-p.resumed:
		default:
		}
		p.resumed <- time.Now() // its only sender
		// The word of the SIGCONT that ended our own stop may come late: the command
		// has been continued for it already, and may have stopped again.
		if p.expected.Swap(false) || p.state() != 'T' {
			return
		}
	case unix.SIGINT, unix.SIGQUIT, unix.SIGWINCH, unix.SIGTSTP:
		if inForeground() {
			return
		}
	}
	p.kill(s)
}

// kill sends s to the command; that it may have ended is no error.
func (p *Process) kill(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = unix.PidfdSendSignal(p.pidfd, s, nil, 0) // -1: EBADF
}

// stopped deals with a stop of the command. When it stopped by itself, this
// process stops too, so that the shell sees its job stopped. Without a terminal
// there is no such shell, and nobody would continue this process.
func (p *Process) stopped() {
	began := time.Now()
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	for settled := false; !settled; {
		select {
		case t := <-p.resumed:
			if began.Sub(t) > settleTime {
				continue // long before the stop
			}
			p.kill(unix.SIGCONT) // whoever continued us means the command too
			return
		case <-timer.C:
			settled = true
		}
	}
	if p.state() != 'T' || !hasTerminal() {
		return
	}
	select { // of an earlier stop
	case <-p.resumed:
	default:
	}
	// To this very thread: it stops before the call returns. A signal to the
	// process may be taken by another thread, a moment later, and the command be
	// continued meanwhile.
	p.expected.Store(true)
	_ = unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
	// Here again: somebody continued us, and means the command. A shell has told
	// both; then the command may run, and even have stopped once more, by now.
	if !signal.Ignored(unix.SIGCONT) {
		select {
		case <-p.resumed:
		case <-time.After(resumeTime):
			p.expected.Store(false)
		}
	}
	if p.state() == 'T' && !p.stoppedAgain() {
		p.kill(unix.SIGCONT)
	}
}

// stoppedAgain tells whether a stop of the command waits to be reported: it is
// another one than the last that was.
func (p *Process) stoppedAgain() bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, p.pid, &info, unix.WSTOPPED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && info.Signo != 0
}

// state is the command's state letter, 'T' when it is stopped by a signal. A
// stop by a debugger has another letter.
func (p *Process) state() byte {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return 'X'
	}
	return tree.State(b)
}

// inForeground tells whether this process belongs to the foreground process
// group of its terminal, whatever stdio is.
func inForeground() bool {
	group, err := foregroundGroup()
	return err == nil && group == unix.Getpgrp()
}

// hasTerminal tells whether this process has a controlling terminal.
func hasTerminal() bool {
	_, err := foregroundGroup()
	return err == nil
}

func foregroundGroup() (int, error) {
	tty, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(tty)
	return unix.IoctlGetInt(tty, unix.TIOCGPGRP)
}
