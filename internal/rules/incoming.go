package rules

import (
	"net/netip"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// Incoming decides about the ports that the program listens on.
type Incoming struct {
	Mode uint8 // protocol.ModeMirror or protocol.ModeSteal; 0: none of the target's traffic
	// Targetless: there is no target whose traffic could be had.
	Targetless bool
}

// Decide says what to ask the agent for when the program listens on addr:
// Remote with a mode, or Local, when the port is open on the developer's
// machine only.
func (i Incoming) Decide(addr netip.AddrPort) (mode uint8, d Decision) {
	switch {
	case i.Targetless:
		return 0, Decision{Local, "no target was named, so nobody sends traffic"}
	case i.Mode == protocol.ModeSteal:
		return i.Mode, Decision{Remote, "incoming is steal"}
	case i.Mode == protocol.ModeMirror:
		return i.Mode, Decision{Remote, "incoming is mirror"}
	}
	return 0, Decision{Local, "incoming is off"}
}
