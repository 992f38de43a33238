package fusefs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/ids"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// rootKey is the inode number of the root.
const rootKey = 1

// mount is what all nodes share.
type mount struct {
	tree  Tree
	known ids.Known
}

// node is an inode.
type node struct {
	fs.Inode
	m    *mount
	key  uint64
	last atomic.Pointer[protocol.Attr] // as told last

	mu      sync.Mutex
	open    []*file
	changed *Change // of what is at its path instead by now; see instead
}

func newRoot(t Tree, known ids.Known) *node {
	m := &mount{tree: t, known: known}
	return &node{m: m, key: rootKey}
}

// opened notes an open file of the inode's.
func (n *node) opened(f File) *file {
	h := &file{f: f, n: n}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open = append(n.open, h)
	return h
}

// remember keeps a for who is still there when the inode has lost its name.
func (n *node) remember(a *protocol.Attr) {
	last := *a
	last.Data = nil
	n.last.Store(&last)
}

func (n *node) released(h *file) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open = slices.DeleteFunc(n.open, func(o *file) bool { return o == h })
}

// nameless gives an open file of an inode that has no name, nil of any other.
func (n *node) nameless() File {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.path() != "" || len(n.open) == 0 {
		return nil
	}
	return n.open[len(n.open)-1].f
}

// aside gives an open file of an inode of which the program has changed, by a
// descriptor, what is at its path instead; and what it has changed.
func (n *node) aside() (File, Change) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.changed == nil || len(n.open) == 0 {
		return nil, Change{}
	}
	return n.open[len(n.open)-1].f, *n.changed
}

// instead makes the change c, which the Tree has refused with ESTALE, of what is
// at the path by now. For who names the file by a path the kernel does that, but
// whoever has a descriptor cannot look it up again; so it is done here if
// somebody has. He goes on reading what he has opened, and sees his change.
func (n *node) instead(ctx context.Context, c Change) error {
	found, err := n.m.tree.Lookup(ctx, n.path())
	n.mu.Lock()
	open := len(n.open) > 0
	n.mu.Unlock()
	if err != nil || found.Key == n.key || !open || c.Size != nil {
		return syscall.ESTALE
	}
	if err := n.m.tree.Setattr(ctx, n.path(), found.Key, c); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.changed == nil {
		n.changed = &Change{}
	}
	n.changed.add(c)
	return nil
}

// path is the path by which the inode was found last: it may have several, and
// somebody outside may have renamed it. Empty: it has no name any more.
func (n *node) path() string {
	p := ""
	for in := n.EmbeddedInode(); !in.IsRoot(); {
		name, parent := in.Parent()
		if parent == nil {
			return ""
		}
		p, in = "/"+name+p, parent
	}
	return cmp.Or(p, "/")
}

func (n *node) join(name string) string { return path.Join(n.path(), name) }

// attr fills in what programs see.
func (m *mount) attr(a *protocol.Attr, key uint64, out *fuse.Attr) {
	out.Ino, out.Size, out.Blocks = key, a.Size, a.Blocks
	out.Mode, out.Nlink, out.Rdev, out.Blksize = a.Mode, max(a.Nlink, 1), uint32(a.Rdev), a.Blksize
	uid, gid := m.tree.Owner(key, a)
	out.Uid, out.Gid = shown(uid, m.known.UID, m.known.Users), shown(gid, m.known.GID, m.known.Groups)
	out.Atime, out.Atimensec = split(a.Atime)
	out.Mtime, out.Mtimensec = split(a.Mtime)
	out.Ctime, out.Ctimensec = split(a.Ctime)
}

// shown is the number that the kernel is told for id, where own is the caller's.
func shown(id, own uint32, known ids.Set) uint32 {
	switch {
	case !known.Many():
		return own
	case known.Has(id):
		return id
	}
	return ids.Nobody
}

// split divides nanoseconds since 1970, also before.
func split(ns int64) (sec uint64, nsec uint32) {
	s, r := ns/1e9, ns%1e9
	if r < 0 {
		s, r = s-1, r+1e9
	}
	return uint64(s), uint32(r)
}

// attach gives an inode for what a lookup found; the library takes the one that
// it has, if that is the same.
func (n *node) attach(ctx context.Context, found *Node, out *fuse.EntryOut) *fs.Inode {
	n.m.attr(&found.Attr, found.Key, &out.Attr)
	out.SetEntryTimeout(found.Keep)
	out.SetAttrTimeout(found.KeepAttr)
	if found.Fixed {
		out.SetEntryTimeout(Ever)
		out.SetAttrTimeout(Ever)
	}
	in := n.NewInode(ctx, &node{m: n.m, key: found.Key}, fs.StableAttr{Mode: found.Attr.Mode & syscall.S_IFMT, Ino: found.Key})
	if there, ok := in.Operations().(*node); ok { // perhaps not ours
		there.remember(&found.Attr)
	}
	return in
}

var (
	_ fs.NodeLookuper   = (*node)(nil)
	_ fs.NodeGetattrer  = (*node)(nil)
	_ fs.NodeStatxer    = (*node)(nil)
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
	_ fs.NodeTmpfiler   = (*node)(nil)

	_ fs.NodeCopyFileRanger = (*node)(nil)
	_ fs.NodeGetxattrer     = (*node)(nil)
	_ fs.NodeListxattrer    = (*node)(nil)
	_ fs.NodeSetxattrer     = (*node)(nil)
	_ fs.NodeRemovexattrer  = (*node)(nil)
)

func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	found, err := n.m.tree.Lookup(ctx, n.join(name))
	if err != nil {
		errno := toErrno(err)
		if errno == syscall.ENOENT {
			out.SetEntryTimeout(found.Keep)
		}
		return nil, errno
	}
	return n.attach(ctx, &found, out), 0
}

// now is what the node's attributes are, and for how long the kernel may take
// them for granted. Who has removed the last name of it is told of no name.
func (n *node) now(ctx context.Context, f fs.FileHandle) (a protocol.Attr, keep time.Duration, errno syscall.Errno) {
	open := n.nameless()
	aside, changed := n.aside()
	if aside != nil {
		open = aside
	}
	if h, ok := f.(*file); ok {
		open = h.f
	}
	if open != nil {
		a, keep, err := open.Stat(ctx)
		changed.apply(&a)
		return a, keep, toErrno(err)
	}
	if last := n.last.Load(); last != nil && n.path() == "" { // it was removed, and somebody is still in it
		a = *last
		a.Nlink = 0
		return a, 0, 0
	}
	found, err := n.m.tree.Lookup(ctx, n.path())
	switch {
	case err != nil:
		return a, 0, toErrno(err)
	case found.Key != n.key && !n.IsRoot():
		return a, 0, syscall.ESTALE // something else is there now
	}
	n.remember(&found.Attr)
	a, keep = found.Attr, found.KeepAttr
	a.Nlink = max(a.Nlink, 1)
	if found.Fixed {
		keep = Ever
	}
	return a, keep, 0
}

func (n *node) Getattr(ctx context.Context, f fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	a, keep, errno := n.now(ctx, f)
	if errno != 0 {
		return errno
	}
	n.m.attr(&a, n.key, &out.Attr)
	out.Nlink = a.Nlink
	out.SetTimeout(keep)
	return 0
}

// Statx is asked for the time of birth, which is in no other answer, by Linux 6.6
// and later.
func (n *node) Statx(ctx context.Context, f fs.FileHandle, _, _ uint32, out *fuse.StatxOut) syscall.Errno {
	a, keep, errno := n.now(ctx, f)
	if errno != 0 {
		return errno
	}
	var b fuse.Attr
	n.m.attr(&a, n.key, &b)
	out.Statx = fuse.Statx{Mask: unix.STATX_BASIC_STATS, Blksize: b.Blksize, Nlink: a.Nlink, Uid: b.Uid, Gid: b.Gid, Mode: uint16(b.Mode),
		Ino: b.Ino, Size: b.Size, Blocks: b.Blocks, RdevMajor: unix.Major(a.Rdev), RdevMinor: unix.Minor(a.Rdev),
		Atime: fuse.SxTime{Sec: b.Atime, Nsec: b.Atimensec}, Mtime: fuse.SxTime{Sec: b.Mtime, Nsec: b.Mtimensec}, Ctime: fuse.SxTime{Sec: b.Ctime, Nsec: b.Ctimensec}}
	if a.Btime != 0 {
		out.Mask |= unix.STATX_BTIME
		out.Btime.Sec, out.Btime.Nsec = split(a.Btime)
	}
	out.SetTimeout(keep)
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
	if uid, ok := in.GetUID(); ok {
		c.UID = &uid
	}
	if gid, ok := in.GetGID(); ok {
		c.GID = &gid
	}
	done := c == (Change{}) && in.Valid&fuse.FATTR_SIZE != 0
	if open := n.nameless(); open != nil && c.Size == nil && !done {
		if err := open.Setattr(ctx, c); err != nil {
			return toErrno(err)
		}
	} else if !done {
		err := n.m.tree.Setattr(ctx, n.path(), n.key, c)
		if errors.Is(err, syscall.ESTALE) {
			err = n.instead(ctx, c)
		}
		if err != nil {
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
	if n.path() == "" {
		return nil, 0, syscall.ENOENT
	}
	f, err := n.m.tree.Open(ctx, n.path(), n.key, flags)
	if err != nil {
		return nil, 0, toErrno(err)
	}
	// The kernel drops the pages that it has when size or time have changed.
	how := uint32(fuse.FOPEN_KEEP_CACHE)
	if s, ok := f.(Sizeless); ok && s.Sizeless() {
		how = fuse.FOPEN_DIRECT_IO
	}
	if flags&syscall.O_ACCMODE == syscall.O_RDONLY { // nothing to be told at its close
		how |= fuse.FOPEN_NOFLUSH
	}
	return n.opened(f), how, 0
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
	return in, in.Operations().(*node).opened(f), fuse.FOPEN_KEEP_CACHE, 0
}

func (n *node) Tmpfile(ctx context.Context, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	made, f, err := n.m.tree.Tmpfile(ctx, n.path(), flags, mode)
	if err != nil {
		return nil, nil, 0, toErrno(err)
	}
	in := n.attach(ctx, &made, out)
	return in, in.Operations().(*node).opened(f), fuse.FOPEN_KEEP_CACHE, 0
}

func (n *node) CopyFileRange(ctx context.Context, from fs.FileHandle, fromOff uint64, _ *fs.Inode, to fs.FileHandle, off, size, _ uint64) (uint32, syscall.Errno) {
	const most = 1 << 30 // the answer has 32 bits
	src, ok := from.(*file)
	dst, ok2 := to.(*file)
	if !ok || !ok2 {
		return 0, syscall.EXDEV
	}
	copied, err := dst.f.CopyFrom(ctx, src.f, int64(fromOff), int64(off), min(size, most))
	return uint32(copied), toErrno(err)
}

// userSpace is what the names begin with of the extended attributes that are
// served. The others mean something to the kernel that asks: that there are none
// it hears at once, with each program that is started.
const userSpace = "user."

func (n *node) Getxattr(ctx context.Context, name string, dest []byte) (uint32, syscall.Errno) {
	if !strings.HasPrefix(name, userSpace) {
		return 0, syscall.ENODATA
	}
	value, err := n.m.tree.Xattr(ctx, n.path(), n.key, name)
	return into(dest, value, err)
}

func (n *node) Listxattr(ctx context.Context, dest []byte) (uint32, syscall.Errno) {
	all, err := n.m.tree.Xattrs(ctx, n.path(), n.key)
	var names []byte
	for name := range bytes.SplitAfterSeq(all, []byte{0}) {
		if bytes.HasPrefix(name, []byte(userSpace)) {
			names = append(names, name...)
		}
	}
	return into(dest, names, err)
}

// into answers with a value, or with its size where there is no room for it.
func into(dest, value []byte, err error) (uint32, syscall.Errno) {
	if err == nil && len(value) > len(dest) {
		err = syscall.ERANGE
	}
	copy(dest, value)
	return uint32(len(value)), toErrno(err)
}

func (n *node) Setxattr(ctx context.Context, name string, value []byte, flags uint32) syscall.Errno {
	if !strings.HasPrefix(name, userSpace) {
		return syscall.EOPNOTSUPP
	}
	return toErrno(n.m.tree.SetXattr(ctx, n.path(), n.key, name, value, flags))
}

func (n *node) Removexattr(ctx context.Context, name string) syscall.Errno {
	if !strings.HasPrefix(name, userSpace) {
		return syscall.ENODATA
	}
	return toErrno(n.m.tree.RemoveXattr(ctx, n.path(), n.key, name))
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
	if open := o.nameless(); open != nil {
		return n.made(ctx, name, out, n.m.tree.Name(ctx, open, n.join(name)))
	}
	return n.made(ctx, name, out, n.m.tree.Link(ctx, o.path(), n.join(name)))
}

func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	return toErrno(n.m.tree.Unlink(ctx, n.join(name)))
}

func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	return toErrno(n.m.tree.Rmdir(ctx, n.join(name)))
}

func (n *node) Rename(ctx context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	dir, ok := to.(*node)
	if !ok {
		return syscall.EXDEV
	}
	return toErrno(n.m.tree.Rename(ctx, n.join(name), dir.join(newName), flags))
}
