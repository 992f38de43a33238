package drain

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/agent/capture"
)

// bufferSize is what the kernel keeps of packets for us, in bytes. What has no
// room is missing, and such a connection has to show another request.
const bufferSize = 1 << 20

// openPackets opens a socket that sees what goes from and to the ports, in the
// calling thread's network namespace (packet(7)).
func openPackets(ports map[uint16]bool, but capture.Marks) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "packets")
	if err := filterPorts(f, ports, but); err != nil {
		f.Close()
		return nil, err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bufferSize)
	const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8 // network byte order
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all}); err != nil {
		f.Close()
		return nil, fmt.Errorf("bind the packet socket: %w", err)
	}
	return f, nil
}

// filterPorts replaces the filter of a packet socket.
func filterPorts(f *os.File, ports map[uint16]bool, but capture.Marks) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	prog := append(but.Except(), filter(ports)...)
	cerr := rc.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]})
	})
	return errors.Join(cerr, os.NewSyscallError("attach the packet filter", err))
}

// filter accepts TCP packets from or to the ports: IPv4 without fragments, IPv6
// without extension headers. On loopback every packet is seen twice: going out it
// is not accepted.
func filter(ports map[uint16]bool) []unix.SockFilter {
	const (
		loadByte  = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
		loadHalf  = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS
		loadAtX   = unix.BPF_LD | unix.BPF_H | unix.BPF_IND
		headerLen = unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH
		loadWord  = unix.BPF_LD | unix.BPF_MEM
		store     = unix.BPF_ST
		and       = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
		equal     = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		anySet    = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		jump      = unix.BPF_JMP | unix.BPF_JA
		ret       = unix.BPF_RET | unix.BPF_K

		extra    = 1<<32 - 0x1000 // SKF_AD_OFF, linux/filter.h
		kind     = extra + 4      // SKF_AD_PKTTYPE
		hardware = extra + 28     // SKF_AD_HATYPE
		from, to = 0, 1           // of the scratch memory
	)
	prog := []unix.SockFilter{
		0:  {Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: hardware},
		1:  {Code: equal, K: unix.ARPHRD_LOOPBACK, Jf: 3}, // else 5
		2:  {Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: kind},
		3:  {Code: equal, K: unix.PACKET_OUTGOING, Jf: 1}, // else 5
		4:  {Code: ret, K: 0},
		5:  {Code: loadByte, K: 0},
		6:  {Code: and, K: 0xf0},
		7:  {Code: equal, K: 0x40, Jf: 9},              // IPv4, else 17
		8:  {Code: loadByte, K: 9},                     // protocol
		9:  {Code: equal, K: unix.IPPROTO_TCP, Jf: 14}, // else 24
		10: {Code: loadHalf, K: 6},                     // fragment offset
		11: {Code: anySet, K: 0x1fff, Jt: 12},          // a later fragment: 24
		12: {Code: headerLen, K: 0},                    //
		13: {Code: loadAtX, K: 0},                      // source port
		14: {Code: store, K: from},
		15: {Code: loadAtX, K: 2},                     // destination port
		16: {Code: jump, K: 8},                        // 25
		17: {Code: equal, K: 0x60, Jf: 6},             // IPv6, else 24
		18: {Code: loadByte, K: 6},                    // next header
		19: {Code: equal, K: unix.IPPROTO_TCP, Jf: 4}, // else 24
		20: {Code: loadHalf, K: 40},                   // source port
		21: {Code: store, K: from},
		22: {Code: loadHalf, K: 42}, // destination port
		23: {Code: jump, K: 1},      // 25
		24: {Code: ret, K: 0},
		25: {Code: store, K: to},
	}
	// The kernel wants to see that the scratch memory is set, whatever the way to it.
	prog = append([]unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_IMM}, {Code: store, K: from}, {Code: store, K: to}}, prog...)
	for p := range ports {
		for _, end := range []uint32{from, to} {
			prog = append(prog, unix.SockFilter{Code: loadWord, K: end}, unix.SockFilter{Code: equal, K: uint32(p), Jf: 1}, unix.SockFilter{Code: ret, K: maxPacket})
		}
	}
	return append(prog, unix.SockFilter{Code: ret, K: 0})
}

// receive waits for a packet, from its IP header on.
func receive(f *os.File, buf []byte) (packet []byte, err error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	n := 0
	rerr := rc.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), buf, 0)
		return !errors.Is(err, unix.EAGAIN)
	})
	if rerr != nil {
		return nil, rerr
	}
	if errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.EINTR) { // an interface has gone
		return nil, nil
	}
	return buf[:max(n, 0)], err
}

// senders send packets as they are, of both families (raw(7)). One that the
// target has not is negative.
type senders struct{ v4, v6 int }

// openSenders opens them in the calling thread's network namespace.
func openSenders() (s senders, err error) {
	s = senders{-1, -1}
	if s.v4, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW); err != nil {
		return s, fmt.Errorf("open a raw socket: %w", err)
	}
	if s.v6, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW); err != nil {
		s.v6 = -1
	}
	return s, nil
}

// send sends a segment to where it is for, in the name of where it is from.
func (s senders) send(seg *segment) error {
	a := seg.dst.Addr()
	if a.Is4() {
		return unix.Sendto(s.v4, seg.packet(), 0, &unix.SockaddrInet4{Addr: a.As4()})
	}
	return unix.Sendto(s.v6, seg.packet(), 0, &unix.SockaddrInet6{Addr: a.As16()})
}

func (s senders) close() {
	for _, fd := range []int{s.v4, s.v6} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
