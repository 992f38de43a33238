package files

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/fusefs"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// Open implements fusefs.Tree.
func (t *Tree) Open(ctx context.Context, p string, k uint64, flags uint32) (fusefs.File, error) {
	if content, ok := t.o.Served[p]; ok {
		if flags&unix.O_ACCMODE != unix.O_RDONLY {
			return nil, syscall.EROFS
		}
		return &madeFile{t.servedNode(p, content).Attr, content}, nil
	}
	changes := flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0
	s := sideOf(k)
	where, name := t.at(p)
	if changes {
		if name, ok := t.inTarget(p, k); ok {
			return notNil(t.remote.openToChange(ctx, name, k, flags))
		}
		if err := t.change(ctx, p, k, flags&unix.O_TRUNC != 0); err != nil {
			return nil, err
		}
	}
	switch s {
	case sideLocal:
		return notNil(openKnown(name, int(flags)&^unix.O_CREAT, k))
	case sideRemote:
		if where == rules.Local { // the inode from before
			return nil, syscall.ESTALE
		}
	case sideView:
		name, _ = inView(p)
	default:
		return nil, syscall.ENXIO
	}
	f, err := notNil(t.remote.open(ctx, s, name, k))
	return f, t.replaced(ctx, name, err)
}

// inTarget reports whether what has the key k at p is changed in the target,
// and how it is called there.
func (t *Tree) inTarget(p string, k uint64) (name string, ok bool) {
	where, name := t.target(p)
	return name, sideOf(k) == sideRemote && where == rules.Remote
}

// notNil keeps a nil pointer from becoming an interface that is not nil.
func notNil[F fusefs.File](f F, err error) (fusefs.File, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

// change prepares a change on this machine of the file with key k at p. A path
// of the target becomes local at its first change. One inode cannot be remote for readers
// and local for writers, since the kernel keeps attributes and pages by inode;
// so the answer is ESTALE: the kernel walks the path again and finds the local
// inode.
func (t *Tree) change(ctx context.Context, p string, k uint64, empty bool) error {
	switch sideOf(k) {
	case sideLocal:
		return nil
	case sideRemote:
	default:
		return syscall.EROFS
	}
	where, name := t.at(p)
	if where == rules.Local { // the inode from before
		return syscall.ESTALE
	}
	if err := t.bring(ctx, p, name, empty); err != nil {
		return err
	}
	t.becomeLocal(p)
	t.say(event.Detail, "written", p, p+" was written: it is your own file from now on, for this session")
	return syscall.ESTALE
}

// bring makes a local file of a remote one, unless there is one; both are
// called name, and shown at p. It appears complete or not at all, whoever else
// does the same meanwhile.
func (t *Tree) bring(ctx context.Context, p, name string, empty bool) error {
	a, err := t.remote.stat(ctx, name)
	if err != nil {
		return err
	}
	if a.Mode&unix.S_IFMT != unix.S_IFREG { // a directory would take all below it along
		return t.noPlace(p, name, fmt.Errorf("only regular files can be copied: %w", syscall.EROFS))
	}
	if _, err := os.Lstat(name); err == nil {
		return nil
	}
	if !empty && a.Size > maxCopy {
		return t.noPlace(p, name, fmt.Errorf("it is too large to be copied (%d MiB): %w", a.Size>>20, syscall.EFBIG))
	}
	dst, err := os.CreateTemp(path.Dir(name), ".mirrord-*")
	if err != nil {
		return t.noPlace(p, name, err)
	}
	defer os.Remove(dst.Name()) // in vain when all went well
	if !empty {
		err = t.copyInto(ctx, dst, name)
	}
	if err == nil {
		err = dst.Chmod(os.FileMode(a.Mode&0o777 | 0o200))
	}
	if cerr := dst.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return appear(dst.Name(), name)
}

// appear gives the finished file at tmp its name, unless that is taken.
func appear(tmp, p string) error {
	err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, p, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.EEXIST): // somebody was faster, and it is his
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS): // a file system that does not know the flag
		return os.Rename(tmp, p)
	}
	return err
}

func (t *Tree) copyInto(ctx context.Context, dst *os.File, p string) error {
	ctx, done := t.remote.patient(ctx) // for all of it, not for each piece
	defer done()
	src, err := t.remote.open(ctx, sideRemote, p, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	buf := make([]byte, chunk)
	for off := int64(0); off <= maxCopy; {
		n, err := src.ReadAt(ctx, buf, off)
		if err != nil || n == 0 {
			return err
		}
		if ctx.Err() != nil {
			return explain(ctx, ctx.Err())
		}
		if _, err := dst.Write(buf[:n]); err != nil {
			return err
		}
		off += int64(n)
	}
	return fmt.Errorf("copy %q: more than %d MiB: %w", p, maxCopy>>20, syscall.EFBIG)
}

// noPlace says, once a directory, why a write to p, which is called name here,
// has no place on this machine, and gives the program an errno that says the
// same.
func (t *Tree) noPlace(p, name string, err error) error {
	dir := path.Dir(name)
	why, errno := err.Error(), syscall.EROFS
	switch {
	case errors.Is(err, syscall.ENOENT):
		why = fmt.Sprintf("there is no directory %s here", dir)
	case errors.Is(err, syscall.EACCES):
		why, errno = fmt.Sprintf("you may not write to %s here", dir), syscall.EACCES
	}
	t.say(event.Warning, "no-place", dir, fmt.Sprintf("%s could not be written: what is written there stays on this machine, and %s", p, why))
	return errno
}

// pinned is why the name p cannot be made, removed or moved; nil: it can. What
// is at p on this machine is another file than the one shown.
func (t *Tree) pinned(p string) error {
	if _, ok := inView(p); ok {
		return syscall.EROFS
	}
	if _, ok := t.o.Served[p]; ok {
		return syscall.EROFS
	}
	if _, ok := t.fixed[p]; ok {
		return syscall.EBUSY // something is mounted there, or below
	}
	return nil
}

// make makes a name at p: in the target by remote, or here by local, each given
// its name there.
func (t *Tree) make(p string, remote, local func(name string) error) error {
	if err := t.pinned(p); err != nil {
		return err
	}
	where, name := t.target(p)
	switch where {
	case rules.NotFound:
		return syscall.ENOENT
	case rules.Remote:
		return remote(name)
	}
	// It is remote by rule, and perhaps not any more; the directory may be
	// missing all the same.
	if t.o.Rules.Decide(p, rules.Read).Where == rules.Remote {
		if _, err := os.Lstat(path.Dir(name)); err != nil {
			return t.noPlace(p, name, err)
		}
	}
	err := local(name)
	if t.where(p) != rules.Remote {
		return err
	}
	switch {
	case errors.Is(err, syscall.EACCES):
		return t.noPlace(p, name, err)
	case err == nil:
		t.becomeLocal(p)
	}
	return err
}

// Create implements fusefs.Tree.
func (t *Tree) Create(ctx context.Context, p string, flags, mode uint32) (f fusefs.File, err error) {
	err = t.make(p, func(name string) (err error) {
		f, err = notNil(t.remote.create(ctx, name, flags, mode))
		return err
	}, func(name string) (err error) {
		f, err = notNil(openLocal(name, int(flags)|unix.O_CREAT, mode&0o7777))
		return err
	})
	return f, err
}

// Mkdir implements fusefs.Tree.
func (t *Tree) Mkdir(ctx context.Context, p string, mode uint32) error {
	return t.make(p, t.maker(ctx, protocol.Make{Mode: unix.S_IFDIR | mode&0o7777}),
		func(name string) error { return unix.Mkdir(name, mode&0o7777) })
}

// Mknod implements fusefs.Tree.
func (t *Tree) Mknod(ctx context.Context, p string, mode, rdev uint32) error {
	if mode&unix.S_IFMT == unix.S_IFIFO { // who makes one here knows whose it is
		t.first("fifo", p)
	}
	return t.make(p, t.maker(ctx, protocol.Make{Mode: mode}),
		func(name string) error { return unix.Mknod(name, mode, int(rdev)) })
}

// Symlink implements fusefs.Tree. What leads into the view here means the
// target's own path there.
func (t *Tree) Symlink(ctx context.Context, to, p string) error {
	text := to
	if r, view := inView(to); view {
		text = r
	}
	return t.make(p, t.maker(ctx, protocol.Make{Mode: unix.S_IFLNK | 0o777, Text: text}),
		func(name string) error { return unix.Symlink(to, name) })
}

// maker makes what m says in the target.
func (t *Tree) maker(ctx context.Context, m protocol.Make) func(name string) error {
	return func(name string) error {
		m.Path = name
		return t.remote.make(ctx, &m)
	}
}

// movable is where the name old is that is to be given to something else, and
// how it is called there; or why it cannot be.
func (t *Tree) movable(old string) (rules.Where, string, error) {
	if _, ok := inView(old); ok {
		return 0, "", syscall.EXDEV
	}
	if err := t.pinned(old); err != nil {
		return 0, "", err
	}
	reads, name := t.at(old)
	writes, _ := t.target(old)
	switch {
	case reads == rules.NotFound:
		return 0, "", syscall.ENOENT
	case reads != writes:
		return 0, "", syscall.EXDEV
	}
	return reads, name, nil
}

// move gives old the name p, or one more, by remote if both are the target's
// and by local if none is. Between the sides programs copy.
func (t *Tree) move(old, p string, remote, local func(old, name string) error) error {
	where, oldName, err := t.movable(old)
	if err != nil {
		return err
	}
	if to, _ := t.target(p); to != where && t.pinned(p) == nil {
		return syscall.EXDEV
	}
	return t.make(p, func(name string) error { return remote(oldName, name) }, func(name string) error { return local(oldName, name) })
}

// Link implements fusefs.Tree.
func (t *Tree) Link(ctx context.Context, old, p string) error {
	return t.move(old, p, func(old, name string) error { return t.remote.make(ctx, &protocol.Make{Path: name, Old: old}) }, unix.Link)
}

// Rename implements fusefs.Tree.
func (t *Tree) Rename(ctx context.Context, old, p string, flags uint32) error {
	return t.move(old, p, func(old, name string) error { return t.remote.rename(ctx, old, name, flags) },
		func(old, name string) error {
			return unix.Renameat2(unix.AT_FDCWD, old, unix.AT_FDCWD, name, uint(flags))
		})
}

// Unlink implements fusefs.Tree.
func (t *Tree) Unlink(ctx context.Context, p string) error { return t.remove(ctx, p, false) }

// Rmdir implements fusefs.Tree. What is shown in a directory of the target's
// may be of both sides: of its own files the target knows best, also where they
// may not be listed.
func (t *Tree) Rmdir(ctx context.Context, p string) error {
	writes, _ := t.target(p)
	if t.pinned(p) == nil && t.where(p) == rules.Remote && (writes != rules.Remote || t.Mixed(p)) {
		list, err := t.List(ctx, p)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(list, func(e fusefs.Entry) bool { return writes != rules.Remote || sideOf(e.Node.Key) != sideRemote }) {
			return syscall.ENOTEMPTY
		}
	}
	return t.remove(ctx, p, true)
}

// remove of a name that is the target's to read only hides it: the path is
// local now, and there is nothing. A local file of that name is not touched.
func (t *Tree) remove(ctx context.Context, p string, dir bool) error {
	if err := t.pinned(p); err != nil {
		return err
	}
	reads, name := t.at(p)
	writes, _ := t.target(p)
	switch {
	case reads == rules.NotFound:
		return syscall.ENOENT
	case reads == rules.Local && dir:
		return unix.Rmdir(name)
	case reads == rules.Local:
		return unix.Unlink(name)
	case writes == rules.Remote:
		return t.remote.remove(ctx, name, dir)
	}
	if _, err := os.Lstat(name); err == nil {
		return syscall.EROFS // it would show that file instead
	}
	t.becomeLocal(p)
	return nil
}

// Setattr implements fusefs.Tree.
func (t *Tree) Setattr(ctx context.Context, p string, k uint64, c fusefs.Change) error {
	if name, ok := t.inTarget(p, k); ok {
		return t.remote.setAttr(ctx, name, k, c)
	}
	if c == (fusefs.Change{}) && sideOf(k) != sideLocal {
		return nil // which is no reason to have a file of one's own
	}
	if err := t.change(ctx, p, k, c.Size != nil && *c.Size == 0); err != nil {
		return err
	}
	_, name := t.at(p)
	if c.UID != nil || c.GID != nil || c == (fusefs.Change{}) {
		if err := os.Lchown(name, orNone(c.UID), orNone(c.GID)); err != nil {
			return err
		}
	}
	if c.Mode != nil {
		if err := unix.Chmod(name, *c.Mode&0o7777); err != nil {
			return err
		}
	}
	if c.Size != nil {
		if err := unix.Truncate(name, int64(*c.Size)); err != nil {
			return err
		}
	}
	if c.Atime == nil && c.Mtime == nil {
		return nil
	}
	ts := []unix.Timespec{timespec(c.Atime), timespec(c.Mtime)}
	return unix.UtimesNanoAt(unix.AT_FDCWD, name, ts, unix.AT_SYMLINK_NOFOLLOW)
}

func timespec(t *time.Time) unix.Timespec {
	switch {
	case t == nil:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	case t.IsZero():
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	}
	return unix.NsecToTimespec(t.UnixNano())
}
