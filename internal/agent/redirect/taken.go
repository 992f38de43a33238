package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// taken asks the kernel whether there is a connection already between two
// addresses in the target's network namespace. A kernel that cannot tell says
// that there is none.
type taken struct {
	mu      sync.Mutex // one question at a time
	sockets *os.File   // sock_diag(7)
	tracked *os.File   // connection tracking (linux/netfilter/nfnetlink_conntrack.h)
}

func newTaken(ns Namespace) (_ *taken, err error) {
	t := &taken{}
	for protocol, f := range map[int]**os.File{unix.NETLINK_SOCK_DIAG: &t.sockets, unix.NETLINK_NETFILTER: &t.tracked} {
		fd := -1
		err = ns.Do(func() (err error) {
			fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
			return err
		})
		if err != nil {
			t.close()
			return nil, fmt.Errorf("open a netlink socket: %w", err)
		}
		*f = os.NewFile(uintptr(fd), "netlink")
	}
	return t, nil
}

func (t *taken) close() error {
	var errs []error
	for _, f := range []*os.File{t.sockets, t.tracked} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// by reports whether peer has a connection with server. One that is over does
// not count for the server, but does for as long as it is tracked: ours could
// not be translated to the same addresses.
func (t *taken) by(peer, server netip.AddrPort) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.connected(peer, server) || t.trackedBetween(peer, server)
}

const (
	sockDiagByFamily = 20 // linux/sock_diag.h
	stateTimeWait    = 6  // net/tcp_states.h
	stateListen      = 10
)

func (t *taken) connected(peer, server netip.AddrPort) bool {
	family := byte(unix.AF_INET)
	if peer.Addr().Is6() {
		family = unix.AF_INET6
	}
	pad := make([]byte, 16)
	address := func(b []byte, a netip.Addr) []byte { return append(b, append(a.AsSlice(), pad...)[:16]...) }
	// struct inet_diag_req_v2 (linux/inet_diag.h)
	b := []byte{family, unix.IPPROTO_TCP, 0, 0}
	b = binary.NativeEndian.AppendUint32(b, ^uint32(0)) // any state
	b = binary.BigEndian.AppendUint16(b, server.Port())
	b = binary.BigEndian.AppendUint16(b, peer.Port())
	b = address(b, server.Addr())
	b = address(b, peer.Addr())
	b = binary.NativeEndian.AppendUint32(b, 0)          // any interface
	b = binary.NativeEndian.AppendUint64(b, ^uint64(0)) // any cookie
	typ, answer := ask(t.sockets, sockDiagByFamily, b)
	if typ != sockDiagByFamily || len(answer) < 2 {
		return false // ENOENT
	}
	state := answer[1] // struct inet_diag_msg
	// Without a connection the kernel finds a listener.
	return state != stateListen && state != stateTimeWait
}

// Attributes of connection tracking (linux/netfilter/nfnetlink_conntrack.h).
const (
	ctSubsystem   = 1 // NFNL_SUBSYS_CTNETLINK
	ctGet         = ctSubsystem<<8 | 1
	ctNew         = ctSubsystem << 8
	ctTupleOrig   = 1 | unix.NLA_F_NESTED
	ctTupleIP     = 1 | unix.NLA_F_NESTED
	ctTupleProto  = 2 | unix.NLA_F_NESTED
	ctIPv4Src     = 1 // the destination follows
	ctIPv6Src     = 3
	ctProtoNumber = 1
	ctSourcePort  = 2
	ctTargetPort  = 3
)

func (t *taken) trackedBetween(peer, server netip.AddrPort) bool {
	family, src := byte(unix.AF_INET), uint16(ctIPv4Src)
	if peer.Addr().Is6() {
		family, src = unix.AF_INET6, ctIPv6Src
	}
	port := func(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }
	ip := append(attribute(src, peer.Addr().AsSlice()), attribute(src+1, server.Addr().AsSlice())...)
	proto := append(attribute(ctProtoNumber, []byte{unix.IPPROTO_TCP}), attribute(ctSourcePort, port(peer.Port()))...)
	proto = append(proto, attribute(ctTargetPort, port(server.Port()))...)
	tuple := attribute(ctTupleOrig, append(attribute(ctTupleIP, ip), attribute(ctTupleProto, proto)...))
	typ, _ := ask(t.tracked, ctGet, append([]byte{family, unix.NFNETLINK_V0, 0, 0}, tuple...))
	return typ == ctNew
}

// attribute is a netlink attribute, padded.
func attribute(typ uint16, data []byte) []byte {
	const header = 4
	b := binary.NativeEndian.AppendUint16(nil, uint16(header+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, data...)
	return append(b, make([]byte, -len(b)&(unix.NLA_ALIGNTO-1))...)
}

// ask sends one message and gives type and body of the first that answers it;
// 0: there is none.
func ask(f *os.File, typ uint16, body []byte) (answer uint16, data []byte) {
	ne := binary.NativeEndian
	b := ne.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	b = ne.AppendUint16(b, typ)
	b = ne.AppendUint16(b, unix.NLM_F_REQUEST)
	b = append(b, make([]byte, 8)...) // sequence, port: one question at a time
	b = append(b, body...)
	rc, err := f.SyscallConn()
	if err != nil {
		return 0, nil
	}
	// The kernel answers while send runs, so that nothing blocks.
	_ = rc.Control(func(fd uintptr) {
		if unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) != nil {
			return
		}
		buf := make([]byte, 1024)
		n, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
		if err == nil && n >= unix.NLMSG_HDRLEN {
			answer, data = ne.Uint16(buf[4:]), buf[unix.NLMSG_HDRLEN:n]
		}
	})
	return answer, data
}
