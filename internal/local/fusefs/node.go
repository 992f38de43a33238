package fusefs

import (
	"context"
	"os"
	"path"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// rootKey is the inode number of the root.
const rootKey = 1

// mount is what all nodes share.
type mount struct {
	tree     Tree
	uid, gid uint32 // the owner of everything
}

// node is an inode.
type node struct {
	fs.Inode
	m   *mount
	key uint64
	// at is the path by which it was found last: it may have several, and
	// somebody outside may have renamed it.
	at atomic.Pointer[string]
}

func newRoot(t Tree) *node {
	m := &mount{tree: t, uid: uint32(os.Getuid()), gid: uint32(os.Getgid())}
	return m.node("/", rootKey)
}

func (m *mount) node(p string, key uint64) *node {
	n := &node{m: m, key: key}
	n.at.Store(&p)
	return n
}

func (n *node) path() string            { return *n.at.Load() }
func (n *node) join(name string) string { return path.Join(n.path(), name) }

// attr fills in what programs see.
func (m *mount) attr(a *protocol.Attr, key uint64, out *fuse.Attr) {
	out.Ino, out.Size, out.Blocks = key, a.Size, a.Blocks
	out.Mode, out.Nlink, out.Rdev, out.Blksize = a.Mode, max(a.Nlink, 1), uint32(a.Rdev), a.Blksize
	out.Uid, out.Gid = m.uid, m.gid
	out.Atime, out.Atimensec = split(a.Atime)
	out.Mtime, out.Mtimensec = split(a.Mtime)
	out.Ctime, out.Ctimensec = split(a.Ctime)
}

// split divides nanoseconds since 1970, also before.
func split(ns int64) (sec uint64, nsec uint32) {
	s, r := ns/1e9, ns%1e9
	if r < 0 {
		s, r = s-1, r+1e9
	}
	return uint64(s), uint32(r)
}

// attach gives the inode for what a lookup found at p.
func (n *node) attach(ctx context.Context, p string, found *Node, out *fuse.EntryOut) *fs.Inode {
	n.m.attr(&found.Attr, found.Key, &out.Attr)
	out.SetEntryTimeout(found.Keep)
	out.SetAttrTimeout(found.KeepAttr)
	if found.Fixed {
		out.SetEntryTimeout(Ever)
		out.SetAttrTimeout(Ever)
	}
	ch := n.m.node(p, found.Key)
	in := n.NewInode(ctx, ch, fs.StableAttr{Mode: found.Attr.Mode & syscall.S_IFMT, Ino: found.Key})
	if old, ok := in.Operations().(*node); ok && old != ch { // known already
		old.at.Store(&p)
	}
	return in
}

var (
	_ fs.NodeLookuper   = (*node)(nil)
	_ fs.NodeGetattrer  = (*node)(nil)
	_ fs.NodeSetattrer  = (*node)(nil)
	_ fs.NodeAccesser   = (*node)(nil)
	_ fs.NodeReadlinker = (*node)(nil)
	_ fs.NodeStatfser   = (*node)(nil)
	_ fs.NodeOpener     = (*node)(nil)
	_ fs.NodeCreater    = (*node)(nil)
	_ fs.NodeMkdirer    = (*node)(nil)
	_ fs.NodeMknoder    = (*node)(nil)
	_ fs.NodeSymlinker  = (*node)(nil)
	_ fs.NodeLinker     = (*node)(nil)
	_ fs.NodeUnlinker   = (*node)(nil)
	_ fs.NodeRmdirer    = (*node)(nil)
	_ fs.NodeRenamer    = (*node)(nil)
)

func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	p := n.join(name)
	found, err := n.m.tree.Lookup(ctx, p)
	if err != nil {
		errno := toErrno(err)
		if errno == syscall.ENOENT {
			out.SetEntryTimeout(found.Keep)
		}
		return nil, errno
	}
	return n.attach(ctx, p, &found, out), 0
}

func (n *node) Getattr(ctx context.Context, f fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if h, ok := f.(*file); ok {
		a, keep, err := h.f.Stat(ctx)
		if err != nil {
			return toErrno(err)
		}
		n.m.attr(&a, n.key, &out.Attr)
		out.SetTimeout(keep)
		return 0
	}
	found, err := n.m.tree.Lookup(ctx, n.path())
	switch {
	case err != nil:
		return toErrno(err)
	case found.Key != n.key && !n.IsRoot():
		return syscall.ESTALE // something else is there now
	}
	n.m.attr(&found.Attr, n.key, &out.Attr)
	out.SetTimeout(found.KeepAttr)
	if found.Fixed {
		out.SetTimeout(Ever)
	}
	return 0
}

func (n *node) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	var c Change
	if m, ok := in.GetMode(); ok {
		c.Mode = &m
	}
	if s, ok := in.GetSize(); ok {
		if h, ok := f.(*file); ok { // ftruncate: the file may have no name any more
			if err := h.f.Truncate(ctx, int64(s)); err != nil {
				return toErrno(err)
			}
		} else {
			c.Size = &s
		}
	}
	if t, ok := in.GetATime(); ok {
		if in.Valid&fuse.FATTR_ATIME_NOW != 0 {
			t = time.Time{}
		}
		c.Atime = &t
	}
	if t, ok := in.GetMTime(); ok {
		if in.Valid&fuse.FATTR_MTIME_NOW != 0 {
			t = time.Time{}
		}
		c.Mtime = &t
	}
	if c != (Change{}) {
		if err := n.m.tree.Setattr(ctx, n.path(), n.key, c); err != nil {
			return toErrno(err)
		}
	}
	return n.Getattr(ctx, f, out)
}

func (n *node) Access(ctx context.Context, mask uint32) syscall.Errno {
	return toErrno(n.m.tree.Access(ctx, n.path(), mask))
}

func (n *node) Readlink(ctx context.Context) ([]byte, syscall.Errno) {
	to, err := n.m.tree.Readlink(ctx, n.path(), n.key)
	return []byte(to), toErrno(err)
}

func (n *node) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	i, err := n.m.tree.Statfs(ctx, n.path())
	if err != nil {
		return toErrno(err)
	}
	*out = fuse.StatfsOut{Blocks: i.Blocks, Bfree: i.Bfree, Bavail: i.Bavail, Files: i.Files, Ffree: i.Ffree,
		Bsize: uint32(i.Bsize), NameLen: uint32(i.Namelen), Frsize: uint32(i.Frsize)}
	return 0
}

func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	f, err := n.m.tree.Open(ctx, n.path(), n.key, flags)
	if err != nil {
		return nil, 0, toErrno(err)
	}
	// The kernel drops the pages that it has when size or time have changed.
	return &file{f: f}, fuse.FOPEN_KEEP_CACHE, 0
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	f, err := n.m.tree.Create(ctx, n.join(name), flags, mode)
	if err != nil {
		return nil, nil, 0, toErrno(err)
	}
	in, errno := n.Lookup(ctx, name, out)
	if errno != 0 {
		f.Close()
		return nil, nil, 0, errno
	}
	return in, &file{f: f}, fuse.FOPEN_KEEP_CACHE, 0
}

// made looks up what an operation has made.
func (n *node) made(ctx context.Context, name string, out *fuse.EntryOut, err error) (*fs.Inode, syscall.Errno) {
	if err != nil {
		return nil, toErrno(err)
	}
	return n.Lookup(ctx, name, out)
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.made(ctx, name, out, n.m.tree.Mkdir(ctx, n.join(name), mode))
}

func (n *node) Mknod(ctx context.Context, name string, mode, rdev uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.made(ctx, name, out, n.m.tree.Mknod(ctx, n.join(name), mode, rdev))
}

func (n *node) Symlink(ctx context.Context, to, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.made(ctx, name, out, n.m.tree.Symlink(ctx, to, n.join(name)))
}

func (n *node) Link(ctx context.Context, old fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	o, ok := old.(*node)
	if !ok {
		return nil, syscall.EXDEV
	}
	return n.made(ctx, name, out, n.m.tree.Link(ctx, o.path(), n.join(name)))
}

func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	err := n.m.tree.Unlink(ctx, n.join(name))
	if err == nil {
		n.lose(name)
	}
	return toErrno(err)
}

// lose takes a name from an inode, which goes by another one if it has any.
func (n *node) lose(name string) {
	ch := n.GetChild(name)
	if ch == nil {
		return
	}
	n.RmChild(name)
	other, parent := ch.Parent()
	if parent == nil {
		return
	}
	in, ok := ch.Operations().(*node)
	dir, dirOK := parent.Operations().(*node)
	if ok && dirOK {
		at := dir.join(other)
		in.at.Store(&at)
	}
}

func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	return toErrno(n.m.tree.Rmdir(ctx, n.join(name)))
}

func (n *node) Rename(ctx context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	dir, ok := to.(*node)
	if !ok {
		return syscall.EXDEV
	}
	old, p := n.join(name), dir.join(newName)
	if err := n.m.tree.Rename(ctx, old, p, flags); err != nil {
		return toErrno(err)
	}
	ch, other := n.GetChild(name), dir.GetChild(newName)
	if ch != nil {
		moved(ch, p)
	}
	switch {
	case flags&unix.RENAME_EXCHANGE == 0:
		if other != ch { // two names of one file: nothing happens (rename(2))
			dir.lose(newName)
		}
	case other != nil:
		moved(other, old)
	}
	return 0
}

// moved gives an inode and everything known below it a new path.
func moved(in *fs.Inode, p string) {
	if n, ok := in.Operations().(*node); ok {
		n.at.Store(&p)
	}
	for name, ch := range in.Children() {
		moved(ch, path.Join(p, name))
	}
}
