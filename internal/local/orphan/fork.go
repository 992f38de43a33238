package orphan

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A program of ours as the process in between would cost its start, some
// milliseconds. So it is the child of a fork(2), which executes nothing, between
// the same words to the runtime as syscall.StartProcess says.

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// wordSize is the size in bytes of what is reported at a time: an errno, a process
// id, a pidfd, of 32 bits each.
const wordSize = 12

// birth is the work of the two processes, prepared: they may not allocate
// anything, nor call what is not as plain as themselves.
type birth struct {
	path, dir  *byte
	argv, envp []*byte // end with nil
	files      []int   // what becomes 0, 1, …; all are above
	report     int     // the writing end of a pipe; above files
	reports    bool    // there is one
	word       [3]int32
}

// fork makes the process in between and gives its id. That one shares our
// descriptors, so that the pidfd of its child, which the kernel makes, is ours.
//
//go:norace
//go:noinline
func (b *birth) fork() (int, syscall.Errno) {
	beforeFork()
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD)|unix.CLONE_FILES, 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		afterFork()
		runtime.KeepAlive(b)
		return int(pid), errno
	}
	afterForkInChild()
	// From here on, the process in between.
	pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD)|unix.CLONE_PIDFD, 0, uintptr(unsafe.Pointer(&b.word[2])), 0, 0, 0)
	if errno == 0 && pid == 0 {
		// From here on, the orphan, with descriptors of its own.
		_, _, errno = syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0)
		if errno == 0 {
			_, _, errno = syscall.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(b.dir)), 0, 0)
		}
		for i := 0; errno == 0 && i < len(b.files); i++ {
			_, _, errno = syscall.RawSyscall(unix.SYS_DUP3, uintptr(b.files[i]), uintptr(i), 0)
		}
		if errno == 0 {
			_, _, errno = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(b.path)),
				uintptr(unsafe.Pointer(&b.argv[0])), uintptr(unsafe.Pointer(&b.envp[0])))
		}
	}
	b.word[0], b.word[1] = int32(errno), int32(pid)
	_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, uintptr(b.report), uintptr(unsafe.Pointer(&b.word)), wordSize)
	for {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}
