package main

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// calls take a path that may mean nothing, or not what they want.
var calls = []struct {
	name  string
	looks bool // and changes nothing
	do    func(p string) error
}{
	{"stat", true, func(p string) error { return unix.Stat(p, new(unix.Stat_t)) }},
	{"lstat", true, func(p string) error { return unix.Lstat(p, new(unix.Stat_t)) }},
	{"access", true, func(p string) error { return unix.Access(p, unix.W_OK) }},
	{"open", true, func(p string) error { return opened(p, unix.O_RDONLY) }},
	{"open directory", true, func(p string) error { return opened(p, unix.O_RDONLY|unix.O_DIRECTORY) }},
	{"open unfollowed", true, func(p string) error { return opened(p, unix.O_RDONLY|unix.O_NOFOLLOW) }},
	{"open for writing", true, func(p string) error { return opened(p, unix.O_WRONLY) }},
	{"truncating open", false, func(p string) error { return opened(p, unix.O_RDONLY|unix.O_TRUNC) }},
	{"create", false, func(p string) error { return opened(p, unix.O_CREAT|unix.O_WRONLY) }},
	{"create anew", false, func(p string) error { return opened(p, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY) }},
	{"file without a name", true, func(p string) error { return opened(p, unix.O_TMPFILE|unix.O_RDWR) }},
	{"truncate", false, func(p string) error { return unix.Truncate(p, 0) }},
	{"chmod", false, func(p string) error { return unix.Chmod(p, 0o700) }},
	{"chown", false, func(p string) error { return unix.Lchown(p, os.Getuid(), os.Getgid()) }},
	{"utimes", false, func(p string) error {
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{{Sec: 1}, {Sec: 2}}, 0)
	}},
	{"setxattr", false, func(p string) error { return unix.Setxattr(p, "user.x", []byte("x"), 0) }},
	{"getxattr", true, func(p string) error { _, err := unix.Getxattr(p, "user.x", nil); return err }},
	{"readlink", true, func(p string) error { _, err := unix.Readlink(p, make([]byte, 10)); return err }},
	{"mkdir", false, func(p string) error { return unix.Mkdir(p, 0o755) }},
	{"mkfifo", false, func(p string) error { return unix.Mkfifo(p, 0o644) }},
	{"symlink", false, func(p string) error { return unix.Symlink("x", p) }},
	{"link from", false, func(p string) error { return unix.Link(p, "made") }},
	{"link to", false, func(p string) error { return unix.Link("other", p) }},
	{"rename from", false, func(p string) error { return unix.Rename(p, "made") }},
	{"rename to", false, func(p string) error { return unix.Rename("other", p) }},
	{"rename directory to", false, func(p string) error { return unix.Rename("empty", p) }},
	{"unlink", false, unix.Unlink},
	{"rmdir", false, unix.Rmdir},
	{"chdir", true, func(p string) error {
		back, err := os.Getwd()
		if err != nil {
			panic(err)
		}
		if err := unix.Chdir(p); err != nil {
			return err
		}
		return os.Chdir(back)
	}},
	{"run", true, func(p string) error { // a program that is none
		_, err := os.StartProcess(p, []string{p}, &os.ProcAttr{})
		return err
	}},
}

// ofPaths is a case for each path, with what every call says of it. Each has a
// directory of its own.
func ofPaths() (all []tried) {
	long := strings.Repeat("n", 256)
	for _, p := range []string{"x", "x/y", long, strings.Repeat("./", 2100) + "f", "f/y", "f/", "none", "none/", "", ".", "d/", "dl/", "m", "p", "closed/y"} {
		all = append(all, tried{"the path " + p[:min(len(p), 20)], func(s *seen) {
			back, err := os.Getwd()
			if err != nil {
				panic(err)
			}
			fresh := false
			for _, c := range calls {
				if p == "p" && strings.Contains(c.name, "open") || p == "p" && c.name == "create" {
					continue // waits for another end
				}
				if !fresh {
					furnish(back)
				}
				err := c.do(p)
				fresh = err != nil || c.looks
				s.add(c.name, err)
			}
			_ = os.Chdir(back)
		}})
	}
	return all
}

// furnish makes a directory below dir with one of each, and goes there.
func furnish(dir string) {
	dir, err := os.MkdirTemp(dir, "path-")
	if err != nil {
		panic(err)
	}
	for _, err := range []error{os.Chdir(dir), os.Symlink("x", "x"), os.MkdirAll("d/sub", 0o755), os.Mkdir("empty", 0o755), os.Mkdir("closed", 0), os.WriteFile("f", []byte("text"), 0o644),
		os.WriteFile("other", nil, 0o644), os.Symlink("f", "l"), os.Symlink("d", "dl"), os.Symlink("nowhere", "m"), unix.Mkfifo("p", 0o644)} {
		if err != nil {
			panic(err)
		}
	}
}
