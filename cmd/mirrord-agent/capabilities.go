package main

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/agent/target"
)

// dropCapabilities gives up, for good and on all threads, what was needed only
// to get at the target (capabilities(7)). What stays is for traffic, and, where
// the target is root itself, for doing with files what it may do.
func dropCapabilities(t *target.Target) error {
	keep := []int{unix.CAP_NET_RAW, unix.CAP_NET_ADMIN, unix.CAP_BPF}
	if t.UID == 0 {
		has := func(c int) bool { return t.Caps&(1<<c) != 0 }
		if has(unix.CAP_DAC_READ_SEARCH) || has(unix.CAP_DAC_OVERRIDE) { // the second allows more
			keep = append(keep, unix.CAP_DAC_READ_SEARCH)
		}
		for _, c := range []int{unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER} {
			if has(c) {
				keep = append(keep, c)
			}
		}
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&head, &caps[0]); err != nil {
		return fmt.Errorf("read the capabilities: %w", err)
	}
	var mask [2]uint32
	for _, c := range keep {
		mask[c/32] |= 1 << (c % 32)
	}
	for i := range caps {
		caps[i].Permitted &= mask[i]
		caps[i].Effective &= mask[i]
		caps[i].Inheritable = 0
	}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&caps[0])), 0)
	if errno != 0 {
		return fmt.Errorf("drop capabilities: %w", errno)
	}
	return nil
}
