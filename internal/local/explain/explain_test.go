package explain

import (
	"strings"
	"testing"

	"github.com/mirrord-go/mirrord/internal/rules"
)

func pattern(text string) rules.Pattern {
	return rules.Pattern{Text: text, Origin: "KEY in FILE:3"}
}

// must is for rules that are right.
func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t *testing.T, got Answer, where, why string) {
	t.Helper()
	if got.Where != where || !strings.Contains(got.Why, why) || got.Question == "" {
		t.Errorf("got %+v, want %s because of %q", got, where, why)
	}
}

func TestPath(t *testing.T) {
	f := must[*rules.Files](t)(rules.NewFiles(rules.FilesOptions{ReadOnly: []rules.Pattern{pattern("^/ws/conf")},
		Mapping: []rules.FileMapping{{Path: pattern("^/here/"), To: "/there/"}}}, rules.Places{Own: []string{"/ws"}, Volumes: []string{"/etc/app"}}))
	a := Path(f, "/ws/conf/a")
	check(t, a[0], "remote", "KEY in FILE:3")
	check(t, a[1], "local", "KEY in FILE:3")
	check(t, Path(f, "/ws/x")[0], "local", "/ws")
	check(t, Path(f, "/etc/app/x")[0], "remote", "volume")
	if a := Path(f, "/here/x")[0]; a.Note != "it is /there/x there" {
		t.Errorf("mapped: %+v", a)
	}
}

func TestConnect(t *testing.T) {
	o := must[*rules.Outgoing](t)(rules.NewOutgoing(rules.OutgoingOptions{Filter: rules.AddressFilter{Side: rules.SideLocal,
		Entries: []rules.Pattern{pattern("db.shop:5432"), pattern("localhost:6379"), pattern("[2001:db8::]/64"), pattern("udp://10.0.0.0/8")}}}))
	for _, c := range []struct{ network, address, where, why string }{
		{"tcp", "db.shop:5432", "local", "KEY in FILE:3"},
		{"tcp", "db.shop:5433", "remote", ""},
		{"tcp", "localhost:6379", "local", "KEY in FILE:3"},
		{"tcp", "127.0.0.1:6379", "local", "KEY in FILE:3"},
		{"tcp", "localhost:80", "remote", ""},
		{"tcp", "[2001:db8::5]:80", "local", "KEY"},
		{"tcp", "10.0.0.1:80", "remote", ""},
		{"udp", "10.0.0.1:80", "local", "KEY"},
	} {
		check(t, must[Answer](t)(Connect(o, c.network, c.address)), c.where, c.why)
	}
	for _, bad := range []string{"db", "db:", "db:0", "db:http", "db:99999", ":80", "::1:80", "[::1:80"} {
		if _, err := Connect(o, "tcp", bad); err == nil || !strings.Contains(err.Error(), "is no address") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestDNS(t *testing.T) {
	d := must[*rules.DNS](t)(rules.NewDNS(rules.DNSOptions{Filter: rules.AddressFilter{Side: rules.SideLocal, Entries: []rules.Pattern{pattern("*.corp.example")}}}, nil))
	check(t, DNS(d, "a.corp.example"), "local", "KEY in FILE:3")
	check(t, DNS(d, "db.shop."), "remote", "")
}

func TestEnv(t *testing.T) {
	e := must[rules.Env](t)(rules.NewEnv(rules.EnvOptions{Exclude: []rules.Pattern{pattern("SECRET_*")}}, nil))
	check(t, Env(e, "SECRET_KEY"), "local", "KEY in FILE:3")
	check(t, Env(e, "COLOR"), "remote", "")
	check(t, Env(e, "PATH"), "local", "always local")
}

func TestRequest(t *testing.T) {
	header := pattern("^x-user: ana$")
	probes := map[uint16][]string{80: {"/healthz"}}
	filtered := rules.IncomingOptions{Mode: rules.IncomingSteal, HTTP: &rules.HTTPOptions{Filter: rules.Filter{Header: &header}, Ports: []uint16{80}}}
	for _, c := range []struct {
		name    string
		in      rules.IncomingOptions
		port    uint16
		line    string
		headers []string
		where   string
		note    string
	}{
		{"mirrored", rules.IncomingOptions{}, 80, "GET /", nil, "the target, with a copy for your program", ""},
		{"stolen", rules.IncomingOptions{Mode: rules.IncomingSteal}, 80, "GET / HTTP/1.1", nil, "your program", ""},
		{"off", rules.IncomingOptions{Mode: rules.IncomingOff}, 80, "GET /", nil, "the target only", ""},
		{"matches", filtered, 80, "GET /", []string{"Accept: */*", "X-User: ana"}, "your program", "the filter matches"},
		{"does not match", filtered, 80, "GET /", []string{"X-User: bob"}, "the target only", "the filter does not match"},
		{"a probe of a filtered port", filtered, 80, "GET /healthz", []string{"X-User: ana", "User-Agent: kube-probe/1.36"}, "the target only", ""},
		{"a probe of a whole port", rules.IncomingOptions{Mode: rules.IncomingSteal}, 80, "GET /healthz", []string{"user-agent: kube-probe/1.36"}, "the target only", ""},
		{"a probe's path, by another", rules.IncomingOptions{Mode: rules.IncomingSteal}, 80, "GET /healthz", []string{"user-agent: curl/8"}, "your program", ""},
		{"the probe of another port", rules.IncomingOptions{Mode: rules.IncomingSteal}, 81, "GET /healthz", []string{"user-agent: kube-probe/1.36"}, "your program", ""},
		{"a probe of a mapped port", rules.IncomingOptions{Mode: rules.IncomingSteal, PortMapping: []rules.PortPair{{From: 8080, To: 80}}}, 8080, "GET /healthz", []string{"user-agent: kube-probe/1.36"}, "the target only", ""},
		{"a copy of a probe", rules.IncomingOptions{}, 80, "GET /healthz", []string{"user-agent: kube-probe/1.36"}, "the target, with a copy for your program", ""},
		{"another port", filtered, 81, "GET /", []string{"X-User: ana"}, "the target only", ""},
	} {
		in := must[*rules.Incoming](t)(rules.NewIncoming(c.in, false))
		got := must[Answer](t)(Request(in, probes, c.port, c.line, c.headers))
		if got.Where != c.where || got.Note != c.note || got.Why == "" {
			t.Errorf("%s: %+v, want %s, %q", c.name, got, c.where, c.note)
		}
	}
	in := must[*rules.Incoming](t)(rules.NewIncoming(filtered, false))
	for _, c := range []struct{ line, header string }{{"GET", ""}, {"", ""}, {"GET /", "no colon"}} {
		if _, err := Request(in, nil, 80, c.line, []string{c.header}); err == nil {
			t.Errorf("%q with %q was taken", c.line, c.header)
		}
	}
}
