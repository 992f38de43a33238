package files

import (
	"errors"
	"math"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/pwrite"
)

// maxCopy bounds one CopyRange, in bytes: it keeps a thread, and a disk may be
// slow.
const maxCopy = 64 << 20

// allocate is fallocate(2).
func allocate(fd int, m *protocol.Allocate) error {
	if m.Off > math.MaxInt64 || m.Len > math.MaxInt64 {
		return syscall.EINVAL
	}
	for {
		err := unix.Fallocate(fd, m.Mode, int64(m.Off), int64(m.Len))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// seek finds data or holes; the descriptor's own position means nothing to
// anybody.
func (s *Server) seek(m *protocol.Seek) (*protocol.Position, error) {
	if m.Whence != unix.SEEK_DATA && m.Whence != unix.SEEK_HOLE {
		return nil, syscall.EINVAL
	}
	h, err := s.use(m.Handle)
	if err != nil {
		return nil, err
	}
	defer h.busy.Done()
	off, err := unix.Seek(int(h.f.Fd()), m.Off, int(m.Whence))
	if err != nil {
		return nil, err
	}
	return &protocol.Position{Off: off}, nil
}

// copyRange copies within the target: by the file system where that can, and by
// reading and writing where it cannot.
func (s *Server) copyRange(m *protocol.CopyRange) (*protocol.Position, error) {
	if m.FromOff < 0 || m.ToOff < 0 {
		return nil, syscall.EINVAL
	}
	from, err := s.use(m.From)
	if err != nil {
		return nil, err
	}
	defer from.busy.Done()
	to, err := s.use(m.To)
	if err != nil {
		return nil, err
	}
	defer to.busy.Done()
	fromOff, toOff := m.FromOff, m.ToOff
	n, err := unix.CopyFileRange(int(from.f.Fd()), &fromOff, int(to.f.Fd()), &toOff, int(min(m.Len, maxCopy)), 0)
	switch {
	case err == nil:
		return &protocol.Position{Off: int64(n)}, nil
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		return copyByHand(int(from.f.Fd()), int(to.f.Fd()), m)
	}
	return nil, err
}

func copyByHand(from, to int, m *protocol.CopyRange) (*protocol.Position, error) {
	buf := make([]byte, min(m.Len, maxRead))
	n, err := readFull(from, buf, m.FromOff)
	if err == nil {
		_, err = pwrite.Full(to, buf[:n], m.ToOff)
	}
	if err != nil {
		return nil, err
	}
	return &protocol.Position{Off: int64(n)}, nil
}
