// Package conntrack asks the kernel what it knows of single connections of a
// network namespace: whether there is a socket, and what connection tracking
// says.
//
// Stealing asks it for addresses that are in use, copying for connections that
// rules of others have led elsewhere, as a mesh's do. It changes nothing and
// switches nothing on. Sockets can be asked for by anybody inside the namespace,
// tracked connections take CAP_NET_ADMIN in its user namespace. Where the kernel
// cannot tell, or may not, there is nothing; Tracks and Diagnoses tell that apart.
package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Table is what the kernel knows of one namespace. Its methods may be called
// concurrently.
type Table struct {
	mu      sync.Mutex // one question at a time
	sockets *os.File   // sock_diag(7)
	tracked *os.File   // connection tracking (linux/netfilter/nfnetlink_conntrack.h)
	asked   uint32     // questions; the sequence number of the last
}

// Open makes a Table of the namespace that do runs functions in. The caller
// closes it.
func Open(do func(func() error) error) (_ *Table, err error) {
	t := &Table{}
	for protocol, f := range map[int]**os.File{unix.NETLINK_SOCK_DIAG: &t.sockets, unix.NETLINK_NETFILTER: &t.tracked} {
		fd := -1
		err = do(func() (err error) {
			fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
			return err
		})
		if err != nil {
			_ = t.Close()
			return nil, fmt.Errorf("open a netlink socket: %w", err)
		}
		*f = os.NewFile(uintptr(fd), "netlink")
	}
	return t, nil
}

// Close ends it.
func (t *Table) Close() error {
	var errs []error
	for _, f := range []*os.File{t.sockets, t.tracked} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

const (
	sockDiagByFamily = 20 // linux/sock_diag.h
	stateTimeWait    = 6  // net/tcp_states.h
	stateListen      = 10
)

// Connected reports whether server has a socket that is connected with peer, and
// not over.
func (t *Table) Connected(peer, server netip.AddrPort) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	typ, answer := t.ask(t.sockets, sockDiagByFamily, 0, socketsOf(peer, server, ^uint32(0)))
	if typ != sockDiagByFamily || len(answer) < 2 {
		return false // ENOENT
	}
	state := answer[1] // struct inet_diag_msg
	// Without a connection the kernel finds a listener.
	return state != stateListen && state != stateTimeWait
}

// Diagnoses reports whether sockets of TCP can be asked for. Where they cannot
// (inet_diag or tcp_diag are no part of the kernel), Connected finds none: the
// kernel's answer to it is the same.
func (t *Table) Diagnoses() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	nobody := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	return ended(t.ask(t.sockets, sockDiagByFamily, unix.NLM_F_DUMP, socketsOf(nobody, nobody, 0)))
}

// ended reports whether an answer is the end of a list that could be made.
func ended(typ uint16, data []byte) bool {
	return typ == unix.NLMSG_DONE && (len(data) < 4 || binary.NativeEndian.Uint32(data) == 0)
}

// socketsOf is the body of a request for sockets of TCP in those states
// (struct inet_diag_req_v2, linux/inet_diag.h).
func socketsOf(peer, server netip.AddrPort, states uint32) []byte {
	family := byte(unix.AF_INET)
	if peer.Addr().Is6() {
		family = unix.AF_INET6
	}
	pad := make([]byte, 16)
	address := func(b []byte, a netip.Addr) []byte { return append(b, append(a.AsSlice(), pad...)[:16]...) }
	b := []byte{family, unix.IPPROTO_TCP, 0, 0}
	b = binary.NativeEndian.AppendUint32(b, states)
	b = binary.BigEndian.AppendUint16(b, server.Port())
	b = binary.BigEndian.AppendUint16(b, peer.Port())
	b = address(b, server.Addr())
	b = address(b, peer.Addr())
	b = binary.NativeEndian.AppendUint32(b, 0)             // any interface
	return binary.NativeEndian.AppendUint64(b, ^uint64(0)) // any cookie
}

// Attributes of connection tracking (linux/netfilter/nfnetlink_conntrack.h).
const (
	ctSubsystem   = 1 // NFNL_SUBSYS_CTNETLINK
	ctGet         = ctSubsystem<<8 | 1
	ctNew         = ctSubsystem << 8
	ctTupleOrig   = 1 | unix.NLA_F_NESTED
	ctTupleReply  = 2
	ctMark        = 8
	ctTupleIP     = 1 | unix.NLA_F_NESTED
	ctTupleProto  = 2 | unix.NLA_F_NESTED
	ctIPv4Src     = 1 // the destination follows
	ctIPv6Src     = 3
	ctProtoNumber = 1
	ctSourcePort  = 2
	ctTargetPort  = 3
)

// Entry is one tracked connection.
type Entry struct {
	// Server is who answers the client: another than it has called where rules
	// have led the connection elsewhere.
	Server netip.AddrPort
	Mark   uint32 // of the connection
}

// Find gives the entry of peer's connection with server, also of one that has
// ended a moment ago; false: there is none.
func (t *Table) Find(peer, server netip.AddrPort) (e Entry, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	typ, data := t.ask(t.tracked, ctGet, 0, question(peer, server))
	if typ != ctNew {
		return e, false
	}
	return parse(data)
}

// Tracks reports whether connection tracking can be asked.
func (t *Table) Tracks() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	nobody := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	typ, data := t.ask(t.tracked, ctGet, 0, question(nobody, nobody))
	if typ != unix.NLMSG_ERROR || len(data) < 4 {
		return typ == ctNew
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(data))) == unix.ENOENT
}

// question is the body of a request for one connection (struct nfgenmsg and a
// tuple).
func question(peer, server netip.AddrPort) []byte {
	family, src := byte(unix.AF_INET), uint16(ctIPv4Src)
	if peer.Addr().Is6() {
		family, src = unix.AF_INET6, ctIPv6Src
	}
	port := func(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }
	ip := append(attribute(src, peer.Addr().AsSlice()), attribute(src+1, server.Addr().AsSlice())...)
	proto := append(attribute(ctProtoNumber, []byte{unix.IPPROTO_TCP}), attribute(ctSourcePort, port(peer.Port()))...)
	proto = append(proto, attribute(ctTargetPort, port(server.Port()))...)
	tuple := attribute(ctTupleOrig, append(attribute(ctTupleIP, ip), attribute(ctTupleProto, proto)...))
	return append([]byte{family, unix.NFNETLINK_V0, 0, 0}, tuple...)
}

// parse reads the body of an answer.
func parse(b []byte) (e Entry, ok bool) {
	if len(b) < 4 { // struct nfgenmsg
		return e, false
	}
	for typ, data := range attributes(b[4:]) {
		switch typ {
		case ctTupleReply:
			e.Server, ok = source(data)
		case ctMark:
			if len(data) == 4 {
				e.Mark = binary.BigEndian.Uint32(data)
			}
		}
	}
	return e, ok
}

// source is where a tuple comes from.
func source(tuple []byte) (netip.AddrPort, bool) {
	var addr netip.Addr
	var port uint16
	for typ, data := range attributes(tuple) {
		for inner, value := range attributes(data) {
			switch {
			case typ == ctTupleIP&^unix.NLA_F_NESTED && (inner == ctIPv4Src || inner == ctIPv6Src):
				addr, _ = netip.AddrFromSlice(value)
			case typ == ctTupleProto&^unix.NLA_F_NESTED && inner == ctSourcePort && len(value) == 2:
				port = binary.BigEndian.Uint16(value)
			}
		}
	}
	return netip.AddrPortFrom(addr, port), addr.IsValid()
}

// attributes are those of a message, without their flags.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	const header, flags = 4, unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= header {
			size := int(binary.NativeEndian.Uint16(b))
			if size < header || size > len(b) || !yield(binary.NativeEndian.Uint16(b[2:])&^flags, b[header:size]) {
				return
			}
			b = b[min((size+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1), len(b)):]
		}
	}
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
// 0: there is none. Answers to earlier ones are skipped. mu is held.
func (t *Table) ask(f *os.File, typ, flags uint16, body []byte) (answer uint16, data []byte) {
	ne := binary.NativeEndian
	t.asked++
	b := message(typ, flags, t.asked, body)
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
		for {
			n, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
			if err == unix.ENOBUFS { // some were lost; this one may be behind them
				continue
			}
			if err != nil {
				return
			}
			if n >= unix.NLMSG_HDRLEN && ne.Uint32(buf[8:]) == t.asked {
				answer, data = ne.Uint16(buf[4:]), buf[unix.NLMSG_HDRLEN:n]
				return
			}
		}
	})
	return answer, data
}

// message is one of netlink's (netlink(7)), to the kernel.
func message(typ, flags uint16, sequence uint32, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = binary.NativeEndian.AppendUint32(b, sequence)
	return append(binary.NativeEndian.AppendUint32(b, 0), body...)
}
