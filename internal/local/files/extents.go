package files

import (
	"context"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/local/fusefs"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// Allocate implements fusefs.File.
func (f *remoteFile) Allocate(ctx context.Context, off, size uint64, mode uint32) error {
	if f.box == nil {
		return syscall.EBADF
	}
	return f.through(ctx, &protocol.Allocate{Handle: f.handle, Off: off, Len: size, Mode: mode})
}

// Seek implements fusefs.File.
func (f *remoteFile) Seek(ctx context.Context, off int64, whence uint32) (int64, error) {
	handle, size, err := f.settled(ctx)
	if err != nil {
		return 0, err
	}
	if handle == 0 { // small, and here as a whole
		return (&madeFile{content: make([]byte, size)}).Seek(ctx, off, whence)
	}
	at, err := call[*protocol.Position](ctx, f.r, &protocol.Seek{Handle: handle, Off: off, Whence: whence})
	if err != nil {
		return 0, err
	}
	return at.Off, nil
}

// CopyFrom implements fusefs.File: the target copies what is its own.
func (f *remoteFile) CopyFrom(ctx context.Context, from fusefs.File, fromOff, off int64, n uint64) (int64, error) {
	src, ok := from.(*remoteFile)
	if !ok {
		return 0, syscall.EXDEV
	}
	handle, _, err := src.settled(ctx)
	switch {
	case err != nil:
		return 0, err
	case handle == 0 || f.box == nil:
		return 0, syscall.EXDEV
	}
	if err := f.r.settleBut(ctx, f.id, f.box); err != nil {
		return 0, err
	}
	if err := f.Flush(ctx); err != nil {
		return 0, err
	}
	copied, err := call[*protocol.Position](ctx, f.r, &protocol.CopyRange{From: handle, To: f.handle, FromOff: fromOff, ToOff: off, Len: n})
	f.r.touch(f.id)
	if err != nil {
		return 0, err
	}
	return copied.Off, nil
}

// settled waits until all changes of the file are done and gives its handle, 0
// if it has none, and its size.
func (f *remoteFile) settled(ctx context.Context) (handle, size uint64, err error) {
	if err := f.r.settle(ctx, f.id); err != nil {
		return 0, 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.handle, f.attr.Size, nil
}

// Setattr implements fusefs.File.
func (f *remoteFile) Setattr(ctx context.Context, c fusefs.Change) error {
	handle, _, err := f.settled(ctx)
	if err != nil {
		return err
	}
	if handle == 0 {
		return syscall.ESTALE
	}
	m := f.r.setAttrOf(c)
	m.Handle = handle
	_, err = call[*protocol.Attr](ctx, f.r, m)
	f.r.touch(f.id)
	return err
}
