package files

import (
	"context"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// Xattr implements fusefs.Tree.
func (t *Tree) Xattr(ctx context.Context, p string, k uint64, name string) ([]byte, error) {
	return t.xattr(ctx, p, k, func(at string) protocol.Message { return &protocol.GetXattr{Path: at, Name: name} },
		func(at string, buf []byte) (int, error) { return unix.Lgetxattr(at, name, buf) }, syscall.ENODATA)
}

// Xattrs implements fusefs.Tree.
func (t *Tree) Xattrs(ctx context.Context, p string, k uint64) ([]byte, error) {
	return t.xattr(ctx, p, k, func(at string) protocol.Message { return &protocol.ListXattr{Path: at} },
		unix.Llistxattr, nil)
}

// xattr asks whoever has the file with key k at p; none is the answer for what
// nobody has.
func (t *Tree) xattr(ctx context.Context, p string, k uint64, ask func(at string) protocol.Message, get func(at string, buf []byte) (int, error), none error) ([]byte, error) {
	where, name := t.at(p)
	switch sideOf(k) {
	case sideView:
		name, _ = inView(p)
	case sideRemote:
		if where == rules.Local { // the inode from before
			return nil, syscall.ESTALE
		}
	case sideLocal:
		buf := make([]byte, protocol.MaxXattr)
		n, err := get(name, buf)
		return buf[:max(n, 0)], err
	default:
		return nil, none
	}
	d, err := call[*protocol.Data](ctx, t.remote, ask(name))
	switch {
	case err != nil:
		return nil, err
	case len(d.Bytes) > protocol.MaxXattr:
		return nil, syscall.EIO
	}
	return d.Bytes, nil
}

// SetXattr implements fusefs.Tree.
func (t *Tree) SetXattr(ctx context.Context, p string, k uint64, name string, value []byte, flags uint32) error {
	return t.changeXattr(ctx, p, k, func(at string) protocol.Message {
		return &protocol.SetXattr{Path: at, Name: name, Value: value, Flags: flags}
	}, func(at string) error { return unix.Lsetxattr(at, name, value, int(flags)) })
}

// RemoveXattr implements fusefs.Tree.
func (t *Tree) RemoveXattr(ctx context.Context, p string, k uint64, name string) error {
	return t.changeXattr(ctx, p, k, func(at string) protocol.Message { return &protocol.RemoveXattr{Path: at, Name: name} },
		func(at string) error { return unix.Lremovexattr(at, name) })
}

func (t *Tree) changeXattr(ctx context.Context, p string, k uint64, ask func(at string) protocol.Message, set func(at string) error) error {
	if name, ok := t.inTarget(p, k); ok {
		err := t.remote.do(ctx, ask(name))
		t.remote.touch(k)
		t.remote.forget(name)
		return err
	}
	if err := t.change(ctx, p, k, false); err != nil {
		return err
	}
	_, name := t.at(p)
	return set(name)
}
