package statx

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAt: by name and by descriptor it is the same, and what stat(2) tells; a
// link is looked at itself.
func TestAt(t *testing.T) {
	dir := t.TempDir()
	began := time.Now().Add(-time.Second) // files' times are a tick old
	p := filepath.Join(dir, "file")
	if err := errors.Join(os.WriteFile(p, []byte("content"), 0o640), os.Symlink("file", filepath.Join(dir, "link")), os.Chtimes(p, time.Unix(1, 2), time.Unix(3, 4))); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	open, err := At(int(f.Fd()), "")
	if err != nil {
		t.Fatal(err)
	}
	for name, where := range map[string]struct {
		fd   int
		name string
	}{"in a directory": {int(d.Fd()), "file"}, "by its path": {unix.AT_FDCWD, p}} {
		if a, err := At(where.fd, where.name); err != nil || !reflect.DeepEqual(a, open) {
			t.Errorf("%s: %+v, %v, want %+v", name, a, err, open)
		}
	}
	if open.Ino != st.Ino || open.Dev != st.Dev || open.Mode != st.Mode || open.Size != 7 || int64(open.Blocks) != st.Blocks || open.Nlink != 1 ||
		open.UID != st.Uid || open.GID != st.Gid || open.Atime != 1e9+2 || open.Mtime != 3e9+4 || open.Ctime != st.Ctim.Nano() || open.Mount == 0 {
		t.Errorf("%+v, want %+v", open, st)
	}
	if born := time.Unix(0, open.Btime); born.Before(began) || born.After(time.Now()) {
		t.Errorf("it was born at %v", born)
	}
	if a, err := At(int(d.Fd()), "link"); err != nil || a.Mode&unix.S_IFMT != unix.S_IFLNK {
		t.Errorf("the link: %+v, %v", a, err)
	}
	if _, err := At(int(d.Fd()), "none"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("nothing: %v", err)
	}
}
