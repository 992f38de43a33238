// Package statx gives the attributes of a file as they go over the wire: the
// target's at one end, the developer's own at the other.
package statx

import (
	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// At is statx(2) of name in the directory fd; of fd itself if name is "". A
// symbolic link is looked at itself, and to look mounts nothing (autofs), as with
// lstat(2).
func At(fd int, name string) (*protocol.Attr, error) {
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | unix.AT_STATX_SYNC_AS_STAT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	var x unix.Statx_t
	if err := unix.Statx(fd, name, flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME|unix.STATX_MNT_ID, &x); err != nil {
		return nil, err
	}
	a := &protocol.Attr{Ino: x.Ino, Size: x.Size, Blocks: x.Blocks,
		Dev: unix.Mkdev(x.Dev_major, x.Dev_minor), Rdev: unix.Mkdev(x.Rdev_major, x.Rdev_minor),
		Mode: uint32(x.Mode), Nlink: x.Nlink, UID: x.Uid, GID: x.Gid, Blksize: x.Blksize,
		Atime: nanos(x.Atime), Mtime: nanos(x.Mtime), Ctime: nanos(x.Ctime)}
	if x.Mask&unix.STATX_BTIME != 0 {
		a.Btime = nanos(x.Btime)
	}
	if x.Mask&unix.STATX_MNT_ID != 0 { // Linux 5.8
		a.Mount = x.Mnt_id
	}
	return a, nil
}

func nanos(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }
