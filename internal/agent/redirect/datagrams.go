package redirect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/agent/claims"
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
