package rules

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Outgoing decides about connections that the program makes. The zero value
// sends all of them to the target.
type Outgoing struct {
	o      OutgoingOptions
	filter addresses
	unix   []unixPattern
}

// NewOutgoing reads o. An entry that means nothing is an *AddressError, or a
// *PatternError.
func NewOutgoing(o OutgoingOptions) (*Outgoing, error) {
	f, err := newAddresses("outgoing.filter", o.Filter, nil)
	if err == nil && f.set && len(f.entries) == 0 {
		err = errors.New("outgoing.filter has an empty list: leave it out, or switch outgoing off")
	}
	if err != nil {
		return nil, err
	}
	unix, err := newUnixPatterns(o.UnixStreams)
	if err != nil {
		return nil, err
	}
	return &Outgoing{o, f, unix}, nil
}

// Decide says where a connection to dst goes; network is "tcp", "udp" or "ping"
// (port 0), names are those that dst was the answer for, as Names gives them. An
// address that is not valid is one that the target has not.
func (o *Outgoing) Decide(network string, dst netip.AddrPort, names []string) Decision {
	ip := dst.Addr().Unmap()
	localhost := ip.IsLoopback() || ip.IsUnspecified()
	switch {
	case localhost && o.o.IgnoreLocalhost:
		return Decision{Local, "outgoing.ignore_localhost is on"}
	case network == "ping" && o.o.TCPLocal && o.o.UDPLocal:
		return Decision{Local, "outgoing is off"}
	case localhost && network == "tcp" && slices.ContainsFunc(o.o.DebuggerPorts, func(r PortRange) bool { return r.debugs(dst.Port()) }):
		return Decision{Local, "MIRRORD_IGNORE_DEBUGGER_PORTS has the port"}
	case network == "tcp" && o.o.TCPLocal || network == "udp" && o.o.UDPLocal:
		return Decision{Local, "outgoing." + network + " is off"}
	}
	if localhost {
		names = append([]string{"localhost"}, names...)
	}
	d, ok := o.filter.decide(func(a Address) bool { return a.connects(network, dst, names) })
	if !ok {
		return Decision{Remote, "default"}
	}
	return d
}

// debugs reports whether a debugger may wait at a port. Editors' ranges are
// wide; like mirrord, they leave two ports that services often have.
func (r PortRange) debugs(port uint16) bool {
	return r.has(port) && (r.First == r.Last || port != 50000 && port != 50001)
}

// LocalhostAdvice says for a person what makes a port of localhost this
// machine's.
func (o *Outgoing) LocalhostAdvice(port uint16) string {
	switch {
	case !o.filter.set:
		return fmt.Sprintf(`add to the configuration: {"feature": {"network": {"outgoing": {"filter": {"local": ["localhost:%d"]}}}}}`, port)
	case o.filter.matched == Local:
		return fmt.Sprintf(`add "localhost:%d" to feature.network.outgoing.filter.local`, port)
	}
	return `set "ignore_localhost": true in feature.network.outgoing`
}
