// Command posix does what programs do with files, in the directory that it is
// given, and prints what comes of it, a line for each case. What it prints in
// two directories differs where the directories do. With -seed it does so many
// random things in two directories at once and says where they differ.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	seed := flag.Uint64("seed", 0, "")
	steps := flag.Int("steps", 1000, "")
	flag.Parse()
	base := flag.Arg(0)
	unix.Umask(0o022)
	if *seed != 0 {
		if err := random(*seed, *steps, [2]string{base, flag.Arg(1)}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("done")
		return
	}
	for i, c := range cases {
		dir := filepath.Join(base, fmt.Sprintf("case-%d", i))
		s := &seen{}
		if err := os.Mkdir(dir, 0o755); err != nil {
			s.add("mkdir", err)
		} else if err := os.Chdir(dir); err != nil {
			s.add("chdir", err)
		} else {
			run(c.do, s)
		}
		_ = os.Chdir("/")
		if err := os.RemoveAll(dir); err != nil {
			s.add("clean", err)
		}
		fmt.Printf("%s: %s\n", c.name, strings.Join(s.all, ", "))
	}
	fmt.Println("done")
}

func run(do func(s *seen), s *seen) {
	defer func() {
		if v := recover(); v != nil {
			s.say("panic %v", v)
		}
	}()
	do(s)
}

// seen is what came of a case.
type seen struct{ all []string }

func (s *seen) say(format string, args ...any) { s.all = append(s.all, fmt.Sprintf(format, args...)) }

// add notes the errno of what was done.
func (s *seen) add(what string, err error) {
	var errno unix.Errno
	switch {
	case err == nil:
		s.say("%s ok", what)
	case errors.As(err, &errno):
		s.say("%s %s", what, unix.ErrnoName(errno))
	default:
		s.say("%s %v", what, err)
	}
}

// stat notes what a file is.
func (s *seen) stat(p string) {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		s.add("lstat "+strconv.Quote(p), err)
		return
	}
	size := st.Size
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		size = 0
	}
	s.say("%q is %o with %d names and %d bytes", p, st.Mode, st.Nlink, size)
}

func (s *seen) content(p string) {
	b, err := os.ReadFile(p)
	if err != nil {
		s.add("read "+strconv.Quote(p), err)
		return
	}
	if len(b) > 60 {
		s.say("%q has %d bytes", p, len(b))
		return
	}
	s.say("%q has %q", p, b)
}

// open opens p and notes what comes of it; 0, standard input, if nothing does.
func (s *seen) open(p string, flags int, mode uint32) int {
	fd, err := unix.Open(p, flags|unix.O_CLOEXEC, mode)
	s.add("open "+strconv.Quote(p[:min(len(p), 40)]), err)
	return max(fd, 0)
}

// start runs a program and notes what it says.
func (s *seen) start(argv ...string) {
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	defer r.Close()
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{Files: []*os.File{nil, w, w}})
	w.Close()
	s.add("start", err)
	if err != nil {
		return
	}
	out, _ := io.ReadAll(r)
	state, err := p.Wait()
	s.say("%q %v %v", out, state, err)
}

func put(p, content string) {
	if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
		panic(err)
	}
}

func names(s *seen, p string) {
	entries, err := os.ReadDir(p)
	if err != nil {
		s.add("list", err)
		return
	}
	var all []string
	for _, e := range entries {
		all = append(all, fmt.Sprintf("%q %v", e.Name(), e.Type()))
	}
	s.say("%d names: %.300s", len(all), strings.Join(all, " "))
}

var cases = []struct {
	name string
	do   func(s *seen)
}{
	{"create", func(s *seen) {
		fd := s.open("f", unix.O_CREAT|unix.O_WRONLY, 0o666)
		s.stat("f")
		unix.Close(fd)
		s.open("f", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600)
		s.open("f", unix.O_CREAT|unix.O_WRONLY, 0o600)
		s.stat("f")
	}},
	{"create with set-id and sticky bits", func(s *seen) {
		unix.Close(s.open("f", unix.O_CREAT|unix.O_WRONLY, 0o4755))
		s.stat("f")
		s.add("mkdir", unix.Mkdir("d", 0o1777))
		s.stat("d")
	}},
	{"create for reading", func(s *seen) {
		fd := s.open("f", unix.O_CREAT|unix.O_RDONLY, 0o000)
		s.stat("f")
		_, err := unix.Write(fd, []byte("x"))
		s.add("write", err)
		s.open("f", unix.O_RDONLY, 0)
	}},
	{"open what is not there", func(s *seen) {
		s.open("none", unix.O_RDONLY, 0)
		s.open("none/x", unix.O_RDONLY, 0)
		s.open("none/x", unix.O_CREAT|unix.O_WRONLY, 0o644)
		put("f", "")
		s.open("f/x", unix.O_CREAT|unix.O_WRONLY, 0o644)
		s.open("f/", unix.O_RDONLY, 0)
		s.open("", unix.O_RDONLY, 0)
	}},
	{"append", func(s *seen) {
		put("f", "one")
		a, b := s.open("f", unix.O_WRONLY|unix.O_APPEND, 0), s.open("f", unix.O_RDWR|unix.O_APPEND, 0)
		for i, fd := range []int{a, b, a} {
			_, err := unix.Write(fd, []byte{byte('a' + i)})
			s.add("write", err)
		}
		_, err := unix.Pwrite(a, []byte("P"), 0) // to the end, on Linux
		s.add("pwrite", err)
		unix.Close(a)
		unix.Close(b)
		s.content("f")
	}},
	{"truncate at open", func(s *seen) {
		put("f", "0123456789")
		fd := s.open("f", unix.O_RDWR|unix.O_TRUNC, 0)
		s.stat("f")
		_, err := unix.Write(fd, []byte("abc"))
		s.add("write", err)
		unix.Close(fd)
		s.content("f")
	}},
	{"truncate", func(s *seen) {
		put("f", "0123456789")
		s.add("shorter", os.Truncate("f", 4))
		s.content("f")
		s.add("longer", os.Truncate("f", 6))
		s.content("f")
		s.add("negative", unix.Truncate("f", -1))
		fd := s.open("f", unix.O_RDONLY, 0)
		s.add("for reading", unix.Ftruncate(fd, 1))
		s.add("mkdir", os.Mkdir("d", 0o755))
		s.add("of a directory", unix.Truncate("d", 1))
		s.add("of nothing", unix.Truncate("none", 1))
	}},
	{"read and write at places", func(s *seen) {
		fd := s.open("f", unix.O_CREAT|unix.O_RDWR, 0o644)
		_, err := unix.Pwrite(fd, []byte("end"), 100_000)
		s.add("pwrite", err)
		_, err = unix.Pwritev(fd, [][]byte{[]byte("be"), []byte("gin")}, 0)
		s.add("pwritev", err)
		buf := make([]byte, 10)
		n, err := unix.Pread(fd, buf, 99_998)
		s.say("%q %v", buf[:n], err)
		n, err = unix.Pread(fd, buf, 200_000)
		s.say("behind the end %d %v", n, err)
		_, err = unix.Pread(fd, buf, -1)
		s.add("negative", err)
		two := [][]byte{make([]byte, 2), make([]byte, 2)}
		n, err = unix.Preadv(fd, two, 0)
		s.say("%d %q %v", n, two, err)
		off, err := unix.Seek(fd, -3, unix.SEEK_END)
		s.say("at %d %v", off, err)
		n, err = unix.Read(fd, buf)
		s.say("%q %v", buf[:n], err)
		_, err = unix.Seek(fd, -1, unix.SEEK_SET)
		s.add("seek", err)
	}},
	{"what it wrote it reads", func(s *seen) {
		w, r := s.open("f", unix.O_CREAT|unix.O_WRONLY, 0o644), s.open("f", unix.O_RDONLY, 0)
		buf := make([]byte, 20)
		for i := range 5 {
			_, err := unix.Write(w, []byte{byte('a' + i)})
			n, rerr := unix.Pread(r, buf, 0)
			s.say("%q %v %v", buf[:n], err, rerr)
			s.stat("f")
		}
	}},
	{"more than 4 GiB", func(s *seen) {
		fd := s.open("f", unix.O_CREAT|unix.O_RDWR, 0o644)
		_, err := unix.Pwrite(fd, []byte("far"), 5<<30)
		s.add("pwrite", err)
		s.stat("f")
		buf := make([]byte, 5)
		n, err := unix.Pread(fd, buf, 5<<30-1)
		s.say("%q %v", buf[:n], err)
	}},
	{"holes", func(s *seen) {
		fd := s.open("f", unix.O_CREAT|unix.O_RDWR, 0o644)
		_, err := unix.Pwrite(fd, []byte("x"), 1<<20)
		s.add("pwrite", err)
		for _, c := range []struct {
			off    int64
			whence int
		}{{0, unix.SEEK_DATA}, {0, unix.SEEK_HOLE}, {1 << 20, unix.SEEK_HOLE}, {2 << 20, unix.SEEK_DATA}, {2 << 20, unix.SEEK_HOLE}} {
			off, err := unix.Seek(fd, c.off, c.whence)
			s.say("%d %v", off, err)
		}
	}},
	{"allocate", func(s *seen) {
		fd := s.open("f", unix.O_CREAT|unix.O_RDWR, 0o644)
		s.add("allocate", unix.Fallocate(fd, 0, 0, 1<<16))
		s.stat("f")
		s.add("keep size", unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 1<<16, 1<<16))
		s.stat("f")
		_, err := unix.Pwrite(fd, bytes.Repeat([]byte("x"), 1<<16), 0)
		s.add("write", err)
		s.add("punch", unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4096, 4096))
		buf := make([]byte, 3)
		_, err = unix.Pread(fd, buf, 4095)
		s.say("%q %v", buf, err)
		s.add("zero", unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, 0, 10))
		s.add("nothing", unix.Fallocate(fd, 0, 0, 0))
		s.add("for reading", unix.Fallocate(s.open("f", unix.O_RDONLY, 0), 0, 0, 1))
	}},
	{"copy_file_range, sendfile, splice", func(s *seen) {
		put("a", "0123456789")
		put("b", "..........")
		from, to := s.open("a", unix.O_RDONLY, 0), s.open("b", unix.O_RDWR, 0)
		x, y := int64(2), int64(4)
		n, err := unix.CopyFileRange(from, &x, to, &y, 3, 0)
		s.say("copied %d %v, at %d and %d", n, err, x, y)
		s.content("b")
		n, err = unix.Sendfile(to, from, nil, 5)
		s.say("sent %d %v", n, err)
		s.content("b")
		var p [2]int
		if err := unix.Pipe(p[:]); err != nil {
			panic(err)
		}
		m, err := unix.Splice(from, nil, p[1], nil, 5, 0)
		s.say("spliced %d %v", m, err)
		m, err = unix.Splice(p[0], nil, to, nil, 5, 0)
		s.say("spliced %d %v", m, err)
		s.content("b")
	}},
	{"mmap", func(s *seen) {
		put("f", "0123456789")
		fd := s.open("f", unix.O_RDWR, 0)
		shared, err := unix.Mmap(fd, 0, 10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		s.add("mmap shared", err)
		private, err := unix.Mmap(fd, 0, 10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
		s.add("mmap private", err)
		shared[3], private[5] = 'S', 'P'
		s.add("msync", unix.Msync(shared, unix.MS_SYNC))
		s.content("f")
		s.say("%q", private)
		unix.Munmap(shared)
		unix.Munmap(private)
	}},
	{"rename", func(s *seen) {
		put("a", "a")
		put("b", "b")
		s.add("over", os.Rename("a", "b"))
		s.content("b")
		s.stat("a")
		s.add("of nothing", unix.Rename("none", "x"))
		s.add("mkdir", os.Mkdir("d", 0o755))
		s.add("file over directory", unix.Rename("b", "d"))
		s.add("directory over file", unix.Rename("d", "b"))
		s.add("into itself", unix.Rename("d", "d/x"))
		s.add("mkdir", os.MkdirAll("full/x", 0o755))
		s.add("over a full one", unix.Rename("d", "full"))
		s.add("onto itself", unix.Rename("b", "b"))
		s.add("directory", unix.Rename("full", "other"))
		s.stat("other/x")
		names(s, ".")
	}},
	{"rename with flags", func(s *seen) {
		put("a", "a")
		put("b", "b")
		s.add("noreplace", unix.Renameat2(unix.AT_FDCWD, "a", unix.AT_FDCWD, "b", unix.RENAME_NOREPLACE))
		s.add("noreplace", unix.Renameat2(unix.AT_FDCWD, "a", unix.AT_FDCWD, "c", unix.RENAME_NOREPLACE))
		s.add("exchange", unix.Renameat2(unix.AT_FDCWD, "b", unix.AT_FDCWD, "c", unix.RENAME_EXCHANGE))
		s.content("b")
		s.content("c")
		s.add("exchange", unix.Renameat2(unix.AT_FDCWD, "b", unix.AT_FDCWD, "none", unix.RENAME_EXCHANGE))
		s.add("both", unix.Renameat2(unix.AT_FDCWD, "b", unix.AT_FDCWD, "c", unix.RENAME_EXCHANGE|unix.RENAME_NOREPLACE))
	}},
	{"rename of where one is", func(s *seen) {
		s.add("mkdir", os.MkdirAll("d/sub", 0o755))
		put("d/f", "text")
		s.add("chdir", os.Chdir("d/sub"))
		s.add("rename", os.Rename("../../d", "../../e"))
		s.content("../f")
		put("new", "new")
		s.stat("../../e/sub/new")
		s.add("rename of this", os.Rename("../sub", "../other"))
		names(s, ".")
		s.stat(".")
	}},
	{"rename of what is open", func(s *seen) {
		put("a", "one")
		fd := s.open("a", unix.O_RDWR|unix.O_APPEND, 0)
		s.add("rename", os.Rename("a", "b"))
		_, err := unix.Write(fd, []byte(" two"))
		s.add("write", err)
		unix.Close(fd)
		s.content("b")
		s.stat("a")
	}},
	{"hard links", func(s *seen) {
		put("a", "text")
		s.add("link", os.Link("a", "b"))
		s.stat("a")
		s.add("again", unix.Link("a", "b"))
		s.add("of nothing", unix.Link("none", "c"))
		s.add("mkdir", os.Mkdir("d", 0o755))
		s.add("of a directory", unix.Link("d", "e"))
		s.add("chmod", os.Chmod("b", 0o600))
		s.stat("a")
		s.add("unlink", os.Remove("a"))
		s.stat("b")
		s.content("b")
	}},
	{"symbolic links", func(s *seen) {
		put("f", "text")
		s.add("symlink", os.Symlink("f", "l"))
		s.stat("l")
		to, err := os.Readlink("l")
		s.say("%s %v", to, err)
		s.content("l")
		s.open("l", unix.O_RDONLY|unix.O_NOFOLLOW, 0)
		s.open("l", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
		s.add("again", unix.Symlink("x", "l"))
		s.add("dangling", os.Symlink("none", "m"))
		s.open("m", unix.O_RDONLY, 0)
		unix.Close(s.open("m", unix.O_CREAT|unix.O_WRONLY, 0o644))
		s.stat("none")
		s.add("loop", errors.Join(os.Symlink("x", "y"), os.Symlink("y", "x")))
		s.open("x", unix.O_RDONLY, 0)
		_, err = os.Readlink("f")
		s.add("readlink of a file", err)
		s.add("to a directory", errors.Join(os.Mkdir("d", 0o755), os.Symlink("d", "dl")))
		s.open("dl", unix.O_DIRECTORY|unix.O_RDONLY, 0)
		s.open("l", unix.O_DIRECTORY|unix.O_RDONLY, 0)
		s.add("rmdir of a link", unix.Rmdir("dl"))
		s.add("empty", unix.Symlink("", "z"))
		s.add("long", unix.Symlink(strings.Repeat("x", 4095), "z"))
		s.stat("z")
	}},
	{"directories", func(s *seen) {
		s.add("mkdir", unix.Mkdir("d", 0o777))
		s.stat("d")
		s.add("again", unix.Mkdir("d", 0o777))
		put("d/f", "")
		s.add("rmdir of a full one", unix.Rmdir("d"))
		s.add("unlink of a directory", unix.Unlink("d"))
		s.add("rmdir of a file", unix.Rmdir("d/f"))
		s.add("remove", os.Remove("d/f"))
		s.add("rmdir", unix.Rmdir("d"))
		s.add("rmdir of nothing", unix.Rmdir("d"))
		s.add("rmdir of .", unix.Rmdir("."))
		s.open(".", unix.O_WRONLY, 0)
		fd := s.open(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		_, err := unix.Read(fd, make([]byte, 10))
		s.add("read of a directory", err)
		s.add("fsync", unix.Fsync(fd))
		s.add("mkdirat", unix.Mkdirat(fd, "e", 0o700))
		s.add("renameat", unix.Renameat(fd, "e", fd, "g"))
		names(s, ".")
	}},
	{"unlink while open", func(s *seen) {
		put("f", "text")
		fd := s.open("f", unix.O_RDWR, 0)
		s.add("unlink", os.Remove("f"))
		_, err := unix.Pwrite(fd, []byte("more"), 4)
		s.add("write", err)
		buf := make([]byte, 20)
		n, err := unix.Pread(fd, buf, 0)
		s.say("%q %v", buf[:n], err)
		var st unix.Stat_t
		s.add("fstat", unix.Fstat(fd, &st))
		s.say("%d names and %d bytes", st.Nlink, st.Size)
		s.add("fchmod", unix.Fchmod(fd, 0o600))
		s.add("ftruncate", unix.Ftruncate(fd, 2))
		s.add("fstat", unix.Fstat(fd, &st))
		s.say("%o with %d bytes", st.Mode, st.Size)
		put("f", "another")
		n, err = unix.Pread(fd, buf, 0)
		s.say("%q %v", buf[:n], err)
		s.content("f")
	}},
	{"a directory that is gone", func(s *seen) {
		s.add("mkdir", os.Mkdir("d", 0o755))
		s.add("chdir", os.Chdir("d"))
		s.add("rmdir", unix.Rmdir("../d"))
		var st unix.Stat_t
		s.add("stat .", unix.Stat(".", &st))
		s.say("%o with %d names", st.Mode, st.Nlink)
		s.open("x", unix.O_CREAT|unix.O_WRONLY, 0o644)
		_, err := os.ReadDir(".")
		s.add("list", err)
		s.add("back", os.Chdir("/"))
	}},
	{"files without a name", func(s *seen) {
		fd := s.open(".", unix.O_TMPFILE|unix.O_RDWR, 0o640)
		_, err := unix.Write(fd, []byte("text"))
		s.add("write", err)
		var st unix.Stat_t
		s.add("fstat", unix.Fstat(fd, &st))
		s.say("%o with %d names and %d bytes", st.Mode, st.Nlink, st.Size)
		names(s, ".")
		s.add("link", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, "named", unix.AT_SYMLINK_FOLLOW))
		unix.Close(fd)
		s.stat("named")
		s.content("named")
		s.open("none", unix.O_TMPFILE|unix.O_RDWR, 0o640)
		s.open(".", unix.O_TMPFILE|unix.O_RDONLY, 0o640)
	}},
	{"O_PATH", func(s *seen) {
		put("f", "text")
		fd := s.open("f", unix.O_PATH, 0)
		_, err := unix.Read(fd, make([]byte, 1))
		s.add("read", err)
		var st unix.Stat_t
		s.add("fstat", unix.Fstat(fd, &st))
		s.say("%d bytes", st.Size)
		s.add("chmod by it", unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), 0o600))
		s.stat("f")
		b, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", fd))
		s.say("%q %v", b, err)
	}},
	{"modes", func(s *seen) {
		put("f", "")
		for _, mode := range []uint32{0o644, 0o4755, 0o2755, 0o1644, 0o7777, 0} {
			s.add("chmod", unix.Chmod("f", mode))
			s.stat("f")
		}
		s.open("f", unix.O_RDONLY, 0)
		s.open("f", unix.O_WRONLY, 0)
		for _, mask := range []uint32{unix.F_OK, unix.R_OK, unix.W_OK, unix.X_OK} {
			s.add("access", unix.Access("f", mask))
		}
		s.add("chmod", unix.Chmod("f", 0o4755))
		fd := s.open("f", unix.O_WRONLY, 0)
		_, err := unix.Write(fd, []byte("x"))
		s.add("write", err)
		unix.Close(fd)
		s.stat("f") // without the set-id bit
		s.add("mkdir", os.Mkdir("d", 0o755))
		put("d/f", "")
		s.add("chmod", unix.Chmod("d", 0))
		s.open("d/f", unix.O_RDONLY, 0)
		_, err = os.ReadDir("d")
		s.add("list", err)
		s.add("chmod", unix.Chmod("d", 0o555))
		s.open("d/new", unix.O_CREAT|unix.O_WRONLY, 0o644)
		s.add("unlink", unix.Unlink("d/f"))
		s.add("chmod", unix.Chmod("d", 0o755))
		s.add("chmod of nothing", unix.Chmod("none", 0o755))
	}},
	{"owners", func(s *seen) {
		put("f", "")
		s.add("to its owner", os.Chown("f", os.Getuid(), os.Getgid()))
		s.add("nobody", os.Chown("f", -1, -1))
		var st unix.Stat_t
		s.add("stat", unix.Stat("f", &st))
		s.say("mine %v", st.Uid == uint32(os.Getuid()) && st.Gid == uint32(os.Getgid()))
	}},
	{"times", func(s *seen) {
		put("f", "")
		at := []unix.Timespec{{Sec: 1_000_000_000, Nsec: 123_456_789}, {Sec: -5, Nsec: 999_999_999}}
		s.add("utimensat", unix.UtimesNanoAt(unix.AT_FDCWD, "f", at, 0))
		var st unix.Stat_t
		s.add("stat", unix.Stat("f", &st))
		s.say("%v %v", st.Atim, st.Mtim)
		s.add("one of them", unix.UtimesNanoAt(unix.AT_FDCWD, "f", []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: 7}}, 0))
		s.add("stat", unix.Stat("f", &st))
		s.say("%v %v", st.Atim, st.Mtim)
		before := st.Ctim.Nano()
		s.add("now", unix.UtimesNanoAt(unix.AT_FDCWD, "f", nil, 0))
		s.add("stat", unix.Stat("f", &st))
		s.say("now %v, changed %v", time.Since(time.Unix(st.Mtim.Unix())) < 10*time.Second, st.Ctim.Nano() > before)
		s.add("symlink", os.Symlink("f", "l"))
		s.add("of the link", unix.UtimesNanoAt(unix.AT_FDCWD, "l", []unix.Timespec{{Sec: 1}, {Sec: 2}}, unix.AT_SYMLINK_NOFOLLOW))
		s.add("lstat", unix.Lstat("l", &st))
		s.say("%v", st.Mtim)
		mtime := st.Mtim
		fd := s.open("f", unix.O_WRONLY, 0)
		_, err := unix.Write(fd, []byte("x"))
		s.add("write", err)
		unix.Close(fd)
		s.add("stat", unix.Stat("f", &st))
		s.say("written later %v", st.Mtim.Nano() > mtime.Nano())
	}},
	{"extended attributes", func(s *seen) {
		put("f", "")
		s.add("set", unix.Setxattr("f", "user.one", []byte("1"), 0))
		s.add("create", unix.Setxattr("f", "user.one", []byte("2"), unix.XATTR_CREATE))
		s.add("replace", unix.Setxattr("f", "user.two", []byte("2"), unix.XATTR_REPLACE))
		buf := make([]byte, 100)
		n, err := unix.Getxattr("f", "user.one", buf)
		s.say("%q %v", buf[:max(n, 0)], err)
		n, err = unix.Getxattr("f", "user.one", nil)
		s.say("%d bytes %v", n, err)
		_, err = unix.Getxattr("f", "user.none", buf)
		s.add("none", err)
		n, err = unix.Listxattr("f", buf)
		s.say("%q %v", buf[:max(n, 0)], err)
		fd := s.open("f", unix.O_RDWR, 0)
		s.add("fsetxattr", unix.Fsetxattr(fd, "user.fd", []byte("x"), 0))
		s.add("remove", unix.Removexattr("f", "user.one"))
		n, err = unix.Listxattr("f", buf)
		s.say("%q %v", buf[:max(n, 0)], err)
		_, err = unix.Getxattr("f", "security.capability", buf)
		s.add("capabilities", err)
	}},
	{"names", func(s *seen) {
		long := strings.Repeat("n", 255)
		for _, name := range []string{long, "sp ace", "new\nline", "\xff\xfe", "ünï", "-", "..x", "*"} {
			put(name, name[:1])
			s.content(name)
		}
		names(s, ".")
		s.open(long+"n", unix.O_RDONLY, 0)
		s.open(long+"n", unix.O_CREAT|unix.O_WRONLY, 0o644)
		s.open(strings.Repeat("./", 2100)+"x", unix.O_RDONLY, 0)
		s.add("mkdir", unix.Mkdir(long+"n", 0o755))
		s.add("rename", unix.Rename(long, long+"n"))
	}},
	{"fifo and socket", func(s *seen) {
		s.add("mkfifo", unix.Mkfifo("p", 0o600))
		s.stat("p")
		r := s.open("p", unix.O_RDONLY|unix.O_NONBLOCK, 0)
		w := s.open("p", unix.O_WRONLY|unix.O_NONBLOCK, 0)
		_, err := unix.Write(w, []byte("through"))
		s.add("write", err)
		buf := make([]byte, 20)
		n, err := unix.Read(r, buf)
		s.say("%q %v", buf[:max(n, 0)], err)
		s.add("a device", unix.Mknod("null", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
		l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		s.add("socket", err)
		s.add("bind", unix.Bind(l, &unix.SockaddrUnix{Name: "s"}))
		s.stat("s")
	}},
	{"locks", func(s *seen) {
		put("f", "0123456789")
		a, b := s.open("f", unix.O_RDWR, 0), s.open("f", unix.O_RDWR, 0)
		s.add("flock", unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB))
		s.add("flock of another", unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB))
		s.add("unlock", unix.Flock(a, unix.LOCK_UN))
		s.add("flock of another", unix.Flock(b, unix.LOCK_SH|unix.LOCK_NB))
		l := unix.Flock_t{Type: unix.F_WRLCK, Start: 2, Len: 3}
		s.add("posix", unix.FcntlFlock(uintptr(a), unix.F_OFD_SETLK, &l))
		l = unix.Flock_t{Type: unix.F_WRLCK, Start: 4, Len: 1}
		s.add("posix of another", unix.FcntlFlock(uintptr(b), unix.F_OFD_SETLK, &l))
		l = unix.Flock_t{Type: unix.F_WRLCK, Start: 5, Len: 1}
		s.add("beside it", unix.FcntlFlock(uintptr(b), unix.F_OFD_SETLK, &l))
		l = unix.Flock_t{Type: unix.F_WRLCK, Start: 0, Len: 10}
		s.add("who holds it", unix.FcntlFlock(uintptr(b), unix.F_OFD_GETLK, &l))
		s.say("from %d on %d", l.Start, l.Len)
	}},
	{"many names", func(s *seen) {
		for i := range 500 {
			put(fmt.Sprintf("f%03d", i), "x")
		}
		names(s, ".")
		d, err := os.Open(".")
		s.add("open", err)
		first, err := d.Readdirnames(100)
		s.say("%d %v", len(first), err)
		for i := range 500 {
			if err := os.Remove(fmt.Sprintf("f%03d", i)); err != nil {
				s.add("remove", err)
			}
		}
		d.Close()
		names(s, ".")
	}},
	{"listing tells what opening finds", func(s *seen) {
		for _, name := range []string{"a", "b", "c"} {
			put(name, "")
		}
		os.Remove("b")
		os.Rename("c", "d")
		entries, err := os.ReadDir(".")
		s.add("list", err)
		for _, e := range entries {
			s.stat(e.Name())
		}
		s.stat("b")
		s.stat("c")
	}},
	{"programs", func(s *seen) {
		s.add("write", os.WriteFile("script", []byte("#!/bin/sh\necho $0 $1\n"), 0o755))
		s.start("./script", "x")
		b, err := os.ReadFile("/bin/true")
		s.add("read", err)
		s.add("write", os.WriteFile("true", b, 0o755))
		s.start("./true")
		s.add("chmod", os.Chmod("true", 0o644))
		s.start("./true")
		s.add("write", os.WriteFile("bad", []byte("x"), 0o755))
		s.start("./bad")
	}},
	{"growing", func(s *seen) {
		w, r := s.open("f", unix.O_CREAT|unix.O_WRONLY|unix.O_APPEND, 0o644), s.open("f", unix.O_RDONLY, 0)
		buf := make([]byte, 100)
		for i := range 3 {
			_, err := fmt.Fprintf(writer(w), "line %d\n", i)
			s.add("write", err)
			n, err := unix.Read(r, buf)
			s.say("%q %v", buf[:n], err)
			n, err = unix.Read(r, buf)
			s.say("%d %v", n, err)
		}
	}},
	{"direct", func(s *seen) {
		put("f", strings.Repeat("x", 8192))
		fd, err := unix.Open("f", unix.O_RDONLY|unix.O_SYNC|unix.O_NOATIME|unix.O_CLOEXEC, 0)
		s.add("open", err)
		s.add("advise", unix.Fadvise(fd, 0, 0, unix.FADV_SEQUENTIAL))
		s.add("fdatasync", unix.Fdatasync(fd))
		s.add("sync_file_range", unix.SyncFileRange(fd, 0, 0, 0))
		s.add("syncfs", unix.Syncfs(fd))
	}},
}

type writer int

func (w writer) Write(p []byte) (int, error) { return unix.Write(int(w), p) }
