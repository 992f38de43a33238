package conntrack

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// Unheard asks what Find and Connected ask, and leaves the answers unread.
func Unheard(t *Table, peer, server netip.AddrPort) (err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	to := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	t.asked++
	if err := unix.Sendto(int(t.tracked.Fd()), message(ctGet, 0, t.asked, question(peer, server)), 0, to); err != nil {
		return err
	}
	return unix.Sendto(int(t.sockets.Fd()), message(sockDiagByFamily, 0, t.asked, socketsOf(peer, server, ^uint32(0))), 0, to)
}

// Ended is for its table.
var Ended = ended
