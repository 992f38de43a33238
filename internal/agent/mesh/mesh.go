// Package mesh recognises a service mesh in a target's network, and says what
// follows for the target's ports.
//
// A mesh leads connections to its proxy by rules of the target's network
// namespace; the proxy calls the port itself. Stealing and copying find out by
// themselves, connection by connection, which of the two they have (redirect,
// capture); this room is for what a person is told, and for what cannot work.
// Look touches the machine, what is decided from it does not. It changes nothing.
// To read rules takes CAP_NET_ADMIN in the namespace's user namespace; the ports
// that are listened on can be read without.
package mesh

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Chain is a chain of nftables or of iptables.
type Chain struct{ Table, Name string }

// Facts are what was found in the target's network.
type Facts struct {
	Chains []Chain
	// Read: these are all, and whatever listens is none of a mesh without them.
	Read      bool
	Listeners []uint16 // TCP; not looked for where Read
}

// Mesh is what leads the target's connections to itself. The zero value is none.
type Mesh struct {
	Name string // "Istio's sidecar"
	// Transparent: what comes in keeps its addresses on the way to the proxy
	// (TPROXY), so that nothing but the rules tells it from what the proxy sends.
	Transparent bool
	own         []uint16 // where it listens for the connections of all ports
	keeps       bool     // the program sees the clients' addresses
}

// kinds are the meshes that are known: by the names of chains, as in their sources
// (istio: tools/istio-iptables, tools/istio-nftables, cni/pkg/iptables;
// linkerd2-proxy-init: pkg/iptables; kuma: pkg/transparentproxy; consul:
// sdk/iptables), else by ports, all of which are listened on.
var kinds = []struct {
	Mesh
	chains    []string
	listeners []uint16
}{
	{Mesh{Name: "Istio's ztunnel (ambient)", own: []uint16{15001, 15006, 15008}, keeps: true}, []string{"ISTIO_PRERT", "ISTIO_PREROUTING"}, nil},
	{Mesh{Name: "Istio's sidecar", own: []uint16{15001, 15006, 15008}}, []string{"ISTIO_INBOUND"}, nil},
	{Mesh{Name: "Kuma's sidecar", own: []uint16{15001, 15006, 15010}}, []string{"KUMA_MESH_INBOUND"}, nil},
	{Mesh{Name: "Linkerd's proxy", own: []uint16{4140, 4143}}, []string{"PROXY_INIT_REDIRECT"}, []uint16{4140, 4143}},
	{Mesh{Name: "Consul's sidecar", own: []uint16{15001, 20000}}, []string{"CONSUL_PROXY_INBOUND"}, nil},
	// By their ports these are alike.
	{Mesh{Name: "a sidecar like Istio's", own: []uint16{15001, 15006}}, nil, []uint16{15001, 15006}},
}

// Mesh says which one is there.
func (f Facts) Mesh() Mesh {
	for _, k := range kinds {
		here := slices.DeleteFunc(slices.Clone(f.Chains), func(c Chain) bool { return !slices.Contains(k.chains, plain(c.Name)) })
		if len(here) == 0 {
			continue
		}
		m := k.Mesh
		leads := func(c Chain) bool { return strings.HasSuffix(plain(c.Table), "NAT") }
		// Istio's sidecar has its chain in nat in either case, for one exempt port.
		hands := func(c Chain) bool { return plain(c.Name) == "ISTIO_TPROXY" }
		m.Transparent = !slices.ContainsFunc(here, leads) || slices.ContainsFunc(f.Chains, hands)
		return m
	}
	if f.Read {
		return Mesh{}
	}
	for _, k := range kinds {
		absent := func(port uint16) bool { return !slices.Contains(f.Listeners, port) }
		if len(k.listeners) > 0 && !slices.ContainsFunc(k.listeners, absent) {
			return k.Mesh
		}
	}
	return Mesh{}
}

// plain is a name as iptables would have it.
func plain(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) }

// Text is what a person is told of it; empty: there is none.
func (m Mesh) Text() string {
	switch {
	case m.Name == "":
		return ""
	case m.keeps:
		return fmt.Sprintf("the target is behind %s: what that takes is seen where it reaches the program's port, in the clear; what its rules leave out is seen as it comes in", m.Name)
	}
	return fmt.Sprintf("the target is behind %s: what that takes is seen where it reaches the program's port, in the clear and with the proxy as its client; what its rules leave out is seen as it comes in", m.Name)
}

// Refuses says why the port cannot be taken, or copied; nil: it can.
func (m Mesh) Refuses(port uint16, copies bool) error {
	switch {
	case slices.Contains(m.own, port):
		return fmt.Errorf("port %d is where %s takes what comes in for the target's ports, encrypted; listen on the port that the target's own program serves: %w", port, m.Name, unix.EOPNOTSUPP)
	case copies && m.Transparent:
		return fmt.Errorf("%s takes connections with the addresses that they have (TPROXY), so a copy of what comes in could not be told from one of what it sends on; "+
			"steal instead, by a filter (mirrord exec --steal --header ...): %w", m.Name, unix.EOPNOTSUPP)
	}
	return nil
}

// RefusesRedirect says why ports cannot be stolen by nftables; nil: they can. By
// BPF they can in either case.
func (m Mesh) RefusesRedirect() error {
	if !m.Transparent {
		return nil
	}
	return fmt.Errorf("%s is given connections before rules of nftables see them, with the socket that takes them (TPROXY), so that a redirect would lead them to it with the wrong port; "+
		"stealing takes BPF there, in Linux 5.9 and later: %w", m.Name, unix.EOPNOTSUPP)
}
