package explain

import (
	"net/netip"
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
		check(t, must[Answer](t)(Connect(o, nil, c.network, c.address)), c.where, c.why)
	}
	for _, bad := range []string{"db", "db:", "db:0", "db:http", "db:99999", ":80", "::1:80", "[::1:80"} {
		if _, err := Connect(o, nil, "tcp", bad); err == nil || !strings.Contains(err.Error(), "is no address") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestDNS(t *testing.T) {
	o := rules.DNSOptions{Filter: rules.AddressFilter{Side: rules.SideLocal, Entries: []rules.Pattern{pattern("*.corp.example"), pattern("db.shop"), pattern("cache.shop.svc.*")}}}
	for _, c := range []struct {
		search      []string
		name, where string
		notes       []string // parts of the note; none: there is none
	}{
		{nil, "a.corp.example", "local", nil},
		{nil, "web.shop.", "remote", nil},
		{nil, "db.shop.svc.cluster.local", "remote", nil}, // nothing is assumed without a target
		{Search("shop"), "a.corp.example", "local", nil},
		{Search("shop"), "web.shop.", "remote", nil},
		{Search("shop"), "db.shop.svc.cluster.local", "local", []string{"looked up as db.shop", "taken to be shop.svc.cluster.local svc.cluster.local cluster.local"}},
		{Search("shop"), "cache", "remote", []string{"found as cache.shop.svc.cluster.local it is local: KEY in FILE:3", "taken to be shop.svc"}},
		{Search("shop"), "cache.", "remote", nil},
		{Search("other"), "cache", "remote", nil},
	} {
		a := must[Answer](t)(DNS(o, c.search, c.name))
		check(t, a, c.where, "")
		noted(t, a, c.notes)
	}
}

func noted(t *testing.T, a Answer, parts []string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(a.Note, part) {
			t.Errorf("%s: noted %q, want %q", a.Question, a.Note, part)
		}
	}
	if len(parts) == 0 && a.Note != "" {
		t.Errorf("%s: noted %q, want nothing", a.Question, a.Note)
	}
}

// The search list of the target is part of what rules by name mean.
func TestConnectSearches(t *testing.T) {
	o := must[*rules.Outgoing](t)(rules.NewOutgoing(rules.OutgoingOptions{Filter: rules.AddressFilter{Side: rules.SideLocal,
		Entries: []rules.Pattern{pattern("db.shop:5432"), pattern("cache.shop.svc.cluster.local")}}}))
	const always = "rules by address hold"
	for _, c := range []struct {
		search         []string
		address, where string
		notes          []string
	}{
		{Search("shop"), "db.shop.svc.cluster.local:5432", "local", []string{always, "taken to be shop.svc"}},
		{nil, "db.shop.svc.cluster.local:5432", "remote", []string{always}},
		{Search("shop"), "cache:6379", "remote", []string{always, "if it is found as cache.shop.svc.cluster.local it is local", "taken to be shop.svc"}},
		{Search("shop"), "10.0.0.1:80", "remote", nil},
	} {
		a := must[Answer](t)(Connect(o, c.search, "tcp", c.address))
		check(t, a, c.where, "")
		noted(t, a, c.notes)
	}
	if a := must[Answer](t)(Connect(o, Search("shop"), "tcp", "db.shop:5432")); strings.Contains(a.Note, "search") {
		t.Errorf("the search list is mentioned where it does not matter: %q", a.Note)
	}
}

func TestConnectToUnixSocket(t *testing.T) {
	o := must[*rules.Outgoing](t)(rules.NewOutgoing(rules.OutgoingOptions{UnixStreams: []rules.Pattern{pattern("^/run/app"), pattern("^bus$")}}))
	for _, c := range []struct{ address, where, why string }{
		{"unix:/run/app.sock", "remote", "KEY in FILE:3"},
		{"/run/app.sock", "remote", "KEY in FILE:3"},
		{"unix:/run/other.sock", "local", "no pattern"},
		{"unix:@bus", "remote", "KEY in FILE:3"},
		{"unix:@/run/app", "remote", "KEY in FILE:3"},
		{"unix:@other", "local", "no pattern"},
	} {
		check(t, must[Answer](t)(Connect(o, nil, "tcp", c.address)), c.where, c.why)
	}
	for _, bad := range []string{"unix:", "unix:app.sock"} {
		if _, err := Connect(o, nil, "tcp", bad); err == nil || !strings.Contains(err.Error(), "is no unix socket") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestConnectToNameServer(t *testing.T) {
	o := must[*rules.Outgoing](t)(rules.NewOutgoing(rules.OutgoingOptions{}))
	for _, network := range []string{"udp", "tcp"} {
		noted(t, must[Answer](t)(Connect(o, nil, network, "10.96.0.10:53")), []string{"the name servers of resolv.conf follow dns, not outgoing"})
	}
}

func TestEnv(t *testing.T) {
	e := must[rules.Env](t)(rules.NewEnv(rules.EnvOptions{Exclude: []rules.Pattern{pattern("SECRET_*")}}, nil))
	check(t, Env(e, "SECRET_KEY"), "local", "KEY in FILE:3")
	check(t, Env(e, "COLOR"), "remote", "")
	check(t, Env(e, "PATH"), "local", "always local")
}

func TestRequest(t *testing.T) {
	header := rules.Pattern{Text: "^x-user: ana$", Origin: "http_filter in a.json:3"}
	path, post := rules.Pattern{Text: "^/api", Origin: "http_filter in a.json:5"}, rules.Pattern{Text: "POST"}
	nested := rules.IncomingOptions{HTTP: &rules.HTTPOptions{Filter: rules.Filter{AllOf: []rules.Filter{{Path: &path}, {Not: &rules.Filter{Method: &post}}}}}}
	body := rules.IncomingOptions{HTTP: &rules.HTTPOptions{Filter: rules.Filter{Body: &rules.Body{Kind: rules.BodyJSON, Matches: &rules.Pattern{Text: "^7$"},
		Query: &rules.Pattern{Text: "$.id", Origin: "http_filter in a.json:7"}}}}}
	small := rules.IncomingOptions{HTTP: &rules.HTTPOptions{Filter: rules.Filter{Body: &rules.Body{Kind: rules.BodyJQ, Query: &rules.Pattern{Text: ".id == 7"}}}, BodySize: 5}}
	clients := rules.IncomingOptions{Mode: rules.IncomingSteal, HTTP: &rules.HTTPOptions{Filter: rules.Filter{Client: &rules.Pattern{Text: "10.0.0.0/8"}}}}
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
		client  netip.Addr
	}{
		{"mirrored", rules.IncomingOptions{}, 80, "GET /", nil, "the target, with a copy for your program", "", netip.Addr{}},
		{"stolen", rules.IncomingOptions{Mode: rules.IncomingSteal}, 80, "GET / HTTP/1.1", nil, "your program", "", netip.Addr{}},
		{"off", rules.IncomingOptions{Mode: rules.IncomingOff}, 80, "GET /", nil, "the target only", "", netip.Addr{}},
		{"matches", filtered, 80, "GET /", []string{"Accept: */*", "X-User: ana"}, "your program", `the filter matches: header "^x-user: ana$" matches (http_filter in a.json:3)`, netip.Addr{}},
		{"does not match", filtered, 80, "GET /", []string{"X-User: bob"}, "the target only", `the filter does not match: header "^x-user: ana$" does not match (http_filter in a.json:3)`, netip.Addr{}},
		{"not", nested, 80, "POST /api", nil, "the target only", `the filter does not match: path "^/api" matches (http_filter in a.json:5); method "POST" matches`, netip.Addr{}},
		{"the first decides", nested, 80, "GET /", nil, "the target only", `the filter does not match: path "^/api" does not match (http_filter in a.json:5)`, netip.Addr{}},
		{"body", body, 80, "POST /", nil, "the target, with a copy for your program", `the filter matches: body "$.id matches ^7$" matches (http_filter in a.json:7)`, netip.Addr{}},
		{"no body that can be looked at", body, 80, "POST /", []string{"Content-Encoding: gzip"}, "the target only", `the filter could not be decided, which means no: http_filter in a.json:7: body filter "$.id matches ^7$": the body is compressed (Content-Encoding): body "$.id matches ^7$" is undecided (http_filter in a.json:7)`, netip.Addr{}},
		{"too large a body", small, 80, "POST /", nil, "the target only", `the filter could not be decided, which means no: body filter ".id == 7": the body has more than 5 bytes (agent.max_body_buffer_size): body ".id == 7" is undecided`, netip.Addr{}},
		{"a probe of a filtered port", filtered, 80, "GET /healthz", []string{"X-User: ana", "User-Agent: kube-probe/1.36"}, "the target only", "", netip.Addr{}},
		{"a probe of a whole port", rules.IncomingOptions{Mode: rules.IncomingSteal}, 80, "GET /healthz", []string{"user-agent: kube-probe/1.36"}, "the target only", "", netip.Addr{}},
		{"a probe's path, by another", rules.IncomingOptions{Mode: rules.IncomingSteal}, 80, "GET /healthz", []string{"user-agent: curl/8"}, "your program", "", netip.Addr{}},
		{"the probe of another port", rules.IncomingOptions{Mode: rules.IncomingSteal}, 81, "GET /healthz", []string{"user-agent: kube-probe/1.36"}, "your program", "", netip.Addr{}},
		{"a probe of a mapped port", rules.IncomingOptions{Mode: rules.IncomingSteal, PortMapping: []rules.PortPair{{From: 8080, To: 80}}}, 8080, "GET /healthz", []string{"user-agent: kube-probe/1.36"}, "the target only", "", netip.Addr{}},
		{"a copy of a probe", rules.IncomingOptions{}, 80, "GET /healthz", []string{"user-agent: kube-probe/1.36"}, "the target, with a copy for your program", "", netip.Addr{}},
		{"another port", filtered, 81, "GET /", []string{"X-User: ana"}, "the target only", "", netip.Addr{}},
		{"of a client", clients, 80, "GET /", nil, "your program", `the filter matches: client "10.0.0.0/8" matches`, netip.MustParseAddr("10.1.2.3")},
		{"of nobody's", clients, 80, "GET /", nil, "the target only", `the filter does not match, of a client that is not said (--client 10.0.0.1): client "10.0.0.0/8" is undecided`, netip.Addr{}},
	} {
		in := must[*rules.Incoming](t)(rules.NewIncoming(c.in, false))
		got := must[Answer](t)(Request(in, probes, c.port, Sender{Client: c.client}, c.line, c.headers, []byte(`{"id": 7}`)))
		if got.Where != c.where || got.Note != c.note || got.Why == "" {
			t.Errorf("%s: %+v, want %s, %q", c.name, got, c.where, c.note)
		}
	}
	in := must[*rules.Incoming](t)(rules.NewIncoming(filtered, false))
	for _, c := range []struct{ line, header string }{{"GET", ""}, {"", ""}, {"GET /", "no colon"}} {
		if _, err := Request(in, nil, 80, Sender{}, c.line, []string{c.header}, nil); err == nil {
			t.Errorf("%q with %q was taken", c.line, c.header)
		}
	}
}
