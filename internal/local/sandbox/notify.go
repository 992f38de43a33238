package sandbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Kernel interface of seccomp user notification that x/sys does not have
// (linux/seccomp.h).
type (
	seccompData struct {
		NR   int32
		Arch uint32
		IP   uint64
		Args [6]uint64
	}
	// call is a system call that waits for an answer: struct seccomp_notif.
	call struct {
		ID    uint64
		Tid   uint32 // the calling thread, in our PID namespace
		Flags uint32
		Data  seccompData
	}
	response struct {
		ID    uint64
		Val   int64
		Error int32
		Flags uint32
	}
)

const (
	ioctlRecv     = 0xc0502100 // SECCOMP_IOCTL_NOTIF_RECV
	ioctlSend     = 0xc0182101 // SECCOMP_IOCTL_NOTIF_SEND
	ioctlIDValid  = 0x40082102 // SECCOMP_IOCTL_NOTIF_ID_VALID
	ioctlSetFlags = 0x40082104 // SECCOMP_IOCTL_NOTIF_SET_FLAGS, Linux 6.6

	flagContinue   = 1 // SECCOMP_USER_NOTIF_FLAG_CONTINUE
	flagSyncWakeUp = 1 // SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP

	sysIOUringSetup = 425
	pidfdThread     = unix.O_EXCL // PIDFD_THREAD, Linux 6.9
	siocgskns       = 0x894c      // SIOCGSKNS: the network namespace of a socket
	maxSockaddr     = 128         // sizeof(struct sockaddr_storage)
)

// answer is what becomes of a call.
type answer struct {
	pass  bool // the kernel runs it
	errno syscall.Errno
}

// notifier is the seccomp listener.
type notifier struct {
	f  *os.File
	rc syscall.RawConn
}

func newNotifier(f *os.File) (*notifier, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	n := &notifier{f, rc}
	// Caller and supervisor never run at once: let them share a CPU's cache.
	// Best effort, a kernel before 6.6 does not know it.
	_ = rc.Control(func(fd uintptr) { _, _, _ = unix.Syscall(unix.SYS_IOCTL, fd, ioctlSetFlags, flagSyncWakeUp) })
	return n, nil
}

// next waits for a call. nil: the last process with the filter has ended.
func (n *notifier) next() (*call, error) {
	for {
		var c *call
		var errno unix.Errno
		gone := false
		err := n.rc.Read(func(fd uintptr) bool {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if k, err := unix.Poll(p, 0); k == 0 || err != nil {
				return false
			}
			if p[0].Revents&unix.POLLIN == 0 {
				gone = p[0].Revents&unix.POLLHUP != 0
				return gone
			}
			// Never blocks: this is the only reader, and a call that is
			// withdrawn meanwhile (ENOENT) leaves its count behind.
			c = new(call) // the kernel insists on zeroes
			_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, ioctlRecv, uintptr(unsafe.Pointer(c)))
			return true
		})
		switch {
		case err != nil:
			return nil, err
		case gone:
			return nil, nil
		case errno == unix.EINTR || errno == unix.ENOENT:
			continue
		case errno != 0:
			return nil, fmt.Errorf("receive system call: %w", errno)
		}
		return c, nil
	}
}

// answer lets the caller go on. That it is dead, or we are closing, is no
// error to anybody.
func (n *notifier) answer(c *call, a answer) {
	r := response{ID: c.ID, Error: -int32(a.errno)}
	if a.pass {
		r.Flags, r.Error = flagContinue, 0
	}
	_ = n.rc.Control(func(fd uintptr) {
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, fd, ioctlSend, uintptr(unsafe.Pointer(&r)))
	})
}

// waiting tells whether the caller still waits. Asked after looking at its
// memory or descriptors, it proves that its id was not given to another.
func (n *notifier) waiting(c *call) bool {
	var errno unix.Errno
	err := n.rc.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, ioctlIDValid, uintptr(unsafe.Pointer(&c.ID)))
	})
	return err == nil && errno == 0
}

// foreign tells whether the caller used other call numbers than ours, 32-bit
// ones or those of x32.
func (c *call) foreign() bool {
	arch := uint32(unix.AUDIT_ARCH_X86_64)
	if runtime.GOARCH == "arm64" {
		arch = unix.AUDIT_ARCH_AARCH64
	}
	return c.Data.Arch != arch || c.Data.NR >= 0x40000000
}

// socket duplicates the descriptor that is the call's first argument.
func (c *call) socket(pid int) (int, error) {
	pidfd, err := unix.PidfdOpen(int(c.Tid), pidfdThread)
	if errors.Is(err, unix.EINVAL) { // an older kernel takes processes only
		pidfd, err = unix.PidfdOpen(pid, 0)
	}
	if err != nil {
		return -1, err
	}
	defer unix.Close(pidfd)
	return unix.PidfdGetfd(pidfd, int(int32(c.Data.Args[0])), 0)
}

// pid is the process of the calling thread, 0 if it is gone.
func (c *call) pid() int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Tid))
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(b, []byte("\nTgid:"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	pid, _ := strconv.Atoi(string(bytes.TrimSpace(line)))
	return pid
}

// sockaddr copies the address argument of bind(2) from the caller's memory.
func (c *call) sockaddr() ([]byte, error) {
	n := int(uint32(c.Data.Args[2]))
	if n < 2 || n > maxSockaddr {
		return nil, unix.EINVAL
	}
	b := make([]byte, n)
	got, err := unix.ProcessVMReadv(int(c.Tid), []unix.Iovec{{Base: &b[0], Len: uint64(n)}},
		[]unix.RemoteIovec{{Base: uintptr(c.Data.Args[1]), Len: n}}, 0)
	if err != nil {
		return nil, err
	}
	if got != n {
		return nil, unix.EFAULT
	}
	return b, nil
}

// inetPort reads family and port of a socket address; ok is false for other
// families than IPv4 and IPv6.
func inetPort(addr []byte) (port uint16, ok bool) {
	if len(addr) < 4 {
		return 0, false
	}
	family := binary.NativeEndian.Uint16(addr)
	return binary.BigEndian.Uint16(addr[2:]), family == unix.AF_INET || family == unix.AF_INET6
}

// bind is bind(2) with the bytes of an address as they are.
func bind(fd int, addr []byte) error {
	if _, _, e := unix.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&addr[0])), uintptr(len(addr))); e != 0 {
		return e
	}
	return nil
}

// netID identifies a network namespace.
type netID struct{ dev, ino uint64 }

// netOf is the network namespace of a socket.
func netOf(fd int) (netID, error) {
	ns, err := unix.IoctlRetInt(fd, siocgskns)
	if err != nil {
		return netID{}, err
	}
	defer unix.Close(ns)
	var st unix.Stat_t
	err = unix.Fstat(ns, &st)
	return netID{st.Dev, st.Ino}, err
}
