// Package tree finds and ends all the processes of a sandbox.
//
// They are found by their user namespace, which nobody can leave: double forks,
// setsid and nested namespaces change nothing, and neither a PID namespace nor
// a cgroup is needed. (A sandbox of root's may have none: it is known by its
// network namespace, and what makes one of its own in there is out of sight. So
// it is with one of several commands of a sandbox and its UTS namespace.)
// The supervisor uses it, and the helper that ends the tree
// when the supervisor has died. Both may look into the processes: the first
// owns the user namespace, the second has CAP_SYS_PTRACE and CAP_KILL in it.
//
// Hazards: it reads /proc through a descriptor that the caller gives, since a
// path might lead through a FUSE root whose server is gone. Zombies do not
// count; they are their parent's.
package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Grace is what processes get between SIGTERM and SIGKILL.
	Grace = 2 * time.Second
	// killTime bounds the wait after SIGKILL: only a process inside a call that
	// cannot be interrupted takes longer than milliseconds.
	killTime = 5 * time.Second
	// maxNesting is the kernel's limit for nested user namespaces.
	maxNesting = 32
	// nsGetParent and nsGetType are NS_GET_PARENT and NS_GET_NSTYPE, ioctl_ns(2).
	nsGetParent = 0xb702
	nsGetType   = 0xb703
)

// Tree is the processes of one user namespace and of those nested in it, or of
// one network or UTS namespace.
type Tree struct {
	proc     *os.File
	kind     string // of the namespace: "user", "net" or "uts"
	dev, ino uint64
	except   []int
}

// New makes a Tree. proc is a directory of the proc file system and must stay
// open; space is the user, network or UTS namespace and is not kept. Processes in except are
// never touched or counted, nor is the caller.
func New(proc, space *os.File, except ...int) (*Tree, error) {
	var st unix.Stat_t
	kind := "net"
	err := control(space, func(fd int) error {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), nsGetType, 0)
		if errno != 0 {
			return errno
		}
		switch n {
		case unix.CLONE_NEWUSER:
			kind = "user"
		case unix.CLONE_NEWUTS:
			kind = "uts"
		}
		return unix.Fstat(fd, &st)
	})
	if err != nil {
		return nil, fmt.Errorf("identify namespace: %w", err)
	}
	return &Tree{proc: proc, kind: kind, dev: st.Dev, ino: st.Ino, except: append(except, os.Getpid())}, nil
}

// Own reports whether the tree has a user namespace of its own.
func (t *Tree) Own() bool { return t.kind == "user" }

// Here reports whether the caller lives in the tree's namespace itself, or in
// one below it: then the tree is more than a sandbox that it guards.
func (t *Tree) Here() bool { return t.has(os.Getpid()) }

func control(f *os.File, do func(fd int) error) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if err := rc.Control(func(fd uintptr) { result = do(int(fd)) }); err != nil {
		return err
	}
	return result
}

// Empty reports whether no process is left.
func (t *Tree) Empty() (bool, error) {
	pids, err := t.Processes()
	return len(pids) == 0, err
}

// Wait returns when no process is left, or with the error of ctx.
func (t *Tree) Wait(ctx context.Context) error {
	for {
		all, err := t.open()
		if err != nil || len(all) == 0 {
			return err
		}
		err = all.wait(ctx, time.Time{})
		all.close()
		if err != nil {
			return err
		}
	}
}

// End ends all processes: SIGTERM (and SIGCONT, for stopped ones), SIGKILL
// after Grace or when ctx ends, whichever is first. It returns when none is
// left, or with an error if one survives even that.
func (t *Tree) End(ctx context.Context) error {
	limit := time.Now().Add(Grace)
	if d, ok := ctx.Deadline(); ok && d.Before(limit) {
		limit = d
	}
	var hard time.Time     // when to give up
	told := map[int]bool{} // each gets its SIGTERM once, newcomers too
	for {
		all, err := t.open()
		if err != nil || len(all) == 0 {
			return err
		}
		late := ctx.Err() != nil || !time.Now().Before(limit)
		for _, p := range all {
			switch {
			case late:
				p.signal(unix.SIGKILL)
			case !told[p.pid]:
				told[p.pid] = true
				p.signal(unix.SIGTERM)
				p.signal(unix.SIGCONT)
			}
		}
		if late {
			if hard.IsZero() {
				hard = time.Now().Add(killTime)
			}
			if time.Now().After(hard) {
				all.close()
				return fmt.Errorf("end processes: %d do not end", len(all))
			}
			err = all.wait(context.WithoutCancel(ctx), hard)
		} else if err = all.wait(ctx, limit); errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			err = nil
		}
		all.close()
		if err != nil {
			return err
		}
	}
}

// process is a living process, held by a pidfd.
type process struct{ pid, fd int }

func (p process) signal(s unix.Signal) {
	// It may end at any moment; that is what is wanted.
	_ = unix.PidfdSendSignal(p.fd, s, nil, 0)
}

type processes []process

func (all processes) close() {
	for _, p := range all {
		unix.Close(p.fd)
	}
}

// wait returns when all have ended, at the time limit (if not zero), or with
// the error of ctx.
func (all processes) wait(ctx context.Context, limit time.Time) error {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(wake)
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		_, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	defer func() {
		if !stop() {
			<-stopped // wake must not be closed under it
		}
	}()
	fds := []unix.PollFd{{Fd: int32(wake), Events: unix.POLLIN}}
	for _, p := range all {
		fds = append(fds, unix.PollFd{Fd: int32(p.fd), Events: unix.POLLIN})
	}
	for len(fds) > 1 {
		timeout := -1
		if !limit.IsZero() {
			left := time.Until(limit)
			if left <= 0 {
				return nil
			}
			timeout = int(left/time.Millisecond) + 1
		}
		if _, err := unix.Poll(fds, timeout); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for processes: %w", err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		rest := fds[:1]
		for _, f := range fds[1:] {
			if f.Revents == 0 {
				rest = append(rest, f)
			}
		}
		fds = rest
	}
	return nil
}

// open gives pidfds of all processes of the tree; the caller closes them.
func (t *Tree) open() (processes, error) {
	pids, err := t.Processes()
	if err != nil {
		return nil, err
	}
	var all processes
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			all.close()
			return nil, fmt.Errorf("hold process %d: %w", pid, err)
		}
		if !t.has(pid) { // the number was given to another process meanwhile
			unix.Close(fd)
			continue
		}
		all = append(all, process{pid, fd})
	}
	return all, nil
}

// Processes are the numbers of those that are there now.
func (t *Tree) Processes() ([]int, error) {
	// A descriptor of its own: the position of t.proc is shared.
	var dir *os.File
	err := control(t.proc, func(fd int) error {
		n, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			dir = os.NewFile(uintptr(n), "/proc")
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read /proc: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("read /proc: %w", err)
	}
	var pids []int
next:
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		for _, x := range t.except {
			if pid == x {
				continue next
			}
		}
		if t.has(pid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// has reports whether the process lives in the tree's namespace or in one below
// it. Processes that we may not look at are not ours.
func (t *Tree) has(pid int) bool {
	in := false
	_ = control(t.proc, func(proc int) error {
		fd, err := unix.Openat(proc, strconv.Itoa(pid)+"/ns/"+t.kind, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		in = t.below(fd) && alive(proc, pid)
		return nil
	})
	return in
}

// below owns fd, a namespace of the tree's kind.
func (t *Tree) below(fd int) bool {
	defer func() { unix.Close(fd) }()
	for range maxNesting + 1 {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil {
			return false
		}
		if st.Dev == t.dev && st.Ino == t.ino {
			return true
		}
		up, err := unix.IoctlRetInt(fd, nsGetParent)
		if err != nil { // EPERM: above what we may see; EINVAL: others are not nested
			return false
		}
		unix.Close(fd)
		fd = up
	}
	return false
}

// alive tells living processes from zombies, whose namespaces can still be
// seen for a moment.
func alive(proc, pid int) bool {
	fd, err := unix.Openat(proc, strconv.Itoa(pid)+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	buf := make([]byte, 512) // pid, name of 64 bytes at most, state: proc_pid_stat(5)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return false
	}
	switch State(buf[:n]) {
	case 'X':
		return false
	case 'Z': // its first thread has ended; others may go on
		fd, err := unix.Openat(proc, strconv.Itoa(pid)+"/task", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return false
		}
		task := os.NewFile(uintptr(fd), "task")
		defer task.Close()
		threads, err := task.Readdirnames(-1)
		return err == nil && len(threads) > 1
	}
	return true
}

// State is the state letter in the text of /proc/PID/stat, 'X' if there is
// none. The name before it may hold anything, parentheses too.
func State(stat []byte) byte {
	i := bytes.LastIndex(stat, []byte(") "))
	if i < 0 || i+2 >= len(stat) {
		return 'X'
	}
	return stat[i+2]
}

// Signal sends s to the processes that are there now, and says to how many.
func (t *Tree) Signal(s syscall.Signal) (int, error) {
	all, err := t.open()
	if err != nil {
		return 0, err
	}
	defer all.close()
	for _, p := range all {
		p.signal(s)
	}
	return len(all), nil
}
