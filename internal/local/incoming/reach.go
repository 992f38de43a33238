package incoming

import "net/netip"

// Way is how a connection enters the sandbox.
type Way uint8

const (
	// Tunnel: it comes out of the network device with any source address that
	// is not the sandbox's own, so the program sees the real client.
	Tunnel Way = iota
	// Inside: a socket made inside the sandbox connects. The kernel takes
	// packets with a source of its own (127/8, ::1, the pod's address) from no
	// device.
	Inside
)

// Attempt is one way to try. Src is what the program will see; the
// unspecified address leaves it to the kernel.
type Attempt struct {
	Way      Way
	Src, Dst netip.AddrPort
}

// Host is what the sandbox's addresses are.
type Host struct {
	Pod4, Pod6             netip.Addr // the pod's own; zero where it has none
	Localhost4, Localhost6 netip.Addr // what the tunnel's side calls the sandbox's 127.0.0.1 and ::1; zero: it cannot
}

// Reach lists, in order, how to connect client to a listener of the sandbox
// that is bound to listener. A listener of the other address family than the
// client's is reached from loopback, as such a program could not be shown the
// client's address in any case; so is everything for a client that is unknown.
func (h Host) Reach(client, listener netip.AddrPort) []Attempt {
	ip, port := listener.Addr().Unmap(), listener.Port()
	src := netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
	v6 := src.Addr().Is6()
	own := !src.Addr().IsValid() || src.Addr().IsLoopback() || src.Addr() == h.Pod4 || src.Addr() == h.Pod6

	dst := ip // where the listener is
	if ip.IsUnspecified() {
		dst = h.Pod4
		if v6 {
			dst = h.Pod6
		}
		if own {
			dst = src.Addr()
		}
	}
	var tries []Attempt
	if !own && dst.IsValid() && v6 == dst.Is6() {
		via := dst
		switch {
		case dst.IsLoopback() && v6:
			via = h.Localhost6
		case dst.IsLoopback():
			via = h.Localhost4
		}
		if via.IsValid() {
			tries = append(tries, Attempt{Tunnel, src, netip.AddrPortFrom(via, port)})
			if !ip.IsUnspecified() {
				return tries
			}
		}
	}
	// [::] with IPV6_V6ONLY, 0.0.0.0 and an IPv6 client, a pod without the
	// client's family, or a client on the sandbox's own addresses.
	from := netip.AddrPort{}
	if own && dst.IsValid() && v6 == dst.Is6() {
		from = netip.AddrPortFrom(src.Addr(), 0)
		tries = append(tries, Attempt{Inside, from, netip.AddrPortFrom(dst, port)})
	} else if !ip.IsUnspecified() {
		tries = append(tries, Attempt{Inside, netip.AddrPort{}, netip.AddrPortFrom(ip, port)})
	}
	if ip.IsUnspecified() {
		for _, lo := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
			tries = append(tries, Attempt{Inside, netip.AddrPort{}, netip.AddrPortFrom(lo, port)})
		}
	}
	return tries
}
