package boot

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// Kernel interface of seccomp(2) that x/sys does not have.
const (
	seccompSetModeFilter = 1
	flagNewListener      = 1 << 3
	// flagWaitKillable (Linux 5.19): only a fatal signal interrupts a call that
	// the supervisor has taken. Go programs signal their threads all the time,
	// and would begin the call again and again.
	flagWaitKillable = 1 << 5

	retAllow     = 0x7fff0000
	retUserNotif = 0x7fc00000

	offsetNR, offsetArch = 0, 4 // in struct seccomp_data
	// Of the arguments the low halves, little endian: those of socket(2), and those
	// of setsockopt(2).
	offsetDomain, offsetType, offsetProtocol = 16, 24, 32
	offsetLevel, offsetOption                = 24, 32
)

// connect is connect(2) by architecture.
var connect = map[string]uint32{"amd64": 42, "arm64": 203}

// filter is the program that sends the calls which can make a listener to the
// supervisor and lets all others pass: listen, bind, and io_uring_setup, whose
// operations no filter sees; and socket and setsockopt for what no session carries. Programs
// with another set of numbers (32 bit) are sent too, where they could make one;
// the supervisor tells by the architecture. With connects it sends connect(2)
// too, of this architecture only.
func filter(goarch string, connects bool) []unix.SockFilter {
	arch, socket, setsockopt := uint32(unix.AUDIT_ARCH_X86_64), uint32(41), uint32(54)
	foreign := []uint32{102, 363} // i386: socketcall, listen
	native := []uint32{50, 49, 425,
		0x40000000 | 50} // x32: listen
	if goarch == "arm64" {
		arch, socket, setsockopt = unix.AUDIT_ARCH_AARCH64, 198, 208
		foreign = []uint32{284} // arm: listen
		native = []uint32{201, 200, 425}
	}
	if connects {
		native = append(native, connect[goarch])
	}
	const (
		load = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jeq  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret  = unix.BPF_RET | unix.BPF_K
	)
	allow := unix.SockFilter{Code: ret, K: retAllow}
	sent := func(nrs []uint32) (p []unix.SockFilter) {
		p = append(p, unix.SockFilter{Code: load, K: offsetNR})
		for _, nr := range nrs {
			p = append(p, unix.SockFilter{Code: jeq, K: nr, Jt: 0, Jf: 1}, unix.SockFilter{Code: ret, K: retUserNotif})
		}
		return p
	}
	others := append(sent(foreign), allow)
	p := []unix.SockFilter{
		{Code: load, K: offsetArch},
		{Code: jeq, K: arch, Jt: uint8(len(others)), Jf: 0},
	}
	p = append(append(p, others...), sent(native)...)
	set := options()
	p = append(p, unix.SockFilter{Code: jeq, K: setsockopt, Jt: 0, Jf: uint8(len(set))})
	p = append(p, set...)
	p = append(p, unix.SockFilter{Code: jeq, K: socket, Jt: 1, Jf: 0}, allow, unix.SockFilter{Code: load, K: offsetDomain})
	return append(p, sockets()...)
}

// sockets is the part of the filter about socket(2), which begins with the
// domain loaded: it sends all but unix sockets, netlink's and the kernel's
// cryptography, and of the internet's all but streams and datagrams of TCP, UDP,
// ICMP and MPTCP.
func sockets() (p []unix.SockFilter) {
	const (
		load = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jeq  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		and  = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
		ret  = unix.BPF_RET | unix.BPF_K
		mask = 0xf // SOCK_TYPE_MASK, linux/net.h
	)
	pass := func(ks ...uint32) (p []unix.SockFilter) {
		for _, k := range ks {
			p = append(p, unix.SockFilter{Code: jeq, K: k, Jt: 0, Jf: 1}, unix.SockFilter{Code: ret, K: retAllow})
		}
		return p
	}
	send := unix.SockFilter{Code: ret, K: retUserNotif}
	p = pass(unix.AF_UNIX, unix.AF_NETLINK, unix.AF_ALG)
	p = append(p, unix.SockFilter{Code: jeq, K: unix.AF_INET, Jt: 2, Jf: 0}, unix.SockFilter{Code: jeq, K: unix.AF_INET6, Jt: 1, Jf: 0}, send,
		unix.SockFilter{Code: load, K: offsetType}, unix.SockFilter{Code: and, K: mask},
		unix.SockFilter{Code: jeq, K: unix.SOCK_STREAM, Jt: 2, Jf: 0}, unix.SockFilter{Code: jeq, K: unix.SOCK_DGRAM, Jt: 1, Jf: 0}, send,
		unix.SockFilter{Code: load, K: offsetProtocol})
	return append(append(p, pass(0, unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6, unix.IPPROTO_MPTCP)...), send)
}

// options is the part of the filter about setsockopt(2): it sends those that mark
// packets for this machine's routes and filters, and those that give them
// others' addresses.
func options() (p []unix.SockFilter) {
	const (
		load = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jeq  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret  = unix.BPF_RET | unix.BPF_K
	)
	for _, o := range [][2]uint32{{unix.SOL_SOCKET, unix.SO_MARK}, {unix.SOL_IP, unix.IP_TRANSPARENT}, {unix.SOL_IPV6, unix.IPV6_TRANSPARENT}} {
		p = append(p, unix.SockFilter{Code: load, K: offsetLevel}, unix.SockFilter{Code: jeq, K: o[0], Jt: 0, Jf: 3},
			unix.SockFilter{Code: load, K: offsetOption}, unix.SockFilter{Code: jeq, K: o[1], Jt: 0, Jf: 1}, unix.SockFilter{Code: ret, K: retUserNotif})
	}
	return append(p, unix.SockFilter{Code: ret, K: retAllow})
}

// installFilter puts the filter on this thread and hands its listener to the
// supervisor. It must be the last step before execve.
func (s *setup) installFilter() error {
	if s.spec.Poll {
		return s.conn.Send(handoff.Message{Kind: handoff.KindFile, Body: []byte{byte(handoff.Notify), 0}})
	}
	fd, e := listenerFilter(s.spec.Connects)
	switch {
	// EBUSY: another listener watches this tree already, a sandbox in a sandbox.
	// EINVAL, ENOSYS: a kernel without notification (before Linux 5.0).
	// EPERM, EACCES: a container's profile forbids filters.
	// The supervisor looks for listeners then.
	case e == unix.EBUSY, e == unix.EINVAL, e == unix.ENOSYS, e == unix.EPERM, e == unix.EACCES:
		return s.conn.Send(handoff.Message{Kind: handoff.KindFile, Body: []byte{byte(handoff.Notify), byte(e)}})
	case e != 0:
		return e
	}
	// The supervisor waits for it with its poller.
	if err := unix.SetNonblock(fd, true); err != nil {
		return errors.Join(fmt.Errorf("listener: %w", err), unix.Close(fd))
	}
	return s.send(handoff.Notify, fd)
}

// listenerFilter puts the filter on this thread and gives its listener.
func listenerFilter(connects bool) (int, unix.Errno) {
	prog := filter(runtime.GOARCH, connects)
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	install := func(flags uintptr) (int, unix.Errno) {
		fd, _, e := unix.Syscall(unix.SYS_SECCOMP, seccompSetModeFilter, flags, uintptr(unsafe.Pointer(&fprog)))
		runtime.KeepAlive(prog)
		return int(fd), e
	}
	fd, e := install(flagNewListener | flagWaitKillable)
	if e == unix.EINVAL { // an older kernel
		fd, e = install(flagNewListener)
	}
	return fd, e
}
