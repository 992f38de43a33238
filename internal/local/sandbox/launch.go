package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/ids"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/tree"
)

// Process is the command (until execve: its init), a child of the caller.
type Process struct {
	pid     int
	space   *os.File       // the namespace that the sandbox's processes are known by; nil: its init was gone at once. Closed with this process
	mu      sync.Mutex     // guards pidfd
	pidfd   int            // -1 after Wait
	resumed chan time.Time // when the last SIGCONT came; holds one
	// expected is set while the SIGCONT that ended our own stop has not been told.
	expected atomic.Bool
	told     atomic.Bool   // to end, by the user
	exited   chan struct{} // closed when code is set
	code     int
	signals  *forwarding
	bare     *handoff.Error // why there is no user namespace; nil: there is one
	as       As
	mapped   chan struct{}  // closed when owners is set
	owners   *handoff.Error // why the sandbox has no ids but the caller's; nil: it has
}

// As is who the command is in its sandbox. The zero value: the caller, by his own
// numbers.
type As struct {
	// Root: user 0 in there, as an engine of containers is, with the capabilities
	// of the sandbox's namespaces. A caller who is root gets no user namespace.
	Root bool
	// Users and Groups are ids of the caller's as they are to be mapped then; where
	// there is no more than one, the caller is mapped alone.
	Users, Groups []ids.Extent
}

// Launch starts the init of a sandbox as a child of this process and gives the
// other end of its socket, which the caller passes to the supervisor and then
// closes. Init waits for a Spec.
//
// Stdio and every other descriptor that this process was started with pass to
// the command; descriptors above 2 are then closed here, as they would be in a
// program that became the command. Init dies with this process. Wait must be
// called.
//
// Root, where user namespaces are forbidden, uses its own rights for the other
// namespaces (Box.Without).
func Launch(as As) (*Process, *os.File, error) {
	ours, theirs, err := handoff.Pair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	var wait [2]int // a pipe, which ends when the ids are mapped
	if err := unix.Pipe2(wait[:], unix.O_CLOEXEC); err != nil {
		ours.Close()
		return nil, nil, err
	}
	defer unix.Close(wait[0])
	p := newProcess()
	p.as = as
	if err := p.run(func() error { return p.start(theirs, wait[0]) }); err != nil {
		ours.Close()
		unix.Close(wait[1])
		return nil, nil, err
	}
	go func() { // waited for by Wait
		defer close(p.mapped)
		defer unix.Close(wait[1])
		if p.bare == nil { // else it has them all
			p.owners = p.mapOwners()
		}
	}()
	return p, ours, nil
}

func newProcess() *Process {
	return &Process{pidfd: -1, resumed: make(chan time.Time, 1), exited: make(chan struct{}), mapped: make(chan struct{})}
}

// run has the child started, and waits for its end in the background.
func (p *Process) run(start func() error) error {
	// Before the start: no signal may fall between. Its handlers do not pass
	// execve.
	p.signals = forward()
	started := make(chan error)
	go func() {
		// The kernel sends the parent-death signal when the *thread* that
		// started the child ends: this one stays until the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := start()
		started <- err
		if err == nil {
			p.keep()
		}
	}()
	if err := <-started; err != nil {
		p.signals.stop()
		return err
	}
	p.signals.to(p)
	return nil
}

// start runs on the thread that stays.
func (p *Process) start(sock *os.File, wait int) error {
	inherited, err := inheritedFiles()
	if err != nil {
		return fmt.Errorf("find the caller's descriptors: %w", err)
	}
	return control(sock, func(fd int) error {
		// The child's descriptors up to ours, each at its own number; those beyond
		// are inherited as they are.
		files := make([]uintptr, max(fd, wait)+1)
		for i := range files {
			files[i] = ^uintptr(0) // close-on-exec, or unused
		}
		for _, n := range slices.Concat([]int{0, 1, 2, fd, wait}, inherited) {
			if n < len(files) {
				files[n] = uintptr(n)
			}
		}
		attr, err := p.attr(files)
		if err != nil {
			return err
		}
		argv := []string{handoff.InitName, strconv.Itoa(fd), strconv.Itoa(wait)}
		if p.as.Root && os.Geteuid() == 0 {
			attr.without()
			p.bare = &handoff.Error{Step: handoff.StepUserNS, Text: "root needs none"}
		}
		p.pid, _, err = syscall.StartProcess("/proc/self/exe", argv, &attr.ProcAttr)
		if err != nil {
			e := &handoff.Error{Step: handoff.StepUserNS}
			if !errors.As(err, &e.Errno) {
				e.Text = err.Error()
			}
			if !forbidden(e.Errno) || os.Geteuid() != 0 || p.bare != nil {
				return e
			}
			attr.without()
			if p.pid, _, err = syscall.StartProcess("/proc/self/exe", argv, &attr.ProcAttr); err != nil {
				return e // what an ordinary setting would mend
			}
			p.bare = e
		}
		for _, n := range inherited {
			unix.Close(n)
		}
		p.openSpace(p.bare == nil)
		return nil
	})
}

// openSpace opens the namespace that the sandbox's processes are known by: its
// own user namespace or, without one, its network namespace.
func (p *Process) openSpace(own bool) {
	kind := "net"
	if own {
		kind = "user"
	}
	p.space, _ = os.Open(fmt.Sprintf("/proc/%d/ns/%s", p.pid, kind))
}

// forbidden tells whether clone(2) has failed because of its CLONE_NEWUSER.
func forbidden(errno syscall.Errno) bool {
	switch errno {
	case unix.EPERM, unix.EACCES, unix.ENOSPC, unix.EUSERS, unix.EINVAL:
		return true
	}
	return false
}

// attributes are how init is started.
type attributes struct{ syscall.ProcAttr }

// without takes the user namespace away.
func (a *attributes) without() {
	a.Env = nil // no ids to map
	a.Sys.Cloneflags &^= unix.CLONE_NEWUSER
	a.Sys.AmbientCaps = nil // root has what there is by execve
}

// attr is for a user namespace of init's own.
func (p *Process) attr(files []uintptr) (*attributes, error) {
	caps, err := capabilities(p.as.Root)
	uid, gid := strconv.Itoa(os.Geteuid()), strconv.Itoa(os.Getegid())
	insideUID, insideGID := uid, gid
	if p.as.Root {
		insideUID, insideGID = "0", "0"
	}
	return &attributes{syscall.ProcAttr{
		Env:   []string{handoff.EnvUID + "=" + insideUID + " " + uid, handoff.EnvGID + "=" + insideGID + " " + gid},
		Files: files,
		Sys: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS,
			AmbientCaps: caps,
			Pdeathsig:   syscall.SIGKILL,
			PidFD:       &p.pidfd,
		},
	}}, err
}

// capabilities are what init keeps over its own execve, in its namespaces.
// Root, there or here, gets all, or its last execve would be a gain (see package
// boot).
func capabilities(root bool) ([]uintptr, error) {
	if os.Geteuid() != 0 && !root {
		return []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_SYS_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_KILL, unix.CAP_SETPCAP}, nil
	}
	b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return nil, err
	}
	last, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, err
	}
	var all []uintptr
	for c := range last + 1 {
		all = append(all, uintptr(c))
	}
	return all, nil
}

// inheritedFiles lists the descriptors above 2 that this process was started
// with: everything that Go opens is close-on-exec.
func inheritedFiles() ([]int, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	var fds []int
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			fds = append(fds, fd)
		}
	}
	return fds, nil
}

// Pid is the command's process id.
func (p *Process) Pid() int { return p.pid }

// Kill ends the command at once. The rest of its tree is the supervisor's.
// It may have ended already.
func (p *Process) Kill() { p.kill(unix.SIGKILL) }

// Told reports whether the user, the terminal or a service manager has wanted
// the command to end. It may handle that as it likes.
func (p *Process) Told() bool { return p.told.Load() }

// EndTree sees to it that nothing of the sandbox is left when supervisor and
// command are gone: it leaves that to the helper, and does it itself where that
// one is late, or gone too. It returns when no process is left, or with the
// error of ctx.
func (p *Process) EndTree(ctx context.Context) error {
	if p.space == nil {
		return nil
	}
	proc, err := os.Open("/proc")
	if err != nil {
		return err
	}
	defer proc.Close()
	all, err := tree.New(proc, p.space)
	if err != nil {
		return err
	}
	if all.Here() { // whatever has led to this: everything of the machine's would be ended
		return errors.New("the sandbox has no namespace of its own")
	}
	first, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	if err := all.Wait(first); first.Err() == nil || ctx.Err() != nil {
		return err
	}
	return all.End(ctx)
}

// helperTime is what the helper gets to end the tree before others do: what it
// gives the processes, and a moment.
const helperTime = tree.Grace + time.Second

// Exited is closed when the command has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Wait returns when the command has ended, with its exit code in the manner of
// a shell: 128+n when signal n ended it. It is called once. Meanwhile signals are forwarded and
// job control works as if the command had been started directly.
func (p *Process) Wait() int {
	<-p.exited
	<-p.mapped
	p.signals.stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	unix.Close(p.pidfd)
	p.pidfd = -1
	return p.code
}

// keep waits for the command on the thread that started it.
func (p *Process) keep() {
	defer close(p.exited)
	for {
		var ws unix.WaitStatus
		_, err := unix.Wait4(p.pid, &ws, unix.WUNTRACED, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil: // somebody else has reaped it
			p.code = handoff.CodeBroken
			return
		case ws.Stopped():
			p.stopped()
		case ws.Signaled():
			p.code = 128 + int(ws.Signal())
			return
		default:
			p.code = ws.ExitStatus()
			return
		}
	}
}
