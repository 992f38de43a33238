package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/agent/claims"
	"github.com/mirrord-go/mirrord/internal/nft"
)

// nat steers by an nftables redirect, for kernels or users without BPF. It
// switches connection tracking on in the target's network namespace for as
// long as it lives.
//
// Its chains come after those of others: what a mesh's rules lead to its sidecar
// goes there, as it does with BPF, and is stolen where the sidecar sends it on to
// the port, in the clear.
type nat struct {
	own   ownTable
	ports nft.Set
}

// ownTable is a table that its socket owns.
type ownTable struct {
	conn *nft.Conn
	nft.Table
	mark uint32 // of the agent's packets, another for each table of a namespace
}

// Several agents of one target need several tables, and marks: the ports of
// their connections to the original are the same.
const (
	tableName = "mirrord-agent"
	// stealingChain is in the tables of those agents alone that steal by nftables.
	stealingChain = "prerouting"
	maxTables     = 64         // more agents than ever share a target
	firstMark     = 0x6d720000 // far from what others use as bits (0x4000, 0x80000, …)
)

// MarkValue and MarkMask are what the packets of agents' connections to the
// original have in common: a mark that is the one under the other. Connections
// that nftables has led to an agent have such a mark, too.
const (
	MarkValue uint32 = firstMark
	MarkMask  uint32 = ^uint32(maxTables - 1)
)

// TakenByNAT reports whether another agent has port, and some steal by nftables in
// ns, and who says to have it: of what comes over lo, copies have the port of its
// agent then, not this one. Where rules may not be read it is false.
func TakenByNAT(ns Namespace, port uint16) (holder string, yes bool) {
	var f *os.File
	if err := ns.Do(func() (err error) { f, err = nft.OpenFile(); return err }); err != nil {
		return "", false
	}
	defer f.Close()
	chains, _ := nft.Chains(f)
	if !slices.ContainsFunc(chains, func(c nft.ChainName) bool {
		return strings.HasPrefix(c.Table, tableName+"-") && c.Name == stealingChain
	}) {
		return "", false
	}
	return claims.Holder(ns, claims.TCP, port)
}

func newOwnTable(ns Namespace) (t ownTable, err error) {
	err = ns.Do(func() (err error) {
		for i := range uint32(maxTables) {
			t.mark = firstMark + i
			t.conn, t.Table, err = nft.OwnedTable(fmt.Sprintf("%s-%d", tableName, i))
			if !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.EPERM) {
				return err
			}
		}
		return err
	})
	if err != nil {
		return ownTable{}, fmt.Errorf("make a table: %w", err)
	}
	return t, nil
}

func (r *Redirect) byNAT() (_ steering, err error) {
	n := &nat{}
	defer func() {
		if err != nil {
			n.close()
			r.closeListeners()
		}
	}()
	// A redirected connection has the address of the interface that it came in
	// by, so the listeners take any.
	if err := r.listen("0.0.0.0", "::"); err != nil {
		return nil, err
	}
	if n.own, err = newOwnTable(r.ns); err != nil {
		return nil, err
	}
	table := n.own.Table
	n.ports = nft.Set{Table: table, Name: "stolen", Key: nft.TypePort}
	pre := nft.Chain{Table: table, Name: stealingChain, Hook: nft.NATPreroutingLast}
	out := nft.Chain{Table: table, Name: "output", Hook: nft.NATOutputLast}
	rules := func(marks bool) []nft.Change {
		changes := []nft.Change{n.ports.Create(), pre.Create(), out.Create(),
			out.Rule(nft.Mark(n.own.mark), nft.Accept())} // our own, to the original
		for _, ln := range r.listeners {
			a := tcpAddr(ln.Addr())
			// SYNs only: the first NAT chain makes the next packet of every older
			// connection count as a new one.
			v6 := a.Addr().Is6()
			rule := nft.All(nft.Family(v6), nft.L4(unix.IPPROTO_TCP), nft.Syn(), nft.DportIn(n.ports))
			if marks { // a mark that is there already is a mesh's, and leads its answers
				known := nft.All(rule, nft.Unmarked(), nft.SetConnMark(n.own.mark))
				changes = append(changes, pre.Rule(known), out.Rule(nft.Oif("lo"), known))
			}
			changes = append(changes,
				pre.Rule(rule, nft.Redirect(a.Port())),
				// Connections inside the target. Not Redirect, which makes the address
				// 127.0.0.1: answers to a proxy that has its client's would not go back.
				out.Rule(nft.Oif("lo"), rule, nft.DNATPort(v6, a.Port())))
		}
		return changes
	}
	err = n.own.conn.Apply(rules(true)...)
	if unmarkable(err) { // behind a sidecar others' copies lack what is stolen
		err = n.own.conn.Apply(rules(false)...)
	}
	if err != nil {
		return nil, err
	}
	return n, nil
}

// unmarkable reports whether err is that of a kernel without marks of connections
// (EOPNOTSUPP), or without the module that reads them (nft_ct; ENOENT).
func unmarkable(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT)
}

func (n *nat) add(port uint16) error    { return n.own.conn.Apply(n.ports.Add(nft.Port(port))) }
func (n *nat) remove(port uint16) error { return n.own.conn.Apply(n.ports.Delete(nft.Port(port))) }

// exempt has nothing to do: our mark is exempted.
func (n *nat) exempt(netip.AddrPort) error { return nil }
func (n *nat) forget(netip.AddrPort)       {}

func (n *nat) table() (ownTable, error) { return n.own, nil }

// dialed asks connection tracking what the client dialed.
func (n *nat) dialed(c *net.TCPConn) (netip.AddrPort, bool) {
	rc, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, false
	}
	// SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST are both 80 (linux/netfilter_ipv4.h,
	// linux/netfilter_ipv6/ip6_tables.h).
	const originalDst = 80
	var sa unix.RawSockaddrInet6 // large enough for either family
	level, size := unix.SOL_IP, uint32(unix.SizeofSockaddrInet4)
	v6 := tcpAddr(c.RemoteAddr()).Addr().Is6()
	if v6 {
		level, size = unix.SOL_IPV6, unix.SizeofSockaddrInet6
	}
	var errno unix.Errno
	err = rc.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, uintptr(level), originalDst,
			uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)), 0)
	})
	if err != nil || errno != 0 {
		return netip.AddrPort{}, false
	}
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	ip := netip.AddrFrom16(sa.Addr)
	if !v6 {
		ip = netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&sa)).Addr)
	}
	dialed := netip.AddrPortFrom(ip.Unmap(), port)
	return dialed, port != tcpAddr(c.LocalAddr()).Port() // else it was dialed directly
}

// detach has nothing to do: no port is left, and what was stolen needs the
// table until it ends.
func (n *nat) detach() error { return nil }

func (n *nat) close() error {
	if n.own.conn == nil {
		return nil
	}
	return n.own.conn.Close()
}
