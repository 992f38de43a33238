package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// random does n random things in two directories and says where what comes of
// them differs first, as fsx does for one file.
func random(seed uint64, n int, dirs [2]string) error {
	r := rand.New(rand.NewPCG(seed, 0))
	twins := [2]*twin{newTwin(dirs[0]), newTwin(dirs[1])}
	var past []string
	for i := range n {
		do, what := step(r)
		past = append(past, what)
		var got [2]string
		for j, t := range twins {
			s := &seen{}
			do(t, s)
			got[j] = strings.Join(s.all, ", ")
		}
		if i%50 == 49 || i == n-1 {
			for j, t := range twins {
				got[j] += "; " + t.all()
			}
		}
		if got[0] != got[1] {
			return fmt.Errorf("seed %d, step %d, %s: got\n%s\nwant\n%s\nafter\n%s", seed, i, what, got[0], got[1], strings.Join(past[max(0, len(past)-30):], "\n"))
		}
	}
	for _, t := range twins {
		t.close()
	}
	return nil
}

// twin is one of the directories, and files that are open in it.
type twin struct {
	dir  string
	open [4]int // descriptors; 0: none
}

func newTwin(dir string) *twin { return &twin{dir: dir} }

func (t *twin) at(name string) string { return filepath.Join(t.dir, name) }

func (t *twin) close() {
	for _, fd := range t.open {
		if fd > 0 {
			unix.Close(fd)
		}
	}
}

// all is everything below the directory.
func (t *twin) all() string {
	var b strings.Builder
	_ = filepath.WalkDir(t.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			fmt.Fprintf(&b, "%s: %v\n", strings.TrimPrefix(p, t.dir), err)
			return nil
		}
		s := &seen{}
		if p != t.dir {
			s.stat(p)
			if d.Type().IsRegular() {
				content, err := os.ReadFile(p)
				s.say("%x %v", hash(content), err)
			}
		}
		b.WriteString(strings.ReplaceAll(strings.Join(s.all, ", "), t.dir, "") + "\n")
		return nil
	})
	return b.String()
}

// hash is FNV-1a, 64 bits.
func hash(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// step chooses what to do.
func step(r *rand.Rand) (do func(t *twin, s *seen), what string) {
	few := []string{"a", "b", "c", "d/a", "d/b", "e/a", "d", "e"}
	name, other := few[r.IntN(len(few))], few[r.IntN(len(few))]
	slot, second := r.IntN(4), r.IntN(4)
	off, size := r.Int64N(300_000), 1+r.IntN(70_000)
	text := bytes.Repeat([]byte{byte('a' + r.IntN(26))}, size)
	switch k := r.IntN(27); k {
	case 0, 1, 2, 3:
		flags := []int{unix.O_RDWR, unix.O_RDWR | unix.O_CREAT, unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC, unix.O_RDWR | unix.O_CREAT | unix.O_EXCL,
			unix.O_RDONLY, unix.O_RDWR | unix.O_APPEND | unix.O_CREAT}[r.IntN(6)]
		return func(t *twin, s *seen) {
			fd, err := unix.Open(t.at(name), flags|unix.O_CLOEXEC, 0o644)
			s.add("open", err)
			if err == nil {
				if t.open[slot] > 0 {
					s.add("close", unix.Close(t.open[slot]))
				}
				t.open[slot] = fd
			}
		}, fmt.Sprintf("open %s with %o as %d", name, flags, slot)
	case 4, 5, 6, 7:
		return func(t *twin, s *seen) {
			n, err := unix.Pwrite(t.fd(slot), text, off)
			s.say("%d", n)
			s.add("write", err)
		}, fmt.Sprintf("write %d at %d of %d", size, off, slot)
	case 8, 9, 10, 11:
		return func(t *twin, s *seen) {
			buf := make([]byte, size)
			n, err := unix.Pread(t.fd(slot), buf, off)
			s.say("%d %x", n, hash(buf))
			s.add("read", err)
		}, fmt.Sprintf("read %d at %d of %d", size, off, slot)
	case 12:
		return func(t *twin, s *seen) { s.add("truncate", unix.Ftruncate(t.fd(slot), off)) }, fmt.Sprintf("truncate %d to %d", slot, off)
	case 13:
		return func(t *twin, s *seen) {
			var st unix.Stat_t
			s.add("fstat", unix.Fstat(t.fd(slot), &st))
			if st.Mode&unix.S_IFMT == unix.S_IFREG {
				s.say("%d bytes, %d names, %o", st.Size, st.Nlink, st.Mode)
			}
		}, fmt.Sprintf("fstat of %d", slot)
	case 14:
		flags := uint([]int{0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}[r.IntN(4)])
		return func(t *twin, s *seen) {
			s.add("rename", unix.Renameat2(unix.AT_FDCWD, t.at(name), unix.AT_FDCWD, t.at(other), flags))
		}, fmt.Sprintf("rename %s to %s with %d", name, other, flags)
	case 15:
		return func(t *twin, s *seen) { s.add("link", unix.Link(t.at(name), t.at(other))) }, fmt.Sprintf("link %s to %s", name, other)
	case 16:
		return func(t *twin, s *seen) { s.add("unlink", unix.Unlink(t.at(name))) }, "unlink " + name
	case 17:
		return func(t *twin, s *seen) {
			s.add("mkdir", unix.Mkdir(t.at(name), 0o755))
			s.add("rmdir", unix.Rmdir(t.at(other)))
		}, fmt.Sprintf("mkdir %s, rmdir %s", name, other)
	case 18:
		mode := uint32([]int{0o711, 0o700, 0o755}[r.IntN(3)]) // of a directory too, which stays open to us
		return func(t *twin, s *seen) { s.add("chmod", unix.Chmod(t.at(name), mode)) }, "chmod " + name
	case 19:
		return func(t *twin, s *seen) {
			from, to := off, int64(size)
			n, err := unix.CopyFileRange(t.fd(slot), &from, t.fd(second), &to, size, 0)
			s.say("%d", n)
			s.add("copy", err)
		}, fmt.Sprintf("copy %d at %d of %d to %d at %d", size, off, slot, second, size)
	case 20:
		mode := uint32([]int{0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE}[r.IntN(3)])
		return func(t *twin, s *seen) { s.add("allocate", unix.Fallocate(t.fd(slot), mode, off, int64(size))) },
			fmt.Sprintf("allocate %d at %d of %d with %d", size, off, slot, mode)
	case 21, 22:
		return func(t *twin, s *seen) { s.mapped(t.fd(slot), off, text, k == 21) }, fmt.Sprintf("map %d at %d of %d, writing %v", size, off, slot, k == 21)
	case 23:
		return func(t *twin, s *seen) {
			s.add("symlink", unix.Symlink(path.Base(other), t.at(name)))
			b := make([]byte, 100)
			n, err := unix.Readlink(t.at(name), b)
			s.say("%q", b[:max(n, 0)])
			s.add("readlink", err)
		}, fmt.Sprintf("symlink %s to %s", name, path.Base(other))
	case 24:
		at := []unix.Timespec{unix.NsecToTimespec(off), unix.NsecToTimespec(int64(size))}
		return func(t *twin, s *seen) {
			s.add("utimes", unix.UtimesNanoAt(unix.AT_FDCWD, t.at(name), at, 0))
			var st unix.Stat_t
			s.add("stat", unix.Stat(t.at(name), &st))
			s.say("%v", st.Mtim)
		}, "utimes of " + name
	case 25:
		return func(t *twin, s *seen) {
			n, err := unix.Sendfile(t.fd(slot), t.fd(second), nil, size)
			s.say("%d", n)
			s.add("send", err)
		}, fmt.Sprintf("send %d of %d to %d", size, second, slot)
	default:
		return func(t *twin, s *seen) {
			entries, err := os.ReadDir(t.at(name))
			s.add("list", err)
			var all []string
			for _, e := range entries {
				all = append(all, fmt.Sprint(e.Name(), e.Type()))
			}
			slices.Sort(all)
			s.say("%v", all)
		}, "list " + name
	}
}

// fd is a descriptor that is open, or none.
func (t *twin) fd(slot int) int {
	if t.open[slot] > 0 {
		return t.open[slot]
	}
	return -1
}

// mapped writes text to a mapping of what there is of the file from off on, or
// reads it there.
func (s *seen) mapped(fd int, off int64, text []byte, writes bool) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		s.add("fstat", err)
		return
	}
	page := off &^ 4095
	size := min(int(st.Size-page), len(text))
	prot := unix.PROT_READ
	if writes {
		prot |= unix.PROT_WRITE
	}
	m, err := unix.Mmap(fd, page, max(size, 1), prot, unix.MAP_SHARED)
	s.add("map", err)
	if err != nil {
		return
	}
	if writes {
		copy(m[:max(size, 0)], text)
	}
	s.say("%d %x", size, hash(m[:max(size, 0)]))
	s.add("unmap", unix.Munmap(m))
}
