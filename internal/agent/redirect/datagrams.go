package redirect

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/agent/claims"
	"github.com/mirrord-go/mirrord/internal/agent/packet"
	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/udpflow"
)

const (
	// flowIdle is how long a client's datagrams are one flow with nothing said
	// either way (RFC 4787 §4.3 wants two minutes of an address translator, most
	// have one or less), and maxFlows how many there are.
	flowIdle = time.Minute
	maxFlows = 1024
)

// Datagrams steals UDP ports of one target: what clients send comes here, by
// the same kind of program as connections do (lookup.go), which the kernel asks
// for the socket of every datagram; sockets of the target that are connected
// keep theirs. What is answered goes out by a raw socket, since the port that
// it must come from is the target's own. With the agent's death the kernel gives
// everything back with the next datagram.
//
// Needed: as for BPF, and CAP_NET_RAW in the namespace's user namespace.
type Datagrams struct {
	ns     Namespace
	holder string
	ports  *ebpf.Map // stolen ports, host byte order
	socks  *ebpf.Map // our sockets: 0 IPv4, 1 IPv6
	prog   *ebpf.Program
	link   link.Link
	flows  *udpflow.Table
	wg     sync.WaitGroup

	sockets [2]*os.File // IPv4, IPv6; nil: the target has none
	raw     [2]*os.File
	own     [2]uint16 // ports of sockets

	mu     sync.Mutex
	claims map[uint16]*claims.Claim // by stolen port
	closed bool
}

var families = [2]int{unix.AF_INET, unix.AF_INET6}

// NewDatagrams prepares stealing in ns for a session of holder. It changes nothing
// for the target yet. What waits is taken from held.
func NewDatagrams(ns Namespace, holder string, held *budget.Share) (_ *Datagrams, err error) {
	_ = rlimit.RemoveMemlock()
	d := &Datagrams{ns: ns, holder: holder, claims: map[uint16]*claims.Claim{}}
	d.flows = udpflow.New(udpflow.Options{Answer: d.answer, Idle: flowIdle, Max: maxFlows, Held: held})
	defer func() {
		if err != nil {
			_ = d.Close()
		}
	}()
	if d.ports, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: maxPorts}); err != nil {
		return nil, fmt.Errorf("make a map: %w", err)
	}
	if d.socks, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.SockMap, KeySize: 4, ValueSize: 8, MaxEntries: 2}); err != nil {
		return nil, fmt.Errorf("make a socket map: %w", err)
	}
	d.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SkLookup, AttachType: ebpf.AttachSkLookup, License: "MIT", Instructions: d.code()})
	if err != nil {
		return nil, fmt.Errorf("load the program: %w", err)
	}
	if err := ns.Do(d.open); err != nil {
		return nil, fmt.Errorf("open sockets in the target's network: %w", err)
	}
	err = ns.Handle(func(fd int) error {
		d.link, err = link.AttachNetNs(fd, d.prog)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("attach the program: %w", err)
	}
	for i, f := range d.sockets {
		if f != nil {
			d.wg.Go(func() { d.receive(i, f) })
		}
	}
	return d, nil
}

// open makes the sockets. It runs inside the namespace.
func (d *Datagrams) open() error {
	for i, family := range families {
		err := d.openFamily(i, family)
		if err != nil && (i == 0 || !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EADDRNOTAVAIL)) {
			return err
		}
	}
	return nil
}

func (d *Datagrams) openFamily(i, family int) error {
	// On loopback and a port of the kernel's choice: the program hands it
	// datagrams for any address.
	at, level, original := unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.SOL_IP, unix.IP_RECVORIGDSTADDR
	if family == unix.AF_INET6 {
		at, level, original = &unix.SockaddrInet6{Addr: netip.IPv6Loopback().As16()}, unix.SOL_IPV6, unix.IPV6_RECVORIGDSTADDR
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "datagrams")
	if err := unix.SetsockoptInt(fd, level, original, 1); err == nil {
		err = unix.Bind(fd, at)
	}
	own, nerr := unix.Getsockname(fd)
	if err = errors.Join(err, nerr); err == nil {
		err = d.socks.Put(uint32(i), uint64(fd))
	}
	if err != nil {
		f.Close()
		return err
	}
	switch own := own.(type) {
	case *unix.SockaddrInet4:
		d.own[i] = uint16(own.Port)
	case *unix.SockaddrInet6:
		d.own[i] = uint16(own.Port)
	}
	raw, err := openRaw(family)
	if err != nil {
		f.Close()
		return err
	}
	d.sockets[i], d.raw[i] = f, raw
	return nil
}

// openRaw makes a socket that sends UDP with headers of ours, and receives
// nothing.
func openRaw(family int) (*os.File, error) {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP)
	if err != nil {
		return nil, fmt.Errorf("a raw socket, which needs CAP_NET_RAW: %w", err)
	}
	f := os.NewFile(uintptr(fd), "raw")
	none := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &none[0]}); err != nil {
		f.Close()
		return nil, os.NewSyscallError("attach a filter", err)
	}
	return f, nil
}

// code is the program: if the port of a datagram is in ports, its socket is
// ours of its family. Stack: -4 the port, -8 the slot.
func (d *Datagrams) code() asm.Instructions {
	const port, slot = -4, -8
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R2, asm.R6, ctxProtocol, asm.Word),
		asm.JNE.Imm(asm.R2, unix.IPPROTO_UDP, "pass"),
		asm.LoadMem(asm.R2, asm.R6, ctxLport, asm.Word),
		asm.StoreMem(asm.RFP, port, asm.R2, asm.Word),
		asm.LoadMapPtr(asm.R1, d.ports.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, port),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.StoreImm(asm.RFP, slot, 0, asm.Word),
		asm.LoadMem(asm.R5, asm.R6, ctxFamily, asm.Word),
		asm.JEq.Imm(asm.R5, unix.AF_INET, "socket"),
		asm.StoreImm(asm.RFP, slot, 1, asm.Word),
		asm.LoadMapPtr(asm.R1, d.socks.FD()).WithSymbol("socket"),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, slot),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		// Flags 0: where an earlier program has chosen a socket already, it stays.
		asm.Mov.Reg(asm.R7, asm.R0),
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Reg(asm.R2, asm.R7), asm.Mov.Imm(asm.R3, 0),
		asm.FnSkAssign.Call(),
		asm.Mov.Reg(asm.R1, asm.R7), asm.FnSkRelease.Call(),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("pass"), // SK_PASS
		asm.Return(),
	}
}

// Add steals port: when it returns, datagrams come here. A port that another
// session holds is a *claims.HeldError.
func (d *Datagrams) Add(port uint16) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return net.ErrClosed
	case d.claims[port] != nil:
		return nil
	}
	claim, err := claims.Take(d.ns, claims.UDP, port, d.holder, nil)
	if err != nil {
		return err
	}
	if err := d.ports.Put(uint32(port), uint32(1)); err != nil {
		claim.Release()
		return fmt.Errorf("steal UDP port %d: %w", port, err)
	}
	d.claims[port] = claim
	return nil
}

// Remove gives port back: when it returns, the target gets the next datagram.
// Flows go on until they are idle, so that what was asked can be answered.
func (d *Datagrams) Remove(port uint16) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.remove(port)
}

func (d *Datagrams) remove(port uint16) error {
	claim := d.claims[port]
	if claim == nil {
		return nil
	}
	delete(d.claims, port)
	err := d.ports.Delete(uint32(port))
	claim.Release()
	return err
}

// Accept waits for the next client's flow. After Close it fails with
// net.ErrClosed.
func (d *Datagrams) Accept(ctx context.Context) (net.Conn, error) { return d.flows.Accept(ctx) }

// Lost is how many datagrams nobody has read.
func (d *Datagrams) Lost() int64 { return d.flows.Lost() }

// Close gives all ports back and ends all flows.
func (d *Datagrams) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	var errs []error
	for port := range d.claims {
		errs = append(errs, d.remove(port))
	}
	if d.link != nil {
		errs = append(errs, d.link.Close())
	}
	for _, f := range d.sockets {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	d.wg.Wait()
	d.flows.Close()
	for _, f := range d.raw {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	if d.prog != nil {
		errs = append(errs, d.prog.Close())
	}
	for _, m := range []*ebpf.Map{d.ports, d.socks} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}

// receive takes what reaches one of the sockets, until it is closed.
func (d *Datagrams) receive(family int, f *os.File) {
	rc, err := f.SyscallConn()
	if err != nil {
		return
	}
	buf, oob := make([]byte, udpflow.MaxDatagram), make([]byte, 256)
	for {
		var n, m int
		var from unix.Sockaddr
		waited := rc.Read(func(fd uintptr) bool {
			n, m, _, from, err = unix.Recvmsg(int(fd), buf, oob, 0)
			return err != unix.EAGAIN && err != unix.EINTR
		})
		if waited != nil {
			return
		}
		if err != nil { // of what was answered before
			continue
		}
		client, local := socketAddr(from), dialedBy(oob[:m])
		if local.IsValid() && local.Port() != d.own[family] { // else somebody sent to our own port
			d.flows.Deliver(client, local, buf[:n])
		}
	}
}

// socketAddr is the zero value for other families. The zone of a link-local
// address is the interface's number.
func socketAddr(sa unix.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(a.Addr)
		if a.ZoneId != 0 {
			ip = ip.WithZone(strconv.Itoa(int(a.ZoneId)))
		}
		return netip.AddrPortFrom(ip, uint16(a.Port))
	}
	return netip.AddrPort{}
}

// dialedBy reads where a datagram was sent to: IP_ORIGDSTADDR and
// IPV6_ORIGDSTADDR (ip(7); linux/in6.h), a sockaddr.
func dialedBy(oob []byte) netip.AddrPort {
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.AddrPort{}
	}
	for _, m := range all {
		b := m.Data
		switch {
		case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_ORIGDSTADDR && len(b) >= 8:
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:]))
		case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_ORIGDSTADDR && len(b) >= 24:
			return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), binary.BigEndian.Uint16(b[2:]))
		}
	}
	return netip.AddrPort{}
}

// answer sends a datagram from an address and port of the target. The kernel
// makes the IP header, and fragments what is too large for the way. What it has
// no room for is dropped.
func (d *Datagrams) answer(from, client netip.AddrPort, p []byte) error {
	i, to, as := 0, unix.Sockaddr(nil), []byte(nil)
	if from.Addr().Is4() {
		to = &unix.SockaddrInet4{Addr: client.Addr().As4()}
		as = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: from.Addr().As4()})
	} else {
		zone, _ := strconv.Atoi(client.Addr().Zone())
		i, to = 1, &unix.SockaddrInet6{Addr: client.Addr().As16(), ZoneId: uint32(zone)}
		as = unix.PktInfo6(&unix.Inet6Pktinfo{Addr: from.Addr().As16(), Ifindex: uint32(zone)})
	}
	rc, err := d.raw[i].SyscallConn()
	if err != nil {
		return err
	}
	b := datagram(from, client, p)
	if cerr := rc.Control(func(fd uintptr) { _, err = unix.SendmsgN(int(fd), b, as, to, 0) }); cerr != nil {
		return cerr
	}
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOBUFS) {
		return nil
	}
	return err
}

// datagram is p with a header of UDP (RFC 768).
func datagram(from, to netip.AddrPort, p []byte) []byte {
	b := make([]byte, 8, 8+len(p))
	binary.BigEndian.PutUint16(b, from.Port())
	binary.BigEndian.PutUint16(b[2:], to.Port())
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(p)))
	b = append(b, p...)
	sum := packet.Checksum(from.Addr(), to.Addr(), unix.IPPROTO_UDP, b)
	if sum == 0 { // would mean that there is none
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[6:], sum)
	return b
}
