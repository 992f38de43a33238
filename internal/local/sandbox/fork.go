package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A process enters a user namespace only while it has a single thread
// (setns(2)), which no Go program ever has, but the child of a fork(2) before
// its execve(2). Package syscall has no place for it there, so this is a fork of
// our own, between the same words to the runtime as syscall.StartProcess says.

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// capState is the data of capset(2), version 3.
type capState [2]unix.CapUserData

// entering is the child's work, prepared: it may not allocate anything, nor call
// what is not as plain as itself.
type entering struct {
	door   int     // a pidfd of a process that is inside
	spaces uintptr // which of its namespaces
	caps   []uintptr
	head   unix.CapUserHeader
	state  capState
	keep   []int // descriptors that pass execve
	exe    int
	argv   []*byte // ends with nil
	envp   []*byte // the same
	parent uintptr // our process id
	report int     // the writing end of a pipe: the errno of what failed
}

// start forks a child of this very thread, whose end the child does not survive,
// and returns when it has executed exe. The pidfd is the caller's.
func (e *entering) start() (pid, pidfd int, err error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return 0, -1, err
	}
	defer unix.Close(pipe[0])
	e.report, e.parent = pipe[1], uintptr(os.Getpid())
	fd := int32(-1) // of 32 bits: the kernel writes no more
	pid, errno := e.fork(&fd)
	runtime.KeepAlive(e)
	unix.Close(pipe[1])
	if errno != 0 {
		return 0, -1, fmt.Errorf("fork: %w", errno)
	}
	var word [4]byte
	n, err := 0, error(unix.EINTR)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(pipe[0], word[:])
	}
	if err == nil && n == 0 {
		return pid, int(fd), nil
	}
	if err == nil {
		err = syscall.Errno(binary.NativeEndian.Uint32(word[:]))
	}
	_, _ = unix.Wait4(pid, nil, 0, nil)
	unix.Close(int(fd))
	return 0, -1, err
}

// fork makes the child. The memory is not shared: what the kernel notes of the
// child's rights (commit_creds, set_dumpable) must not reach this process.
//
//go:norace
//go:noinline
func (e *entering) fork(pidfd *int32) (int, syscall.Errno) {
	syscall.ForkLock.Lock()
	beforeFork()
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD)|unix.CLONE_PIDFD, 0, uintptr(unsafe.Pointer(pidfd)), 0, 0, 0)
	if errno != 0 || pid != 0 {
		afterFork()
		syscall.ForkLock.Unlock()
		return int(pid), errno
	}
	afterForkInChild()
	// From here on, the child.
	_, _, errno = syscall.RawSyscall(unix.SYS_SETNS, uintptr(e.door), e.spaces, 0)
	if errno == 0 && len(e.caps) > 0 {
		// Entering has given it all capabilities there; what is to pass execve must be
		// inheritable and ambient (capabilities(7)).
		_, _, errno = syscall.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&e.head)), uintptr(unsafe.Pointer(&e.state)), 0)
		for i := 0; errno == 0 && i < len(e.caps); i++ {
			_, _, errno = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, e.caps[i], 0, 0, 0)
		}
	}
	if errno == 0 { // after the last change of rights, which would clear it
		_, _, errno = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0)
	}
	if ppid, _, _ := syscall.RawSyscall(unix.SYS_GETPPID, 0, 0, 0); ppid != e.parent {
		errno = unix.ESRCH // it has ended before that
	}
	for i := 0; errno == 0 && i < len(e.keep); i++ {
		_, _, errno = syscall.RawSyscall(unix.SYS_FCNTL, uintptr(e.keep[i]), unix.F_SETFD, 0)
	}
	if errno == 0 {
		empty := [1]byte{}
		_, _, errno = syscall.RawSyscall6(unix.SYS_EXECVEAT, uintptr(e.exe), uintptr(unsafe.Pointer(&empty)),
			uintptr(unsafe.Pointer(&e.argv[0])), uintptr(unsafe.Pointer(&e.envp[0])), unix.AT_EMPTY_PATH, 0)
	}
	word := uint32(errno)
	_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, uintptr(e.report), uintptr(unsafe.Pointer(&word)), 4)
	for {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 253, 0, 0)
	}
}
