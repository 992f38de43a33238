package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What one process does, and another sees or is kept from.
var ofProcesses = []tried{
	{"locks of records", func(s *seen) {
		put("f", "0123456789")
		c := s.child("f")
		defer c.close()
		fd := s.open("f", unix.O_RDWR, 0)
		lock := func(kind int16, from, length int64) error {
			return unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: kind, Start: from, Len: length})
		}
		s.add("mine", lock(unix.F_WRLCK, 2, 3))
		s.say("another's over it: %s", c.ask("lock 1 4 1"))
		s.say("who has it: %s", c.ask("who 4 1"))
		s.say("beside it: %s", c.ask("lock 1 5 2"))
		s.add("mine over another's", lock(unix.F_RDLCK, 6, 1))
		c.tell("wait 1 3 1")
		for range 100 {
			s.quiet(unix.Fstat(fd, new(unix.Stat_t)))
		}
		s.say("it waits: %v", !c.said())
		s.add("given up", lock(unix.F_UNLCK, 2, 3))
		s.say("it has waited: %s", c.hear())
		s.add("mine over what it got", lock(unix.F_WRLCK, 3, 1))
		s.say("the end: %s", c.ask("end"))
		s.add("after its end", lock(unix.F_WRLCK, 0, 10))
		c = s.child("f")
		defer c.close()
		s.say("another's: %s", c.ask("lock 0 9 1"))
		unix.Close(s.open("f", unix.O_RDONLY, 0)) // drops all of this process's
		s.say("after a close: %s", c.ask("lock 1 0 10"))
	}},
	{"locks of files", func(s *seen) {
		put("f", "0123456789")
		c := s.child("f")
		defer c.close()
		fd := s.open("f", unix.O_RDWR, 0)
		s.add("mine", unix.Flock(fd, unix.LOCK_EX))
		s.say("another's: %s", c.ask(fmt.Sprint("flock ", unix.LOCK_SH|unix.LOCK_NB)))
		c.tell(fmt.Sprint("flock ", unix.LOCK_SH))
		for range 100 {
			s.quiet(unix.Fstat(fd, new(unix.Stat_t)))
		}
		s.say("it waits: %v", !c.said())
		s.add("shared", unix.Flock(fd, unix.LOCK_SH))
		s.say("it has waited: %s", c.hear())
		s.add("mine alone", unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB))
		s.say("the end: %s", c.ask("end"))
		s.add("mine alone", unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB))
	}},
	{"a mapping and other ways", func(s *seen) {
		put("f", strings.Repeat("0123456789", 1000))
		c := s.child("f")
		defer c.close()
		fd, other := s.open("f", unix.O_RDWR, 0), s.open("f", unix.O_RDWR, 0)
		shared, err := unix.Mmap(fd, 0, 10_000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		s.add("mmap", err)
		private, err := unix.Mmap(fd, 0, 10_000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
		s.add("mmap", err)
		private[9000] = 'P'
		_, err = unix.Pwrite(other, []byte("written"), 5000)
		s.add("write", err)
		s.say("%q", shared[4998:5010])
		shared[6000] = 'S'
		buf := make([]byte, 4)
		n, err := unix.Pread(other, buf, 5998)
		s.say("%q %v", buf[:n], err)
		s.say("%s", c.ask("map 100 X"))
		s.say("%q", shared[98:103])
		shared[101] = 'Y'
		s.say("%s", c.ask("read 98 6"))
		s.say("%s", c.ask("write 7000 Z"))
		s.say("%q %q", shared[6999:7002], private[8999:9002])
		s.add("unlink", os.Remove("f"))
		shared[200] = 'U'
		s.say("%s", c.ask("read 199 3"))
		s.add("truncate", unix.Ftruncate(fd, 5000))
		s.say("%q, then %s", shared[4998:5002], fault(shared, 9000))
		s.say("%s", c.ask("read 4990 20"))
		s.add("unmap", errors.Join(unix.Munmap(shared), unix.Munmap(private)))
	}},
	{"mappings that may not be", func(s *seen) {
		put("f", "0123456789")
		put("empty", "")
		r, w := s.open("f", unix.O_RDONLY, 0), s.open("f", unix.O_WRONLY, 0)
		for _, c := range []struct {
			name        string
			fd          int
			off         int64
			length      int
			prot, flags int
		}{
			{"to write, of one for reading", r, 0, 10, unix.PROT_WRITE, unix.MAP_SHARED},
			{"to write for oneself", r, 0, 10, unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE},
			{"of one for writing", w, 0, 10, unix.PROT_READ, unix.MAP_SHARED},
			{"to run", r, 0, 10, unix.PROT_READ | unix.PROT_EXEC, unix.MAP_PRIVATE},
			{"at an odd place", r, 5, 10, unix.PROT_READ, unix.MAP_SHARED},
			{"behind the end", r, 1 << 16, 10, unix.PROT_READ, unix.MAP_SHARED},
			{"of nothing", s.open("empty", unix.O_RDONLY, 0), 0, 10, unix.PROT_READ, unix.MAP_SHARED},
			{"of a directory", s.open(".", unix.O_RDONLY, 0), 0, 10, unix.PROT_READ, unix.MAP_SHARED},
		} {
			m, err := unix.Mmap(c.fd, c.off, c.length, c.prot, c.flags)
			s.add(c.name, err)
			if err == nil {
				s.say("%s", fault(m, 0))
				s.quiet(unix.Munmap(m))
			}
		}
	}},
	{"a program that runs", func(s *seen) {
		b, err := os.ReadFile("/bin/sleep")
		s.add("read", err)
		s.add("write", os.WriteFile("sleep", b, 0o755))
		put("other", "other")
		held := s.open("sleep", unix.O_WRONLY, 0)
		_, err = os.StartProcess("./sleep", []string{"sleep", "100"}, &os.ProcAttr{})
		s.add("start while it is written", err)
		unix.Close(held)
		p, err := os.StartProcess("./sleep", []string{"sleep", "100"}, &os.ProcAttr{})
		s.add("start", err)
		if err != nil {
			return
		}
		s.open("sleep", unix.O_RDWR, 0)
		s.open("sleep", unix.O_WRONLY|unix.O_TRUNC, 0)
		s.add("truncate", unix.Truncate("sleep", 0))
		s.add("chmod", unix.Chmod("sleep", 0o700))
		s.add("replace", os.Rename("other", "sleep"))
		s.content("sleep")
		s.add("kill", p.Kill())
		_, err = p.Wait()
		s.add("wait", err)
		s.open("sleep", unix.O_RDWR, 0)
	}},
	{"by descriptor", func(s *seen) {
		put("f", "text")
		s.add("symlink", os.Symlink("f", "l"))
		s.add("mkdir", os.Mkdir("d", 0o755))
		link := s.open("l", unix.O_PATH|unix.O_NOFOLLOW, 0)
		buf := make([]byte, 10)
		n, err := unix.Readlinkat(link, "", buf)
		s.say("%q %v", buf[:max(n, 0)], err)
		var st unix.Stat_t
		s.add("fstatat", unix.Fstatat(link, "", &st, unix.AT_EMPTY_PATH))
		s.say("%o", st.Mode&unix.S_IFMT)
		s.add("fstatat", unix.Fstatat(unix.AT_FDCWD, "l", &st, 0))
		s.say("%o with %d bytes", st.Mode, st.Size)
		s.add("fstatat", unix.Fstatat(unix.AT_FDCWD, "l", &st, unix.AT_SYMLINK_NOFOLLOW))
		s.say("%o with %d bytes", st.Mode, st.Size)
		s.add("faccessat", unix.Faccessat2(unix.AT_FDCWD, "f", unix.R_OK|unix.W_OK, unix.AT_EACCESS))
		s.add("faccessat", unix.Faccessat2(unix.AT_FDCWD, "f", unix.X_OK, unix.AT_EACCESS))
		dir := s.open("d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		fd, err := unix.Openat(dir, "../f", unix.O_RDWR, 0)
		s.add("openat", err)
		s.add("linkat", unix.Linkat(unix.AT_FDCWD, "f", dir, "hard", 0))
		s.add("symlinkat", unix.Symlinkat("hard", dir, "soft"))
		s.add("mknodat", unix.Mknodat(dir, "fifo", unix.S_IFIFO|0o600, 0))
		s.add("fchmodat", unix.Fchmodat(dir, "hard", 0o640, 0))
		s.add("fchownat", unix.Fchownat(dir, "soft", os.Getuid(), os.Getgid(), unix.AT_SYMLINK_NOFOLLOW))
		s.add("renameat", unix.Renameat(dir, "fifo", unix.AT_FDCWD, "fifo"))
		s.add("unlinkat", unix.Unlinkat(dir, "soft", 0))
		s.add("futimens", unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), []unix.Timespec{{Sec: 3}, {Sec: 4, Nsec: 5}}, 0))
		s.add("fstat", unix.Fstat(fd, &st))
		s.say("%o with %d names of %v", st.Mode, st.Nlink, st.Mtim)
		names(s, "d")
		for _, how := range []*unix.OpenHow{{Resolve: unix.RESOLVE_BENEATH}, {Resolve: unix.RESOLVE_NO_SYMLINKS}, {Resolve: unix.RESOLVE_NO_XDEV}, {Resolve: unix.RESOLVE_IN_ROOT}} {
			for _, p := range []string{"hard", "../f", "../l", "/hard"} {
				_, err := unix.Openat2(dir, p, how)
				s.add("openat2 "+p, err)
			}
		}
		run, err := os.ReadFile("/bin/true")
		s.add("program", errors.Join(err, os.WriteFile("true", run, 0o755)))
		program := s.open("true", unix.O_PATH, 0)
		s.start(fmt.Sprintf("/proc/self/fd/%d", program))
	}},
	{"odd ways to open", func(s *seen) {
		put("f", "text")
		s.add("links", errors.Join(os.Mkdir("d", 0o755), os.Symlink("f", "l"), os.Symlink("none", "m")))
		for _, c := range []struct {
			p     string
			flags int
		}{
			{"f", unix.O_RDONLY | unix.O_TRUNC}, {"f", unix.O_RDWR | unix.O_APPEND | unix.O_TRUNC}, {"f", unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CREAT}, {"f", unix.O_WRONLY | unix.O_RDWR},
			{"d", unix.O_RDWR}, {"d", unix.O_RDONLY | unix.O_CREAT}, {"d", unix.O_RDONLY | unix.O_TRUNC}, {"d", unix.O_RDONLY | unix.O_APPEND}, {"d", unix.O_RDONLY | unix.O_NOFOLLOW},
			{"l", unix.O_RDONLY | unix.O_NOFOLLOW}, {"l", unix.O_PATH | unix.O_NOFOLLOW}, {"l", unix.O_RDWR | unix.O_CREAT | unix.O_NOFOLLOW}, {"l", unix.O_PATH | unix.O_DIRECTORY},
			{"m", unix.O_RDWR | unix.O_CREAT | unix.O_EXCL}, {"m", unix.O_RDWR | unix.O_CREAT | unix.O_NOFOLLOW}, {"d", unix.O_TMPFILE | unix.O_RDWR | unix.O_EXCL}, {"f", unix.O_TMPFILE | unix.O_RDWR},
			{"f", unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_SYNC | unix.O_DSYNC}, {"f", unix.O_RDONLY | unix.O_ASYNC},
		} {
			s.open(c.p, c.flags, 0o644)
			s.stat("f")
		}
		hidden := s.open("d", unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL, 0o600)
		s.add("link of one that may have no name", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", hidden), unix.AT_FDCWD, "named", unix.AT_SYMLINK_FOLLOW))
	}},
}

func (s *seen) quiet(err error) {
	if err != nil {
		s.add("unexpected", err)
	}
}

// fault reads a byte of a mapping.
func fault(m []byte, at int) (what string) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			what = "a fault"
		}
	}()
	return fmt.Sprintf("byte %d", m[at])
}

func ptr(b []byte) unsafe.Pointer { return unsafe.Pointer(&b[0]) }

// other is another process, which does with a file what it is told, line by line.
type other struct {
	p     *os.Process
	in    *os.File
	out   *os.File
	lines *bufio.Reader
}

// childFlag makes this program one.
const childFlag = "-child="

func (s *seen) child(file string) *other {
	var pipes [4]*os.File
	var err error
	for i := 0; i < 4 && err == nil; i += 2 {
		pipes[i], pipes[i+1], err = os.Pipe()
	}
	if err != nil {
		panic(err)
	}
	p, err := os.StartProcess("/proc/self/exe", []string{"posix", childFlag + file}, &os.ProcAttr{Files: []*os.File{pipes[0], pipes[3], os.Stderr}})
	pipes[0].Close()
	pipes[3].Close()
	if err != nil {
		panic(err)
	}
	c := &other{p: p, in: pipes[1], out: pipes[2], lines: bufio.NewReader(pipes[2])}
	s.say("the other: %s", c.hear())
	return c
}

func (c *other) tell(line string) {
	if _, err := io.WriteString(c.in, line+"\n"); err != nil {
		panic(err)
	}
}

func (c *other) hear() string {
	line, err := c.lines.ReadString('\n')
	if err == io.EOF && line == "" {
		_, werr := c.p.Wait()
		return fmt.Sprint("it has ended ", werr)
	}
	return strings.TrimSpace(line)
}

func (c *other) ask(line string) string {
	c.tell(line)
	return c.hear()
}

// said reports whether there is an answer already.
func (c *other) said() bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(c.out.Fd()), Events: unix.POLLIN}}, 0)
	return n != 0 || err != nil
}

func (c *other) close() {
	c.in.Close()
	_ = c.p.Kill()
	_, _ = c.p.Wait() // it may be waited for already
	c.out.Close()
}

// obey is the other process.
func obey(file string) {
	fd, err := unix.Open(file, unix.O_RDWR|unix.O_CLOEXEC, 0)
	tell := func(err error) {
		s := &seen{}
		s.add("", err)
		fmt.Println(strings.TrimSpace(s.all[0]))
	}
	tell(err)
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var n [3]int64
		word, rest, _ := strings.Cut(in.Text(), " ")
		_, _ = fmt.Sscan(rest, &n[0], &n[1], &n[2])
		lock := unix.Flock_t{Type: int16(n[0]), Start: n[1], Len: n[2]}
		switch word {
		case "lock":
			tell(unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &lock))
		case "wait":
			tell(unix.FcntlFlock(uintptr(fd), unix.F_SETLKW, &lock))
		case "who":
			lock = unix.Flock_t{Type: unix.F_WRLCK, Start: n[0], Len: n[1]}
			err := unix.FcntlFlock(uintptr(fd), unix.F_GETLK, &lock)
			fmt.Println(err, lock.Type, lock.Start, lock.Len, int(lock.Pid) == os.Getppid())
		case "flock":
			tell(unix.Flock(fd, int(n[0])))
		case "map":
			m, err := unix.Mmap(fd, 0, 10_000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err == nil {
				m[n[0]] = rest[len(rest)-1]
			}
			tell(err)
		case "read":
			b := make([]byte, n[1])
			got, err := unix.Pread(fd, b, n[0])
			fmt.Printf("%q %v\n", bytes.TrimRight(b[:max(got, 0)], "\n"), err)
		case "write":
			_, err := unix.Pwrite(fd, []byte(rest[len(rest)-1:]), n[0])
			tell(err)
		case "end":
			return
		}
	}
}
