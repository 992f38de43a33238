package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// A socket as sock_diag(7) shows it.
type socket struct {
	addr   netip.AddrPort
	cookie uint64 // SO_COOKIE
	inode  uint32
	peer   uint16 // port at the other side; 0: there is none
	state  uint8
	queued uint32 // of a listener: connections that wait to be accepted
	room   uint32 // of a listener: how many may
}

// States of a socket, as a mask (enum in net/tcp_states.h). Unconnected UDP
// sockets are in "close".
const (
	stateEstablished = 1
	stateSynReceived = 3
	stateClose       = 7
	stateCloseWait   = 8
	stateListen      = 10
)

// statesConnected are those of a TCP socket that has a peer, to SYN_RECV.
var statesConnected = []int{1, 2, 3, 4, 5, 8, 9, 11, 12}

const (
	sockDiagByFamily = 20 // SOCK_DIAG_BY_FAMILY
	requestSize      = 56 // struct inet_diag_req_v2
	messageSize      = 72 // struct inet_diag_msg

	// Offsets in struct inet_diag_req_v2, and INET_DIAG_NOCOOKIE twice.
	requestStates = 4
	requestID     = 8 // struct inet_diag_sockid
	noCookie      = ^uint64(0)

	// Offsets in struct inet_diag_msg (linux/inet_diag.h).
	offsetState  = 1
	offsetSport  = 4
	offsetDport  = 6
	offsetSrc    = 8
	offsetCookie = 44
	offsetRqueue = 56
	offsetWqueue = 60
	offsetInode  = 68
)

// dump looks at the sandbox's sockets of a protocol in any of states. It works
// outside of the sandbox, by the socket that init opened.
func (b *Box) dump(proto int, states ...int) ([]socket, error) {
	b.dumping.Lock()
	defer b.dumping.Unlock()
	var all []socket
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		err := control(b.files[handoff.Dump], func(fd int) (err error) {
			all, err = dumpFamily(fd, family, byte(proto), states, all)
			return err
		})
		if errors.Is(err, unix.ENOENT) && family == unix.AF_INET6 {
			continue // no IPv6, or no sock_diag module for it
		}
		if err != nil {
			return nil, fmt.Errorf("look at sockets inside: %w", err)
		}
	}
	return all, nil
}

func dumpFamily(fd int, family, proto byte, states []int, all []socket) ([]socket, error) {
	var mask uint32
	for _, s := range states {
		mask |= 1 << s
	}
	req, body := diagRequest(unix.NLM_F_DUMP, family, proto)
	binary.NativeEndian.PutUint32(body[requestStates:], mask)
	if err := ask(fd, req); err != nil {
		return nil, err
	}
	buf := make([]byte, 32<<10)
	for {
		found, done, err := receivePart(fd, buf)
		all = append(all, found...)
		if err != nil || done {
			return all, err
		}
	}
}

// diagRequest begins a request; body is the part of it that says what for.
func diagRequest(flags uint16, family, proto byte) (req, body []byte) {
	ne := binary.NativeEndian
	req = make([]byte, unix.NLMSG_HDRLEN+requestSize)
	ne.PutUint32(req, uint32(len(req)))
	ne.PutUint16(req[4:], sockDiagByFamily)
	ne.PutUint16(req[6:], unix.NLM_F_REQUEST|flags)
	body = req[unix.NLMSG_HDRLEN:]
	body[0], body[1] = family, proto
	return req, body
}

// diagConnection asks for the one TCP socket that is connected from local to
// remote.
func diagConnection(local, remote netip.AddrPort) []byte {
	family := byte(unix.AF_INET)
	if local.Addr().Is6() {
		family = unix.AF_INET6
	}
	req, body := diagRequest(0, family, unix.IPPROTO_TCP)
	be := binary.BigEndian
	be.PutUint16(body[requestID:], local.Port())
	be.PutUint16(body[requestID+2:], remote.Port())
	copy(body[requestID+4:], local.Addr().AsSlice())
	copy(body[requestID+20:], remote.Addr().AsSlice())
	binary.NativeEndian.PutUint64(body[requestID+40:], noCookie)
	return req
}

func ask(fd int, req []byte) error {
	return unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// receivePart takes one datagram of an answer into buf.
func receivePart(fd int, buf []byte) (found []socket, done bool, err error) {
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, false, err
		}
		return parseSockets(buf[:n])
	}
}

var errDiag = errors.New("sock_diag: message of a wrong length")

// parseSockets reads one datagram of a sock_diag socket, a part of a dump or an
// event. done: it was the last part.
func parseSockets(b []byte) (found []socket, done bool, err error) {
	ne := binary.NativeEndian
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(ne.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return found, false, errDiag
		}
		body := b[unix.NLMSG_HDRLEN:size]
		switch ne.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return found, true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return found, false, errDiag
			}
			if errno := -int32(ne.Uint32(body)); errno != 0 {
				return found, true, syscall.Errno(errno)
			}
		case sockDiagByFamily:
			if len(body) < messageSize {
				return found, false, errDiag
			}
			found = append(found, parseSocket(body))
		}
		b = b[min((size+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(b)):]
	}
	return found, false, nil
}

func parseSocket(b []byte) socket {
	ip := netip.AddrFrom4([4]byte(b[offsetSrc:]))
	if b[0] == unix.AF_INET6 {
		ip = netip.AddrFrom16([16]byte(b[offsetSrc:])).Unmap()
	}
	s := socket{
		addr:   netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[offsetSport:])),
		cookie: binary.NativeEndian.Uint64(b[offsetCookie:]),
		inode:  binary.NativeEndian.Uint32(b[offsetInode:]),
		peer:   binary.BigEndian.Uint16(b[offsetDport:]),
		state:  b[offsetState],
	}
	if s.state == stateListen { // of others they are bytes
		s.queued, s.room = binary.NativeEndian.Uint32(b[offsetRqueue:]), binary.NativeEndian.Uint32(b[offsetWqueue:])
	}
	return s
}

// events calls on for each destroyed socket that the events socket reports,
// until it is closed (nil) or fails. lost is called when the kernel had to drop
// some.
func (b *Box) events(label handoff.Label, on func(socket), lost func()) error {
	rc, err := b.files[label].SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, 8<<10)
	for {
		var n int
		var result error
		err := rc.Read(func(fd uintptr) bool {
			n, _, result = unix.Recvfrom(int(fd), buf, 0)
			return !errors.Is(result, unix.EAGAIN)
		})
		switch {
		case err != nil:
			return err
		case errors.Is(result, unix.EINTR):
			continue
		case errors.Is(result, unix.ENOBUFS):
			lost()
			continue
		case result != nil:
			return fmt.Errorf("receive socket events: %w", result)
		}
		found, _, err := parseSockets(buf[:n])
		if err != nil {
			return err
		}
		for _, s := range found {
			on(s)
		}
	}
}
