package files

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/fusefs"
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
	if flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0 {
		if err := t.change(ctx, p, k, flags&unix.O_TRUNC != 0); err != nil {
			return nil, err
		}
	}
	at, s := p, sideOf(k)
	switch s {
	case sideLocal:
		return notNil(openKnown(p, int(flags)&^unix.O_CREAT, k))
	case sideRemote:
		if t.where(p) == rules.Local { // the inode from before
			return nil, syscall.ESTALE
		}
	case sideView:
		at, _ = inView(p)
	default:
		return nil, syscall.ENXIO
	}
	return notNil(t.remote.open(ctx, s, at, k))
}

// notNil keeps a nil pointer from becoming an interface that is not nil.
func notNil[F fusefs.File](f F, err error) (fusefs.File, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

// change prepares a change of the file with key k at p. A path of the target
// becomes local at its first change. One inode cannot be remote for readers
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
	if t.where(p) == rules.Local { // the inode from before
		return syscall.ESTALE
	}
	if err := t.bring(ctx, p, empty); err != nil {
		return err
	}
	t.becomeLocal(p)
	t.say(event.Detail, "written", p, p+" was written: it is your own file from now on, for this session")
	return syscall.ESTALE
}

// bring makes a local file of a remote one, unless there is one. It appears
// complete or not at all, whoever else does the same meanwhile.
func (t *Tree) bring(ctx context.Context, p string, empty bool) error {
	a, err := t.remote.stat(ctx, p)
	if err != nil {
		return err
	}
	if a.Mode&unix.S_IFMT != unix.S_IFREG { // a directory would take all below it along
		return t.noPlace(p, fmt.Errorf("only regular files can be copied: %w", syscall.EROFS))
	}
	if _, err := os.Lstat(p); err == nil {
		return nil
	}
	if !empty && a.Size > maxCopy {
		return t.noPlace(p, fmt.Errorf("it is too large to be copied (%d MiB): %w", a.Size>>20, syscall.EFBIG))
	}
	dst, err := os.CreateTemp(path.Dir(p), ".mirrord-*")
	if err != nil {
		return t.noPlace(p, err)
	}
	defer os.Remove(dst.Name()) // in vain when all went well
	if !empty {
		err = t.copyInto(ctx, dst, p)
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
	return appear(dst.Name(), p)
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

// noPlace says, once a directory, why a write has no place on this machine,
// and gives the program an errno that says the same.
func (t *Tree) noPlace(p string, err error) error {
	dir := path.Dir(p)
	why, errno := err.Error(), syscall.EROFS
	switch {
	case errors.Is(err, syscall.ENOENT):
		why = fmt.Sprintf("there is no directory %s here", dir)
	case errors.Is(err, syscall.EACCES):
		why, errno = fmt.Sprintf("you may not write to %s here", dir), syscall.EACCES
	}
	t.say(event.Warning, "no-place", dir, fmt.Sprintf("%s could not be written: in mode read writes stay on this machine, and %s", p, why))
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

// place prepares the making of a name at p, which is local from now on.
func (t *Tree) place(p string) error {
	if err := t.pinned(p); err != nil {
		return err
	}
	switch t.o.Rules.Decide(p, rules.Read).Where {
	case rules.NotFound:
		return syscall.ENOENT
	case rules.Remote: // perhaps not any more; the directory may be missing all the same
		if _, err := os.Lstat(path.Dir(p)); err != nil {
			return t.noPlace(p, err)
		}
	}
	return nil
}

// placed finishes the making of a name at p.
func (t *Tree) placed(p string, err error) error {
	if err != nil {
		if t.where(p) == rules.Remote && errors.Is(err, syscall.EACCES) {
			return t.noPlace(p, err)
		}
		return err
	}
	if t.where(p) == rules.Remote {
		t.becomeLocal(p)
	}
	return nil
}

// Create implements fusefs.Tree.
func (t *Tree) Create(_ context.Context, p string, flags, mode uint32) (fusefs.File, error) {
	if err := t.place(p); err != nil {
		return nil, err
	}
	f, err := openLocal(p, int(flags)|unix.O_CREAT, mode&0o7777)
	if err := t.placed(p, err); err != nil {
		return nil, err
	}
	return f, nil
}

// Mkdir implements fusefs.Tree.
func (t *Tree) Mkdir(_ context.Context, p string, mode uint32) error {
	if err := t.place(p); err != nil {
		return err
	}
	return t.placed(p, unix.Mkdir(p, mode&0o7777))
}

// Mknod implements fusefs.Tree.
func (t *Tree) Mknod(_ context.Context, p string, mode, rdev uint32) error {
	if err := t.place(p); err != nil {
		return err
	}
	return t.placed(p, unix.Mknod(p, mode, int(rdev)))
}

// Symlink implements fusefs.Tree.
func (t *Tree) Symlink(_ context.Context, to, p string) error {
	if err := t.place(p); err != nil {
		return err
	}
	return t.placed(p, unix.Symlink(to, p))
}

// movable is why the name old cannot be given to something else; nil: it can.
// Between the sides programs copy.
func (t *Tree) movable(old string) error {
	if _, ok := inView(old); ok {
		return syscall.EXDEV
	}
	if err := t.pinned(old); err != nil {
		return err
	}
	if t.where(old) != rules.Local {
		return syscall.EXDEV
	}
	return nil
}

// Link implements fusefs.Tree.
func (t *Tree) Link(_ context.Context, old, p string) error {
	if err := t.movable(old); err != nil {
		return err
	}
	if err := t.place(p); err != nil {
		return err
	}
	return t.placed(p, unix.Link(old, p))
}

// Unlink implements fusefs.Tree.
func (t *Tree) Unlink(_ context.Context, p string) error { return t.remove(p, unix.Unlink) }

// Rmdir implements fusefs.Tree.
func (t *Tree) Rmdir(ctx context.Context, p string) error {
	if t.pinned(p) == nil && t.where(p) == rules.Remote {
		list, err := t.List(ctx, p)
		if err != nil {
			return err
		}
		if len(list) > 0 {
			return syscall.ENOTEMPTY
		}
	}
	return t.remove(p, unix.Rmdir)
}

// remove of a name of the target hides it: the path is local now, and there is
// nothing. A local file of that name is not touched.
func (t *Tree) remove(p string, do func(string) error) error {
	if err := t.pinned(p); err != nil {
		return err
	}
	switch t.where(p) {
	case rules.NotFound:
		return syscall.ENOENT
	case rules.Local:
		return do(p)
	}
	if _, err := os.Lstat(p); err == nil {
		return syscall.EROFS // it would show that file instead
	}
	t.becomeLocal(p)
	return nil
}

// Rename implements fusefs.Tree. Between the sides it fails with EXDEV.
func (t *Tree) Rename(_ context.Context, old, p string, flags uint32) error {
	if err := t.movable(old); err != nil {
		return err
	}
	if err := t.place(p); err != nil {
		return err
	}
	return t.placed(p, unix.Renameat2(unix.AT_FDCWD, old, unix.AT_FDCWD, p, uint(flags)))
}

// Setattr implements fusefs.Tree.
func (t *Tree) Setattr(ctx context.Context, p string, k uint64, c fusefs.Change) error {
	if err := t.change(ctx, p, k, c.Size != nil && *c.Size == 0); err != nil {
		return err
	}
	if c.Mode != nil {
		if err := unix.Chmod(p, *c.Mode&0o7777); err != nil {
			return err
		}
	}
	if c.Size != nil {
		if err := unix.Truncate(p, int64(*c.Size)); err != nil {
			return err
		}
	}
	if c.Atime == nil && c.Mtime == nil {
		return nil
	}
	ts := []unix.Timespec{timespec(c.Atime), timespec(c.Mtime)}
	return unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW)
}

func timespec(t *time.Time) unix.Timespec {
	if t == nil {
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	return unix.NsecToTimespec(t.UnixNano())
}
