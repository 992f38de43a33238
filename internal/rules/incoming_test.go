package rules_test

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

func header(text string) *rules.HTTPOptions {
	return &rules.HTTPOptions{Filter: rules.Filter{Header: &rules.Pattern{Text: text, Origin: "a file"}}}
}

func TestIncoming(t *testing.T) {
	const steal, mirror, tee = protocol.ModeSteal, protocol.ModeMirror, protocol.ModeTee
	const filter = `{"header":{"text":"x: y"}}`
	filtered := func(ports []uint16, other string) rules.IncomingOptions {
		h := header("x: y")
		h.Ports, h.OtherPorts = ports, other
		return rules.IncomingOptions{Mode: rules.IncomingSteal, HTTP: h}
	}
	for _, c := range []struct {
		name       string
		o          rules.IncomingOptions
		targetless bool
		addr       string
		anyPort    bool
		want       rules.Port // Why: a part of it
	}{
		{"the default", rules.IncomingOptions{}, false, "0.0.0.0:80", false,
			rules.Port{Mode: mirror, Target: 80, Publish: 80, Decision: rules.Decision{Where: rules.Remote, Why: "incoming is mirror"}}},
		{"steal", rules.IncomingOptions{Mode: "steal"}, false, "[::]:80", false,
			rules.Port{Mode: steal, Target: 80, Publish: 80, Decision: rules.Decision{Where: rules.Remote, Why: "incoming is steal"}}},
		{"off", rules.IncomingOptions{Mode: "off"}, false, "0.0.0.0:80", false,
			rules.Port{Target: 80, Publish: 80, Decision: rules.Decision{Why: "incoming is off"}}},
		{"targetless", rules.IncomingOptions{Mode: "steal"}, true, "0.0.0.0:80", false,
			rules.Port{Target: 80, Publish: 80, Decision: rules.Decision{Why: "no target"}}},
		{"loopback counts", rules.IncomingOptions{}, false, "127.0.0.1:80", false,
			rules.Port{Mode: mirror, Target: 80, Publish: 80, Decision: rules.Decision{Where: rules.Remote, Why: "mirror"}}},
		{"ignore_localhost", rules.IncomingOptions{IgnoreLocalhost: true}, false, "127.0.0.9:80", false,
			rules.Port{Target: 80, Publish: 80, Decision: rules.Decision{Why: "ignore_localhost is on and it listens on 127.0.0.9"}}},
		{"ignore_localhost, ::1", rules.IncomingOptions{IgnoreLocalhost: true}, false, "[::1]:80", false,
			rules.Port{Target: 80, Publish: 80, Decision: rules.Decision{Why: "listens on ::1"}}},
		{"ignore_localhost, mapped", rules.IncomingOptions{IgnoreLocalhost: true}, false, "[::ffff:127.0.0.1]:80", false,
			rules.Port{Target: 80, Publish: 80, Decision: rules.Decision{Why: "listens on 127.0.0.1"}}},
		{"ignore_localhost, every address", rules.IncomingOptions{IgnoreLocalhost: true}, false, "[::]:80", false,
			rules.Port{Mode: mirror, Target: 80, Publish: 80, Decision: rules.Decision{Where: rules.Remote, Why: "mirror"}}},
		{"any port", rules.IncomingOptions{}, false, "0.0.0.0:40000", true,
			rules.Port{Target: 40000, Publish: 40000, Decision: rules.Decision{Why: "asked for any free port"}}},
		{"any port is in no table", rules.IncomingOptions{Ports: []uint16{80}, PortMapping: []rules.PortPair{{From: 40000, To: 80}}, ListenPorts: []rules.PortPair{{From: 40000, To: 1}}},
			false, "0.0.0.0:40000", true,
			rules.Port{Target: 40000, Publish: 40000, Decision: rules.Decision{Why: "asked for any free port"}}},
		{"a mapping", rules.IncomingOptions{PortMapping: []rules.PortPair{{From: 3000, To: 80}}}, false, "0.0.0.0:3000", false,
			rules.Port{Mode: mirror, Target: 80, Publish: 3000, Decision: rules.Decision{Where: rules.Remote, Why: "mirror"}}},
		{"ports are the target's", rules.IncomingOptions{Ports: []uint16{80}, PortMapping: []rules.PortPair{{From: 3000, To: 80}}}, false, "0.0.0.0:3000", false,
			rules.Port{Mode: mirror, Target: 80, Publish: 3000, Decision: rules.Decision{Where: rules.Remote, Why: "mirror"}}},
		{"not among ports", rules.IncomingOptions{Ports: []uint16{3000}, PortMapping: []rules.PortPair{{From: 3000, To: 80}}}, false, "0.0.0.0:3000", false,
			rules.Port{Target: 80, Publish: 3000, Decision: rules.Decision{Why: "ports does not have 80"}}},
		{"no port at all", rules.IncomingOptions{Ports: []uint16{}}, false, "0.0.0.0:80", false,
			rules.Port{Target: 80, Publish: 80, Decision: rules.Decision{Why: "ports does not have 80"}}},
		{"ignore_ports are the program's", rules.IncomingOptions{IgnorePorts: []uint16{3000}, PortMapping: []rules.PortPair{{From: 3000, To: 80}}}, false, "0.0.0.0:3000", false,
			rules.Port{Target: 80, Publish: 3000, Decision: rules.Decision{Why: "ignore_ports has 3000"}}},
		{"ignore_ports, the target's number", rules.IncomingOptions{IgnorePorts: []uint16{80}, PortMapping: []rules.PortPair{{From: 3000, To: 80}}}, false, "0.0.0.0:3000", false,
			rules.Port{Mode: mirror, Target: 80, Publish: 3000, Decision: rules.Decision{Where: rules.Remote, Why: "mirror"}}},
		{"a debugger", rules.IncomingOptions{DebuggerPorts: []rules.PortRange{{First: 9229, Last: 9229}, {First: 5000, Last: 5010}}}, false, "127.0.0.1:5010", false,
			rules.Port{Target: 5010, Publish: 5010, Decision: rules.Decision{Why: "debugger"}}},
		{"beside a debugger", rules.IncomingOptions{DebuggerPorts: []rules.PortRange{{First: 5000, Last: 5010}}}, false, "127.0.0.1:5011", false,
			rules.Port{Mode: mirror, Target: 5011, Publish: 5011, Decision: rules.Decision{Where: rules.Remote, Why: "mirror"}}},
		{"a recognised debugger", rules.IncomingOptions{}, false, "0.0.0.0:5678 debugpy", false,
			rules.Port{Target: 5678, Publish: 5678, Decision: rules.Decision{Why: "debugger's port (debugpy)"}}},
		{"listen_ports", rules.IncomingOptions{ListenPorts: []rules.PortPair{{From: 80, To: 8080}}}, false, "0.0.0.0:80", false,
			rules.Port{Mode: mirror, Target: 80, Publish: 8080, Exact: true, Decision: rules.Decision{Where: rules.Remote, Why: "mirror"}}},
		{"listen_ports of an ignored port", rules.IncomingOptions{IgnorePorts: []uint16{80}, ListenPorts: []rules.PortPair{{From: 80, To: 8080}}}, false, "0.0.0.0:80", false,
			rules.Port{Target: 80, Publish: 8080, Exact: true, Decision: rules.Decision{Why: "ignore_ports has 80"}}},
		{"listen_ports, off", rules.IncomingOptions{Mode: "off", ListenPorts: []rules.PortPair{{From: 80, To: 8080}}}, false, "0.0.0.0:80", false,
			rules.Port{Target: 80, Publish: 8080, Exact: true, Decision: rules.Decision{Why: "incoming is off"}}},
		{"a filter", filtered(nil, ""), false, "0.0.0.0:80", false,
			rules.Port{Mode: steal, Target: 80, Publish: 80, Filter: filter, Decision: rules.Decision{Where: rules.Remote, Why: "with a filter"}}},
		{"a filter, mirrored", rules.IncomingOptions{HTTP: header("x: y")}, false, "0.0.0.0:80", false,
			rules.Port{Mode: mirror, Target: 80, Publish: 80, Filter: filter, Decision: rules.Decision{Where: rules.Remote, Why: "incoming is mirror, with a filter"}}},
		{"a filtered port", filtered([]uint16{80}, ""), false, "0.0.0.0:80", false,
			rules.Port{Mode: steal, Target: 80, Publish: 80, Filter: filter, Decision: rules.Decision{Where: rules.Remote, Why: "with a filter"}}},
		{"a port that is not filtered", filtered([]uint16{80}, ""), false, "0.0.0.0:81", false,
			rules.Port{Target: 81, Publish: 81, Decision: rules.Decision{Why: "http_filter.ports does not have 81"}}},
		{"no port is filtered", filtered([]uint16{}, ""), false, "0.0.0.0:80", false,
			rules.Port{Target: 80, Publish: 80, Decision: rules.Decision{Why: "http_filter.ports does not have 80"}}},
		{"other ports, stolen", filtered([]uint16{80}, "steal"), false, "0.0.0.0:81", false,
			rules.Port{Mode: steal, Target: 81, Publish: 81, Decision: rules.Decision{Where: rules.Remote, Why: "other_ports is steal"}}},
		{"lossless", rules.IncomingOptions{Lossless: true}, false, "0.0.0.0:80", false,
			rules.Port{Mode: tee, Target: 80, Publish: 80, Decision: rules.Decision{Where: rules.Remote, Why: "incoming is mirror, lossless"}}},
		{"lossless, a filter", rules.IncomingOptions{HTTP: header("x: y"), Lossless: true}, false, "0.0.0.0:80", false,
			rules.Port{Mode: tee, Target: 80, Publish: 80, Filter: filter, Decision: rules.Decision{Where: rules.Remote, Why: "incoming is mirror, with a filter, lossless"}}},
		{"lossless, a local port", rules.IncomingOptions{IgnorePorts: []uint16{80}, Lossless: true}, false, "0.0.0.0:80", false,
			rules.Port{Target: 80, Publish: 80, Decision: rules.Decision{Why: "ignore_ports has 80"}}},
		{"other ports, mirrored", filtered([]uint16{80}, "mirror"), false, "0.0.0.0:81", false,
			rules.Port{Mode: mirror, Target: 81, Publish: 81, Decision: rules.Decision{Where: rules.Remote, Why: "other_ports is mirror"}}},
		{"datagrams", rules.IncomingOptions{PortMapping: []rules.PortPair{{From: 5353, To: 53}}}, false, "0.0.0.0:5353 UDP", false,
			rules.Port{Mode: mirror | protocol.ModeUDP, Target: 53, Publish: 5353, Decision: rules.Decision{Where: rules.Remote, Why: "incoming is mirror"}}},
		{"datagrams, stolen", rules.IncomingOptions{Mode: "steal"}, false, "0.0.0.0:53 UDP", false,
			rules.Port{Mode: steal | protocol.ModeUDP, Target: 53, Publish: 53, Decision: rules.Decision{Where: rules.Remote, Why: "incoming is steal"}}},
		{"datagrams of an ignored port", rules.IncomingOptions{IgnorePorts: []uint16{53}}, false, "0.0.0.0:53 UDP", false,
			rules.Port{Target: 53, Publish: 53, Decision: rules.Decision{Why: "ignore_ports has 53"}}},
		{"datagrams under a filter", filtered(nil, ""), false, "0.0.0.0:53 UDP", false,
			rules.Port{Target: 53, Publish: 53, Decision: rules.Decision{Why: "datagrams have no requests that http_filter could match"}}},
		{"datagrams beside a filter", filtered([]uint16{80}, "steal"), false, "0.0.0.0:53 UDP", false,
			rules.Port{Mode: steal | protocol.ModeUDP, Target: 53, Publish: 53, Decision: rules.Decision{Where: rules.Remote, Why: "other_ports is steal"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			i, err := rules.NewIncoming(c.o, c.targetless)
			if err != nil {
				t.Fatal(err)
			}
			addr, kind, _ := strings.Cut(c.addr, " ")
			l := rules.Listener{Addr: netip.MustParseAddrPort(addr), AnyPort: c.anyPort, Debugger: kind}
			if kind == "UDP" {
				l.UDP, l.Debugger = true, ""
			}
			got := i.Decide(l)
			if !strings.Contains(got.Why, c.want.Why) {
				t.Errorf("why: got %q, want %q in it", got.Why, c.want.Why)
			}
			got.Why = c.want.Why
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// What an agent needs for a session is what it is asked for: lossless copies are
// taken by stealing, but for datagrams.
func TestWants(t *testing.T) {
	other := func(mode string) *rules.HTTPOptions { return &rules.HTTPOptions{OtherPorts: mode} }
	for name, c := range map[string]struct {
		o             rules.IncomingOptions
		steal, mirror bool
	}{
		"the default":           {rules.IncomingOptions{}, false, true},
		"steal":                 {rules.IncomingOptions{Mode: "steal"}, true, false},
		"off":                   {rules.IncomingOptions{Mode: "off", HTTP: other("steal")}, false, false},
		"other ports":           {rules.IncomingOptions{Mode: "steal", HTTP: other("mirror")}, true, true},
		"lossless":              {rules.IncomingOptions{Lossless: true}, true, true},
		"lossless, other ports": {rules.IncomingOptions{Mode: "mirror", HTTP: other("steal"), Lossless: true}, true, true},
		"lossless, off":         {rules.IncomingOptions{Mode: "off", Lossless: true}, false, false},
	} {
		if steal, mirror := c.o.Wants(rules.IncomingSteal), c.o.Wants(rules.IncomingMirror); steal != c.steal || mirror != c.mirror {
			t.Errorf("%s: steal %v, mirror %v, want %v and %v", name, steal, mirror, c.steal, c.mirror)
		}
	}
}

// What goes to the agent says nothing of this machine's files, and reads back.
func TestFilterOnTheWire(t *testing.T) {
	p := func(s string) *rules.Pattern { return &rules.Pattern{Text: s, Origin: "secret/path:12"} }
	o := rules.IncomingOptions{Mode: rules.IncomingSteal, HTTP: &rules.HTTPOptions{Filter: rules.Filter{AllOf: []rules.Filter{
		{Not: &rules.Filter{Path: p("^/health")}}, {AnyOf: []rules.Filter{{Method: p("GET")}, {Header: p("^a: b")}}},
	}}}}
	i, err := rules.NewIncoming(o, false)
	if err != nil {
		t.Fatal(err)
	}
	text := i.Decide(rules.Listener{Addr: netip.MustParseAddrPort("0.0.0.0:80")}).Filter
	if strings.Contains(text, "secret") || strings.Contains(text, "origin") {
		t.Errorf("an origin travels: %s", text)
	}
	var got rules.Filter
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	bare := func(s string) *rules.Pattern { return &rules.Pattern{Text: s} }
	want := rules.Filter{AllOf: []rules.Filter{
		{Not: &rules.Filter{Path: bare("^/health")}}, {AnyOf: []rules.Filter{{Method: bare("GET")}, {Header: bare("^a: b")}}},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %s, want %+v", text, want)
	}
	if o.HTTP.Filter.AllOf[0].Not.Path.Origin == "" {
		t.Error("the caller's options were changed")
	}
}

// An empty list is none, and stays so on its way to the supervisor.
func TestOptionsTravel(t *testing.T) {
	o := rules.IncomingOptions{Ports: []uint16{}, HTTP: &rules.HTTPOptions{Ports: []uint16{}}}
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var got rules.IncomingOptions
	if err := json.Unmarshal(b, &got); err != nil || !reflect.DeepEqual(got, o) {
		t.Errorf("got %+v, %v, want %+v", got, err, o)
	}
	var none rules.IncomingOptions
	if err := json.Unmarshal([]byte(`{}`), &none); err != nil || none.Ports != nil {
		t.Errorf("without the key: got %v, %v, want nil", none.Ports, err)
	}
}

func TestWrongIncoming(t *testing.T) {
	pair := func(from, to uint16) rules.PortPair { return rules.PortPair{From: from, To: to} }
	for _, c := range []struct {
		name string
		o    rules.IncomingOptions
		want string
	}{
		{"mode", rules.IncomingOptions{Mode: "stael"}, `"stael"`},
		{"two meanings", rules.IncomingOptions{PortMapping: []rules.PortPair{pair(1, 2), pair(1, 3)}}, "port_mapping leads port 1 to both 2 and 3"},
		{"port 0", rules.IncomingOptions{ListenPorts: []rules.PortPair{pair(80, 0)}}, "listen_ports has port 0"},
		{"a range backwards", rules.IncomingOptions{DebuggerPorts: []rules.PortRange{{First: 9, Last: 8}}}, "9-8"},
		{"an empty filter", rules.IncomingOptions{HTTP: &rules.HTTPOptions{}}, "0 conditions"},
		{"two conditions", rules.IncomingOptions{HTTP: &rules.HTTPOptions{Filter: rules.Filter{Path: &rules.Pattern{}, Method: &rules.Pattern{}}}}, "2 conditions"},
		{"an empty part", rules.IncomingOptions{HTTP: &rules.HTTPOptions{Filter: rules.Filter{AnyOf: []rules.Filter{{}}}}}, "0 conditions"},
		{"an empty not", rules.IncomingOptions{HTTP: &rules.HTTPOptions{Filter: rules.Filter{Not: &rules.Filter{}}}}, "0 conditions"},
		{"other ports", rules.IncomingOptions{HTTP: &rules.HTTPOptions{Filter: rules.Filter{Path: &rules.Pattern{}}, OtherPorts: "off"}}, "other_ports"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := rules.NewIncoming(c.o, false); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
	same := []rules.PortPair{pair(3000, 80), pair(3001, 80), pair(3000, 80)}
	if _, err := rules.NewIncoming(rules.IncomingOptions{PortMapping: same}, false); err != nil {
		t.Errorf("two ports onto one: got %v", err)
	}
}

func TestLine(t *testing.T) {
	for _, c := range []struct{ header, want string }{
		{"x-user: me", "x-user: me"}, {"^x-user: me$", "x-user: me"}, {`^X-User: a\+b$`, "X-User: a+b"}, {"^x-user: ", "x-user: any"},
		{"x-user: (me|you)", ""}, {"x-user", ""}, {"x-user: m.", ""}, {`x-user: me\$`, ""}, {"(?!x)y", ""}, {"x: \x01", ""}, {": x", ""},
	} {
		if got := (rules.Filter{Header: &rules.Pattern{Text: c.header}}).Line(); got != c.want {
			t.Errorf("%s: got %q, want %q", c.header, got, c.want)
		}
	}
	if got := (rules.Filter{Path: &rules.Pattern{Text: "/x"}}).Line(); got != "" {
		t.Errorf("a path: got %q", got)
	}
}
