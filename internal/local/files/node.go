package files

import (
	"hash/fnv"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/fusefs"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/statx"
)

// side says where an inode comes from. It is the top two bits of its key: when
// a path changes sides it gets another inode, and whoever has the old one open
// keeps what he sees.
type side uint64

const (
	sideOther  side = iota // neither: mount points, the session's own files
	sideLocal              // the developer's
	sideRemote             // the target's
	sideView               // the target's, below viewDir
)

// OfTarget reports whether the inode number that programs see is of a file of
// the target's. (No other file system has such numbers.)
func OfTarget(ino uint64) bool { s := sideOf(ino); return s == sideRemote || s == sideView }

func sideOf(key uint64) side { return side(key >> 62) }

// key makes a number of 61 bits and a side from a file's identity. The multiplier is the
// one of splitmix64, which maps different numbers to different ones; devices
// are few, so two files meet with a chance of 2^-61 a pair.
func key(s side, dev, ino uint64) uint64 {
	h := (ino ^ dev<<40 ^ dev>>24) * 0x9e3779b97f4a7c15
	h ^= h >> 29
	// One bit is always 0: all ones is no inode number (go-fuse keeps it).
	return h>>2&^1 | uint64(s)<<62
}

// attrKey is the key of the file with these attributes at p.
//
// The kernel keeps where a symbolic link points as long as the inode is known,
// and never changes it; the number of a removed inode is soon used again, so a
// link's time, which is that of its birth, is part of its identity.
//
// The kernel knows a directory by one path only, and moves it when it is found
// by another (d_splice_alias, fs/dcache.c), which is right if it was renamed.
// But the target may show one at several, by mounting a volume twice; so the
// mount is part of its identity, or its path where an old kernel does not tell.
func attrKey(s side, p string, a *protocol.Attr) uint64 {
	switch t := a.Mode & unix.S_IFMT; {
	case t == unix.S_IFLNK:
		return key(s, a.Dev, a.Ino^uint64(a.Mtime)<<16)
	case t == unix.S_IFDIR && s != sideLocal && a.Mount == 0:
		return key(s, a.Dev, a.Ino^pathKey(p))
	case t == unix.S_IFDIR && s != sideLocal:
		return key(s, a.Dev, a.Ino^a.Mount<<32)
	}
	return key(s, a.Dev, a.Ino)
}

// mapped is k, the key of what is called name and shown at p, apart from that of
// name itself if it is a directory.
func mapped(k uint64, p, name string, a *protocol.Attr) uint64 {
	if p == name || a.Mode&unix.S_IFMT != unix.S_IFDIR {
		return k
	}
	return key(sideOf(k), a.Dev, a.Ino^pathKey(p))
}

// pathKey is the key of what has no other identity than its path.
func pathKey(p string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(p))
	return h.Sum64()>>2 | 2 // never 0, nor the root's
}

// remoteNode is what the target calls name, shown at p on side s, and known for
// keep.
func (t *Tree) remoteNode(s side, p, name string, a *protocol.Attr, keep time.Duration) fusefs.Node {
	return fusefs.Node{Attr: *a, Key: mapped(attrKey(s, name, a), p, name, a), Keep: keep, KeepAttr: keep}
}

// localNode is lstat(2) of name, shown at p. Another program may change a local
// file at any time, and the developer looks at once: attributes are not
// remembered.
func (t *Tree) localNode(p, name string) (fusefs.Node, error) {
	a, err := statx.At(unix.AT_FDCWD, name)
	if err != nil {
		return fusefs.Node{}, &os.PathError{Op: "lstat", Path: name, Err: err}
	}
	return fusefs.Node{Attr: *a, Key: mapped(attrKey(sideLocal, p, a), p, name, a), Keep: t.o.Life}, nil
}

// fixedNode is what something is mounted on, or leads there. It never changes.
func (t *Tree) fixedNode(p string, mode uint32) fusefs.Node {
	n := t.made(p, mode)
	n.Fixed = true
	if mode&unix.S_IFMT == unix.S_IFLNK {
		if to, err := os.Readlink(p); err == nil {
			n.Attr.Size = uint64(len(to))
		}
	}
	return n
}

// ledNode is a directory that is there because a mapping names something below
// it.
func (t *Tree) ledNode(p string) fusefs.Node {
	n := t.made(p, unix.S_IFDIR|0o755)
	n.Keep, n.KeepAttr = t.o.Life, t.o.Life
	return n
}

func (t *Tree) rootNode() fusefs.Node { return t.fixedNode("/", unix.S_IFDIR|0o755) }

func (t *Tree) servedNode(p string, content []byte) fusefs.Node {
	n := t.made(p, unix.S_IFREG|0o644)
	n.Attr.Size = uint64(len(content))
	n.Keep, n.KeepAttr = t.o.Life, t.o.Life
	return n
}

// made is a file that exists nowhere else. It belongs to whom this machine's file
// of that name does, or to the caller.
func (t *Tree) made(p string, mode uint32) fusefs.Node {
	const block = 4096 // bytes
	at := t.born.UnixNano()
	n := fusefs.Node{Key: pathKey(p), Attr: protocol.Attr{Mode: mode, Nlink: 1, Blksize: block, Atime: at, Mtime: at, Ctime: at}}
	var st unix.Stat_t
	if unix.Lstat(p, &st) != nil {
		st.Uid, st.Gid = uint32(os.Getuid()), uint32(os.Getgid())
	}
	n.Attr.UID, n.Attr.GID = st.Uid, st.Gid
	return n
}

// fresh reports whether something fetched at that time may still be used.
func (r *remote) fresh(at time.Time) bool { return time.Since(at) < r.life }
