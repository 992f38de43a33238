package netstack

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Reports of groups (IGMP: RFC 3376, 4.2, and RFC 2236, 2; over IPv6 RFC 3810,
// 5.2, and RFC 2710, 3), which the sandbox's kernel sends for its programs.
const (
	igmpReport, igmpRecords = 0x16, 0x22
	mldReport, mldRecords   = 131, 143
	// reportHead and recordHead are what a report has before its records, and a
	// record before its group, in bytes.
	reportHead, recordHead = 8, 4
	// Types of records by which nobody leaves.
	isExclude, toExclude, allowSources = 2, 4, 5
)

// solicited are the groups of a host's own addresses.
var solicited = netip.MustParsePrefix("ff02::1:ff00:0/104")

// joined calls f with the groups that a packet tells routers to be wanted, but
// for those that every kernel wants.
func joined(pkt []byte, f func(group netip.Addr)) {
	message, six := report(pkt)
	if len(message) < reportHead {
		return
	}
	size, one, records, at := header.IPv4AddressSize, byte(igmpReport), byte(igmpRecords), 4
	if six {
		size, one, records, at = header.IPv6AddressSize, mldReport, mldRecords, 8
	}
	tell := func(b []byte) {
		if group, ok := netip.AddrFromSlice(b); ok && group.IsMulticast() && !everyKernels(group) {
			f(group)
		}
	}
	switch message[0] {
	case one:
		if len(message) >= at+size {
			tell(message[at : at+size])
		}
	case records:
		rest := message[reportHead:]
		for n := binary.BigEndian.Uint16(message[6:]); n > 0 && len(rest) >= recordHead+size; n-- {
			if t := rest[0]; t == isExclude || t == toExclude || t == allowSources {
				tell(rest[recordHead : recordHead+size])
			}
			sources, auxiliary := int(binary.BigEndian.Uint16(rest[2:])), int(rest[1])
			rest = rest[min(len(rest), recordHead+size+sources*size+auxiliary*4):]
		}
	}
}

// report gives the message about groups that a packet may have, nil if it has
// none.
func report(pkt []byte) (message []byte, six bool) {
	if pkt[0]>>4 == 4 {
		ip := header.IPv4(pkt)
		if !ip.IsValid(len(pkt)) || ip.Protocol() != unix.IPPROTO_IGMP {
			return nil, false
		}
		return ip.Payload(), false
	}
	// They have an option for routers to look at, of 8 bytes (RFC 2711).
	const option = 8
	ip := header.IPv6(pkt)
	if !ip.IsValid(len(pkt)) || ip.NextHeader() != unix.IPPROTO_HOPOPTS {
		return nil, false
	}
	if b := ip.Payload(); len(b) >= option && b[0] == unix.IPPROTO_ICMPV6 && b[1] == 0 {
		return b[option:], true
	}
	return nil, false
}

// everyKernels reports whether group is one that a kernel is in without a
// program's wish: all hosts, all routers, and those of its own addresses (RFC
// 4291, 2.7.1).
func everyKernels(group netip.Addr) bool {
	switch group {
	case netip.AddrFrom4([4]byte{224, 0, 0, 1}), netip.IPv6LinkLocalAllNodes(), netip.IPv6LinkLocalAllRouters():
		return true
	}
	return solicited.Contains(group)
}
