package files

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

func TestExtents(t *testing.T) {
	root := tempRoot(t)
	at := func(p string) string { return filepath.Join(root, p) }
	c := serve(t, root, As{})
	o := get[*protocol.Opened](c, &protocol.Open{Path: "/file", Flags: unix.O_RDWR | unix.O_CREAT, Mode: 0o644})
	must(t, c.err(&protocol.Allocate{Handle: o.Handle, Len: 1 << 20}))
	if a := get[*protocol.Attr](c, &protocol.Stat{Handle: o.Handle}); a.Size != 1<<20 || a.Blocks < 1<<20/512 {
		t.Errorf("after an allocation: size %d, %d blocks", a.Size, a.Blocks)
	}
	must(t, c.err(&protocol.Allocate{Handle: o.Handle, Mode: unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, Len: 1 << 20}))
	must(t, c.err(&protocol.WriteAt{Handle: o.Handle, Off: 512 << 10, Data: []byte("data")}))
	for _, tc := range []struct {
		off    int64
		whence uint32
		want   int64
	}{{0, unix.SEEK_DATA, 512 << 10}, {0, unix.SEEK_HOLE, 0}, {512 << 10, unix.SEEK_HOLE, 512<<10 + 4096}} {
		if got := get[*protocol.Position](c, &protocol.Seek{Handle: o.Handle, Off: tc.off, Whence: tc.whence}); got.Off != tc.want {
			t.Errorf("seek %d from %d: got %d, want %d", tc.whence, tc.off, got.Off, tc.want)
		}
	}
	write(t, at("source"), "0123456789")
	from := get[*protocol.Opened](c, &protocol.Open{Path: "/source"})
	if n := get[*protocol.Position](c, &protocol.CopyRange{From: from.Handle, FromOff: 4, To: o.Handle, ToOff: 1, Len: 100}); n.Off != 6 {
		t.Errorf("copied %d bytes, want 6", n.Off)
	}
	if got := content(t, at("file"))[:8]; got != "\x00456789\x00" {
		t.Errorf("after the copy: %q", got)
	}
	for name, tc := range map[string]struct{ got, want error }{
		"allocate nothing":       {c.err(&protocol.Allocate{Handle: o.Handle}), syscall.EINVAL},
		"allocate too much":      {c.err(&protocol.Allocate{Handle: o.Handle, Len: 1 << 63}), syscall.EINVAL},
		"allocate for reading":   {c.err(&protocol.Allocate{Handle: from.Handle, Len: 1}), syscall.EBADF},
		"seek behind the end":    {c.err(&protocol.Seek{Handle: from.Handle, Off: 100, Whence: unix.SEEK_DATA}), syscall.ENXIO},
		"seek otherwise":         {c.err(&protocol.Seek{Handle: from.Handle, Whence: unix.SEEK_END}), syscall.EINVAL},
		"copy to what is read":   {c.err(&protocol.CopyRange{From: from.Handle, To: from.Handle, ToOff: 100, Len: 1}), syscall.EBADF},
		"copy from a bad offset": {c.err(&protocol.CopyRange{From: from.Handle, FromOff: -1, To: o.Handle, Len: 1}), syscall.EINVAL},
		"copy without a handle":  {c.err(&protocol.CopyRange{From: from.Handle, To: 99, Len: 1}), syscall.EBADF},
		"seek without a handle":  {c.err(&protocol.Seek{Whence: unix.SEEK_DATA}), syscall.EBADF},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: got %v, want %v", name, tc.got, tc.want)
		}
	}
}

// TestCopyByHand: what no file system does for us.
func TestCopyByHand(t *testing.T) {
	dir := t.TempDir()
	from, err := os.Create(filepath.Join(dir, "from"))
	must(t, err)
	defer from.Close()
	to, err := os.Create(filepath.Join(dir, "to"))
	must(t, err)
	defer to.Close()
	want := bytes.Repeat([]byte("0123456789"), 100_000)
	from.Write(want)
	var done int64
	for {
		n, err := copyByHand(int(from.Fd()), int(to.Fd()), &protocol.CopyRange{FromOff: done, ToOff: done, Len: 1 << 40})
		must(t, err)
		if n.Off == 0 {
			break
		}
		done += n.Off
	}
	if got := content(t, to.Name()); got != string(want) {
		t.Errorf("%d bytes were copied, and are others", len(got))
	}
}

func TestXattrs(t *testing.T) {
	root := tempRoot(t)
	at := func(p string) string { return filepath.Join(root, p) }
	write(t, at("file"), "x")
	must(t, os.Symlink("file", at("link")))
	c := serve(t, root, As{})
	must(t, c.err(&protocol.SetXattr{Path: "/file", Name: "user.note", Value: []byte("some\x00thing")}))
	must(t, c.err(&protocol.SetXattr{Path: "/file", Name: "user.empty"}))
	must(t, unix.Setxattr(at("file"), "trusted.other", []byte("x"), 0))
	if d := get[*protocol.Data](c, &protocol.GetXattr{Path: "/file", Name: "user.note"}); string(d.Bytes) != "some\x00thing" {
		t.Errorf("got %q", d.Bytes)
	}
	if d := get[*protocol.Data](c, &protocol.ListXattr{Path: "/file"}); string(d.Bytes) != "user.note\x00user.empty\x00" && string(d.Bytes) != "user.empty\x00user.note\x00" {
		t.Errorf("listed %q", d.Bytes)
	}
	must(t, c.err(&protocol.RemoveXattr{Path: "/file", Name: "user.empty"}))
	for name, tc := range map[string]struct{ got, want error }{
		"removed":       {c.err(&protocol.GetXattr{Path: "/file", Name: "user.empty"}), syscall.ENODATA},
		"remove again":  {c.err(&protocol.RemoveXattr{Path: "/file", Name: "user.empty"}), syscall.ENODATA},
		"create again":  {c.err(&protocol.SetXattr{Path: "/file", Name: "user.note", Flags: unix.XATTR_CREATE}), syscall.EEXIST},
		"replace":       {c.err(&protocol.SetXattr{Path: "/file", Name: "user.new", Flags: unix.XATTR_REPLACE}), syscall.ENODATA},
		"of the kernel": {c.err(&protocol.SetXattr{Path: "/file", Name: "security.capability", Value: []byte("x")}), syscall.EOPNOTSUPP},
		"get of others": {c.err(&protocol.GetXattr{Path: "/file", Name: "trusted.other"}), syscall.EOPNOTSUPP},
		"of a link":     {c.err(&protocol.SetXattr{Path: "/link", Name: "user.note"}), syscall.EPERM},
		"too large":     {c.err(&protocol.SetXattr{Path: "/file", Name: "user.large", Value: make([]byte, protocol.MaxXattr+1)}), syscall.E2BIG},
		"no such file":  {c.err(&protocol.GetXattr{Path: "/none", Name: "user.note"}), syscall.ENOENT},
		"outside":       {c.err(&protocol.GetXattr{Path: "../file", Name: "user.note"}), syscall.EINVAL},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: got %v, want %v", name, tc.got, tc.want)
		}
	}
}

// TestUnnamed: a file without a name, its attributes, and how it gets one.
func TestUnnamed(t *testing.T) {
	const tmpFile = 0o20200000 // O_TMPFILE of x86-64
	root := tempRoot(t)
	at := func(p string) string { return filepath.Join(root, p) }
	c := serve(t, root, As{Umask: 0o022})
	o := get[*protocol.Opened](c, &protocol.Open{Path: "/", Flags: unix.O_RDWR | tmpFile, Mode: 0o666})
	if o.Attr.Nlink != 0 || o.Attr.Mode != unix.S_IFREG|0o644 {
		t.Errorf("made with mode %o and %d names", o.Attr.Mode, o.Attr.Nlink)
	}
	must(t, c.err(&protocol.WriteAt{Handle: o.Handle, Data: []byte("text")}))
	a := get[*protocol.Attr](c, &protocol.SetAttr{Handle: o.Handle, What: protocol.SetMode | protocol.SetMtime | protocol.SetSize, Mode: 0o600, Mtime: 7e9, Size: 2})
	if a.Mode != unix.S_IFREG|0o600 || a.Mtime != 7e9 || a.Size != 2 {
		t.Errorf("changed to %+v", a)
	}
	if a := get[*protocol.Attr](c, &protocol.Make{Path: "/named", Handle: o.Handle}); a.Nlink != 1 || a.Ino != o.Attr.Ino || content(t, at("named")) != "te" {
		t.Errorf("named: %+v, %q", a, content(t, at("named")))
	}
	// It may be without a name for good.
	o = get[*protocol.Opened](c, &protocol.Open{Path: "/", Flags: unix.O_RDWR | tmpFile | unix.O_EXCL, Mode: 0o666})
	if err := c.err(&protocol.Make{Path: "/other", Handle: o.Handle}); err != syscall.ENOENT {
		t.Errorf("got %v, want ENOENT", err)
	}
	if err := c.err(&protocol.Open{Path: "/named", Flags: unix.O_RDWR | tmpFile}); err != syscall.ENOTDIR {
		t.Errorf("got %v, want ENOTDIR", err)
	}
}

// TestSetOwner: as the target's kernel allows its process.
func TestSetOwner(t *testing.T) {
	root := tempRoot(t)
	write(t, filepath.Join(root, "file"), "x")
	must(t, os.Symlink("file", filepath.Join(root, "link")))
	c := serve(t, root, As{})
	a := get[*protocol.Attr](c, &protocol.SetAttr{Path: "/link", What: protocol.SetUID | protocol.SetGID, UID: 12, GID: 34})
	if b := get[*protocol.Attr](c, &protocol.Stat{Path: "/file"}); a.UID != 12 || a.GID != 34 || b.UID != 0 {
		t.Errorf("the link has owner %d:%d, the file %d", a.UID, a.GID, b.UID)
	}
	if a := get[*protocol.Attr](c, &protocol.SetAttr{Path: "/file", What: protocol.SetGID, GID: 34}); a.UID != 0 || a.GID != 34 {
		t.Errorf("the file has owner %d:%d, want 0:34", a.UID, a.GID)
	}
	other := serve(t, root, As{UID: 1000, GID: 1000})
	if err := other.err(&protocol.SetAttr{Path: "/file", What: protocol.SetUID, UID: 1000}); err != syscall.EPERM {
		t.Errorf("got %v, want EPERM", err)
	}
}
