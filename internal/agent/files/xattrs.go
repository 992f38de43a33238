package files

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// userSpace is the name space of extended attributes that is served.
const userSpace = "user."

// withXattrs calls f with a path to what is at p, which has attributes of that
// name space only if it is a regular file or a directory (xattr(7)).
func (s *Server) withXattrs(p, name string, f func(path string) error) error {
	if name != "" && !strings.HasPrefix(name, userSpace) {
		return syscall.EOPNOTSUPP
	}
	fd, err := s.at(p, unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(opened(fd))
}

func (s *Server) getXattr(m *protocol.GetXattr) (*protocol.Data, error) {
	d := &protocol.Data{}
	err := s.withXattrs(m.Path, m.Name, func(path string) (err error) {
		d.Bytes, err = grown(func(buf []byte) (int, error) { return unix.Getxattr(path, m.Name, buf) })
		return err
	})
	return d, err
}

func (s *Server) listXattr(m *protocol.ListXattr) (*protocol.Data, error) {
	d := &protocol.Data{}
	err := s.withXattrs(m.Path, "", func(path string) error {
		all, err := grown(func(buf []byte) (int, error) { return unix.Listxattr(path, buf) })
		for name := range strings.SplitAfterSeq(string(all), "\x00") {
			if strings.HasPrefix(name, userSpace) {
				d.Bytes = append(d.Bytes, name...)
			}
		}
		return err
	})
	return d, err
}

// grown calls get with room enough.
func grown(get func(buf []byte) (int, error)) ([]byte, error) {
	n, err := get(nil)
	if err != nil || n == 0 {
		return nil, err
	}
	buf := make([]byte, protocol.MaxXattr)
	if n, err = get(buf); err != nil {
		return nil, err
	}
	return append([]byte(nil), buf[:n]...), nil
}

func (s *Server) setXattr(m *protocol.SetXattr) error {
	if len(m.Value) > protocol.MaxXattr {
		return syscall.E2BIG
	}
	return s.withXattrs(m.Path, m.Name, func(path string) error { return unix.Setxattr(path, m.Name, m.Value, int(m.Flags)) })
}

func (s *Server) removeXattr(m *protocol.RemoveXattr) error {
	return s.withXattrs(m.Path, m.Name, func(path string) error { return unix.Removexattr(path, m.Name) })
}
