package files

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/statx"
)

// What changes a file or a directory sets its times, in steps: of a kernel's
// tick (1 to 10 ms), or of one or two seconds where the file system counts no
// less. Two changes within one step look like one. So what was read tells
// whether it is still right by its times only if these were older than a step
// when it was read.
const (
	// step is longer than the steps of all file systems that this kernel keeps.
	step = 2 * time.Second
	// foreign is that where another machine keeps the time, which may differ from
	// this one's.
	foreign = 10 * time.Minute
)

// disk is a kind of file system.
type disk int

const (
	diskOther disk = iota // of another machine, or unknown
	diskPlain             // this kernel keeps it, and its names and files wait for nobody
	diskNone              // no disk at all: what looks like files are questions to the kernel
)

// diskOf is what the open file fd is on.
func diskOf(fd int) disk {
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) != nil {
		return diskOther
	}
	const (
		zfs      = 0x2fc12fc1
		bcachefs = 0xca451a4e
		configfs = 0x62656570
		mqueue   = 0x19800202
		fusectl  = 0x65735543
	)
	switch uint32(fs.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.RAMFS_MAGIC,
		unix.OVERLAYFS_SUPER_MAGIC, unix.SQUASHFS_MAGIC, unix.EROFS_SUPER_MAGIC_V1, unix.ISOFS_SUPER_MAGIC, unix.MSDOS_SUPER_MAGIC, zfs, bcachefs:
		return diskPlain
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC,
		unix.DEVPTS_SUPER_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.AUTOFS_SUPER_MAGIC, unix.PSTOREFS_MAGIC, unix.EFIVARFS_MAGIC,
		unix.BINFMTFS_MAGIC, unix.SELINUX_MAGIC, unix.SMACK_MAGIC, unix.NSFS_MAGIC, configfs, mqueue, fusectl:
		return diskNone
	}
	return diskOther
}

// settled reports whether what was read of fd after it had the attributes a,
// which it had at the time now, changes its times when it changes.
func settled(fd int, a *protocol.Attr, now time.Time) bool {
	age := step
	if diskOf(fd) != diskPlain {
		age = foreign
	}
	return now.Sub(time.Unix(0, max(a.Ctime, a.Mtime))) > age
}

// clock is the time that this kernel gives files.
func clock() time.Time {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &t) != nil {
		return time.Time{} // nothing is settled then
	}
	return time.Unix(t.Unix())
}

// unchanged reports whether the names in the directory fd, which had the
// attributes before when its names were read, are the same ever since, and may
// be looked up.
func unchanged(fd int, before *protocol.Attr) bool {
	if _, err := statx.At(fd, "."); err != nil { // no permission to search it
		return false
	}
	now := clock()
	a, err := statx.At(fd, "")
	return err == nil && a.Ino == before.Ino && a.Dev == before.Dev && a.Ctime == before.Ctime && a.Mtime == before.Mtime && settled(fd, a, now)
}
