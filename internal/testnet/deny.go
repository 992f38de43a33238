package testnet

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// denials are calls with the errno that they end with.
var denials = map[string]map[uintptr]syscall.Errno{
	// clone(2) is denied by its flags, clone3(2), whose flags no filter sees, as a
	// whole: callers fall back.
	"user namespaces": {unix.SYS_CLONE3: unix.ENOSYS},
	// What the default profile of Docker (moby, profiles/seccomp/default.json)
	// forbids to a container without capabilities, of what is used here.
	"docker": {unix.SYS_CLONE3: unix.ENOSYS, unix.SYS_UNSHARE: unix.EPERM, unix.SYS_SETNS: unix.EPERM, unix.SYS_MOUNT: unix.EPERM, unix.SYS_UMOUNT2: unix.EPERM,
		unix.SYS_OPEN_TREE: unix.EPERM, unix.SYS_MOVE_MOUNT: unix.EPERM, unix.SYS_PIVOT_ROOT: unix.EPERM, unix.SYS_SETHOSTNAME: unix.EPERM, unix.SYS_PIDFD_GETFD: unix.EPERM},
	// The same with --cap-add=SYS_ADMIN.
	"docker with SYS_ADMIN": {unix.SYS_PIVOT_ROOT: unix.EPERM, unix.SYS_PIDFD_GETFD: unix.EPERM},
	"notification":          {},
	"pidfd_getfd":           {unix.SYS_PIDFD_GETFD: unix.ENOSYS},
	"open_tree":             {unix.SYS_OPEN_TREE: unix.ENOSYS},
	"nftables":              {},
	"packet sockets":        {},
}

// deniedFlags are those of clone(2) that are denied.
var deniedFlags = map[string]uint32{"user namespaces": unix.CLONE_NEWUSER, "docker": 0x7e020000}

// Deny forbids this process and all that it starts something by a seccomp
// filter, as a container's profile or an old kernel does, and becomes argv by
// execve(2). It returns only with an error. What can be denied: "user
// namespaces", "docker" (all that the default profile of Docker forbids of what
// a sandbox uses), "docker with SYS_ADMIN", "notification" (of seccomp), "pidfd_getfd",
// "open_tree", "nftables", "packet sockets".
func Deny(what, path string, argv, env []string) error {
	calls, ok := denials[what]
	if !ok {
		return fmt.Errorf("nothing to deny: %q", what)
	}
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jeq   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		jset  = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		ret   = unix.BPF_RET | unix.BPF_K
		errno = 0x00050000 // SECCOMP_RET_ERRNO
		allow = 0x7fff0000
		flags = 16 // offset of the first argument
	)
	prog := []unix.SockFilter{{Code: load}}
	for nr, e := range calls {
		prog = append(prog, unix.SockFilter{Code: jeq, K: uint32(nr), Jf: 1}, unix.SockFilter{Code: ret, K: errno | uint32(e)})
	}
	if mask := deniedFlags[what]; mask != 0 {
		prog = append(prog, unix.SockFilter{Code: jeq, K: unix.SYS_CLONE, Jf: 3}, unix.SockFilter{Code: load, K: flags},
			unix.SockFilter{Code: jset, K: mask, Jf: 1}, unix.SockFilter{Code: ret, K: errno | uint32(unix.EPERM)})
	}
	if what == "nftables" { // socket(AF_NETLINK, …, NETLINK_NETFILTER)
		prog = append(prog, unix.SockFilter{Code: load}, unix.SockFilter{Code: jeq, K: unix.SYS_SOCKET, Jf: 5}, unix.SockFilter{Code: load, K: flags},
			unix.SockFilter{Code: jeq, K: unix.AF_NETLINK, Jf: 3}, unix.SockFilter{Code: load, K: flags + 16},
			unix.SockFilter{Code: jeq, K: unix.NETLINK_NETFILTER, Jf: 1}, unix.SockFilter{Code: ret, K: errno | uint32(unix.EPROTONOSUPPORT)})
	}
	if what == "packet sockets" { // socket(AF_PACKET, …), as a kernel without CONFIG_PACKET
		prog = append(prog, unix.SockFilter{Code: load}, unix.SockFilter{Code: jeq, K: unix.SYS_SOCKET, Jf: 3}, unix.SockFilter{Code: load, K: flags},
			unix.SockFilter{Code: jeq, K: unix.AF_PACKET, Jf: 1}, unix.SockFilter{Code: ret, K: errno | uint32(unix.EAFNOSUPPORT)})
	}
	if what == "notification" { // seccomp(…, SECCOMP_FILTER_FLAG_NEW_LISTENER, …), as before Linux 5.0
		const newListener = 1 << 3
		prog = append(prog, unix.SockFilter{Code: load}, unix.SockFilter{Code: jeq, K: unix.SYS_SECCOMP, Jf: 3}, unix.SockFilter{Code: load, K: flags + 8},
			unix.SockFilter{Code: jset, K: newListener, Jf: 1}, unix.SockFilter{Code: ret, K: errno | uint32(unix.EINVAL)})
	}
	prog = append(prog, unix.SockFilter{Code: ret, K: allow})
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	runtime.LockOSThread()
	const setModeFilter = 1
	install := func() unix.Errno {
		_, _, e := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, 0, uintptr(unsafe.Pointer(&fprog)))
		return e
	}
	e := install()
	if e == unix.EACCES { // without CAP_SYS_ADMIN; as in a container of that option
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
		e = install()
	}
	if e != 0 {
		return fmt.Errorf("install seccomp filter: %w", e)
	}
	runtime.KeepAlive(prog)
	return syscall.Exec(path, argv, env)
}
