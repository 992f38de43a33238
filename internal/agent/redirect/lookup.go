package redirect

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// maxPorts bounds the stolen ports of one session.
const maxPorts = 1024

// lookup steers by a BPF program that the kernel asks for the socket of each
// new connection (Documentation/bpf/prog_sk_lookup.rst). Program, maps and link
// are held by descriptors only.
type lookup struct {
	ports *ebpf.Map // stolen ports, host byte order
	socks *ebpf.Map // our listeners: 0 IPv4, 1 IPv6
	prog  *ebpf.Program
	link  link.Link
	own   map[uint16]bool // the listeners' own ports
}

// Offsets in struct bpf_sk_lookup (linux/bpf.h).
const (
	ctxFamily   = 8
	ctxProtocol = 12
	ctxLport    = 60 // host byte order
)

func (r *Redirect) byLookup() (_ steering, err error) {
	// Kernels before 5.11 count maps against RLIMIT_MEMLOCK.
	_ = rlimit.RemoveMemlock()
	l := &lookup{own: map[uint16]bool{}}
	defer func() {
		if err != nil {
			l.close()
			r.closeListeners()
		}
	}()
	if l.ports, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: maxPorts}); err != nil {
		return nil, fmt.Errorf("make a map: %w", err)
	}
	if l.socks, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.SockMap, KeySize: 4, ValueSize: 8, MaxEntries: 2}); err != nil {
		return nil, fmt.Errorf("make a socket map: %w", err)
	}
	l.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SkLookup, AttachType: ebpf.AttachSkLookup, License: "MIT", Instructions: l.code()})
	if err != nil {
		return nil, fmt.Errorf("load the program: %w", err)
	}
	// On loopback and a port of the kernel's choice: the program hands them
	// connections to any address.
	if err := r.listen("127.0.0.1", "::1"); err != nil {
		return nil, err
	}
	for _, ln := range r.listeners {
		if err := l.serve(ln); err != nil {
			return nil, err
		}
	}
	err = r.ns.Handle(func(fd int) error {
		l.link, err = link.AttachNetNs(fd, l.prog)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("attach the program: %w", err)
	}
	return l, nil
}

// serve makes ln the socket for its family.
func (l *lookup) serve(ln *net.TCPListener) error {
	a := tcpAddr(ln.Addr())
	slot := uint32(0)
	if a.Addr().Is6() {
		slot = 1
	}
	rc, err := ln.SyscallConn()
	if err != nil {
		return err
	}
	var perr error
	if err := rc.Control(func(fd uintptr) { perr = l.socks.Put(slot, uint64(fd)) }); err != nil {
		return err
	}
	l.own[a.Port()] = true
	return perr
}

// code is the program: if the port of a TCP connection is in ports, its socket
// is the listener of its family. Stack: -4 the port, -8 the slot.
func (l *lookup) code() asm.Instructions {
	const port, slot = -4, -8
	find := func(m *ebpf.Map, at int16) asm.Instructions {
		return asm.Instructions{
			asm.LoadMapPtr(asm.R1, m.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, int32(at)),
			asm.FnMapLookupElem.Call(),
		}
	}
	p := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R2, asm.R6, ctxProtocol, asm.Word),
		asm.JNE.Imm(asm.R2, unix.IPPROTO_TCP, "pass"),
		asm.LoadMem(asm.R2, asm.R6, ctxLport, asm.Word),
		asm.StoreMem(asm.RFP, port, asm.R2, asm.Word),
	}
	p = append(p, find(l.ports, port)...)
	p = append(p,
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.StoreImm(asm.RFP, slot, 0, asm.Word),
		asm.LoadMem(asm.R2, asm.R6, ctxFamily, asm.Word),
		asm.JEq.Imm(asm.R2, unix.AF_INET, "socket"),
		asm.StoreImm(asm.RFP, slot, 1, asm.Word))
	sock := find(l.socks, slot)
	sock[0] = sock[0].WithSymbol("socket")
	p = append(p, sock...)
	return append(p,
		asm.JEq.Imm(asm.R0, 0, "pass"),
		// Flags 0: where an earlier program has chosen a socket already, it stays.
		asm.Mov.Reg(asm.R7, asm.R0),
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Reg(asm.R2, asm.R7), asm.Mov.Imm(asm.R3, 0),
		asm.FnSkAssign.Call(),
		asm.Mov.Reg(asm.R1, asm.R7), asm.FnSkRelease.Call(),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("pass"), // SK_PASS
		asm.Return())
}

func (l *lookup) add(port uint16) error    { return l.ports.Put(uint32(port), uint32(1)) }
func (l *lookup) remove(port uint16) error { return l.ports.Delete(uint32(port)) }

// original: an accepted socket has the address that its client dialed.
func (l *lookup) original(c *net.TCPConn) (netip.AddrPort, bool) {
	a := tcpAddr(c.LocalAddr())
	return a, !l.own[a.Port()]
}

func (l *lookup) close() error {
	var errs []error
	if l.link != nil {
		errs = append(errs, l.link.Close())
	}
	if l.prog != nil {
		errs = append(errs, l.prog.Close())
	}
	for _, m := range []*ebpf.Map{l.ports, l.socks} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}
