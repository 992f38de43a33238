// Package confine takes from the agent, once all is open, what serving the
// session does not need: capabilities, system calls, and being looked into.
//
// The agent's command calls it. What it takes is taken from all threads and
// cannot be had back. It needs no privilege: giving up is free, and a filter of
// system calls may be set by whoever can gain no new privileges (seccomp(2)).
//
// Hazards. A filter holds for threads that come later as well, so nothing that
// a thread needs at its birth may be in it: the Go runtime makes threads with
// clone(2) and CLONE_THREAD, never with clone3(2).
package confine

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Undumpable makes the process's memory, descriptors and root nobody's but its
// own and root's, and keeps it out of core dumps: in the target's pod other
// programs run as the same user, and the memory holds the session's keys
// (PR_SET_DUMPABLE in prctl(2), ptrace access mode in ptrace(2)). A change of
// the user does the same, a new program undoes it.
func Undumpable() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("keep other programs out: %w", err)
	}
	return nil
}

// Capabilities drops all capabilities but those of keep that the process has
// (capabilities(7)), and gives what is left, a bit each.
func Capabilities(keep ...int) (left uint64, err error) {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&head, &caps[0]); err != nil {
		return 0, fmt.Errorf("read the capabilities: %w", err)
	}
	var mask [2]uint32
	for _, c := range keep {
		mask[c/32] |= 1 << (c % 32)
	}
	for i := range caps {
		caps[i].Permitted &= mask[i]
		// A change of the user has cleared them (PR_SET_KEEPCAPS).
		caps[i].Effective = caps[i].Permitted
		caps[i].Inheritable = 0 // and with it the ambient ones
		left |= uint64(caps[i].Permitted) << (32 * i)
	}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&caps[0])), 0)
	if errno != 0 {
		return 0, fmt.Errorf("drop capabilities: %w", errno)
	}
	return left, nil
}

// SystemCalls forbids what the agent never does (calls.go): such a call fails
// with EPERM. bpf(2) is among it unless withBPF.
func SystemCalls(withBPF bool) error {
	prog := program(withBPF)
	p := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	// The flag below gives the other threads this one's promise too.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("promise to gain no privileges: %w", err)
	}
	other, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&p)))
	runtime.KeepAlive(prog)
	switch {
	case errno != 0:
		return fmt.Errorf("filter system calls: %w", errno)
	case other != 0:
		return fmt.Errorf("filter system calls: thread %d has a filter of its own", other)
	}
	return nil
}
