package sandbox

import (
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/tree"
)

// This file is about what the program has not accepted yet. A connection in a
// listener's queue is nobody's file, so sock_diag shows it without an inode
// (sock_i_ino in net/core/sock.c).

// handshakeTime is how long the last packet of a handshake may be on its way inside
// this machine.
const handshakeTime = 5 * time.Millisecond

// Place reports whether the connection is in the queue of a listener, or on its way
// there, and whether the program has accepted it. Neither: that cannot be told, as of
// one whose listener has it wait for the client's first word (TCP_DEFER_ACCEPT).
func (p *Peer) Place() (queued, accepted bool) {
	s, err := p.box.connection(p.dst, p.from)
	switch {
	case err != nil:
		return false, false
	case s.state == stateSynReceived:
		return time.Since(p.began) < handshakeTime || p.box.crowded(p.dst), false
	case s.state == stateEstablished, s.state == stateCloseWait:
		return s.inode == 0, s.inode != 0
	}
	return false, false
}

// Waiting reports whether every TCP listener at a port inside has a connection that
// the program has not accepted.
func (b *Box) Waiting(port uint16) bool {
	return b.every(func(a netip.AddrPort) bool { return a.Port() == port }, func(s socket) bool { return s.queued > 0 })
}

// crowded reports whether the listeners where dst leads have no room for more
// connections: a handshake ends when there is some.
func (b *Box) crowded(dst netip.AddrPort) bool {
	return b.every(func(a netip.AddrPort) bool {
		return a.Port() == dst.Port() && (a.Addr() == dst.Addr().Unmap() || a.Addr().IsUnspecified())
	}, func(s socket) bool { return s.queued > s.room })
}

// every reports whether there are listeners at such addresses, each of such a kind.
func (b *Box) every(at func(netip.AddrPort) bool, is func(socket) bool) bool {
	all, err := b.dump(unix.IPPROTO_TCP, stateListen)
	all = slices.DeleteFunc(all, func(s socket) bool { return !at(s.addr) })
	return err == nil && len(all) > 0 && !slices.ContainsFunc(all, func(s socket) bool { return !is(s) })
}

// Stopped are the processes of the tree that are stopped, by a debugger or a signal.
func (b *Box) Stopped() (all []int) {
	pids, err := b.tree.Processes()
	if err != nil {
		return nil
	}
	for _, pid := range pids {
		stat, err := readAt(b.proc, strconv.Itoa(pid)+"/stat", 512)
		if state := tree.State(stat); err == nil && (state == 'T' || state == 't') {
			all = append(all, pid)
		}
	}
	return all
}
