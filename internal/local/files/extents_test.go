package files

import (
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/fusefs"
)

// TestExtents: holes, allocation and copies, on either side and between them.
func TestExtents(t *testing.T) {
	v := writing(t, nil)
	v.has(map[string]string{"/own/source": "0123456789"}, map[string]string{"/data/source": strings.Repeat("0123456789", 20_000), "/data/small": "abc"})
	ctx := t.Context()
	for _, dir := range []string{"/own", "/data"} {
		t.Run(dir, func(t *testing.T) {
			f, err := v.Create(ctx, v.in(dir+"/file"), unix.O_RDWR, 0o644)
			must(t, err)
			defer f.Close()
			must(t, second(f.WriteAt(ctx, []byte("first"), 0, false))) // not waited for
			must(t, f.Allocate(ctx, 0, 1<<20, 0))
			if a, _, err := f.Stat(ctx); err != nil || a.Size != 1<<20 {
				t.Errorf("allocated: %d bytes, %v", a.Size, err)
			}
			must(t, f.Allocate(ctx, 0, 1<<20, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE))
			must(t, second(f.WriteAt(ctx, []byte("data"), 64<<10, false)))
			if off, err := f.Seek(ctx, 0, unix.SEEK_DATA); off != 64<<10 || err != nil {
				t.Errorf("data at %d, %v", off, err)
			}
			if off, err := f.Seek(ctx, 64<<10, unix.SEEK_HOLE); off != 64<<10+4096 || err != nil {
				t.Errorf("a hole at %d, %v", off, err)
			}
			src, err := v.openFile(v.in(dir+"/source"), unix.O_RDONLY)
			must(t, err)
			defer src.Close()
			if n, err := f.CopyFrom(ctx, src, 3, 1, 5); n != 5 || err != nil {
				t.Errorf("copied %d bytes, %v", n, err)
			}
			buf := make([]byte, 7)
			if _, err := f.ReadAt(ctx, buf, 0); err != nil || string(buf) != "\x0034567\x00" {
				t.Errorf("read %q, %v", buf, err)
			}
			for _, other := range []string{"/own/source", "/data/source", "/data/small"} {
				from, err := v.openFile(v.in(other), unix.O_RDONLY)
				must(t, err)
				if _, err := f.CopyFrom(ctx, from, 0, 0, 1); !strings.HasPrefix(other, dir+"/so") && errno(err) != syscall.EXDEV {
					t.Errorf("a copy of %s: %v, want EXDEV", other, err)
				}
				from.Close()
			}
		})
	}
	small, err := v.openFile(v.in("/data/small"), unix.O_RDONLY)
	must(t, err)
	defer small.Close()
	_, err = v.content(v.in("/data/small"))
	must(t, err)
	if off, err := small.Seek(ctx, 1, unix.SEEK_HOLE); off != 3 || err != nil {
		t.Errorf("a small file: a hole at %d, %v", off, err)
	}
	if err := small.Allocate(ctx, 0, 10, 0); errno(err) != syscall.EBADF {
		t.Errorf("allocation in what is open for reading: %v", err)
	}
}

// TestXattrs: the extended attributes are those of the side that has the file;
// a change makes a file local like any other.
func TestXattrs(t *testing.T) {
	ctx := t.Context()
	for mode, want := range map[string]string{"write": "remote", "read": "local"} {
		v := writing(t, nil)
		if mode == "read" {
			v = newView(t, nil)
		}
		v.has(map[string]string{"/data/": "", "/own/file": "x"}, map[string]string{"/data/file": "x"})
		must(t, unix.Setxattr(v.remote(v.in("/data/file")), "user.was", []byte("there"), 0))
		n, err := v.Lookup(ctx, v.in("/data/file"))
		must(t, err)
		if b, err := v.Xattr(ctx, v.in("/data/file"), n.Key, "user.was"); string(b) != "there" || err != nil {
			t.Errorf("%s: got %q, %v", mode, b, err)
		}
		if b, err := v.Xattrs(ctx, v.in("/data/file"), n.Key); string(b) != "user.was\x00" || err != nil {
			t.Errorf("%s: listed %q, %v", mode, b, err)
		}
		err = v.SetXattr(ctx, v.in("/data/file"), n.Key, "user.new", []byte("x"), 0)
		if errno(err) == syscall.ESTALE && want == "local" {
			n, err = v.Lookup(ctx, v.in("/data/file"))
			must(t, err)
			err = v.SetXattr(ctx, v.in("/data/file"), n.Key, "user.new", []byte("x"), 0)
		}
		if got := v.side(v.in("/data/file")); err != nil || got != want {
			t.Errorf("%s: set on the %s side, %v; want %s", mode, got, err, want)
		}
		if b, err := v.Xattr(ctx, v.in("/data/file"), n.Key, "user.new"); string(b) != "x" || err != nil {
			t.Errorf("%s: got %q, %v", mode, b, err)
		}
		must(t, v.RemoveXattr(ctx, v.in("/data/file"), n.Key, "user.new"))
		if _, err := v.Xattr(ctx, v.in("/data/file"), n.Key, "user.new"); errno(err) != syscall.ENODATA {
			t.Errorf("%s: removed: %v", mode, err)
		}
	}
}

// TestUnnamed: files without a name, on either side.
func TestUnnamed(t *testing.T) {
	v := writing(t, nil)
	v.has(map[string]string{"/own/": ""}, map[string]string{"/data/": ""})
	ctx := t.Context()
	for _, dir := range []string{"/own", "/data"} {
		n, f, err := v.Tmpfile(ctx, v.in(dir), unix.O_RDWR|unix.O_TMPFILE, 0o600)
		must(t, err)
		if n.Attr.Mode != unix.S_IFREG|0o600 || n.Attr.Nlink != 0 {
			t.Errorf("%s: mode %o, %d names", dir, n.Attr.Mode, n.Attr.Nlink)
		}
		must(t, second(f.WriteAt(ctx, []byte("text"), 0, false)))
		mode := uint32(0o640)
		must(t, f.Setattr(ctx, fusefs.Change{Mode: &mode}))
		for other, want := range map[string]error{"/own/named": syscall.EXDEV, "/data/named": syscall.EXDEV} {
			if strings.HasPrefix(other, dir) {
				want = nil
			}
			if err := v.Name(ctx, f, v.in(other)); errno(err) != want {
				t.Errorf("%s: the name %s: %v, want %v", dir, other, err, want)
			}
		}
		f.Close()
		found, err := v.Lookup(ctx, v.in(dir+"/named"))
		if err != nil || found.Key != n.Key || found.Attr.Mode != unix.S_IFREG|0o640 {
			t.Errorf("%s: named, it is %x with mode %o, %v; was %x", dir, found.Key, found.Attr.Mode, err, n.Key)
		}
		if got, err := v.content(v.in(dir + "/named")); got != "text" || err != nil {
			t.Errorf("%s: %q, %v", dir, got, err)
		}
	}
	if _, _, err := v.Tmpfile(ctx, v.in("/none"), unix.O_RDWR|unix.O_TMPFILE, 0o600); errno(err) != syscall.ENOENT {
		t.Errorf("in no directory: %v", err)
	}
}
