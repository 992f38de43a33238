package files

import (
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lockedAs makes the calling thread, which ends with its goroutine, an ordinary
// user's.
func lockedAs(t *testing.T, uid uintptr) {
	runtime.LockOSThread()
	for _, call := range [][2]uintptr{{unix.SYS_SETRESGID, uid}, {unix.SYS_SETRESUID, uid}} {
		if _, _, errno := unix.RawSyscall(call[0], call[1], call[1], call[1]); errno != 0 {
			t.Error(errno)
		}
	}
}

func addressOf(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// unmapped takes pages away that Munmap would give back with the rest.
func unmapped(t *testing.T, b []byte) {
	if _, _, errno := unix.RawSyscall(unix.SYS_MUNMAP, addressOf(b), uintptr(len(b)), 0); errno != 0 {
		t.Fatal(errno)
	}
}
