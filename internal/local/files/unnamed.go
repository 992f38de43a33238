package files

import (
	"context"
	"fmt"
	"path"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/fusefs"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// Tmpfile implements fusefs.Tree. Whose the file is the name says that most
// files have; with another it may turn out to be on the wrong side, and cannot
// be given that name.
func (t *Tree) Tmpfile(ctx context.Context, dir string, flags, mode uint32) (fusefs.Node, fusefs.File, error) {
	p := path.Join(dir, "unnamed")
	where, name := t.target(p)
	flags, mode = flags&(unix.O_ACCMODE|unix.O_APPEND|unix.O_EXCL), mode&0o7777
	switch where {
	case rules.NotFound:
		return fusefs.Node{}, nil, syscall.ENOENT
	case rules.Remote:
		const tmpFile = 0o20200000 // O_TMPFILE of x86-64, for an agent on any system
		f, err := t.remote.openHeld(ctx, sideRemote, path.Dir(name), 0, &protocol.Open{Path: path.Dir(name), Flags: flags | tmpFile, Mode: mode})
		if err != nil {
			return fusefs.Node{}, nil, err
		}
		return fusefs.Node{Attr: f.attr, Key: f.id}, f, nil
	}
	f, err := openLocal(path.Dir(name), int(flags)|unix.O_TMPFILE, mode)
	if err != nil {
		if t.o.Rules.Decide(p, rules.Read).Where == rules.Remote {
			err = t.noPlace(p, name, err)
		}
		return fusefs.Node{}, nil, err
	}
	a, _, err := f.Stat(ctx)
	if err != nil {
		f.Close()
		return fusefs.Node{}, nil, err
	}
	return fusefs.Node{Attr: a, Key: key(sideLocal, a.Dev, a.Ino)}, f, nil
}

// Name implements fusefs.Tree.
func (t *Tree) Name(ctx context.Context, f fusefs.File, p string) error {
	return t.make(p, func(name string) error {
		r, ok := f.(*remoteFile)
		if !ok {
			return syscall.EXDEV
		}
		handle, _, err := r.settled(ctx)
		if err != nil {
			return err
		}
		return t.remote.make(ctx, &protocol.Make{Path: name, Handle: handle})
	}, func(name string) error {
		l, ok := f.(*localFile)
		if !ok {
			return syscall.EXDEV
		}
		return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", l.Fd()), unix.AT_FDCWD, name, unix.AT_SYMLINK_FOLLOW)
	})
}
