package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// What the filter sends of socket(2) is what reaches no network from here: the
// kernel makes the socket, or refuses it, and the hook is told.

// families that are not carried, by number.
var families = map[int]string{unix.AF_PACKET: "packet", unix.AF_VSOCK: "vsock", unix.AF_XDP: "XDP", unix.AF_CAN: "CAN",
	unix.AF_BLUETOOTH: "Bluetooth", unix.AF_TIPC: "TIPC", unix.AF_RDS: "RDS", unix.AF_PPPOX: "PPP over X"}

// internet are protocols of IP that are not carried.
var internet = map[int]string{unix.IPPROTO_SCTP: "SCTP", unix.IPPROTO_DCCP: "DCCP", unix.IPPROTO_UDPLITE: "UDP-Lite"}

// kind names a socket that a call asks for and that is not carried; empty: none
// of these.
func kind(domain, typ, protocol int) string {
	if domain != unix.AF_INET && domain != unix.AF_INET6 {
		return families[domain]
	}
	const typeMask = 0xf // SOCK_TYPE_MASK, linux/net.h
	if name := internet[protocol]; name != "" {
		return name
	}
	if typ&typeMask == unix.SOCK_RAW {
		return "raw"
	}
	return ""
}

// tellKind tells the hook of a call of socket(2).
func (w *watch) tellKind(c *call) {
	name := kind(int(int32(c.Data.Args[0])), int(int32(c.Data.Args[1])), int(int32(c.Data.Args[2])))
	if name == "" || w.hooks.Socket == nil {
		return
	}
	// A container that the command started has a network of its own.
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", c.Tid), &st); err != nil || w.b.net != (netID{st.Dev, st.Ino}) {
		return
	}
	w.hooks.Socket(name, c.pid())
}
