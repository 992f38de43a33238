// Package orphan starts a program that is nobody's child.
//
// Editors end what they debug by killing its whole tree, which they find by the
// parents of processes. What must outlive that, to clean up, may have no parent
// in it: a process in between starts the program and ends at once, so that the
// kernel makes it a child of the nearest process that adopts orphans
// (PR_SET_CHILD_SUBREAPER, prctl(2)), or of process 1.
//
// Nobody here can wait for such a process: what it has to say goes through its
// descriptors. Where process 1 waits for no children, as in some containers, a
// zombie stays of it.
package orphan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Program is what to start.
type Program struct {
	Path string // absolute
	Argv []string
	Env  []string
	Dir  string // absolute
	// Files are its descriptors, from 0 on; nil is /dev/null. It has no others but
	// those that pass execve(2) here, too. They stay the caller's.
	Files []*os.File
}

// Process is a program that was started. Its methods may be called concurrently.
type Process struct {
	pid   int
	mu    sync.Mutex // guards pidfd
	pidfd int        // -1 after Close
}

// Start starts a program in a session (setsid(2)) of its own, and returns when it
// has been executed and is nobody's child: this process does not adopt orphans any
// more, if whoever it was before its execve(2) did. The caller closes what it gives.
func Start(p Program) (*Process, error) {
	// Go has raised the limit of open files for this process, and gives programs
	// the caller's by its own ways only (syscall.Exec). One that fails does so too.
	_ = syscall.Exec("", nil, nil)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("adopt no orphans: %w", err)
	}
	var b birth
	defer b.close()
	report, err := b.prepare(p)
	if err != nil {
		return nil, err
	}
	defer report.Close()
	if err := b.run(); err != nil {
		return nil, err
	}
	return read(report)
}

// Find gives a process that runs already; one that has ended, or is not seen from
// here, is not there to be killed. The caller closes it.
func Find(pid int) *Process {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		fd = -1
	}
	return &Process{pid: pid, pidfd: fd}
}

// read reads what the two processes have reported, until the second one is the
// program.
func read(report *os.File) (*Process, error) {
	p := &Process{pidfd: -1}
	var failed error
	for {
		var w [wordSize]byte
		if _, err := io.ReadFull(report, w[:]); err == io.EOF {
			break
		} else if err != nil {
			failed = err
			break
		}
		if pid := word(w[4:]); pid > 0 {
			p.pid, p.pidfd = pid, word(w[8:])
		}
		if errno := word(w[0:]); errno != 0 {
			failed = syscall.Errno(errno)
		}
	}
	if failed == nil && p.pid == 0 {
		failed = errors.New("killed at once")
	}
	if failed != nil {
		p.Close()
		return nil, fmt.Errorf("start a process: %w", failed)
	}
	return p, nil
}

func word(b []byte) int { return int(int32(binary.NativeEndian.Uint32(b))) }

// prepare makes all that the fork needs. It gives the reading end of the pipe for
// what is reported.
func (b *birth) prepare(p Program) (report *os.File, err error) {
	if b.path, err = syscall.BytePtrFromString(p.Path); err != nil {
		return nil, err
	}
	if b.dir, err = syscall.BytePtrFromString(p.Dir); err != nil {
		return nil, err
	}
	if b.argv, err = syscall.SlicePtrFromStrings(p.Argv); err != nil {
		return nil, err
	}
	if b.envp, err = syscall.SlicePtrFromStrings(p.Env); err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	for _, f := range p.Files {
		if f == nil {
			f = null
		}
		fd, err := above(f, len(p.Files))
		if err != nil {
			return nil, err
		}
		b.files = append(b.files, fd)
	}
	report, end, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer end.Close()
	if b.report, err = above(end, len(p.Files)); err != nil {
		report.Close()
		return nil, err
	}
	b.reports = true
	return report, nil
}

// above duplicates a descriptor to a number of at least n, where it is in the way
// of none of those that the program gets. It is made a blocking one, as programs
// expect.
func above(f *os.File, n int) (int, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, n)
	runtime.KeepAlive(f)
	return fd, err
}

// close closes the descriptors that were made for the fork.
func (b *birth) close() {
	for _, fd := range b.files {
		unix.Close(fd)
	}
	if b.reports {
		unix.Close(b.report)
	}
	b.files, b.reports = nil, false
}

// run forks and waits for the end of the process in between. From then on nobody
// but the orphan, until it has executed its program, can write to the pipe.
func (b *birth) run() error {
	defer b.close()
	// Until then, since it shares our descriptors: those that others are just making
	// close-on-exec would pass.
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	pid, errno := b.fork()
	if errno != 0 {
		return fmt.Errorf("fork: %w", errno)
	}
	for {
		// Where SIGCHLD is ignored the kernel waits as well, and says ECHILD.
		if _, err := unix.Wait4(pid, nil, 0, nil); !errors.Is(err, unix.EINTR) {
			return nil
		}
	}
}

// PID is its process id, for people: another process may have it by now.
func (p *Process) PID() int { return p.pid }

// Kill ends it at once, if it has not ended.
func (p *Process) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0)
}

// Close forgets the process, which goes on.
func (p *Process) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd >= 0 {
		unix.Close(p.pidfd)
		p.pidfd = -1
	}
}
