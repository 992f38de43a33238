package relay

import (
	"net"

	"golang.org/x/sys/unix"
)

// tcpClose is TCP_CLOSE (include/net/tcp_states.h).
const tcpClose = 7

// isClosed reports whether c is a socket that is closed both ways, by a reset or
// since both sides have ended theirs; false where nobody can tell.
func isClosed(c Conn) (closed bool) {
	s, ok := c.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		closed = err == nil && info.State == tcpClose
	})
	return closed
}
