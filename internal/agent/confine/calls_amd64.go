package confine

import "golang.org/x/sys/unix"

const (
	arch = unix.AUDIT_ARCH_X86_64
	// firstForeign is the first number of the x32 calls, which have the same
	// architecture (__X32_SYSCALL_BIT in asm/unistd.h).
	firstForeign = 0x40000000
)

var legacy = []uint32{unix.SYS_FORK, unix.SYS_VFORK, unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_MODIFY_LDT, unix.SYS_USELIB}
