package fusefs

import (
	"context"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// dir is an open directory. Names and attributes come in one call of the Tree,
// and READDIRPLUS hands both to the kernel: the stat(2) calls of a walk do not
// leave the kernel.
type dir struct {
	n      *node
	listed bool
	list   []Entry // sorted by name
	next   int
}

var (
	_ fs.NodeOpendirHandler = (*node)(nil)
	_ fs.FileReaddirenter   = (*dir)(nil)
	_ fs.FileSeekdirer      = (*dir)(nil)
	_ fs.FileLookuper       = (*dir)(nil)
	_ fs.FileReleasedirer   = (*dir)(nil)
)

// OpendirHandle asks only about a directory that seems closed to the caller: who
// removes a tree takes a refusal for a reason to remove the directory itself, and
// a listing that fails for none. The kernel may keep the listing until the
// directory's time changes, so not where that is no sign.
func (n *node) OpendirHandle(ctx context.Context, _ uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if n.seemsClosed() && toErrno(n.m.tree.Access(ctx, n.path(), unix.R_OK)) == syscall.EACCES {
		return nil, 0, syscall.EACCES
	}
	if n.m.tree.Mixed(n.path()) {
		return &dir{n: n}, 0, 0
	}
	return &dir{n: n}, fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE, 0
}

// seemsClosed reports whether a directory, as told last, has no right to be
// listed that could be the caller's.
func (n *node) seemsClosed() bool {
	a := n.last.Load()
	if a == nil {
		return false
	}
	if n.m.known.UID != uint32(os.Getuid()) { // in a container anybody may ask
		return a.Mode&0o444 == 0
	}
	if uid, _ := n.m.tree.Owner(n.key, a); uid == n.m.known.UID {
		return a.Mode&0o400 == 0
	}
	return a.Mode&0o044 == 0
}

func (d *dir) Readdirent(ctx context.Context) (*fuse.DirEntry, syscall.Errno) {
	if !d.listed {
		list, err := d.n.m.tree.List(ctx, d.n.path())
		if err != nil {
			return nil, toErrno(err)
		}
		slices.SortFunc(list, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
		d.list, d.listed = list, true
	}
	if d.next >= len(d.list) {
		return nil, 0
	}
	e := &d.list[d.next]
	d.next++
	return &fuse.DirEntry{Name: e.Name, Ino: e.Node.Key, Mode: e.Node.Attr.Mode, Off: uint64(d.next)}, 0
}

// Seekdir goes back to a place that Readdirent gave; the beginning reads anew
// (rewinddir(3)).
func (d *dir) Seekdir(_ context.Context, off uint64) syscall.Errno {
	if off == 0 && d.next > 0 {
		d.listed = false
	}
	d.next = int(off)
	return 0
}

// Lookup answers READDIRPLUS from what the listing brought.
func (d *dir) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	i, ok := slices.BinarySearchFunc(d.list, name, func(e Entry, name string) int { return strings.Compare(e.Name, name) })
	if !ok {
		return nil, syscall.ENOENT
	}
	e := &d.list[i]
	if e.Node.Attr.Mode&syscall.S_IFMT == 0 {
		return nil, syscall.ENOENT // the name alone is listed
	}
	return d.n.attach(ctx, &e.Node, out), 0
}

// Fsyncdir has nothing to do, and the kernel need not ask again (fuse_dir_fsync,
// fs/fuse/dir.c); the library would say that it is not supported.
func (d *dir) Fsyncdir(context.Context, uint32) syscall.Errno { return syscall.ENOSYS }

func (d *dir) Releasedir(context.Context, uint32) {}
