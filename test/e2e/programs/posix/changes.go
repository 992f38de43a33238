package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// What changes leave behind: in the times of files and of the directories that
// they are in, and in the numbers of files.
var ofChanges = []tried{
	{"times that names change", func(s *seen) {
		for _, c := range []struct {
			name string
			do   func() error
			of   []string
		}{
			{"create", func() error { return os.WriteFile("d/new", nil, 0o644) }, []string{"d"}},
			{"create what is there", func() error { return opened("d/f", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY) }, []string{"d", "d/f"}},
			{"open", func() error { return opened("d/f", unix.O_CREAT|unix.O_RDWR) }, []string{"d", "d/f"}},
			{"mkdir", func() error { return os.Mkdir("d/new", 0o755) }, []string{"d"}},
			{"mkdir of what is there", func() error { return os.Mkdir("d/sub", 0o755) }, []string{"d", "d/sub"}},
			{"mkfifo", func() error { return unix.Mkfifo("d/new", 0o644) }, []string{"d"}},
			{"symlink", func() error { return os.Symlink("f", "d/new") }, []string{"d", "d/f"}},
			{"link", func() error { return os.Link("d/f", "e/new") }, []string{"d", "e", "d/f"}},
			{"link over what is there", func() error { return unix.Link("d/f", "e/g") }, []string{"d", "e", "d/f", "e/g"}},
			{"unlink", func() error { return os.Remove("d/f") }, []string{"d", "e/hard"}},
			{"rmdir", func() error { return os.Remove("d/sub") }, []string{"d"}},
			{"rmdir of a full one", func() error { return unix.Rmdir("d") }, []string{".", "d"}},
			{"rename", func() error { return os.Rename("d/f", "d/new") }, []string{"d", "d/new"}},
			{"rename elsewhere", func() error { return os.Rename("d/f", "e/new") }, []string{"d", "e", "e/new"}},
			{"rename over another", func() error { return os.Rename("d/f", "e/g") }, []string{"d", "e", "e/g"}},
			{"rename of a directory", func() error { return os.Rename("d/sub", "e/sub") }, []string{"d", "e", "e/sub"}},
			{"rename onto its other name", func() error { return os.Rename("d/f", "e/hard") }, []string{"d", "e", "d/f"}},
			{"exchange", func() error {
				return unix.Renameat2(unix.AT_FDCWD, "d/f", unix.AT_FDCWD, "e/g", unix.RENAME_EXCHANGE)
			}, []string{"d", "e", "d/f", "e/g"}},
			{"rename that may not", func() error {
				return unix.Renameat2(unix.AT_FDCWD, "d/f", unix.AT_FDCWD, "e/g", unix.RENAME_NOREPLACE)
			}, []string{"d", "e", "d/f", "e/g"}},
		} {
			s.touched(c.name, c.do, c.of)
		}
	}},
	{"times that contents and attributes change", func(s *seen) {
		for _, c := range []struct {
			name string
			do   func() error
		}{
			{"write", func() error { return at("d/f", unix.O_WRONLY, func(fd int) error { return wrote(fd, "x") }) }},
			{"write of nothing", func() error { return at("d/f", unix.O_WRONLY, func(fd int) error { return wrote(fd, "") }) }},
			{"append", func() error {
				return at("d/f", unix.O_WRONLY|unix.O_APPEND, func(fd int) error { return wrote(fd, "x") })
			}},
			{"read", func() error { _, err := os.ReadFile("d/f"); return err }},
			{"list", func() error { _, err := os.ReadDir("d"); return err }},
			{"truncate", func() error { return os.Truncate("d/f", 1) }},
			{"truncate to its length", func() error { return os.Truncate("d/f", 4) }},
			{"truncate at open", func() error { return opened("d/f", unix.O_WRONLY|unix.O_TRUNC) }},
			{"truncate of nothing at open", func() error { return opened("d/empty", unix.O_WRONLY|unix.O_TRUNC) }},
			{"ftruncate", func() error {
				return at("d/f", unix.O_RDWR, func(fd int) error { return unix.Ftruncate(fd, 9) })
			}},
			{"allocate", func() error {
				return at("d/f", unix.O_RDWR, func(fd int) error { return unix.Fallocate(fd, 0, 0, 100) })
			}},
			{"mmap", func() error {
				return at("d/f", unix.O_RDWR, func(fd int) error {
					m, err := unix.Mmap(fd, 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
					if err == nil {
						m[0] = 'M'
						err = errors.Join(unix.Msync(m, unix.MS_SYNC), unix.Munmap(m))
					}
					return err
				})
			}},
			{"copy_file_range", func() error {
				return at("d/f", unix.O_RDWR, func(to int) error {
					return at("e/g", unix.O_RDONLY, func(from int) error {
						_, err := unix.CopyFileRange(from, nil, to, nil, 2, 0)
						return err
					})
				})
			}},
			{"chmod", func() error { return os.Chmod("d/f", 0o600) }},
			{"chmod of a directory", func() error { return os.Chmod("d", 0o700) }},
			{"chown", func() error { return os.Chown("d/f", os.Getuid(), os.Getgid()) }},
			{"chown to nobody", func() error { return os.Chown("d/f", -1, -1) }},
			{"chown of a directory to nobody", func() error { return os.Chown("d", -1, -1) }},
			{"chown that may not", func() error { return os.Chown("d/f", 0, 0) }},
			{"setxattr", func() error { return unix.Setxattr("d/f", "user.new", []byte("x"), 0) }},
			{"removexattr of none", func() error { return unix.Removexattr("d/f", "user.none") }},
			{"fsync", func() error { return at("d/f", unix.O_RDWR, unix.Fsync) }},
		} {
			s.touched(c.name, c.do, []string{"d", "d/f", "d/empty", "e/g"})
		}
	}},
	{"numbers of files", func(s *seen) {
		put("f", "text")
		put("g", "text")
		ino := number("f")
		same := func(what string) {
			var st unix.Stat_t
			var stx unix.Statx_t
			s.add("stat", errors.Join(unix.Stat("f", &st), unix.Statx(unix.AT_FDCWD, "f", 0, unix.STATX_BASIC_STATS, &stx)))
			s.say("%s: same %v %v %v %v", what, st.Ino == ino, stx.Ino == ino, inListing(".", "f") == ino, number("f") == ino)
		}
		same("found")
		s.add("chmod", os.Chmod("f", 0o600))
		s.add("truncate", os.Truncate("f", 2))
		same("changed")
		s.add("rename", errors.Join(os.Mkdir("d", 0o755), os.Rename("f", "d/other")))
		s.say("moved: same %v", number("d/other") == ino && inListing("d", "other") == ino)
		s.add("rename", os.Rename("d/other", "f"))
		s.add("link", os.Link("f", "hard"))
		s.say("linked: same %v", number("hard") == ino)
		s.say("another: same %v", number("g") == ino)
		held := s.open("f", unix.O_RDONLY, 0)
		s.add("replace", os.Rename("g", "f"))
		var st unix.Stat_t
		s.add("fstat", unix.Fstat(held, &st))
		s.say("replaced: same %v, the open one %v with %d names", number("f") == ino, st.Ino == ino, st.Nlink)
		var dir, file unix.Stat_t
		s.add("stat", errors.Join(unix.Stat(".", &dir), unix.Stat("f", &file)))
		s.say("one device %v, and none of its own %v", dir.Dev == file.Dev, file.Rdev == 0)
		s.say("blocks %v", file.Blocks > 0 && file.Blocks <= 16 && file.Blksize >= 512)
	}},
	{"replaced while open", func(s *seen) {
		put("f", "old")
		fd := s.open("f", unix.O_RDWR, 0)
		put("new", "new content")
		s.add("rename", os.Rename("new", "f"))
		s.content("f")
		buf := make([]byte, 20)
		n, err := unix.Pread(fd, buf, 0)
		s.say("%q %v", buf[:n], err)
		_, err = unix.Pwrite(fd, []byte("lost"), 0)
		s.add("write", err)
		s.content("f")
		s.add("remove", os.Remove("f"))
		put("f", "third")
		s.content("f")
	}},
	{"set-group directories", func(s *seen) {
		s.add("mkdir", os.Mkdir("d", 0o755))
		s.add("chmod", unix.Chmod("d", 0o2775))
		s.stat("d")
		s.add("mkdir", unix.Mkdir("d/sub", 0o755))
		s.stat("d/sub")
		unix.Close(s.open("d/f", unix.O_CREAT|unix.O_WRONLY, 0o2755))
		s.stat("d/f")
		var dir, file unix.Stat_t
		s.add("stat", errors.Join(unix.Stat("d", &dir), unix.Stat("d/f", &file)))
		s.say("the directory's group %v", dir.Gid == file.Gid)
	}},
	{"places in a listing", func(s *seen) {
		var want []string
		for i := range 300 {
			name := fmt.Sprintf("f%03d", i)
			put(name, "")
			want = append(want, name)
		}
		fd := s.open(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		buf := make([]byte, 2048)
		next := func() string {
			n, err := unix.Getdents(fd, buf)
			if err != nil {
				return err.Error()
			}
			_, _, names := unix.ParseDirent(buf[:n], -1, nil)
			return strings.Join(names, " ")
		}
		next()
		place, err := unix.Seek(fd, 0, unix.SEEK_CUR)
		s.add("tell", err)
		second, _, _ := strings.Cut(next(), " ") // how many fit is nobody's affair
		for next() != "" {
		}
		_, err = unix.Seek(fd, place, unix.SEEK_SET)
		s.add("seek", err)
		again, _, _ := strings.Cut(next(), " ")
		s.say("the same follows %v, some %v", again == second, second != "")
		_, err = unix.Seek(fd, 0, unix.SEEK_SET)
		s.add("rewind", err)
		seen := map[string]int{}
		for names := next(); names != ""; names = next() {
			for name := range strings.FieldsSeq(names) {
				seen[name]++
			}
		}
		once := 0
		for _, name := range want {
			if seen[name] == 1 {
				once++
			}
		}
		s.say("%d once, %d in all", once, len(seen))
	}},
}

// touched notes which times of the paths change when something is done in a
// directory of its own with files in it.
func (s *seen) touched(what string, do func() error, paths []string) {
	dir, err := os.MkdirTemp(".", "touched-")
	if err != nil {
		panic(err)
	}
	back, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	defer func() {
		if err := os.Chdir(back); err != nil {
			panic(err)
		}
	}()
	for _, err := range []error{os.Chdir(dir), os.MkdirAll("d/sub", 0o755), os.Mkdir("e", 0o755), os.WriteFile("d/f", []byte("text"), 0o644), os.WriteFile("d/empty", nil, 0o644),
		os.WriteFile("e/g", []byte("more"), 0o644), os.Link("d/f", "e/hard")} {
		if err != nil {
			panic(err)
		}
	}
	type times struct{ mtime, ctime int64 }
	look := func() map[uint64]times {
		all := map[uint64]times{}
		_ = filepath.WalkDir(".", func(p string, _ os.DirEntry, err error) error {
			var st unix.Stat_t
			if err == nil && unix.Lstat(p, &st) == nil {
				all[st.Ino] = times{st.Mtim.Nano(), st.Ctim.Nano()}
			}
			return nil
		})
		return all
	}
	before := look()
	tick()
	err = do()
	s.add(what, err)
	after := look()
	var changed []string
	for _, p := range paths {
		ino := number(p)
		was, is := before[ino], after[ino]
		text := p
		if is.mtime != was.mtime {
			text += " content"
		}
		if is.ctime != was.ctime {
			text += " state"
		}
		changed = append(changed, text)
	}
	s.say("%v", changed)
}

// tick waits until the file system's clock has gone on.
func tick() {
	const clock = "../clock"
	now := func() int64 {
		if err := os.WriteFile(clock, nil, 0o644); err != nil {
			panic(err)
		}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, clock, nil, 0); err != nil {
			panic(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(clock, &st); err != nil {
			panic(err)
		}
		return st.Mtim.Nano()
	}
	for was := now(); now() <= was; {
	}
}

func opened(p string, flags int) error { return at(p, flags, func(int) error { return nil }) }

// at does something with an open file.
func at(p string, flags int, do func(fd int) error) error {
	fd, err := unix.Open(p, flags|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(do(fd), unix.Close(fd))
}

func wrote(fd int, text string) error {
	_, err := unix.Write(fd, []byte(text))
	return err
}

// number is that of a file; 0: there is none.
func number(p string) uint64 {
	fi, err := os.Lstat(p)
	if err != nil {
		return 0
	}
	return fi.Sys().(*syscall.Stat_t).Ino
}

// inListing is the number that a directory gives for a name.
func inListing(dir, name string) (ino uint64) {
	_ = at(dir, unix.O_RDONLY|unix.O_DIRECTORY, func(fd int) error {
		buf := make([]byte, 1<<16)
		n, err := unix.Getdents(fd, buf)
		for b := buf[:max(n, 0)]; len(b) > 0; {
			length := *(*uint16)(ptr(b[16:])) // linux_dirent64: ino, off, reclen, type, name
			text, _, _ := strings.Cut(string(b[19:length]), "\x00")
			if text == name {
				ino = *(*uint64)(ptr(b))
			}
			b = b[length:]
		}
		return err
	})
	return ino
}
