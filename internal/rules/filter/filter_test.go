package filter

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/rules"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

// matches checks what a filter says of a request, also as it travels.
func matches(t *testing.T, f rules.Filter, r Request, want bool) {
	t.Helper()
	m, err := Compile(f)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := m.Match(r); got != want || err != nil {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	text, err := f.Text()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if got, _ := again.Match(r); got != want {
		t.Errorf("as %s: got %v, want %v", text, got, want)
	}
}

// request makes one from "METHOD target" and headers "Name: value" as sent.
func request(line string, headers ...string) Request {
	method, target, _ := strings.Cut(line, " ")
	return Request{Method: method, Target: target, Headers: func(yield func(string, string) bool) {
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ":")
			if !yield(name, value) {
				return
			}
		}
	}}
}

func pat(text string) *rules.Pattern { return &rules.Pattern{Text: text} }

func header(text string) rules.Filter { return rules.Filter{Header: pat(text)} }
func path(text string) rules.Filter   { return rules.Filter{Path: pat(text)} }
func host(text string) rules.Filter   { return rules.Filter{Host: pat(text)} }
func method(text string) rules.Filter { return rules.Filter{Method: pat(text)} }
func client(text string) rules.Filter { return rules.Filter{Client: pat(text)} }

// from is a request of that client's.
func from(addr string) Request {
	r := request("GET /")
	r.Client = netip.MustParseAddr(addr)
	return r
}

func sni(text string) rules.Filter { return rules.Filter{SNI: pat(text)} }

// to is a request of a client of TLS that asks for name.
func to(name string) Request {
	r := request("GET /")
	r.ServerName = name
	return r
}

func not(f rules.Filter) rules.Filter { return rules.Filter{Not: &f} }

func TestMatch(t *testing.T) {
	probe := request("GET /health/live", "User-Agent: kube-probe/1.30")
	for _, c := range []struct {
		name string
		f    rules.Filter
		r    Request
		want bool
	}{
		{"header", header("^x-user: ann$"), request("GET /", "X-User: ann"), true},
		{"another value", header("^x-user: ann$"), request("GET /", "X-User: anne"), false},
		{"unanchored", header("user: a"), request("GET /", "X-User: ann"), true},
		{"whatever the case", header("^X-USER: ANN$"), request("GET /", "x-user: Ann"), true},
		{"one colon, one space", header("^x-user: ann$"), request("GET /", "X-User:ann"), true},
		{"value trimmed", header("^x-user: ann$"), request("GET /", "X-User: \t ann \t"), true},
		{"empty value", header("^x-user: $"), request("GET /", "X-User:"), true},
		{"each header is a line of its own", header("^a: 1$"), request("GET /", "B: 2", "A: 1", "C: 3"), true},
		{"a repeated header", header("^a: 2$"), request("GET /", "A: 1", "A: 2"), true},
		{"not across headers", header("1.*2"), request("GET /", "A: 1", "A: 2"), false},
		{"a value with colons", header("^host: a:80$"), request("GET /", "Host: a:80"), true},
		{"names are in lower case", header("(?-i:^x-user): ann"), request("GET /", "X-USER: ann"), true},
		{"a value that is not ASCII is not looked at", header("^a: "), request("GET /", "A: caf\u00e9"), false},
		{"a tab is visible", header("^a: b\tc$"), request("GET /", "A: b\tc"), true},
		{"no headers", header("."), request("GET /"), false},
		{"baggage", header("^baggage: .*mirrord-session=KEY.*$"), request("GET /", "Baggage: a=1,mirrord-session=key,b=2"), true},
		{"tenant", header("^x-pg-tenant: Avi.+"), request("GET /", "X-PG-Tenant: avigail"), true},
		{"but probes", header("^User-Agent: (?!kube-probe)"), probe, false},
		{"not a probe", header("^User-Agent: (?!kube-probe)"), request("GET /", "User-Agent: curl/8"), true},

		{"path", path("^/api/"), request("GET /api/v1"), true},
		{"another path", path("^/api/"), request("GET /v1/api/"), false},
		{"a path's end, without its query", path("^/api$"), request("GET /api?x=1"), true},
		{"a path with its query", path(`^/api\?x=1$`), request("GET /api?x=1"), true},
		{"case of a path", path("^/API$"), request("GET /api"), true},
		{"undecoded", path("^/a%20b$"), request("GET /a%20b"), true},
		{"but health", path("^(?!/health/)"), probe, false},
		{"not health", path("^(?!/health/)"), request("GET /healthy"), true},
		{"absolute form", path("^/api$"), request("GET http://shop:80/api?x"), true},
		{"absolute form without path", path("^/$"), request("GET http://shop"), true},
		{"absolute form with a query only", path(`^/\?x$`), request("GET http://shop?x"), true},
		{"asterisk form", path(`^\*$`), request("OPTIONS *"), true},
		{"authority form has no path", path("."), request("CONNECT shop:443"), false},

		{"method", method("post"), request("POST /"), true},
		{"a method is compared whole", method("PO"), request("POST /"), false},

		{"host", host(`^shop\.example$`), request("GET /", "Host: Shop.Example"), true},
		{"another host", host("^shop$"), request("GET /", "Host: shop2"), false},
		{"a host without its port", host("^shop$"), request("GET /", "Host: shop:8080"), true},
		{"a host with its port", host("^shop:8080$"), request("GET /", "Host: shop:8080"), true},
		{"at another port", host("^shop:80$"), request("GET /", "Host: shop:8080"), false},
		{"an address of IPv6", host(`^\[::1\]$`), request("GET /", "Host: [::1]"), true},
		{"one with a port", host(`^\[::1\]$`), request("GET /", "Host: [::1]:80"), true},
		{"no host", host("."), request("GET /", "X: shop"), false},
		{"the target counts before the header", host("^shop$"), request("GET http://u:p@shop:80/x?y", "Host: other"), true},
		{"and without a path", host("^shop$"), request("GET http://shop?x", "Host: other"), true},
		{"so the header does not", host("^other$"), request("GET http://shop/", "Host: other"), false},
		{"CONNECT has one", host("^shop$"), request("CONNECT shop:443", "Host: other"), true},
		{"of everything", host("^shop$"), request("OPTIONS *", "Host: shop"), true},
		{"two of them", host("^b$"), request("GET /", "Host: a", "Host: b"), true},

		{"client", client("10.0.0.0/8"), from("10.1.2.3"), true},
		{"another client", client("10.0.0.0/8"), from("11.1.2.3"), false},
		{"one client", client("10.1.2.3"), from("10.1.2.3"), true},
		{"its neighbour", client("10.1.2.3"), from("10.1.2.4"), false},
		{"a prefix with a host's bits", client("10.1.2.3/8"), from("10.9.9.9"), true},
		{"mapped into IPv6", client("10.0.0.0/8"), from("::ffff:10.1.2.3"), true},
		{"client of IPv6", client("fd00::/8"), from("fd00::1"), true},
		{"with a zone", client("fe80::/10"), from("fe80::1%eth0"), true},
		{"of the other family", client("::/0"), from("10.1.2.3"), false},
		{"a server's name", sni(`^admin\.`), to("admin.example"), true},
		{"whatever its case", sni(`^admin\.`), to("Admin.Example"), true},
		{"another name", sni(`^admin\.`), to("shop.example"), false},
		{"no name", sni("^"), to(""), false},
		{"which is not another's", not(sni(`^admin\.`)), to(""), true},
		{"a client that nobody knows", client("0.0.0.0/0"), request("GET /"), false},
		{"nor is it another", not(client("0.0.0.0/0")), request("GET /"), false},

		{"all of", rules.Filter{AllOf: []rules.Filter{path("^/a"), method("GET")}}, request("GET /a"), true},
		{"not all of", rules.Filter{AllOf: []rules.Filter{path("^/a"), method("PUT")}}, request("GET /a"), false},
		{"any of", rules.Filter{AnyOf: []rules.Filter{path("^/b"), method("GET")}}, request("GET /a"), true},
		{"none of", rules.Filter{AnyOf: []rules.Filter{path("^/b"), method("PUT")}}, request("GET /a"), false},
		{"not", not(path("^/a")), request("GET /b"), true},
		{"not not", not(not(path("^/a"))), request("GET /b"), false},
		{"nested", rules.Filter{AllOf: []rules.Filter{not(header("^user-agent: kube-probe")), {AnyOf: []rules.Filter{path("^/x"), path("^/health")}}}},
			request("GET /health", "User-Agent: curl"), true},

		{"look-behind", path("(?<=v2)/users"), request("GET /v2/users"), true},
		{"back-reference", path(`^/(\w+)/\1$`), request("GET /a/a"), true},
		{"named back-reference", path(`^/(?<x>\w+)/\k<x>$`), request("GET /a/b"), false},
		{"atomic group", path("^/(?>a+)a"), request("GET /aaa"), false},
		{"possessive", path("^/a++a"), request("GET /aaa"), false},
		{"classes", path(`^/[[:alpha:]]\d[^/]$`), request("GET /b5x"), true},
		{"alternatives with the flag", path("^/x$|^/y$"), request("GET /Y"), true},
		{"end of text", header("a$"), request("GET /", "A: a"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			matches(t, c.f, c.r, c.want)
		})
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		f    rules.Filter
		want string
	}{
		{"empty", rules.Filter{}, "a filter is empty"},
		{"two fields", rules.Filter{Path: pat("a"), Method: pat("GET")}, "more than one of"},
		{"empty pattern", header(""), `header filter "": it is empty`},
		{"empty method", method(""), `method filter "": it is empty`},
		{"empty host", host(""), `host filter "": it is empty`},
		{"no address", client("10.0.0"), "it is no address"},
		{"no prefix", client("10.0.0.0/33"), "it is no address"},
		{"an interface", client("fe80::1%eth0"), "it is no address"},
		{"a mapped prefix", client("::ffff:10.0.0.0/104"), "it is no address"},
		{"empty list", rules.Filter{AllOf: []rules.Filter{}}, "all_of is an empty list"},
		{"empty list of any", rules.Filter{AnyOf: []rules.Filter{}}, "any_of is an empty list"},
		{"inside", not(rules.Filter{AllOf: []rules.Filter{path("a"), path("(")}}), `path filter "(": missing closing )`},
		{"origin", rules.Filter{Path: &rules.Pattern{Text: "[", Origin: "http_filter in x.json:3"}}, `http_filter in x.json:3: path filter "[": missing closing ]`},
		{"both engines refuse", path("(?!a"), `missing closing )`},
		{"set operation", path("[a-z&&[b]]"), "set operations are not supported"},
		{"set difference", path(`[\w--a]`), "set operations are not supported"},
		{"nested class", path("[a[b]]"), "set operations are not supported"},
		{"half a repetition", path("a{,3}"), "{0,n}"},
		{"escape of one engine", path(`\h`), `the escape \h is not supported`},
		{"edge of a word", path(`\<a`), `the escape \< is not supported`},
		{"flag of one engine", path(`(?n)(a)`), "the flag n is not supported"},
		{"reference to nothing", path(`(a)\2`), "undefined group"},
		{"too deep", deep(maxDepth + 2), "levels"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Compile(c.f)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want ...%s...", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "(?i)") {
				t.Errorf("%v shows what the user did not write", err)
			}
		})
	}
	for _, text := range []string{"", "x", "{}", `{"body":{"text":"a"}}`, `{"text":{"text":"a"}}`, `{"path":{"text":"a"}} {}`, `{"path":{"text":"a"}`, strings.Repeat("[", rules.MaxFilter+1)} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%.20q is taken for a filter", text)
		}
	}
	var pe *PatternError
	if _, err := Compile(path("(")); !errors.As(err, &pe) || pe.Pattern.Text != "(" || pe.Kind != "path" {
		t.Errorf("got %v, want a PatternError", err)
	}
	if _, err := path(strings.Repeat("a", rules.MaxFilter)).Text(); err == nil {
		t.Error("a filter of any length is written")
	}
}

// What patterns become in memory is bounded, of each and of all together, and known.
func TestTooLarge(t *testing.T) {
	long := "^x: " + strings.Repeat("[a-z]{900}", 10) + "$"
	var pe *PatternError
	if _, err := Compile(both(header("a"), path(strings.Repeat(long, 10)))); !errors.As(err, &pe) || pe.Kind != "path" || !strings.Contains(err.Error(), "too large") {
		t.Errorf("one pattern: %v", err)
	}
	var many []rules.Filter
	for range 10 {
		many = append(many, header(long))
	}
	for name, f := range map[string]rules.Filter{"all": both(many...), "any": one(many...), "deep": not(both(one(many...), path("a")))} {
		if _, err := Compile(f); err == nil || !strings.Contains(err.Error(), "too large") {
			t.Errorf("%s: %v", name, err)
		}
	}
	small, err := Compile(header("^x-user: ana$"))
	if err != nil {
		t.Fatal(err)
	}
	large, err := Compile(both(many[0], many[1]))
	if err != nil {
		t.Fatal(err)
	}
	if s, l := small.Bytes(), large.Bytes(); s <= 0 || s > 16<<10 || l < 1<<20 {
		t.Errorf("a small filter has %d bytes, a large one %d", s, l)
	}
}

func deep(n int) rules.Filter {
	f := path("a")
	for range n {
		f = not(f)
	}
	return f
}

// A large expression in a large text, whose search nothing could end, decides
// nothing; either alone is looked at.
func TestTooMuchWork(t *testing.T) {
	heavy, long := "x(a?){900}y", strings.Repeat("a", 512<<10)
	for _, c := range []struct {
		name, expr, text string
		want             bool
		err              bool
	}{
		{"both", heavy, long, false, true},
		{"a long text", "a+b", long + "b", true, false},
		{"a large expression", heavy, "xaay", true, false},
	} {
		m, err := Compile(inText(c.expr))
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		got, err := m.Match(with(request("POST /"), c.text))
		if got != c.want || (err != nil) != c.err {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("%s: it took %v", c.name, took)
		}
	}
	m, err := Compile(not(inText(heavy)))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := m.Match(with(request("POST /"), long)); got || err == nil {
		t.Errorf("the opposite: %v, %v", got, err)
	}
}

// A pattern that explodes decides nothing, whatever stands around it.
func TestUndecided(t *testing.T) {
	slow := path("^/(a+)+(?!b)$")
	r := request("GET /"+strings.Repeat("a", 60)+"!", "A: b")
	for _, c := range []struct {
		name      string
		f         rules.Filter
		want, err bool
	}{
		{"alone", slow, false, true},
		{"not", not(slow), false, true},
		{"all of, with a no", rules.Filter{AllOf: []rules.Filter{slow, method("PUT")}}, false, false},
		{"all of, with a yes", rules.Filter{AllOf: []rules.Filter{slow, method("GET")}}, false, true},
		{"any of, with a yes", rules.Filter{AnyOf: []rules.Filter{slow, method("GET")}}, true, false},
		{"any of, with a no", rules.Filter{AnyOf: []rules.Filter{slow, method("PUT")}}, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := Compile(c.f)
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			got, err := m.Match(r)
			if took := time.Since(begin); took > time.Second {
				t.Errorf("it took %v", took)
			}
			var pe *PatternError
			if got != c.want || errors.As(err, &pe) != c.err {
				t.Errorf("got %v, %v, want %v, error %v", got, err, c.want, c.err)
			}
			if err != nil && strings.Contains(err.Error(), "aaaaaa") {
				t.Errorf("%v repeats the request", err)
			}
		})
	}
}

// What one line may take is enough for all of them, and for every pattern.
func TestTimeOfARequest(t *testing.T) {
	var lines []string
	for range 200 {
		lines = append(lines, "X-User: "+strings.Repeat("a", 18)+"!")
	}
	r := request("GET /yes", lines...)
	slow := header("^x-user: (?!admin)(a+)+$")
	for _, c := range []struct {
		name      string
		f         rules.Filter
		want, err bool
	}{
		{"one pattern", slow, false, true},
		{"many", rules.Filter{AnyOf: []rules.Filter{slow, slow, not(slow), slow}}, false, true},
		{"and one that is linear", rules.Filter{AnyOf: []rules.Filter{slow, path("^/yes")}}, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := Compile(c.f)
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			got, err := m.Match(r)
			if took := time.Since(begin); took > time.Second {
				t.Errorf("it took %v", took)
			}
			if got != c.want || (err != nil) != c.err {
				t.Errorf("got %v, %v, want %v, error %v", got, err, c.want, c.err)
			}
		})
	}
}

// What is looked at is told with the place where it was written.
func TestExplain(t *testing.T) {
	at := &rules.Pattern{Text: "^/x", Origin: "a.json:3"}
	m, err := Compile(rules.Filter{AnyOf: []rules.Filter{not(header("(?!b)x")), {Path: at}, method("GET")}})
	if err != nil {
		t.Fatal(err)
	}
	matched, steps, err := m.Explain(request("GET /x", "a: x"))
	if got, want := fmt.Sprint(matched, steps, err), `true [header "(?!b)x" matches path "^/x" matches (a.json:3)] <nil>`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Header lines are made once, however many patterns look at them.
func TestHeadersAreReadOnce(t *testing.T) {
	m, err := Compile(rules.Filter{AnyOf: []rules.Filter{header("1"), header("2"), header("b")}})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	var headers iter.Seq2[string, string] = func(yield func(string, string) bool) { n++; yield("A", "b") }
	if ok, _ := m.Match(Request{Method: "GET", Target: "/", Headers: headers}); !ok || n != 1 {
		t.Errorf("matched %v, read %d times", ok, n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"all_of":[{"header":{"text":"^a: (?!b)"}},{"not":{"path":{"text":"a"}}}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		m, err := Parse(text)
		if err != nil {
			return
		}
		_, _ = m.Match(request("GET /a?b", "A: b"))
	})
}

// FuzzMatch: a head of any bytes is decided about, or not, within the time of
// its searches.
func FuzzMatch(f *testing.F) {
	f.Add("GET /a?b", "A: b\nCookie: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!")
	f.Add("\xff \x00", ": \n:\n\r\nx")
	m, err := Parse(`{"any_of":[{"header":{"text":"^a: (?!b)"}},{"header":{"text":"^(cookie: )((?:a+)+)\\2$"}},{"path":{"text":"^/(?<x>.)\\k<x>"}},{"method":{"text":"PUT"}}]}`)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, first, headers string) {
		method, target, _ := strings.Cut(first, " ")
		began := time.Now()
		_, _ = m.Match(Request{Method: method, Target: target, Headers: func(yield func(string, string) bool) {
			for line := range strings.Lines(headers) {
				name, value, _ := strings.Cut(line, ": ")
				if !yield(name, value) {
					return
				}
			}
		}})
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%q took %v", first+headers, took)
		}
	})
}

// TestWhole: what holds for a connection decides about it, and nothing else does.
func TestWhole(t *testing.T) {
	shop, none := "shop.example", ""
	for _, c := range []struct {
		name           string
		f              rules.Filter
		asks           bool
		unknown        string // for the name that is not known yet: meant, not, or undecided
		named, nobodys string
	}{
		{"client", client("10.0.0.0/8"), false, "meant", "meant", "meant"},
		{"sni", sni("^shop"), true, "undecided", "meant", "not"},
		{"not sni", not(sni("^shop")), true, "undecided", "not", "meant"},
		{"sni and client", both(sni("^shop"), client("10.0.0.0/8")), true, "undecided", "meant", "not"},
		{"sni and another client", both(sni("^shop"), client("11.0.0.0/8")), true, "not", "not", "not"},
		{"sni or client", one(sni("^shop"), client("10.0.0.0/8")), true, "meant", "meant", "meant"},
		{"sni and path", both(sni("^shop"), path("^/")), true, "undecided", "undecided", "not"},
		{"sni or path", one(sni("^shop"), path("^/")), true, "undecided", "meant", "undecided"},
		{"deep inside", both(path("^/"), not(one(method("GET"), both(sni("^shop"))))), true, "undecided", "not", "undecided"},
		{"path", path("^/"), false, "undecided", "undecided", "undecided"},
	} {
		m, err := Compile(c.f)
		if err != nil {
			t.Fatal(err)
		}
		if m.AsksServerName() != c.asks {
			t.Errorf("%s: it asks for a name: %v", c.name, !c.asks)
		}
		for _, k := range []struct {
			name *string
			want string
		}{{nil, c.unknown}, {&shop, c.named}, {&none, c.nobodys}} {
			got := "undecided"
			if meant, decided := m.Whole(netip.MustParseAddr("10.1.2.3"), k.name); decided {
				got = map[bool]string{true: "meant", false: "not"}[meant]
			}
			if got != k.want {
				t.Errorf("%s, name %v: got %s, want %s", c.name, k.name, got, k.want)
			}
		}
	}
}
