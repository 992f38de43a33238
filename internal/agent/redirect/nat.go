package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/nft"
)

// nat steers by an nftables redirect, for kernels or users without BPF. It
// switches connection tracking on in the target's network namespace for as
// long as it lives.
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
	maxTables = 64         // more agents than ever share a target
	firstMark = 0x6d720000 // far from what others use as bits (0x4000, 0x80000, …)
)

// MarkValue and MarkMask are what the packets of agents' connections to the
// original have in common: a mark that is the one under the other.
const (
	MarkValue uint32 = firstMark
	MarkMask  uint32 = ^uint32(maxTables - 1)
)

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
	pre := nft.Chain{Table: table, Name: "prerouting", Hook: nft.NATPrerouting}
	out := nft.Chain{Table: table, Name: "output", Hook: nft.NATOutput}
	changes := []nft.Change{n.ports.Create(), pre.Create(), out.Create(),
		out.Rule(nft.Mark(n.own.mark), nft.Accept())} // our own, to the original
	for _, ln := range r.listeners {
		a := tcpAddr(ln.Addr())
		// SYNs only: the first NAT chain makes the next packet of every older
		// connection count as a new one.
		rule := nft.All(nft.Family(a.Addr().Is6()), nft.L4(unix.IPPROTO_TCP), nft.Syn(), nft.DportIn(n.ports))
		changes = append(changes,
			pre.Rule(rule, nft.Redirect(a.Port())),
			out.Rule(nft.Oif("lo"), rule, nft.Redirect(a.Port()))) // connections inside the target
	}
	if err := n.own.conn.Apply(changes...); err != nil {
		return nil, err
	}
	return n, nil
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
