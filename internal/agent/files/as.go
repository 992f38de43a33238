package files

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/agent/threadpool"
)

// threads is how many requests reach the disk at once: enough to keep a disk
// busy, few enough to cost no memory. A request that the target's storage holds
// up for ever (a dead NFS server) takes one of them.
const threads = 8

// become gives the calling thread the ids and the umask. The calls are made raw: the
// functions of package syscall change all threads of the process.
func (as As) become() error {
	if err := threadpool.TakeGroups(as.Groups, as.UID); err != nil {
		return err
	}
	// The umask is one of the things that threads share until they part. Where
	// that is forbidden (a container's seccomp profile, for a process without
	// privileges) all of them get it: an agent makes no other files.
	_, _, _ = unix.RawSyscall(unix.SYS_UNSHARE, unix.CLONE_FS, 0, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_UMASK, uintptr(as.Umask&0o777), 0, 0) // cannot fail
	if err := set("gid", unix.SYS_SETFSGID, as.GID); err != nil {
		return err
	}
	// The last one: a user id other than 0 takes the capabilities for files
	// away from the thread (capabilities(7)), which is what we want.
	return set("uid", unix.SYS_SETFSUID, as.UID)
}

// set is setfsuid(2) or setfsgid(2), which report the previous id and never an
// error: asked with an impossible id they say what it is now.
func set(what string, trap uintptr, id uint32) error {
	_, _, _ = unix.RawSyscall(trap, uintptr(id), 0, 0)
	now, _, _ := unix.RawSyscall(trap, ^uintptr(0), 0, 0)
	if uint32(now) != id {
		return fmt.Errorf("use files as %s %d: %w", what, id, unix.EPERM)
	}
	return nil
}
