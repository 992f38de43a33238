package explain

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/mirrord-go/mirrord/internal/rules"
)

// TestPlaced: each reason of the rules that names a setting is known, and is told
// with the setting's place.
func TestPlaced(t *testing.T) {
	address := netip.MustParseAddrPort("127.0.0.1:80")
	connect := func(o rules.OutgoingOptions, network string) string {
		return must[*rules.Outgoing](t)(rules.NewOutgoing(o)).Decide(network, address, nil).Why
	}
	listen := func(o rules.IncomingOptions) string {
		return must[*rules.Incoming](t)(rules.NewIncoming(o, false)).Decide(rules.Listener{Addr: address}).Why
	}
	file := func(mode string, op rules.Op) string {
		return must[*rules.Files](t)(rules.NewFiles(rules.FilesOptions{Mode: mode}, rules.Places{})).Decide("/srv/x", op).Why
	}
	name, _ := must[*rules.DNS](t)(rules.NewDNS(rules.DNSOptions{Local: true}, nil)).Decide("db")
	path := rules.Pattern{Text: "/"}
	filtered := rules.HTTPOptions{Filter: rules.Filter{Path: &path}, Ports: []uint16{8080}}
	others := filtered
	others.OtherPorts = rules.IncomingSteal
	unix := must[*rules.Outgoing](t)(rules.NewOutgoing(rules.OutgoingOptions{UnixStreams: []rules.Pattern{{Text: "^/a"}}})).DecideUnix("/b")
	variable := must[rules.Env](t)(rules.NewEnv(rules.EnvOptions{File: "/w/.env"}, []string{"A=1"})).Decide("A")
	seen := map[string]bool{}
	for _, c := range []struct{ why, key string }{
		{connect(rules.OutgoingOptions{TCPLocal: true}, "tcp"), "feature.network.outgoing.tcp"},
		{connect(rules.OutgoingOptions{UDPLocal: true}, "udp"), "feature.network.outgoing.udp"},
		{connect(rules.OutgoingOptions{IgnoreLocalhost: true}, "tcp"), "feature.network.outgoing.ignore_localhost"},
		{unix.Why, "feature.network.outgoing.unix_streams"},
		{name.Why, "feature.network.dns.enabled"},
		{listen(rules.IncomingOptions{}), "feature.network.incoming.mode"},
		{listen(rules.IncomingOptions{Mode: rules.IncomingSteal}), "feature.network.incoming.mode"},
		{listen(rules.IncomingOptions{Mode: rules.IncomingOff}), "feature.network.incoming.mode"},
		{listen(rules.IncomingOptions{Ports: []uint16{8080}}), "feature.network.incoming.ports"},
		{listen(rules.IncomingOptions{IgnorePorts: []uint16{80}}), "feature.network.incoming.ignore_ports"},
		{listen(rules.IncomingOptions{HTTP: &filtered}), "feature.network.incoming.http_filter.ports"},
		{listen(rules.IncomingOptions{HTTP: &others}), "feature.network.incoming.http_filter.other_ports"},
		{variable.Why, "feature.env.env_file"},
		{file(rules.FilesLocal, rules.Read), "feature.fs.mode"},
		{file(rules.FilesLocalWithOverrides, rules.Write), "feature.fs.mode"},
		{file(rules.FilesRead, rules.Read), "feature.fs.mode"},
		{file(rules.FilesWrite, rules.Write), "feature.fs.mode"},
	} {
		seen[c.key] = true
		for place, want := range map[string]string{"a.yaml:3:5": "a.yaml:3:5", "": "default"} {
			got := Placed([]Answer{{Why: c.why}}, map[string]string{c.key: place})
			if got[0].Why != c.why+" ("+want+")" {
				t.Errorf("%s of %q: got %q, want %s", c.key, c.why, got[0].Why, want)
			}
		}
	}
	for _, s := range switches {
		if !seen[s.key] {
			t.Errorf("no rule gives the reason %q", s.why)
		}
	}
	mapped := Placed([]Answer{{Why: "it is /b by feature.fs.mapping in a.yaml:4; mode read reads in the target"}}, map[string]string{"feature.fs.mode": "b.yaml:1:1"})
	if want := "it is /b by feature.fs.mapping in a.yaml:4; mode read reads in the target (b.yaml:1:1)"; mapped[0].Why != want {
		t.Errorf("got %q, want %q", mapped[0].Why, want)
	}
	plain := []Answer{{Why: "default"}, {Why: "feature.fs.local in a.yaml:3"}, {Why: "mirrord's own content, unless dns is off"}}
	if got := Placed(slices.Clone(plain), map[string]string{"feature.fs.mode": "x"}); !slices.Equal(got, plain) {
		t.Errorf("got %v", got)
	}
}
