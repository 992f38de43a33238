package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Names: making, opening, moving, listing.
var ofNames = []tried{
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
}
