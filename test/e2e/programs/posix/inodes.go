package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Files apart from their names and contents: attributes, descriptors, programs.
var ofInodes = []tried{
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
		s.add("to root", os.Chown("f", 0, -1))
		s.add("to root's group", os.Chown("f", -1, 0))
		s.add("to another", os.Chown("f", 999, 998))
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
}
