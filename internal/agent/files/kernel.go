package files

import (
	"errors"
	"io"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/statx"
)

// reopen opens what an O_PATH descriptor stands for. The file system checks
// permission as in any open; there is no walk that could lead elsewhere. In a
// process list nothing can be written: the agent may be in it, and may write its
// own memory whoever it is.
func reopen(path int, flags int) (int, error) {
	if flags&(unix.O_ACCMODE|unix.O_TRUNC) != unix.O_RDONLY {
		var fs unix.Statfs_t
		if err := unix.Fstatfs(path, &fs); err != nil {
			return -1, err
		}
		if fs.Type == unix.PROC_SUPER_MAGIC {
			return -1, syscall.EACCES
		}
	}
	for {
		fd, err := unix.Open(opened(path), flags|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// opened is a path to what the descriptor stands for, without a walk.
func opened(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// lstatAt is statx.At, with where a symbolic link points.
func lstatAt(fd int, name string) (*protocol.Attr, error) {
	a, err := statx.At(fd, name)
	if err == nil && a.Mode&unix.S_IFMT == unix.S_IFLNK {
		a.Link, err = linkAt(fd, name)
	}
	return a, err
}

// linkAt is where the symbolic link name in the directory fd points; fd itself
// if name is "".
func linkAt(fd int, name string) (string, error) {
	buf := make([]byte, unix.PathMax) // a link is never longer
	n, err := unix.Readlinkat(fd, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// readFull reads until p is full or the file ends. What comes before an error
// is not given: less than was asked for means the end of the file.
func readFull(fd int, p []byte, off int64) (n int, err error) {
	for n < len(p) {
		got, err := unix.Pread(fd, p[n:], off+int64(n))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, err
		case got == 0:
			return n, nil
		}
		n += got
	}
	return n, nil
}

// entries reads the next names of a listing, about batchBytes of them; none at
// its end.
func entries(dir *os.File) ([]protocol.Entry, error) {
	// Few at a time, which costs no further system call: each may be a link of 4 KiB,
	// and more than answerCost in all is not taken for them.
	const atOnce = 4
	var list []protocol.Entry
	for size := 0; size < batchBytes; {
		names, err := dir.Readdirnames(atOnce)
		for _, name := range names {
			fd := int(dir.Fd())
			attr, err := statx.At(fd, name)
			if errors.Is(err, syscall.ENOENT) {
				continue // removed meanwhile
			}
			if err != nil { // listed all the same, as ls does
				attr = &protocol.Attr{}
			} else if attr.Mode&unix.S_IFMT == unix.S_IFLNK {
				attr.Link, _ = linkAt(fd, name)
			}
			list = append(list, protocol.Entry{Name: name, Attr: *attr})
			size += len(name) + len(attr.Link) + perName
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}
