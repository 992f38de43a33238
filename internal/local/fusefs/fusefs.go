// Package fusefs serves a Tree as a FUSE file system.
//
// The session gives it the descriptor that the sandbox's init opened and
// mounted. It turns the kernel's requests about inodes into questions about
// paths, and decides what the kernel may remember and for how long; whose a
// path is and how to get at it is the Tree's affair.
//
// It fails with the errno that the Tree gives, EIO where it gives none, and
// EINTR when the waiting process got a signal and the Tree heeds that.
//
// Hazards. When a lookup answers with another inode than before the kernel
// forgets the name and silently unmounts everything below it: what is mounted
// on must be Fixed in every answer. An inode whose owner is not mapped in the
// sandbox cannot be written, so the kernel is told of none: ids.Nobody stands for
// those, and where the sandbox has no ids but the caller's, he does for all.
package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/ids"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// Node is what there is at a path.
type Node struct {
	// Attr as far as it is known: without a type, in a listing, the name is
	// shown and nothing said about it. Ino, Data and HasData are not looked at;
	// UID and GID see Tree.Owner.
	Attr protocol.Attr
	// Key is the same for the same file and different for every other, also for
	// another symbolic link at the same place; it is the inode number that
	// programs see. All ones is reserved. A directory found at two paths is two,
	// or the kernel moves it from one to the other.
	Key uint64
	// Keep is how long the kernel may take the name for granted, KeepAttr how
	// long the attributes.
	Keep, KeepAttr time.Duration
	// Fixed says that nothing else will ever be there: a directory or file that
	// something is mounted on, or that leads there.
	Fixed bool
}

// Ever is long enough for Node.Keep.
const Ever = 1000 * time.Hour

// Entry is a name in a directory.
type Entry struct {
	Name string
	Node Node
}

// Change is what is to be changed of a file's attributes; nil stays as it is,
// and the zero time is now. If all is nil it is chown(2) to nobody (-1, -1), which
// changes the time of the last change.
type Change struct {
	Mode         *uint32
	Size         *uint64
	Atime, Mtime *time.Time
	UID, GID     *uint32 // as the sandbox numbers them
}

// add takes over what later changes.
func (c *Change) add(later Change) {
	now := time.Now()
	at := func(t *time.Time) *time.Time {
		if t.IsZero() {
			return &now
		}
		return t
	}
	if later.Mode != nil {
		c.Mode = later.Mode
	}
	if later.Atime != nil {
		c.Atime = at(later.Atime)
	}
	if later.Mtime != nil {
		c.Mtime = at(later.Mtime)
	}
}

// apply shows c's mode and times in a.
func (c *Change) apply(a *protocol.Attr) {
	if c.Mode != nil {
		a.Mode = a.Mode&syscall.S_IFMT | *c.Mode&0o7777
	}
	if c.Atime != nil {
		a.Atime = c.Atime.UnixNano()
	}
	if c.Mtime != nil {
		a.Mtime = c.Mtime.UnixNano()
	}
}

// Tree is the file system. Paths are absolute and clean. Errors wrap the errno
// for the program. Methods are called concurrently; the end of ctx means that
// the waiting process got a signal.
//
// ESTALE from a method makes the kernel look the path up again and repeat the
// operation; Setattr is repeated also where the program has no path but the file
// open.
type Tree interface {
	Lookup(ctx context.Context, path string) (Node, error)
	// Owner gives the owner and group of what has the key and the attributes, as
	// the sandbox numbers them, whether it has such ids or not.
	Owner(key uint64, a *protocol.Attr) (uid, gid uint32)
	// List gives the names in a directory without "." and "..".
	List(ctx context.Context, path string) ([]Entry, error)
	// Mixed reports whether a directory's listing may change without a sign in
	// its attributes.
	Mixed(path string) bool
	Readlink(ctx context.Context, path string, key uint64) (string, error)
	// Open opens the file that Lookup gave the key for.
	Open(ctx context.Context, path string, key uint64, flags uint32) (File, error)
	Create(ctx context.Context, path string, flags, mode uint32) (File, error)
	// Tmpfile makes and opens a file without a name in the file system of the
	// directory dir. flags are those of open(2).
	Tmpfile(ctx context.Context, dir string, flags, mode uint32) (Node, File, error)
	// Name gives a file of Tmpfile's the name path.
	Name(ctx context.Context, f File, path string) error
	Setattr(ctx context.Context, path string, key uint64, c Change) error
	// Xattr gives an extended attribute, Xattrs their names, each with a 0 behind
	// it.
	Xattr(ctx context.Context, path string, key uint64, name string) ([]byte, error)
	Xattrs(ctx context.Context, path string, key uint64) ([]byte, error)
	// SetXattr is setxattr(2) with its flags.
	SetXattr(ctx context.Context, path string, key uint64, name string, value []byte, flags uint32) error
	RemoveXattr(ctx context.Context, path string, key uint64, name string) error
	Mkdir(ctx context.Context, path string, mode uint32) error
	Mknod(ctx context.Context, path string, mode, rdev uint32) error
	Symlink(ctx context.Context, to, path string) error
	Link(ctx context.Context, old, path string) error
	Unlink(ctx context.Context, path string) error
	Rmdir(ctx context.Context, path string) error
	Rename(ctx context.Context, old, path string, flags uint32) error
	Access(ctx context.Context, path string, mask uint32) error
	Statfs(ctx context.Context, path string) (protocol.Fsinfo, error)
}

// File is an open file.
type File interface {
	// ReadAt reads up to len(p) bytes, fewer only at the end of the file.
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
	// WriteAt writes at off, or at the end if the file was opened to append. Pages
	// that a program has mapped are written in place, however it was opened.
	WriteAt(ctx context.Context, p []byte, off int64, inPlace bool) (int, error)
	// Truncate sets the file's length in bytes.
	Truncate(ctx context.Context, size int64) error
	// Setattr changes the attributes of a file that has no name any more; never
	// its size.
	Setattr(ctx context.Context, c Change) error
	// Allocate is fallocate(2), with its mode.
	Allocate(ctx context.Context, off, size uint64, mode uint32) error
	// Seek finds the next data or hole: whence is SEEK_DATA or SEEK_HOLE.
	Seek(ctx context.Context, off int64, whence uint32) (int64, error)
	// CopyFrom copies up to n bytes at off from another file of the same Tree and
	// gives how many; EXDEV: it cannot, and the kernel reads and writes.
	CopyFrom(ctx context.Context, from File, fromOff, off int64, n uint64) (int64, error)
	// Stat is fstat(2); keep is how long the kernel may take it for granted.
	Stat(ctx context.Context) (attr protocol.Attr, keep time.Duration, err error)
	Sync(ctx context.Context) error
	// Flush is close(2) of one of the descriptors of the open file, of which
	// there may be more: what could not be written is told at the latest here.
	Flush(ctx context.Context) error
	// Close ends the open file.
	Close() error
}

// Lender is a File that is also a descriptor of this machine: the kernel then
// reads it without a copy in between.
type Lender interface {
	// Fd is valid until Close.
	Fd() int
}

// Sizeless is a File whose size may say nothing of its content: files of procfs
// say 0.
type Sizeless interface {
	// Sizeless reports whether it is so for this one. Then the kernel, which reads
	// nothing behind the end that it knows of, must ask for each read.
	Sizeless() bool
}

const (
	// maxIO is the largest single read or write in bytes, the kernel's bound.
	maxIO = 1 << 20
	// background is how many reads ahead and the like the kernel may have under
	// way: each may take a round trip.
	background = 64
	// closeTime bounds the wait for the last user of the mount.
	closeTime = 3 * time.Second
)

// MaxRead is the size in bytes of the largest read request, for the mount's
// option max_read.
const MaxRead = maxIO

// Server serves one mount.
type Server struct {
	done chan struct{} // closed when the mount is gone
}

// Serve serves t on f, /dev/fuse already mounted, which it owns. Of owners it
// shows those that are known where f was opened. waited is told how long the kernel
// waited for each operation, by one of a few names. It returns when the kernel's
// greeting is answered; from then on the mount works.
func Serve(f *os.File, t Tree, known ids.Known, waited func(operation string, took time.Duration)) (*Server, error) {
	defer f.Close()
	// The library owns the number that it is given.
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("serve files: %w", err)
	}
	raw := fs.NewNodeFS(newRoot(t, known), &fs.Options{NullPermissions: true, RootStableAttr: &fs.StableAttr{Ino: rootKey}})
	srv, err := fuse.NewServer(timed{negative{raw}, waited}, fmt.Sprintf("/dev/fd/%d", fd), &fuse.MountOptions{
		MaxWrite: maxIO, MaxReadAhead: maxIO, MaxBackground: background,
		// With asynchronous reads nobody tells us that the reader was killed, and
		// he does not end before the answer (fuse_send_readpages, fs/fuse/file.c;
		// truncate_inode_pages_final waits for it). Who reads far ahead is the Tree.
		SyncRead: true,
		// A link is on the way to every program (/lib64). A Tree gives another
		// link another key.
		EnableSymlinkCaching: true,
		// Open with O_TRUNC in one call: what is emptied need not be copied.
		// Set-id bits and file capabilities are cleared by the kernel that has the
		// file; or each write would ask for the latter first.
		ExtraCapabilities: fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_HANDLE_KILLPRIV_V2,
		Logger:            log.New(io.Discard, "", 0),
	})
	if err != nil { // the library has closed it
		return nil, fmt.Errorf("serve files: %w", err)
	}
	s := &Server{done: make(chan struct{})}
	go func() { defer close(s.done); srv.Serve() }() // ends with the mount; Close waits for it
	return s, nil
}

// negative lets the kernel remember for a time of its own that there is nothing
// at a name, for which the answer must be an entry without an inode (struct
// fuse_entry_out, linux/fuse.h).
type negative struct{ fuse.RawFileSystem }

func (n negative) Lookup(cancel <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	status := n.RawFileSystem.Lookup(cancel, header, name, out)
	if status == fuse.ENOENT && out.EntryTimeout() > 0 {
		return fuse.OK
	}
	return status
}

// Close waits until the mount is gone, which it is when the last process of
// the sandbox has ended. It fails if that takes too long; the end of this
// process then aborts the mount.
func (s *Server) Close() error {
	select {
	case <-s.done:
		return nil
	case <-time.After(closeTime):
		return errors.New("the sandbox's files are still in use")
	}
}

// toErrno is what the program gets for err.
func toErrno(err error) syscall.Errno {
	var e syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e) && e != 0:
		return e
	case errors.Is(err, context.Canceled):
		return syscall.EINTR
	case errors.Is(err, context.DeadlineExceeded):
		return syscall.ETIMEDOUT
	}
	return syscall.EIO
}
