package outgoing

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// protocols of IP that are not carried, by number, as people call them.
var protocols = map[uint8]string{33: "DCCP", 132: "SCTP", 136: "UDP-Lite"}

// Numbers of protocols of IP, by their registry (IANA).
const (
	protocolICMP   = 1
	protocolICMPv6 = 58
)

// icmp4 and icmp6 are ICMP messages that programs send, by type, as people call
// them.
var (
	icmp4 = map[uint8]string{5: "an ICMP redirect", 9: "an ICMP router advertisement", 10: "an ICMP router solicitation", 13: "an ICMP timestamp request", 17: "an ICMP address mask request"}
	icmp6 = map[uint8]string{139: "an ICMPv6 node information query"}
)

// Stray is a packet that does not leave the sandbox, or not as it is.
type Stray struct {
	Protocol uint8 // of IP, IPPROTO_…
	Dst      netip.AddrPort
	Type     uint8 // of ICMP
	Joins    bool  // the program wants what is sent to the group Dst
	Hops     uint8 // it is to end after so many routers; 0: no such
}

// Stray says once for each address what does not leave the sandbox: datagrams to
// groups and to all, protocols and kinds of ICMP that are not carried, and how
// many routers a packet may pass. It does not wait.
func (r *Router) Stray(s Stray) {
	name, why := s.name(), "a session carries TCP, UDP and ping"
	switch {
	case s.Joins:
		if r.told.once("joins " + address(s.Dst)) {
			r.Emit(event.Event{Level: event.Warning, Code: "not-carried", Flow: "outgoing", Facts: map[string]string{"what": "multicast", "address": address(s.Dst)},
				Text: fmt.Sprintf("multicast from %s does not enter the sandbox: the program hears nothing of the group that it has joined", address(s.Dst))})
		}
		return
	case s.Hops > 0: // each probe of the way has a port and a number of its own
		s.Dst = netip.AddrPortFrom(s.Dst.Addr(), 0)
		name, why = "a limit of hops", "only the end of the way answers, not what is on it"
	case s.Dst.Addr() == broadcast:
		name, why = "broadcast", "nobody gets it"
	case s.Dst.Addr().IsMulticast():
		name, why = "multicast", "nobody gets it"
	}
	r.tellNotCarried(name, address(s.Dst), why)
}

// name is what a person calls the protocol.
func (s Stray) name() string {
	named, prefix, number := protocols[s.Protocol], "protocol", s.Protocol
	switch s.Protocol {
	case protocolICMP:
		named, prefix, number = icmp4[s.Type], "ICMP of type", s.Type
	case protocolICMPv6:
		named, prefix, number = icmp6[s.Type], "ICMPv6 of type", s.Type
	}
	if named == "" {
		return fmt.Sprintf("%s %d", prefix, number)
	}
	return named
}

func (r *Router) tellNotCarried(what, dst, why string) {
	if r.told.once("not carried " + what + dst) {
		r.Emit(event.Event{Level: event.Warning, Code: "not-carried", Flow: "outgoing", Facts: map[string]string{"what": what, "address": dst},
			Text: fmt.Sprintf("%s to %s does not leave the sandbox: %s", what, dst, why)})
	}
}

// tellForbidden says once for each address that the target's kernel sends no
// datagrams there. What is broadcast only its routes tell.
func (r *Router) tellForbidden(t *route, err error) {
	if t.network == "udp" && t.Where == rules.Remote && errors.Is(err, syscall.EACCES) {
		r.tellNotCarried("UDP", address(t.dst), "in the target it is a broadcast address, or one that a route prohibits")
	}
}

// address is a as a person writes it: without a port where there is none.
func address(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}
