package e2e

import (
	"path/filepath"
	"testing"
)

// differences are the cases that end otherwise in a session than in the pod, as
// docs/flows/outgoing.md says: what the session shows.
var differences = map[string]map[string]string{
	// In the pod nobody says that nobody hears it.
	"IPv4": {"a socket connected to a group": "<nil> <nil> true ENETUNREACH"},
	"IPv6": {"a socket connected to a group": "<nil> <nil> true EACCES"},
}

// A program that looks closely sees the same in a session as in the pod: each
// case of programs/network is run in both, over both families.
func TestAsInThePod(t *testing.T) {
	p := handmadePod(t, families{four: true, six: true})
	p.serve()
	program := filepath.Join(w.dir, "bin", "network")
	for _, f := range []struct{ name, server, other, nowhere, self string }{
		{"IPv4", handWorld, handOther, handNowhere, handPod}, {"IPv6", handWorld6, handOther6, handNowhere6, handPod6},
	} {
		for _, area := range []string{"tcp", "udp", "odd"} {
			t.Run(f.name+" "+area, func(t *testing.T) {
				p.same(t, differences[f.name], program, area, f.server, f.other, f.nowhere, f.self)
			})
		}
	}
}
