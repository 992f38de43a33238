package redirect

import (
	"encoding/binary"
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
	r        *Redirect
	ports    *ebpf.Map // stolen ports, host byte order
	exempted *ebpf.Map // sources of our connections to the original: sourceKey
	socks    *ebpf.Map // our listeners: 0 IPv4, 1 IPv6
	last     *ebpf.Map // the agent's last beat, in nanoseconds (beat.go)
	prog     *ebpf.Program
	link     link.Link
	own      map[uint16]bool // the listeners' own ports

	translate ownTable // for originals; made with the first of them
}

// Offsets in struct bpf_sk_lookup (linux/bpf.h).
const (
	ctxFamily   = 8
	ctxProtocol = 12
	ctxRemote4  = 16
	ctxRemote6  = 20
	ctxRport    = 36 // network byte order; two bytes, as every kernel has them
	ctxLport    = 60 // host byte order
)

func (r *Redirect) byLookup() (_ steering, err error) {
	// Kernels before 5.11 count maps against RLIMIT_MEMLOCK.
	_ = rlimit.RemoveMemlock()
	l := &lookup{r: r, own: map[uint16]bool{}}
	defer func() {
		if err != nil {
			l.close()
			r.closeListeners()
		}
	}()
	if l.ports, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: maxPorts}); err != nil {
		return nil, fmt.Errorf("make a map: %w", err)
	}
	if l.exempted, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: sourceSize, ValueSize: 4, MaxEntries: maxOriginals}); err != nil {
		return nil, fmt.Errorf("make a map: %w", err)
	}
	if l.socks, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.SockMap, KeySize: 4, ValueSize: 8, MaxEntries: 2}); err != nil {
		return nil, fmt.Errorf("make a socket map: %w", err)
	}
	if l.last, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}); err != nil {
		return nil, fmt.Errorf("make a map: %w", err)
	}
	if err = l.beat(); err != nil {
		return nil, fmt.Errorf("tell the program the time: %w", err)
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

// sourceSize is the length of a source in the map, in bytes: 16 of address (4
// and zeroes for IPv4), 2 of port, both in network byte order, 2 of padding.
const sourceSize = 20

func sourceKey(src netip.AddrPort) (k [sourceSize]byte) {
	copy(k[:], src.Addr().AsSlice())
	binary.BigEndian.PutUint16(k[16:], src.Port())
	return k
}

// code is the program: if the port of a TCP connection is in ports, its source not
// exempted and the agent runs, its socket is the listener of its family. Stack: -4
// the port, -8 the slot, -28 the source.
func (l *lookup) code() asm.Instructions {
	const port, slot, source = -4, -8, -8 - sourceSize
	find := func(m *ebpf.Map, at int16) asm.Instructions {
		return asm.Instructions{
			asm.LoadMapPtr(asm.R1, m.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, int32(at)),
			asm.FnMapLookupElem.Call(),
		}
	}
	load := func(to asm.Register, from int16) asm.Instruction { return asm.LoadMem(to, asm.R6, from, asm.Word) }
	store := func(at int16, from asm.Register) asm.Instruction {
		return asm.StoreMem(asm.RFP, at, from, asm.Word)
	}
	p := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		load(asm.R2, ctxProtocol),
		asm.JNE.Imm(asm.R2, unix.IPPROTO_TCP, "pass"),
		load(asm.R2, ctxLport),
		store(port, asm.R2),
	}
	p = append(p, find(l.ports, port)...)
	p = append(p,
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.StoreImm(asm.RFP, slot, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, slot))
	p = append(p, l.late("pass")...)
	p = append(p,
		asm.Mov.Imm(asm.R2, 0), asm.Mov.Imm(asm.R3, 0), asm.Mov.Imm(asm.R4, 0),
		load(asm.R1, ctxRemote4),
		load(asm.R5, ctxFamily),
		asm.JEq.Imm(asm.R5, unix.AF_INET, "source"),
		asm.StoreImm(asm.RFP, slot, 1, asm.Word),
		load(asm.R1, ctxRemote6), load(asm.R2, ctxRemote6+4), load(asm.R3, ctxRemote6+8), load(asm.R4, ctxRemote6+12),
		store(source, asm.R1).WithSymbol("source"),
		store(source+4, asm.R2), store(source+8, asm.R3), store(source+12, asm.R4),
		asm.StoreImm(asm.RFP, source+16, 0, asm.Word),
		asm.LoadMem(asm.R1, asm.R6, ctxRport, asm.Half),
		asm.StoreMem(asm.RFP, source+16, asm.R1, asm.Half))
	p = append(p, find(l.exempted, source)...)
	p = append(p, asm.JNE.Imm(asm.R0, 0, "pass"))
	p = append(p, find(l.socks, slot)...)
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

func (l *lookup) exempt(src netip.AddrPort) error { return l.exempted.Put(sourceKey(src), uint32(1)) }
func (l *lookup) forget(src netip.AddrPort)       { _ = l.exempted.Delete(sourceKey(src)) }

// dialed: an accepted socket has the address that its client dialed.
func (l *lookup) dialed(c *net.TCPConn) (netip.AddrPort, bool) {
	a := tcpAddr(c.LocalAddr())
	return a, !l.own[a.Port()]
}

func (l *lookup) table() (_ ownTable, err error) {
	l.translate, err = newOwnTable(l.r.ns)
	return l.translate, err
}

func (l *lookup) detach() error { return l.link.Close() }

func (l *lookup) close() error {
	var errs []error
	if l.translate.conn != nil {
		errs = append(errs, l.translate.conn.Close())
	}
	if l.prog != nil {
		errs = append(errs, l.prog.Close())
	}
	for _, m := range []*ebpf.Map{l.ports, l.exempted, l.socks, l.last} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}
