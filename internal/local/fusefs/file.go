package fusefs

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// file is an open file.
type file struct {
	f File
	n *node
}

var (
	_ fs.FileReader    = (*file)(nil)
	_ fs.FileWriter    = (*file)(nil)
	_ fs.FileFsyncer   = (*file)(nil)
	_ fs.FileFlusher   = (*file)(nil)
	_ fs.FileAllocater = (*file)(nil)
	_ fs.FileLseeker   = (*file)(nil)
	_ fs.FileReleaser  = (*file)(nil)
)

func (h *file) Read(ctx context.Context, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if l, ok := h.f.(Lender); ok {
		return fuse.ReadResultFd(uintptr(l.Fd()), off, len(p)), 0
	}
	n, err := h.f.ReadAt(ctx, p, off)
	if err != nil {
		// Also if a part was read: the kernel takes a short answer for the end of the
		// file, and makes it shorter (fuse_short_read, fs/fuse/file.c). It asks again
		// for single pages, and gives the program those before the error.
		return nil, toErrno(err)
	}
	return fuse.ReadResultData(p[:n]), 0
}

func (h *file) Write(ctx context.Context, p []byte, off int64) (uint32, syscall.Errno) {
	// The kernel asks for nobody when it writes the pages of mappings, by whichever
	// open file it finds (fuse_writepages, fs/fuse/file.c).
	caller, ok := fuse.FromContext(ctx)
	n, err := h.f.WriteAt(ctx, p, off, ok && caller.Pid == 0)
	if err != nil && n == 0 {
		return 0, toErrno(err)
	}
	return uint32(n), 0
}

func (h *file) Fsync(ctx context.Context, _ uint32) syscall.Errno { return toErrno(h.f.Sync(ctx)) }

func (h *file) Flush(ctx context.Context) syscall.Errno { return toErrno(h.f.Flush(ctx)) }

func (h *file) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	return toErrno(h.f.Allocate(ctx, off, size, mode))
}

func (h *file) Lseek(ctx context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	to, err := h.f.Seek(ctx, int64(off), whence)
	return uint64(to), toErrno(err)
}

func (h *file) Release(context.Context) syscall.Errno {
	h.n.released(h)
	return toErrno(h.f.Close())
}
