package files

import (
	"context"
	"fmt"
	"math"
	"path"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/statx"
)

// changesAhead is how many bytes of changes may come of a file that was just opened
// to be changed: 200 Mbit/s at a round trip of 40 ms. With more of them it grows.
const changesAhead = 1 << 20

// opens answers m. What follows it on stream are changes of the file: who opens
// it to write can send them at once, with the stream's window there already.
func (s *Server) opens(ctx context.Context, stream *link.Stream, m *protocol.Open) {
	if m.Flags&unix.O_ACCMODE != unix.O_RDONLY {
		stream.Expect(changesAhead)
	}
	if err := s.sendOpened(ctx, stream, m); err != nil {
		_ = stream.Send(&protocol.Answer{Errno: errnoOf(err)})
		return
	}
	if next, err := stream.Receive(); err == nil {
		s.changes(ctx, stream, next)
	}
}

func (s *Server) sendOpened(ctx context.Context, stream *link.Stream, m *protocol.Open) error {
	leave, err := s.room(ctx, m)
	if err != nil {
		return err
	}
	defer leave()
	reply, err := do(ctx, s, func() (*protocol.Opened, error) { return s.open(m) })
	if err == nil {
		_ = stream.Send(reply) // if it fails, so does what follows
	}
	return err
}

// changes does m and what follows it on stream, one after the other, and
// answers each. After one that failed nothing is done any more: a program that
// had waited for each would have stopped there.
func (s *Server) changes(ctx context.Context, stream *link.Stream, m protocol.Message) {
	var failed error
	for {
		if failed == nil {
			failed = s.change(ctx, m)
		}
		a := &protocol.Answer{}
		if failed != nil {
			a.Errno = errnoOf(failed)
		}
		if stream.Send(a) != nil {
			return
		}
		var err error
		if m, err = stream.Receive(); err != nil {
			return
		}
	}
}

// change does one of the requests on a handle.
func (s *Server) change(ctx context.Context, m protocol.Message) error {
	var number uint64
	var h *handle
	var f func(fd int) error
	switch m := m.(type) {
	case *protocol.WriteAt:
		number, f = m.Handle, func(fd int) error {
			if m.Off < 0 || len(m.Data) > protocol.MaxData {
				return syscall.EINVAL
			}
			_, err := h.writes.Write(fd, m.Data, m.Off, m.InPlace)
			return err
		}
	case *protocol.Resize:
		number, f = m.Handle, func(fd int) error {
			if m.Size > math.MaxInt64 {
				return syscall.EINVAL
			}
			return unix.Ftruncate(fd, int64(m.Size))
		}
	case *protocol.SyncHandle:
		number, f = m.Handle, unix.Fsync
	case *protocol.Allocate:
		number, f = m.Handle, func(fd int) error { return allocate(fd, m) }
	default:
		return fmt.Errorf("%T among changes of a file: %w", m, syscall.EPROTO)
	}
	var err error
	if h, err = s.use(number); err != nil {
		return err
	}
	defer h.busy.Done()
	_, err = do(ctx, s, func() (struct{}, error) { return struct{}{}, f(int(h.f.Fd())) })
	return err
}

// parent finds the directory that the name p is in.
func (s *Server) parent(p string) (dir int, name string, err error) {
	p, err = clean(p)
	switch {
	case err != nil:
		return -1, "", err
	case p == "/":
		return -1, "", syscall.EBUSY
	}
	dir, err = s.at(path.Dir(p), unix.O_DIRECTORY)
	return dir, path.Base(p), err
}

func (s *Server) make(m *protocol.Make) (*protocol.Attr, error) {
	dir, name, err := s.parent(m.Path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	switch t := m.Mode & unix.S_IFMT; {
	case m.Old != "":
		err = s.link(m.Old, dir, name)
	case m.Handle != 0:
		err = s.linkHandle(m.Handle, dir, name)
	case t == unix.S_IFDIR:
		err = unix.Mkdirat(dir, name, m.Mode&0o7777)
	case t == unix.S_IFLNK:
		err = unix.Symlinkat(m.Text, dir, name)
	case t == unix.S_IFIFO, t == unix.S_IFSOCK, t == unix.S_IFREG:
		err = unix.Mknodat(dir, name, m.Mode&(unix.S_IFMT|0o7777), 0)
	default: // devices of the node's
		err = syscall.EPERM
	}
	if err != nil {
		return nil, err
	}
	return lstatAt(dir, name)
}

func (s *Server) link(old string, dir int, name string) error {
	from, oldName, err := s.parent(old)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	return unix.Linkat(from, oldName, dir, name, 0)
}

// linkHandle gives an open file a name, which is allowed if it was opened without
// one (O_TMPFILE) or has another.
func (s *Server) linkHandle(number uint64, dir int, name string) error {
	h, err := s.use(number)
	if err != nil {
		return err
	}
	defer h.busy.Done()
	return unix.Linkat(unix.AT_FDCWD, opened(int(h.f.Fd())), dir, name, unix.AT_SYMLINK_FOLLOW)
}

func (s *Server) remove(m *protocol.Remove) error {
	dir, name, err := s.parent(m.Path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	flags := 0
	if m.Dir {
		flags = unix.AT_REMOVEDIR
	}
	return unix.Unlinkat(dir, name, flags)
}

// renameFlags are those of renameat2(2) that programs have a use for. The third,
// RENAME_WHITEOUT, leaves a device, for filesystems that lie above another.
const renameFlags = unix.RENAME_NOREPLACE | unix.RENAME_EXCHANGE

func (s *Server) rename(m *protocol.Rename) error {
	if m.Flags&^renameFlags != 0 {
		return syscall.EINVAL
	}
	from, old, err := s.parent(m.Old)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	to, name, err := s.parent(m.New)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	return unix.Renameat2(from, old, to, name, uint(m.Flags))
}

func (s *Server) setAttr(m *protocol.SetAttr) (*protocol.Attr, error) {
	if m.Handle != 0 {
		h, err := s.use(m.Handle)
		if err != nil {
			return nil, err
		}
		defer h.busy.Done()
		return setAttrOf(int(h.f.Fd()), m)
	}
	fd, err := s.at(m.Path, unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return setAttrOf(fd, m)
}

// setAttrOf changes what the descriptor, perhaps an O_PATH one, stands for.
func setAttrOf(fd int, m *protocol.SetAttr) (*protocol.Attr, error) {
	attr, err := statx.At(fd, "")
	if err != nil {
		return nil, err
	}
	kind := attr.Mode & unix.S_IFMT
	if m.What&(protocol.SetUID|protocol.SetGID) != 0 { // before the mode, whose set-id bits it clears
		if err := setOwner(fd, m); err != nil {
			return nil, err
		}
	}
	if m.What&protocol.SetMode != 0 {
		if kind == unix.S_IFLNK {
			return nil, syscall.EOPNOTSUPP
		}
		if err := unix.Chmod(opened(fd), m.Mode&0o7777); err != nil {
			return nil, err
		}
	}
	if m.What&protocol.SetSize != 0 {
		if err := resize(fd, kind, m.Size); err != nil {
			return nil, err
		}
	}
	if m.What&(protocol.SetAtime|protocol.SetMtime) != 0 {
		if err := setTimes(fd, kind, m); err != nil {
			return nil, err
		}
	}
	return lstatAt(fd, "")
}

// setOwner is chown(2), of a symbolic link itself.
func setOwner(fd int, m *protocol.SetAttr) error {
	uid, gid := -1, -1 // stays as it is
	if m.What&protocol.SetUID != 0 {
		uid = int(m.UID)
	}
	if m.What&protocol.SetGID != 0 {
		gid = int(m.GID)
	}
	return unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH)
}

// resize is truncate(2) of what the O_PATH descriptor stands for.
func resize(fd int, kind uint32, size uint64) error {
	switch {
	case kind == unix.S_IFDIR:
		return syscall.EISDIR
	case kind != unix.S_IFREG, size > math.MaxInt64:
		return syscall.EINVAL
	}
	f, err := reopen(fd, unix.O_WRONLY) // truncate(2) would wait for the holder of a lease
	if err != nil {
		return err
	}
	defer unix.Close(f)
	return unix.Ftruncate(f, int64(size))
}

// setTimes is utimensat(2) of what the O_PATH descriptor stands for.
func setTimes(fd int, kind uint32, m *protocol.SetAttr) error {
	at := func(set, now uint32, ns int64) unix.Timespec {
		switch {
		case m.What&set == 0:
			return unix.Timespec{Nsec: unix.UTIME_OMIT}
		case m.What&now != 0:
			return unix.Timespec{Nsec: unix.UTIME_NOW}
		}
		return unix.NsecToTimespec(ns)
	}
	times := []unix.Timespec{at(protocol.SetAtime, protocol.SetAtimeNow, m.Atime), at(protocol.SetMtime, protocol.SetMtimeNow, m.Mtime)}
	if kind == unix.S_IFLNK { // its own; Linux 5.8
		return unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH)
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, opened(fd), times, 0)
}
