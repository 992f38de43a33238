package sandbox

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// What the filter sends of socket(2) and setsockopt(2) is what reaches no network
// from here: the kernel makes the socket, or refuses it, and the hook is told.

// rawICMP is the kind of raw sockets that ping is possible with: those who may
// have one are told nothing of it.
const rawICMP = "raw ICMP"

// families that are not carried, by number. Others that the filter sends have a
// number for a name.
var families = map[int]string{unix.AF_PACKET: "packet", unix.AF_VSOCK: "vsock", unix.AF_XDP: "XDP", unix.AF_CAN: "CAN",
	unix.AF_BLUETOOTH: "Bluetooth", unix.AF_TIPC: "TIPC", unix.AF_RDS: "RDS", unix.AF_PPPOX: "PPP over X", unix.AF_KEY: "IPsec key",
	unix.AF_LLC: "LLC", unix.AF_NFC: "NFC", unix.AF_QIPCRTR: "QIPCRTR", unix.AF_IEEE802154: "IEEE 802.15.4"}

// internet are protocols of IP that are not carried.
var internet = map[int]string{unix.IPPROTO_SCTP: "SCTP", unix.IPPROTO_DCCP: "DCCP", unix.IPPROTO_UDPLITE: "UDP-Lite"}

// kind names a socket that a call asks for and that is not carried; empty: none
// of these.
func kind(domain, typ, protocol int) string {
	const typeMask = 0xf // SOCK_TYPE_MASK, linux/net.h
	switch domain {
	case unix.AF_INET, unix.AF_INET6:
	case unix.AF_SMC, unix.AF_KCM: // over TCP
		return ""
	default:
		if name := families[domain]; name != "" || domain <= unix.AF_UNSPEC || domain >= unix.AF_MAX {
			return name
		}
		return fmt.Sprintf("family %d", domain)
	}
	if name := internet[protocol]; name != "" {
		return name
	}
	switch typ &= typeMask; {
	case typ == unix.SOCK_RAW && (domain == unix.AF_INET && protocol == unix.IPPROTO_ICMP || domain == unix.AF_INET6 && protocol == unix.IPPROTO_ICMPV6):
		return rawICMP
	case typ == unix.SOCK_RAW:
		return "raw"
	case typ == unix.SOCK_PACKET:
		return "packet"
	}
	return ""
}

// option names a socket option that means nothing outside the sandbox.
func option(level, name int) string {
	switch {
	case level == unix.SOL_SOCKET && name == unix.SO_MARK:
		return "SO_MARK"
	case level == unix.SOL_IP && name == unix.IP_TRANSPARENT:
		return "IP_TRANSPARENT"
	case level == unix.SOL_IPV6 && name == unix.IPV6_TRANSPARENT:
		return "IPV6_TRANSPARENT"
	}
	return ""
}

// tellKind tells the hook of a call of socket(2) or setsockopt(2).
func (w *watch) tellKind(c *call) {
	if w.hooks.Socket == nil {
		return
	}
	args := [3]int{int(int32(c.Data.Args[0])), int(int32(c.Data.Args[1])), int(int32(c.Data.Args[2]))}
	name := ""
	if c.Data.NR == unix.SYS_SOCKET {
		name = kind(args[0], args[1], args[2])
	} else {
		name = option(args[1], args[2])
	}
	if name == "" || name == rawICMP && mayRaw(c.Tid) {
		return
	}
	// A container that the command started has a network of its own.
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", c.Tid), &st); err != nil || w.b.net != (netID{st.Dev, st.Ino}) {
		return
	}
	w.hooks.Socket(name, c.pid())
}

// mayRaw reports whether a thread has CAP_NET_RAW (proc_pid_status(5)).
func mayRaw(tid uint32) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(b, []byte("\nCapEff:"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	caps, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 16, 64)
	return err == nil && caps&(1<<unix.CAP_NET_RAW) != 0
}
