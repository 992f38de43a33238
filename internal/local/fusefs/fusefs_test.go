package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/ids"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// acts are what programs in the mount do; the working directory is its root.
var acts = map[string]func(*actor){
	"looking": looking, "reading": reading, "caching": caching, "writing": writing, "extents": extents, "movedOutside": movedOutside, "moving": moving, "stale": stale,
	"fixed": fixed, "interrupted": interrupted, "many": many, "linger": linger,
	"owners": owners, "byDescriptor": byDescriptor,
}

const bigSize = 3<<20 + 77 // bytes

func big() string { return strings.Repeat("0123456789abcdefg", bigSize/17+1)[:bigSize] }

func TestLooking(t *testing.T) {
	m := newMemory(map[string]string{"/dir/file": "content", "/dir/link": "-> file", "/dir/sub/x": "x", "/secret": "s"})
	m.nodes["/dir/file"].Attr = protocol.Attr{Mode: unix.S_IFREG | 0o640, Nlink: 3, Size: 7, Blocks: 8, Blksize: 4096, UID: 4711, GID: 4712,
		Atime: 1e18 + 1, Mtime: -5e9 + 123456789, Ctime: 3e18 + 3, Btime: 2e18 + 2}
	m.nodes["/secret"].Attr.Mode = unix.S_IFREG
	m.put("/closed", unix.S_IFDIR, "")
	m.nodes["/dir/unknown"] = &item{Node: Node{Key: 9999}} // the tree knows the name only
	mounted(t, m, "looking")
	if n := m.count("Lookup /missing"); n != 1 {
		t.Errorf("that there is nothing was asked %d times, want once", n)
	}
	if n := m.count("Lookup /dir/file"); n > 1 {
		t.Errorf("a file that was listed was looked up %d times", n)
	}
}

func looking(a *actor) {
	entries, err := os.ReadDir("dir")
	a.ok("list", err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	a.is("names", names, []string{"file", "link", "sub", "unknown"})
	var st unix.Stat_t
	a.ok("stat", unix.Stat("dir/file", &st))
	a.is("mode", fmt.Sprintf("%o", st.Mode), "100640")
	a.is("owner", []any{st.Uid, st.Gid}, []any{os.Getuid(), os.Getgid()}) // another is not mapped
	a.is("links, size, blocks", []any{st.Nlink, st.Size, st.Blocks}, []any{3, 7, 8})
	a.is("times", []int64{st.Atim.Nano(), st.Mtim.Nano(), st.Ctim.Nano()}, []int64{1e18 + 1, -5e9 + 123456789, 3e18 + 3})
	a.ok("lstat", unix.Lstat("dir/link", &st))
	a.is("type of the link", st.Mode&unix.S_IFMT, unix.S_IFLNK)
	to, err := os.Readlink("dir/link")
	a.ok("readlink", err)
	a.is("link", to, "file")
	var stx unix.Statx_t
	a.ok("statx", unix.Statx(unix.AT_FDCWD, "dir/link", 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &stx))
	a.is("through the link", stx.Size, 7)
	a.is("birth", []any{stx.Mask & unix.STATX_BTIME, stx.Btime.Sec, stx.Btime.Nsec}, []any{unix.STATX_BTIME, int64(2e9), 2}) // Linux 6.6
	a.is("all else of statx", []any{fmt.Sprintf("%o", stx.Mode), stx.Nlink, stx.Blocks, stx.Mtime.Sec, stx.Mtime.Nsec}, []any{"100640", 3, 8, -5, 123456789})
	a.ok("statx", unix.Statx(unix.AT_FDCWD, "secret", 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &stx))
	a.is("a birth that nobody knows", stx.Mask&unix.STATX_BTIME, 0)
	for range 5 {
		a.fails("stat of nothing", unix.Stat("missing", &st), syscall.ENOENT)
	}
	a.fails("below a file", unix.Stat("dir/file/x", &st), syscall.ENOTDIR)
	a.ok("access", unix.Access("dir/file", unix.R_OK|unix.W_OK))
	a.fails("access", unix.Access("secret", unix.R_OK), syscall.EACCES)
	var sfs unix.Statfs_t
	a.ok("statfs", unix.Statfs("dir", &sfs))
	a.is("blocks", []any{sfs.Blocks, sfs.Bsize, sfs.Namelen}, []any{77, 512, 255})
	_, err = unix.Getxattr("dir/file", "user.x", make([]byte, 10))
	a.fails("extended attributes", err, syscall.ENODATA)
	// Not only its listing: who removes a tree goes on then.
	_, err = os.Open("closed")
	a.fails("open a directory that may not be listed", err, syscall.EACCES)
	d, err := os.Open("dir")
	a.ok("open a directory", err)
	a.ok("fsync of a directory", d.Sync())
	a.ok("once more", d.Sync())
	first, err := d.Readdirnames(2)
	a.ok("two names", err)
	_, err = d.Seek(0, 0)
	a.ok("rewind", err)
	again, err := d.Readdirnames(-1)
	a.ok("all names", err)
	a.is("rewound", []any{len(first), len(again), again[:2]}, []any{2, 4, first})
	d.Close()
}

// TestMany: the names of a large directory come with their attributes, and
// stay with the kernel unless the tree says that it would not notice changes.
func TestMany(t *testing.T) {
	m := newMemory(nil)
	for i := range 3000 {
		m.put(fmt.Sprintf("/name-%04d", i), unix.S_IFREG|0o644, "")
	}
	for _, mixed := range []bool{false, true} {
		m.mixed = mixed
		before := m.count("List")
		mounted(t, m, "many")
		if n := m.count("List") - before; !mixed && n != 1 || mixed && n != 3 {
			t.Errorf("mixed %v: listed %d times", mixed, n)
		}
	}
	if n := m.count("Lookup"); n > 50 {
		t.Errorf("%d lookups: attributes did not come with the listing", n)
	}
}

func many(a *actor) {
	for range 3 {
		entries, err := os.ReadDir(".")
		a.ok("list", err)
		a.is("names", len(entries), 3000)
		for _, e := range entries {
			if _, err := e.Info(); err != nil {
				a.errorf("%s: %v", e.Name(), err)
			}
		}
	}
}

func TestReading(t *testing.T) {
	self, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	m := newMemory(map[string]string{"/big": big(), "/prog": string(self), "/bad": "x", "/odd": "y", "/status": "said to be empty", "/torn": big()})
	m.bad = map[string]int64{"/torn": 300_000}
	m.nodes["/status"].Attr.Size = 0
	m.nodes["/prog"].Attr.Mode = unix.S_IFREG | 0o755
	m.onRead = func(_ context.Context, p string) error {
		switch p {
		case "/bad":
			return syscall.ENXIO
		case "/odd":
			return errors.New("no errno")
		}
		return nil
	}
	if out := mounted(t, m, "reading"); !strings.Contains(out, "hello from a program in the mount") {
		t.Errorf("the program printed %q", out)
	}
	for _, p := range []string{"/big", "/bad"} {
		if m.count("Close "+p) == 0 || m.count("Close "+p) != m.count("Open "+p) {
			t.Errorf("%s: opened %d times, closed %d times", p, m.count("Open "+p), m.count("Close "+p))
		}
	}
}

func reading(a *actor) {
	b, err := os.ReadFile("big")
	a.ok("read", err)
	if string(b) != big() {
		a.errorf("the content differs")
	}
	f, err := os.Open("big")
	a.ok("open", err)
	defer f.Close()
	buf := make([]byte, 100)
	n, _ := f.ReadAt(buf, bigSize-50)
	a.is("at the end", string(buf[:n]), big()[bigSize-50:])
	mem, err := unix.Mmap(int(f.Fd()), 0, bigSize, unix.PROT_READ, unix.MAP_PRIVATE)
	a.ok("mmap", err)
	if string(mem) != big() {
		a.errorf("the mapping differs")
	}
	unix.Munmap(mem)
	cmd := exec.Command("./prog")
	cmd.Env = []string{actVar + "=hello", quickExit}
	out, err := cmd.CombinedOutput()
	a.ok("exec", err)
	fmt.Print(string(out))
	// What fails in the middle of a read is no end of the file.
	torn, err := os.Open("torn")
	a.ok("open", err)
	defer torn.Close()
	for _, off := range []int64{200_000, 100_001, 299_999, 300_000, 400_000} {
		if n, err := torn.ReadAt(make([]byte, 200_000), off); !errors.Is(err, syscall.EIO) {
			a.errorf("a read over the error from %d on: %d bytes, %v; want EIO", off, n, err)
		}
	}
	if fi, err := torn.Stat(); err != nil || fi.Size() != bigSize {
		a.errorf("after an error the file is %v, %v", fi, err)
	}
	if b, err := os.ReadFile("torn"); !errors.Is(err, syscall.EIO) || len(b) > 300_000 {
		a.errorf("to the error: %d bytes, %v; want EIO", len(b), err)
	}
	n, err = torn.ReadAt(buf, 290_000)
	a.ok("before the error", err)
	a.is("before the error", string(buf[:n]), big()[290_000:290_100])
	status, err := os.ReadFile("status")
	a.ok("read what is said to be empty", err)
	a.is("what is said to be empty", string(status), "said to be empty")
	_, err = os.ReadFile("bad")
	a.fails("an error's number", err, syscall.ENXIO)
	_, err = os.ReadFile("odd")
	a.fails("an error without one", err, syscall.EIO)
}

// TestCaching: pages stay as long as the file does not change.
func TestCaching(t *testing.T) {
	m := newMemory(map[string]string{"/file": "old", "/next": ""})
	m.nodes["/file"].KeepAttr = 0
	m.onOpen = func(p string, _ uint64, _ uint32) error {
		if p == "/next" {
			m.change(func() {
				n := m.nodes["/file"]
				n.content = []byte("new")
				n.Attr.Mtime++
			})
		}
		return nil
	}
	mounted(t, m, "caching")
	if n := m.count("ReadAt /file"); n != 2 {
		t.Errorf("read %d times, want once before and once after the change", n)
	}
	if n := m.count("Flush /file"); n != 0 { // Linux 5.16
		t.Errorf("close of what was only read was told %d times", n)
	}
}

func caching(a *actor) {
	read := func(want string) {
		b, err := os.ReadFile("file")
		a.ok("read", err)
		a.is("content", string(b), want)
	}
	read("old")
	read("old")
	_, err := os.ReadFile("next")
	a.ok("change", err)
	read("new")
	read("new")
}

func TestWriting(t *testing.T) {
	m := newMemory(map[string]string{"/file": "0123456789", "/trunc": "content", "/nobody": ""})
	mounted(t, m, "writing")
	for p, want := range map[string]string{"/file": "01XX4", "/trunc": "", "/new": "LINE 1\nline 2\n"} {
		if got := m.nodes[p]; got == nil || string(got.content) != want {
			t.Errorf("%s: got %+v, want %q", p, got, want)
		}
	}
	if m.count("Flush /new") == 0 {
		t.Error("close of what was written was not told")
	}
	if m.count("Setattr /trunc") != 0 {
		t.Error("emptying at open was a call of its own: the file would have been copied before")
	}
	if n := m.count("Setattr /nobody"); n != 1 {
		t.Errorf("chown(-1, -1) reached the tree %d times, want once", n)
	}
	for _, p := range []string{"/gone", "/dir", "/sym2"} {
		if m.nodes[p] != nil {
			t.Errorf("%s is still there", p)
		}
	}
}

// TestWaits: how long the kernel waits is told by operation, once for each.
func TestWaits(t *testing.T) {
	m := newMemory(map[string]string{"/file": "0123456789", "/trunc": "content", "/nobody": ""})
	mounting := begin(t, m, "writing")
	mounting.wait()
	must(t, mounting.srv.Close())
	counts := map[string]int64{}
	for _, h := range mounting.waits.Histograms() {
		counts[h.Operation] = h.Count
	}
	var writes int64 // that reached the tree, each of which the kernel has waited for
	for p := range m.nodes {
		writes += int64(m.count("Write " + p))
	}
	if counts["write"] < max(writes, 1) || counts["lookup"] == 0 || counts["open"] == 0 || counts["close"] == 0 || counts["change"] == 0 {
		t.Errorf("got %v, want at least %d writes and something of the others", counts, writes)
	}
}

// TestExtents: what reaches the tree of the rarer calls, and what the kernel
// does by itself.
func TestExtents(t *testing.T) {
	m := newMemory(map[string]string{"/file": "content", "/other": "0123456789"})
	m.nodes["/file"].xattrs = map[string]string{"user.was": "there", "security.x": "hidden"}
	mounted(t, m, "extents")
	for p, want := range map[string]string{"/file": "345tent\x00\x00\x00", "/named": "text"} {
		if got := m.nodes[p]; got == nil || string(got.content) != want {
			t.Errorf("%s: got %+v, want %q", p, got, want)
		}
	}
	if m.count("CopyFrom") != 1 {
		t.Errorf("copied %d times by the tree, want once", m.count("CopyFrom"))
	}
	if n := m.count("Xattr /file"); n != 2 {
		t.Errorf("the tree was asked for %d extended attributes, want 2: none is asked for with each write", n)
	}
	if got := m.nodes["/named"].Attr.Mode; got != unix.S_IFREG|0o640 {
		t.Errorf("mode %o, want 100640", got)
	}
	if got := m.nodes["/file"].xattrs["user.new"]; got != "x" {
		t.Errorf("set %q", got)
	}
}

func extents(a *actor) {
	f, err := os.OpenFile("file", os.O_RDWR, 0)
	a.ok("open", err)
	defer f.Close()
	other, err := os.Open("other")
	a.ok("open", err)
	defer other.Close()
	fd := int(f.Fd())
	a.ok("fallocate", unix.Fallocate(fd, 0, 0, 10))
	fi, err := f.Stat()
	a.ok("fstat", err)
	a.is("size", fi.Size(), 10)
	off, err := unix.Seek(fd, 0, unix.SEEK_HOLE)
	a.ok("seek", err)
	a.is("hole", off, 7)
	_, err = unix.Seek(fd, 8, unix.SEEK_DATA)
	a.fails("seek", err, syscall.ENXIO)
	from, to := int64(3), int64(0)
	n, err := unix.CopyFileRange(int(other.Fd()), &from, fd, &to, 3, 0)
	a.ok("copy_file_range", err)
	a.is("copied", n, 3)
	_, err = f.WriteAt([]byte("ent"), 4)
	a.ok("write", err)

	buf := make([]byte, 100)
	n, err = unix.Getxattr("file", "user.was", buf)
	a.ok("getxattr", err)
	a.is("value", string(buf[:n]), "there")
	_, err = unix.Getxattr("file", "user.was", buf[:2])
	a.fails("getxattr without room", err, syscall.ERANGE)
	_, err = unix.Getxattr("file", "security.x", buf)
	a.fails("getxattr of the kernel's", err, syscall.ENODATA)
	a.ok("setxattr", unix.Setxattr("file", "user.new", []byte("x"), 0))
	a.fails("setxattr of the kernel's", unix.Setxattr("file", "security.x", []byte("x"), 0), syscall.EOPNOTSUPP)
	a.ok("removexattr", unix.Removexattr("file", "user.was"))
	n, err = unix.Listxattr("file", buf)
	a.ok("listxattr", err)
	a.is("names", string(buf[:n]), "user.new\x00")

	u, err := unix.Open(".", unix.O_TMPFILE|unix.O_RDWR, 0o600)
	a.ok("a file without a name", err)
	_, err = unix.Write(u, []byte("text"))
	a.ok("write", err)
	a.ok("fchmod", unix.Fchmod(u, 0o640))
	var st unix.Stat_t
	a.ok("fstat", unix.Fstat(u, &st))
	a.is("names and size", []any{st.Nlink, st.Size, st.Mode}, []any{0, 4, unix.S_IFREG | 0o640})
	a.ok("linkat", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", u), unix.AT_FDCWD, "named", unix.AT_SYMLINK_FOLLOW))
	unix.Close(u)
	b, err := os.ReadFile("named")
	a.ok("read by name", err)
	a.is("content", string(b), "text")

	// Without a name any more it is still the file.
	a.ok("unlink", os.Remove("other"))
	a.ok("fchmod of what was removed", other.Chmod(0o600))
	fi, err = other.Stat()
	a.ok("fstat of what was removed", err)
	a.is("mode", fi.Mode(), os.FileMode(0o600))
	a.ok("chown to the owner", os.Chown("named", os.Getuid(), os.Getgid()))
}

func writing(a *actor) {
	a.ok("chown to nobody", os.Chown("nobody", -1, -1))
	open := func(p string, flags int) *os.File {
		f, err := os.OpenFile(p, flags, 0o666)
		a.ok("open "+p, err)
		return f
	}
	f := open("file", os.O_RDWR)
	_, err := f.WriteAt([]byte("XX"), 2)
	a.ok("write", err)
	a.ok("ftruncate", f.Truncate(5))
	a.ok("fsync", f.Sync())
	fi, err := f.Stat()
	a.ok("fstat", err)
	a.is("size", fi.Size(), 5)
	f.Close()
	b, err := os.ReadFile("file")
	a.ok("read", err)
	a.is("content", string(b), "01XX4")
	open("trunc", os.O_WRONLY|os.O_TRUNC).Close()
	unix.Umask(0o027)
	f = open("new", os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	f.WriteString("line 1\n")
	f.Close()
	fi, err = os.Stat("new")
	a.ok("stat", err)
	a.is("mode", fi.Mode(), fs.FileMode(0o640))
	f = open("new", os.O_RDWR|os.O_APPEND)
	f.WriteString("line 2\n")
	// Pages of a mapping are written where they are.
	shared, err := unix.Mmap(int(f.Fd()), 0, 7, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	a.ok("mmap", err)
	copy(shared, "LINE")
	a.ok("msync", unix.Msync(shared, unix.MS_SYNC))
	unix.Munmap(shared)
	f.Close()
	b, err = os.ReadFile("new")
	a.ok("read", err)
	a.is("appended and mapped", string(b), "LINE 1\nline 2\n")
	_, err = os.OpenFile("new", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	a.fails("create again", err, syscall.EEXIST)
	a.ok("chmod", os.Chmod("new", 0o600))
	when := time.Unix(1e9, 5e8)
	a.ok("utimes", os.Chtimes("new", when, when))
	fi, _ = os.Stat("new")
	a.is("changed", []any{fi.Mode(), fi.ModTime().UnixNano()}, []any{fs.FileMode(0o600), when.UnixNano()})
	a.ok("mkdir", os.Mkdir("dir", 0o755))
	a.ok("mkfifo", unix.Mkfifo("dir/fifo", 0o600))
	a.ok("symlink", os.Symlink("new", "sym"))
	a.ok("link", os.Link("new", "dir/hard"))
	var x, y unix.Stat_t
	a.ok("stat", unix.Stat("sym", &x))
	a.ok("stat", unix.Stat("dir/hard", &y))
	a.is("the same file", []any{x.Ino, y.Nlink}, []any{y.Ino, 2})
	a.ok("rename", os.Rename("sym", "sym2"))
	for _, p := range []string{"dir/fifo", "dir/hard", "sym2", "dir"} {
		a.ok("remove "+p, os.Remove(p))
	}
	// A removed file is what it was for who has it open.
	a.ok("create", os.WriteFile("gone", []byte("still"), 0o600))
	f = open("gone", os.O_RDWR)
	a.ok("remove", os.Remove("gone"))
	_, err = f.WriteAt([]byte("S"), 0)
	a.ok("write to what is removed", err)
	buf := make([]byte, 5)
	_, err = f.ReadAt(buf, 0)
	a.ok("read what is removed", err)
	fi, err = f.Stat()
	a.ok("fstat of what is removed", err)
	a.is("removed", []any{string(buf), fi.Size()}, []any{"Still", 5})
	f.Close()
}

// TestMoving: what is open in a directory that moves, moves along.
func TestMoving(t *testing.T) {
	m := newMemory(map[string]string{"/a/deep/file": "a", "/b/deep/file": "b", "/c/file": "c"})
	mounted(t, m, "moving")
}

func moving(a *actor) {
	read := func(p, want string) {
		b, err := os.ReadFile(p)
		a.ok("read "+p, err)
		a.is(p, string(b), want)
	}
	read("a/deep/file", "a")
	read("b/deep/file", "b")
	was := map[string]int{}
	for _, p := range []string{"a", "b"} {
		fd, err := unix.Open(p+"/deep", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		a.ok("open", err)
		was[p] = fd
	}
	a.ok("rename", os.Rename("c", "moved"))
	read("moved/file", "c")
	a.ok("exchange", unix.Renameat2(unix.AT_FDCWD, "a", unix.AT_FDCWD, "b", unix.RENAME_EXCHANGE))
	for want, dir := range was {
		fd, err := unix.Openat(dir, "file", unix.O_RDONLY, 0)
		a.ok("open in a moved directory", err)
		buf := make([]byte, 1)
		unix.Read(fd, buf)
		a.is("in a moved directory", string(buf), want)
		unix.Close(fd)
		a.ok("make in a moved directory", unix.Mkdirat(dir, "made-"+want, 0o755))
		unix.Close(dir)
	}
	read("a/deep/file", "b")
	read("b/deep/file", "a")
	for _, p := range []string{"b/deep/made-a", "a/deep/made-b"} {
		_, err := os.Stat(p)
		a.ok("what was made", err)
	}
	// A file that loses the name by which it was found last goes by the other.
	a.ok("write", os.WriteFile("one", []byte("1"), 0o644))
	for _, lose := range []func() error{
		func() error { return os.Remove("a/two") },
		func() error { return os.Rename("moved/file", "a/two") },
	} {
		a.ok("link", os.Link("one", "a/two"))
		read("a/two", "1")
		a.ok("lose a name", lose())
		_, err := os.Stat("one")
		a.ok("stat by the other name", err)
		read("one", "1")
		a.ok("chmod by the other name", os.Chmod("one", 0o600))
	}
	read("a/two", "c")
}

// TestStale: the answer to the first opening for writing makes the kernel look
// again and find another inode.
func TestStale(t *testing.T) {
	m := newMemory(map[string]string{"/dir/file": "remote", "/dir/mnt/x": ""})
	for _, p := range []string{"/dir", "/dir/mnt"} {
		m.nodes[p].Fixed = true
	}
	old := m.nodes["/dir/file"].Key
	m.onOpen = func(p string, key uint64, flags uint32) error {
		if key != old || flags&unix.O_ACCMODE == unix.O_RDONLY && string(m.nodes[p].content) == "remote" {
			return nil
		}
		m.change(func() {
			if m.nodes[p].Key == old {
				m.put(p, unix.S_IFREG|0o644, "local")
			}
		})
		return syscall.ESTALE
	}
	mounted(t, m, "stale")
	if got := string(m.nodes["/dir/file"].content); got != "local, written" {
		t.Errorf("got %q", got)
	}
}

func stale(a *actor) {
	a.ok("mount", unix.Mount("tmpfs", "dir/mnt", "tmpfs", 0, ""))
	before, err := os.Open("dir/file")
	a.ok("open", err)
	defer before.Close()
	f, err := os.OpenFile("dir/file", os.O_WRONLY|os.O_APPEND, 0)
	a.ok("open for writing", err)
	_, err = f.WriteString(", written")
	a.ok("write", err)
	f.Close()
	b, err := os.ReadFile("dir/file")
	a.ok("read", err)
	a.is("content", string(b), "local, written")
	buf := make([]byte, 6)
	_, err = before.ReadAt(buf, 0)
	a.ok("read by who had it open", err)
	a.is("old content", string(buf), "remote")
	a.isMounted("dir/mnt")
}

func (a *actor) isMounted(p string) {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	if !strings.Contains(string(b), " "+a.mnt+"/"+p+" ") {
		a.errorf("%s is not mounted any more", p)
	}
}

// TestMovedOutside: a file that somebody outside has given another name is used
// by that.
func TestMovedOutside(t *testing.T) {
	m := newMemory(map[string]string{"/a": "content", "/dir/move": ""})
	m.keep = 0
	m.nodes["/a"].Keep, m.nodes["/a"].KeepAttr = 0, 0
	m.onOpen = func(p string, _ uint64, _ uint32) error {
		if p == "/dir/move" {
			m.nodes["/b"] = m.nodes["/a"]
			delete(m.nodes, "/a")
		}
		return nil
	}
	mounted(t, m, "movedOutside")
}

func movedOutside(a *actor) {
	held, err := os.Open("a") // the inode stays known
	a.ok("open", err)
	defer held.Close()
	_, err = os.ReadFile("dir/move")
	a.ok("move", err)
	b, err := os.ReadFile("b")
	a.ok("read by the new name", err)
	a.is("content", string(b), "content")
	_, err = os.Stat("a")
	a.fails("stat by the old name", err, syscall.ENOENT)
}

// TestFixed: what is mounted over the tree stays, whatever is looked up around
// it, and needs nobody to serve it.
func TestFixed(t *testing.T) {
	m := newMemory(map[string]string{"/lead/point/x": "", "/lead/other": "o", "/lead/link": "-> point"})
	m.keep = 0
	for p, n := range m.nodes {
		n.Keep, n.KeepAttr = 0, 0
		n.Fixed = p == "/lead" || p == "/lead/point" || p == "/lead/link"
	}
	var silent atomic.Bool
	held := make(chan struct{})
	m.onOpen = func(string, uint64, uint32) error {
		silent.Store(true)
		return syscall.EACCES
	}
	m.onCall = func() {
		if silent.Load() {
			<-held
		}
	}
	mt := begin(t, m, "fixed")
	done := make(chan struct{})
	go func() { defer close(done); mt.wait() }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("a mounted path needed the tree")
	}
	close(held)
	<-done
	if err := mt.srv.Close(); err != nil {
		t.Error(err)
	}
}

func fixed(a *actor) {
	a.ok("mount", unix.Mount("tmpfs", "lead/point", "tmpfs", 0, ""))
	a.ok("write", os.WriteFile("lead/point/file", []byte("native"), 0o644))
	look := func() {
		for _, p := range []string{"lead/point/file", "lead/link/file"} {
			b, err := os.ReadFile(a.mnt + "/" + p)
			a.ok("read", err)
			a.is("content", string(b), "native")
		}
	}
	look()
	for range 20 {
		_, err := os.ReadDir("lead")
		a.ok("list", err)
		_, err = os.Stat("lead/missing")
		a.fails("missing", err, syscall.ENOENT)
	}
	a.isMounted("lead/point")
	_, err := unix.Open("lead/other", unix.O_RDONLY, 0)
	a.fails("the last answer", err, syscall.EACCES)
	look()
	a.isMounted("lead/point")
}

// TestInterrupted: who waits for an answer can be killed, and the tree hears of
// it.
func TestInterrupted(t *testing.T) {
	m := newMemory(map[string]string{"/waits": "content"})
	m.keep = 0
	var begun, heard atomic.Int32
	m.onRead = func(ctx context.Context, _ string) error {
		n := begun.Add(1)
		m.change(func() { m.put(fmt.Sprintf("/begun-%d", n), unix.S_IFREG, "") })
		<-ctx.Done()
		heard.Add(1)
		return ctx.Err()
	}
	mounted(t, m, "interrupted")
	if begun.Load() == 0 || heard.Load() != begun.Load() {
		t.Errorf("%d reads were begun, %d heard of the signal", begun.Load(), heard.Load())
	}
}

func interrupted(a *actor) {
	for i, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		cmd := exec.Command("/proc/self/exe", a.mnt+"/waits")
		cmd.Env = []string{actVar + "=read", quickExit}
		a.ok("start", cmd.Start())
		for {
			if _, err := os.Stat(fmt.Sprintf("begun-%d", i+1)); err == nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		cmd.Process.Signal(sig)
		begun := time.Now()
		cmd.Wait()
		if took := time.Since(begun); took > 5*time.Second {
			a.errorf("%v: it took %v", sig, took)
		}
		a.is("ended by", cmd.ProcessState.Sys().(syscall.WaitStatus).Signal(), sig)
	}
}

// TestClose waits for the last user of the mount, and not for ever.
func TestClose(t *testing.T) {
	m := newMemory(map[string]string{"/file": "x"})
	begun := make(chan struct{})
	m.onOpen = func(string, uint64, uint32) error { close(begun); return nil }
	mt := begin(t, m, "linger")
	<-begun
	start := time.Now()
	if err := mt.srv.Close(); err == nil || time.Since(start) < closeTime {
		t.Errorf("close while the mount is in use: %v after %v", err, time.Since(start))
	}
	mt.cmd.Process.Kill()
	mt.cmd.Wait()
	if err := mt.srv.Close(); err != nil {
		t.Errorf("close after the end: %v", err)
	}
	if err := mt.srv.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

func linger(*actor) {
	if _, err := os.Open("file"); err == nil {
		time.Sleep(time.Minute) // it is killed
	}
}

// TestServeFails: a descriptor that is no mount is an error and not kept.
func TestServeFails(t *testing.T) {
	f, err := os.Open("/dev/null")
	must(t, err)
	log.SetOutput(io.Discard) // the library's
	defer log.SetOutput(os.Stderr)
	if _, err := Serve(f, newMemory(nil), ids.Known{}, nil); err == nil {
		t.Error("/dev/null was served")
	}
}

func TestErrno(t *testing.T) {
	for _, c := range []struct {
		err  error
		want syscall.Errno
	}{
		{nil, 0}, {syscall.EXDEV, syscall.EXDEV}, {&os.PathError{Err: syscall.EACCES}, syscall.EACCES}, {context.Canceled, syscall.EINTR},
		{context.DeadlineExceeded, syscall.ETIMEDOUT}, {errors.New("x"), syscall.EIO}, {syscall.Errno(0), syscall.EIO},
	} {
		if got := toErrno(c.err); got != c.want {
			t.Errorf("%v: got %v, want %v", c.err, got, c.want)
		}
	}
}
