package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// What is in files: reading, writing, holes, locks.
var ofContents = []tried{
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
	{"mmap of what appends", func(s *seen) {
		put("f", "0123456789")
		fd := s.open("f", unix.O_RDWR|unix.O_APPEND, 0)
		shared, err := unix.Mmap(fd, 0, 10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		s.add("mmap", err)
		shared[3] = 'S'
		n, err := unix.Pwrite(fd, []byte("end"), 0)
		s.say("%d", n)
		s.add("pwrite", err)
		s.add("msync", unix.Msync(shared, unix.MS_SYNC))
		s.content("f")
		unix.Munmap(shared)
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
}

type writer int

func (w writer) Write(p []byte) (int, error) { return unix.Write(int(w), p) }
