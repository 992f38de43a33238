package fusefs

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// timed tells how long each operation took. Locks are left out: to wait for one is to
// wait for another program.
type timed struct {
	fuse.RawFileSystem
	waited func(operation string, took time.Duration)
}

// since tells of an operation that began then.
func (t timed) since(began time.Time, operation string) { t.waited(operation, time.Since(began)) }

func (t timed) Lookup(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	defer t.since(time.Now(), "lookup")
	return t.RawFileSystem.Lookup(cancel, in, name, out)
}

func (t timed) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	defer t.since(time.Now(), "stat")
	return t.RawFileSystem.GetAttr(cancel, in, out)
}

func (t timed) Statx(cancel <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	defer t.since(time.Now(), "stat")
	return t.RawFileSystem.Statx(cancel, in, out)
}

func (t timed) Access(cancel <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	defer t.since(time.Now(), "stat")
	return t.RawFileSystem.Access(cancel, in)
}

func (t timed) Readlink(cancel <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	defer t.since(time.Now(), "stat")
	return t.RawFileSystem.Readlink(cancel, in)
}

func (t timed) StatFs(cancel <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	defer t.since(time.Now(), "stat")
	return t.RawFileSystem.StatFs(cancel, in, out)
}

func (t timed) GetXAttr(cancel <-chan struct{}, in *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	defer t.since(time.Now(), "stat")
	return t.RawFileSystem.GetXAttr(cancel, in, name, dest)
}

func (t timed) ListXAttr(cancel <-chan struct{}, in *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	defer t.since(time.Now(), "stat")
	return t.RawFileSystem.ListXAttr(cancel, in, dest)
}

func (t timed) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	defer t.since(time.Now(), "open")
	return t.RawFileSystem.Open(cancel, in, out)
}

func (t timed) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	defer t.since(time.Now(), "open")
	return t.RawFileSystem.Create(cancel, in, name, out)
}

func (t timed) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	defer t.since(time.Now(), "open")
	return t.RawFileSystem.Tmpfile(cancel, in, out)
}

func (t timed) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	defer t.since(time.Now(), "list")
	return t.RawFileSystem.OpenDir(cancel, in, out)
}

func (t timed) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	defer t.since(time.Now(), "list")
	return t.RawFileSystem.ReadDir(cancel, in, out)
}

func (t timed) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	defer t.since(time.Now(), "list")
	return t.RawFileSystem.ReadDirPlus(cancel, in, out)
}

func (t timed) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	defer t.since(time.Now(), "read")
	return t.RawFileSystem.Read(cancel, in, buf)
}

func (t timed) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	defer t.since(time.Now(), "read")
	return t.RawFileSystem.Lseek(cancel, in, out)
}

func (t timed) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	defer t.since(time.Now(), "write")
	return t.RawFileSystem.Write(cancel, in, data)
}

// Writev comes first; Write is asked where it says ENOSYS.
func (t timed) Writev(cancel <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	began := time.Now()
	n, status := t.RawFileSystem.Writev(cancel, in, data)
	if status != fuse.ENOSYS {
		t.since(began, "write")
	}
	return n, status
}

func (t timed) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	defer t.since(time.Now(), "write")
	return t.RawFileSystem.CopyFileRange(cancel, in)
}

func (t timed) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	defer t.since(time.Now(), "write")
	return t.RawFileSystem.Fallocate(cancel, in)
}

func (t timed) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	defer t.since(time.Now(), "close")
	return t.RawFileSystem.Flush(cancel, in)
}

func (t timed) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	defer t.since(time.Now(), "sync")
	return t.RawFileSystem.Fsync(cancel, in)
}

func (t timed) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	defer t.since(time.Now(), "change")
	return t.RawFileSystem.SetAttr(cancel, in, out)
}

func (t timed) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	defer t.since(time.Now(), "change")
	return t.RawFileSystem.SetXAttr(cancel, in, name, data)
}

func (t timed) RemoveXAttr(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	defer t.since(time.Now(), "change")
	return t.RawFileSystem.RemoveXAttr(cancel, in, name)
}

func (t timed) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	defer t.since(time.Now(), "change")
	return t.RawFileSystem.Mknod(cancel, in, name, out)
}

func (t timed) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	defer t.since(time.Now(), "change")
	return t.RawFileSystem.Mkdir(cancel, in, name, out)
}

func (t timed) Unlink(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	defer t.since(time.Now(), "change")
	return t.RawFileSystem.Unlink(cancel, in, name)
}

func (t timed) Rmdir(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	defer t.since(time.Now(), "change")
	return t.RawFileSystem.Rmdir(cancel, in, name)
}

func (t timed) Rename(cancel <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	defer t.since(time.Now(), "change")
	return t.RawFileSystem.Rename(cancel, in, from, to)
}

func (t timed) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	defer t.since(time.Now(), "change")
	return t.RawFileSystem.Link(cancel, in, name, out)
}

func (t timed) Symlink(cancel <-chan struct{}, in *fuse.InHeader, to, name string, out *fuse.EntryOut) fuse.Status {
	defer t.since(time.Now(), "change")
	return t.RawFileSystem.Symlink(cancel, in, to, name, out)
}
