package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/fusefs"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/pwrite"
	"github.com/mirrord-go/mirrord/internal/statx"
)

// localFile is an open file of the developer's.
type localFile struct {
	f      *os.File
	writes pwrite.Order
}

// openLocal opens p as the supervisor, who is the developer.
func openLocal(p string, flags int, mode uint32) (*localFile, error) {
	fd, err := unix.Open(p, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, mode)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: p, Err: err}
	}
	return &localFile{f: os.NewFile(uintptr(fd), p)}, nil
}

// openKnown opens the file with key k at p.
func openKnown(p string, flags int, k uint64) (*localFile, error) {
	l, err := openLocal(p, flags, 0)
	if err != nil {
		return nil, err
	}
	a, _, err := l.Stat(context.Background())
	if err == nil && attrKey(sideLocal, p, &a) != k {
		err = syscall.ESTALE // replaced since the lookup: the kernel's pages are of the other one
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Fd implements fusefs.Lender.
func (l *localFile) Fd() int { return int(l.f.Fd()) }

func (l *localFile) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	n, err := l.f.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// WriteAt goes where the kernel says; to the end of the file, wherever that is
// by now, if the program opened it to append (pwrite(2), BUGS).
func (l *localFile) WriteAt(_ context.Context, p []byte, off int64, inPlace bool) (int, error) {
	return l.writes.Write(l.Fd(), p, off, inPlace)
}

func (l *localFile) Truncate(_ context.Context, size int64) error { return l.f.Truncate(size) }

func (l *localFile) Setattr(_ context.Context, c fusefs.Change) error {
	if c.UID != nil || c.GID != nil || c == (fusefs.Change{}) {
		if err := l.f.Chown(orNone(c.UID), orNone(c.GID)); err != nil {
			return err
		}
	}
	if c.Mode != nil {
		if err := unix.Fchmod(l.Fd(), *c.Mode&0o7777); err != nil {
			return err
		}
	}
	if c.Atime == nil && c.Mtime == nil {
		return nil
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", l.Fd()), []unix.Timespec{timespec(c.Atime), timespec(c.Mtime)}, 0)
}

func (l *localFile) Allocate(_ context.Context, off, size uint64, mode uint32) error {
	return unix.Fallocate(l.Fd(), mode, int64(off), int64(size))
}

func (l *localFile) Seek(_ context.Context, off int64, whence uint32) (int64, error) {
	return unix.Seek(l.Fd(), off, int(whence))
}

func (l *localFile) CopyFrom(_ context.Context, from fusefs.File, fromOff, off int64, n uint64) (int64, error) {
	src, ok := from.(*localFile)
	if !ok {
		return 0, syscall.EXDEV
	}
	done, err := unix.CopyFileRange(src.Fd(), &fromOff, l.Fd(), &off, int(n), 0)
	return int64(max(done, 0)), err
}

func (l *localFile) Stat(context.Context) (protocol.Attr, time.Duration, error) {
	a, err := statx.At(l.Fd(), "")
	if err != nil {
		return protocol.Attr{}, 0, err
	}
	return *a, 0, nil
}

func (l *localFile) Sync(context.Context) error  { return l.f.Sync() }
func (l *localFile) Flush(context.Context) error { return nil } // written already
func (l *localFile) Close() error                { return l.f.Close() }

// madeFile is a file of the session's own.
type madeFile struct {
	attr    protocol.Attr
	content []byte
}

func (m *madeFile) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	if off >= int64(len(m.content)) {
		return 0, nil
	}
	return copy(p, m.content[off:]), nil
}

func (m *madeFile) WriteAt(context.Context, []byte, int64, bool) (int, error) {
	return 0, syscall.EROFS
}
func (m *madeFile) Truncate(context.Context, int64) error                  { return syscall.EROFS }
func (m *madeFile) Setattr(context.Context, fusefs.Change) error           { return syscall.EROFS }
func (m *madeFile) Allocate(context.Context, uint64, uint64, uint32) error { return syscall.EROFS }
func (m *madeFile) Sync(context.Context) error                             { return nil }
func (m *madeFile) Flush(context.Context) error                            { return nil }
func (m *madeFile) Close() error                                           { return nil }

func (m *madeFile) CopyFrom(context.Context, fusefs.File, int64, int64, uint64) (int64, error) {
	return 0, syscall.EROFS
}

// Seek finds data everywhere.
func (m *madeFile) Seek(_ context.Context, off int64, whence uint32) (int64, error) {
	switch size := int64(len(m.content)); {
	case off >= size:
		return 0, syscall.ENXIO
	case whence == unix.SEEK_HOLE:
		return size, nil
	}
	return off, nil
}

func (m *madeFile) Stat(context.Context) (protocol.Attr, time.Duration, error) {
	return m.attr, DefaultLife, nil
}
