package confine

import "golang.org/x/sys/unix"

const (
	arch = unix.AUDIT_ARCH_AARCH64
	// firstForeign is above all numbers: no other calls have this architecture.
	firstForeign = 1<<32 - 1
)

var legacy = []uint32{} // all of its calls are in never
