package redirect

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// sockets asks the kernel about connections in the target's network namespace
// (sock_diag(7)). Where the kernel has no sock_diag there seem to be none.
type sockets struct {
	mu sync.Mutex
	f  *os.File // netlink socket made inside
}

func newSockets(ns Namespace) (*sockets, error) {
	fd := -1
	err := ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open a sock_diag socket: %w", err)
	}
	return &sockets{f: os.NewFile(uintptr(fd), "sock_diag")}, nil
}

func (s *sockets) close() error { return s.f.Close() }

// Of the kernel's API (linux/sock_diag.h, linux/inet_diag.h, net/tcp_states.h).
const (
	sockDiagByFamily = 20
	diagRequestSize  = 56 // struct inet_diag_req_v2
	diagSport        = 8  // offsets in it
	diagDport        = 10
	diagSrc          = 12
	diagDst          = 28
	diagCookie       = 48
	diagState        = 1 // offset in struct inet_diag_msg
	stateTimeWait    = 6
	stateListen      = 10
)

// connected reports whether the server at local has a connection with peer.
// Connections in TIME_WAIT are over.
func (s *sockets) connected(local, peer netip.AddrPort) bool {
	req := make([]byte, unix.NLMSG_HDRLEN+diagRequestSize)
	ne := binary.NativeEndian
	ne.PutUint32(req, uint32(len(req)))
	ne.PutUint16(req[4:], sockDiagByFamily)
	ne.PutUint16(req[6:], unix.NLM_F_REQUEST)
	body := req[unix.NLMSG_HDRLEN:]
	body[0], body[1] = unix.AF_INET, unix.IPPROTO_TCP
	if peer.Addr().Is6() {
		body[0] = unix.AF_INET6
	}
	ne.PutUint32(body[4:], ^uint32(0)) // any state
	binary.BigEndian.PutUint16(body[diagSport:], local.Port())
	binary.BigEndian.PutUint16(body[diagDport:], peer.Port())
	copy(body[diagSrc:], local.Addr().AsSlice())
	copy(body[diagDst:], peer.Addr().AsSlice())
	ne.PutUint64(body[diagCookie:], ^uint64(0)) // INET_DIAG_NOCOOKIE

	rc, err := s.f.SyscallConn()
	if err != nil {
		return false
	}
	found := false
	s.mu.Lock()
	defer s.mu.Unlock()
	// The kernel answers while send runs, so nothing blocks.
	_ = rc.Control(func(fd uintptr) {
		if unix.Sendto(int(fd), req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) != nil {
			return
		}
		var answer [1024]byte // one socket, or one error
		n, _, err := unix.Recvfrom(int(fd), answer[:], unix.MSG_DONTWAIT)
		if err != nil || n < unix.NLMSG_HDRLEN+diagRequestSize || ne.Uint16(answer[4:]) != sockDiagByFamily {
			return // ENOENT: none
		}
		// Without a connection the kernel looks for a listener.
		state := answer[unix.NLMSG_HDRLEN+diagState]
		found = state != stateListen && state != stateTimeWait
	})
	return found
}
