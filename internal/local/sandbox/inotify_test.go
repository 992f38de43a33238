package sandbox

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWatched(t *testing.T) {
	dir, err := os.MkdirTemp("/", ".watched-") // on the root file system
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	proc, err := unix.InotifyInit1(unix.IN_CLOEXEC) // on another
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(proc)
	if _, err := unix.InotifyAddWatch(proc, "/proc/self", unix.IN_MODIFY); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var want []uint64
	for _, name := range []string{"a", "b"} {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.InotifyAddWatch(fd, p, unix.IN_MODIFY); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(p, &st); err != nil {
			t.Fatal(err)
		}
		want = append(want, st.Ino)
	}
	got, err := watched(os.Getpid())
	slices.Sort(got)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if got, err := watched(1 << 30); len(got) > 0 || err != nil {
		t.Errorf("of nobody: %v, %v", got, err)
	}
}

func TestParseWatches(t *testing.T) {
	const info = "pos:\t0\nflags:\t02000000\nmnt_id:\t15\nino:\t1057\ninotify wd:2 ino:80000000000d7e0a sdev:2b mask:fce ignored_mask:0 fhandle-bytes:c\n" +
		"inotify wd:1 ino:xyz sdev:2b\ninotify wd:3 ino:7 sdev:1\n"
	if got, want := parseWatches(info, "2b"), []uint64{0x80000000000d7e0a}; !slices.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
	const table = "22 1 254:0 / / rw - ext4 /dev/vda rw\n30 22 0:43 / / rw - fuse.mirrord mirrord rw\n31 30 0:5 / /proc rw - proc proc rw\n"
	if got := rootDevice(table); got != "2b" {
		t.Errorf("the root's device is %q, want 2b", got)
	}
	if got := rootDevice("22 1 254:0 / / rw - ext4 /dev/vda rw\n"); got != "fe00000" {
		t.Errorf("the root's device is %q, want fe00000", got)
	}
}
