package rules

import "net/netip"

// Outgoing decides about connections that the program makes.
type Outgoing struct {
	TCPLocal, UDPLocal bool // leave the protocol on the developer's machine
}

// Decide says where a connection to dst goes; network is "tcp" or "udp".
func (o Outgoing) Decide(network string, dst netip.AddrPort) Decision {
	if network == "tcp" && o.TCPLocal || network == "udp" && o.UDPLocal {
		return Decision{Local, "outgoing." + network + " is off"}
	}
	return Decision{Remote, "default"}
}
