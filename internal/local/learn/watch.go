package learn

import (
	"context"
	"errors"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/fusefs"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// Watch gives a Tree that does what t does and notes it in l. ofTarget tells by
// a key whether a file is the target's.
func Watch(t fusefs.Tree, l *Log, ofTarget func(key uint64) bool) fusefs.Tree {
	return &tree{t, l, ofTarget}
}

// tree is a Tree that is watched.
type tree struct {
	fusefs.Tree
	log      *Log
	ofTarget func(key uint64) bool
}

// found notes where something was found.
func (t *tree) found(s *seen, key uint64) {
	if t.ofTarget(key) {
		s.target = true
	} else {
		s.here = true
	}
}

// do makes a call that changes something at p.
func (t *tree) do(ctx context.Context, what deed, p string, do func(ctx context.Context) error) error {
	ctx, c := t.log.begin(ctx)
	err := do(ctx)
	c.end(p, what, err, func(s *seen) {
		if !errors.Is(err, syscall.ESTALE) { // the kernel comes again
			s.changes++
		}
		s.made = s.made || err == nil
	})
	return err
}

func (t *tree) Lookup(ctx context.Context, p string) (fusefs.Node, error) {
	ctx, c := t.log.begin(ctx)
	n, err := t.Tree.Lookup(ctx, p)
	c.end(p, reading, err, func(s *seen) {
		s.lookups++
		switch {
		case err == nil && t.log.own(p, s):
			t.found(s, n.Key)
		case errors.Is(err, syscall.ENOENT) && t.log.own(p, s):
			s.missed++
		}
	})
	return n, err
}

func (t *tree) List(ctx context.Context, p string) ([]fusefs.Entry, error) {
	ctx, c := t.log.begin(ctx)
	list, err := t.Tree.List(ctx, p)
	c.end(p, reading, err, func(s *seen) { s.lists++ })
	return list, err
}

func (t *tree) Readlink(ctx context.Context, p string, key uint64) (string, error) {
	ctx, c := t.log.begin(ctx)
	to, err := t.Tree.Readlink(ctx, p, key)
	c.end(p, reading, err, nil)
	return to, err
}

func (t *tree) Open(ctx context.Context, p string, key uint64, flags uint32) (fusefs.File, error) {
	what := reading
	if flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0 {
		what = writing
	}
	ctx, c := t.log.begin(ctx)
	f, err := t.Tree.Open(ctx, p, key, flags)
	c.end(p, what, err, func(s *seen) {
		if err == nil {
			s.opens++
			t.found(s, key)
		}
	})
	return t.watched(f, p, t.ofTarget(key)), err
}

func (t *tree) Create(ctx context.Context, p string, flags, mode uint32) (f fusefs.File, err error) {
	err = t.do(ctx, writing, p, func(ctx context.Context) error {
		f, err = t.Tree.Create(ctx, p, flags, mode)
		return err
	})
	_, here := f.(fusefs.Lender)
	return t.watched(f, p, !here), err
}

func (t *tree) Tmpfile(ctx context.Context, dir string, flags, mode uint32) (n fusefs.Node, f fusefs.File, err error) {
	err = t.do(ctx, writing, dir, func(ctx context.Context) error {
		n, f, err = t.Tree.Tmpfile(ctx, dir, flags, mode)
		return err
	})
	return n, t.watched(f, dir, t.ofTarget(n.Key)), err
}

func (t *tree) Name(ctx context.Context, f fusefs.File, p string) error {
	return t.do(ctx, moving, p, func(ctx context.Context) error { return t.Tree.Name(ctx, bare(f), p) })
}

func (t *tree) Setattr(ctx context.Context, p string, key uint64, ch fusefs.Change) error {
	return t.do(ctx, writing, p, func(ctx context.Context) error { return t.Tree.Setattr(ctx, p, key, ch) })
}

func (t *tree) SetXattr(ctx context.Context, p string, key uint64, name string, value []byte, flags uint32) error {
	return t.do(ctx, writing, p, func(ctx context.Context) error { return t.Tree.SetXattr(ctx, p, key, name, value, flags) })
}

func (t *tree) RemoveXattr(ctx context.Context, p string, key uint64, name string) error {
	return t.do(ctx, writing, p, func(ctx context.Context) error { return t.Tree.RemoveXattr(ctx, p, key, name) })
}

func (t *tree) Mkdir(ctx context.Context, p string, mode uint32) error {
	return t.do(ctx, writing, p, func(ctx context.Context) error { return t.Tree.Mkdir(ctx, p, mode) })
}

func (t *tree) Mknod(ctx context.Context, p string, mode, rdev uint32) error {
	return t.do(ctx, writing, p, func(ctx context.Context) error { return t.Tree.Mknod(ctx, p, mode, rdev) })
}

func (t *tree) Symlink(ctx context.Context, to, p string) error {
	return t.do(ctx, writing, p, func(ctx context.Context) error { return t.Tree.Symlink(ctx, to, p) })
}

func (t *tree) Link(ctx context.Context, old, p string) error {
	return t.do(ctx, moving, p, func(ctx context.Context) error { return t.Tree.Link(ctx, old, p) })
}

func (t *tree) Unlink(ctx context.Context, p string) error {
	return t.do(ctx, writing, p, func(ctx context.Context) error { return t.Tree.Unlink(ctx, p) })
}

func (t *tree) Rmdir(ctx context.Context, p string) error {
	return t.do(ctx, writing, p, func(ctx context.Context) error { return t.Tree.Rmdir(ctx, p) })
}

// Rename is noted for both names: either may be what stands in the way.
func (t *tree) Rename(ctx context.Context, old, p string, flags uint32) error {
	err := t.do(ctx, moving, p, func(ctx context.Context) error { return t.Tree.Rename(ctx, old, p, flags) })
	_, c := t.log.begin(ctx)
	c.end(old, moving, err, func(s *seen) { s.made = s.made || err == nil })
	return err
}

func (t *tree) Access(ctx context.Context, p string, mask uint32) error {
	what := reading
	if mask&unix.W_OK != 0 {
		what = writing
	}
	ctx, c := t.log.begin(ctx)
	err := t.Tree.Access(ctx, p, mask)
	c.end(p, what, err, nil)
	return err
}

// watched gives f, and its own way to the kernel to a file of this machine's.
func (t *tree) watched(f fusefs.File, p string, ofTarget bool) fusefs.File {
	if f == nil || !ofTarget {
		return f
	}
	return &file{f, t.log, p}
}

// file is an open file of the target's that is watched.
type file struct {
	fusefs.File
	log  *Log
	path string // by which it was opened
}

// bare gives the Tree's own file.
func bare(f fusefs.File) fusefs.File {
	if w, ok := f.(*file); ok {
		return w.File
	}
	return f
}

func (f *file) do(ctx context.Context, what deed, do func(ctx context.Context) error, count func(s *seen)) error {
	ctx, c := f.log.begin(ctx)
	err := do(ctx)
	c.end(f.path, what, err, count)
	return err
}

func (f *file) ReadAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	err = f.do(ctx, reading, func(ctx context.Context) error {
		n, err = f.File.ReadAt(ctx, p, off)
		return err
	}, func(s *seen) { s.bytes += int64(n) })
	return n, err
}

func (f *file) WriteAt(ctx context.Context, p []byte, off int64, inPlace bool) (n int, err error) {
	err = f.do(ctx, writing, func(ctx context.Context) error {
		n, err = f.File.WriteAt(ctx, p, off, inPlace)
		return err
	}, func(s *seen) { s.bytes += int64(n) })
	return n, err
}

func (f *file) Truncate(ctx context.Context, size int64) error {
	return f.do(ctx, writing, func(ctx context.Context) error { return f.File.Truncate(ctx, size) }, nil)
}

// Sizeless implements fusefs.Sizeless.
func (f *file) Sizeless() bool {
	s, ok := f.File.(fusefs.Sizeless)
	return ok && s.Sizeless()
}

// CopyFrom notes no refusal: where it cannot, the kernel reads and writes.
func (f *file) CopyFrom(ctx context.Context, from fusefs.File, fromOff, off int64, n uint64) (int64, error) {
	ctx, c := f.log.begin(ctx)
	done, err := f.File.CopyFrom(ctx, bare(from), fromOff, off, n)
	c.end(f.path, writing, nil, func(s *seen) { s.bytes += done })
	return done, err
}

func (f *file) Stat(ctx context.Context) (a protocol.Attr, keep time.Duration, err error) {
	err = f.do(ctx, reading, func(ctx context.Context) error {
		a, keep, err = f.File.Stat(ctx)
		return err
	}, nil)
	return a, keep, err
}

func (f *file) Sync(ctx context.Context) error {
	return f.do(ctx, writing, func(ctx context.Context) error { return f.File.Sync(ctx) }, nil)
}

func (f *file) Flush(ctx context.Context) error {
	return f.do(ctx, writing, func(ctx context.Context) error { return f.File.Flush(ctx) }, nil)
}
