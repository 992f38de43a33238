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

// Stray says once for each address what does not leave the sandbox: datagrams to
// groups and to all, and protocols (of IP, by number) that are not carried. It
// does not wait.
func (r *Router) Stray(protocol uint8, dst netip.AddrPort) {
	name := protocols[protocol]
	if name == "" {
		name = fmt.Sprintf("protocol %d", protocol)
	}
	why := "a session carries TCP, UDP and ping"
	switch {
	case dst.Addr() == broadcast:
		name, why = "broadcast", "nobody gets it"
	case dst.Addr().IsMulticast():
		name, why = "multicast", "nobody gets it"
	}
	r.tellNotCarried(name, address(dst), why)
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
