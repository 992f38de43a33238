package redirect

import "net/netip"

// NewByLookup and NewByNAT choose the mechanism for tests.
func NewByLookup(ns Namespace, holder string) (*Redirect, error) {
	return newWith(ns, holder, (*Redirect).byLookup)
}

func NewByNAT(ns Namespace, holder string) (*Redirect, error) {
	return newWith(ns, holder, (*Redirect).byNAT)
}

// Addrs are the addresses that the agent listens on.
func (r *Redirect) Addrs() (list []netip.AddrPort) {
	for _, ln := range r.listeners {
		list = append(list, tcpAddr(ln.Addr()))
	}
	return list
}
