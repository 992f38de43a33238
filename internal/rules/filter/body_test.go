package filter

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/rules"
)

func inText(matches string) rules.Filter {
	return rules.Filter{Body: &rules.Body{Kind: rules.BodyText, Matches: pat(matches)}}
}

func inJSON(query, matches string) rules.Filter {
	return rules.Filter{Body: &rules.Body{Kind: rules.BodyJSON, Query: pat(query), Matches: pat(matches)}}
}

func byJQ(program string) rules.Filter {
	return rules.Filter{Body: &rules.Body{Kind: rules.BodyJQ, Query: pat(program)}}
}

func jqHeader(program string) rules.Filter { return rules.Filter{HeaderJQ: pat(program)} }

func both(fs ...rules.Filter) rules.Filter { return rules.Filter{AllOf: fs} }
func one(fs ...rules.Filter) rules.Filter  { return rules.Filter{AnyOf: fs} }

func with(r Request, body string) Request {
	r.Body = func() ([]byte, error) { return []byte(body), nil }
	return r
}

func TestMatchBody(t *testing.T) {
	const order = `{"id": 7, "user": {"name": "Ana", "vip": true}, "sum": 12.50, "items": [{"n": "a"}, {"n": "b"}], "note": null}`
	post := request("POST /orders", "Content-Type: application/json")
	for _, c := range []struct {
		name string
		f    rules.Filter
		body string
		want bool
	}{
		{"text", inText(`"name": "A`), order, true},
		{"its case counts", inText(`"name": "a`), order, false},
		{"look-ahead", inText(`^(?!\{)`), order, false},
		{"over lines", inText(`(?s)a.b`), "a\nb", true},
		{"no text", inText("."), "", false},
		{"no text is a text", inText("^$"), "", true},
		{"bytes", inText(`^..$`), "\xff\x00", true},

		{"a text as it is", inJSON("$.user.name", "^Ana$"), order, true},
		{"its case counts too", inJSON("$.user.name", "^ana$"), order, false},
		{"a number as it stands", inJSON("$.sum", `^12\.50$`), order, true},
		{"a truth value", inJSON("$.user.vip", "^true$"), order, true},
		{"null", inJSON("$.note", "^null$"), order, true},
		{"an object as JSON", inJSON("$.user", `^\{"name":"Ana","vip":true\}$`), order, true},
		{"an array as JSON", inJSON("$.items", `^\[\{"n":"a"\},\{"n":"b"\}\]$`), order, true},
		{"angle brackets as they are", inJSON("$", `^\["<"\]$`), `["<"]`, true},
		{"one of several", inJSON("$.items[*].n", "^b$"), order, true},
		{"none of several", inJSON("$.items[*].n", "^c$"), order, false},
		{"nothing is found", inJSON("$.nobody", "."), order, false},
		{"by a condition", inJSON("$[?typeof(@) == 'string']", "x"), `["x", 1]`, true},
		{"no JSON", inJSON("$", "."), "id=7", false},
		{"half of it", inJSON("$", "."), `{"a":`, false},
		{"more than one", inJSON("$", "."), `{} {}`, false},
		{"more than JSON", inJSON("$", "."), `{} x`, false},
		{"white space around it", inJSON("$", "1"), " 1\n", true},
		{"empty", inJSON("$", "."), "", false},
		{"no UTF-8", inJSON("$", "."), "\"\xff\"", false},

		{"jq", byJQ(`.user.name == "Ana" and (.items | length > 1)`), order, true},
		{"jq says no", byJQ(`.id == 8`), order, false},
		{"jq fails", byJQ(`.id.x`), order, false},
		{"jq of what is no JSON", byJQ("true"), "x", false},

		{"jq of headers", jqHeader(`. == "content-type: application/json"`), "", true},
		{"jq of no header", jqHeader(`startswith("x-")`), "", false},

		{"with the head", both(inText("Ana"), path("^/orders")), order, true},
		{"without the head", both(inText("Ana"), path("^/other")), order, false},
		{"not", both(path("^/orders"), not(inJSON("$.user.vip", "true"))), order, false},
		{"several", one(byJQ("false"), inJSON("$.id", "^7$")), order, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			matches(t, c.f, with(post, c.body), c.want)
		})
	}
	m, err := Compile(inText("^$"))
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := m.Match(post); !ok || err != nil {
		t.Errorf("a request without a body: %v, %v", ok, err)
	}
}

// The body is asked for once, and only where the head leaves it open.
func TestBodyIsAskedFor(t *testing.T) {
	post := request("POST /orders")
	for _, c := range []struct {
		name string
		f    rules.Filter
		want int
	}{
		{"alone", inText("a"), 1},
		{"twice", one(inText("b"), inText("c"), byJQ("false"), inJSON("$", "x")), 1},
		{"the head says no", both(inText("a"), path("^/other")), 0},
		{"the head says yes", one(inText("a"), path("^/orders")), 0},
		{"deep inside", both(not(one(byJQ("true"), path("^/orders"))), both(inText("a"), method("GET"))), 0},
		{"the head says nothing", both(inText("a"), path("^/orders")), 1},
		{"no body", path("x"), 0},
		{"jq of headers", jqHeader("true"), 0},
	} {
		m, err := Compile(c.f)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		r := post
		r.Body = func() ([]byte, error) { n++; return []byte("a"), nil }
		if _, err := m.Match(r); n != c.want || err != nil {
			t.Errorf("%s: asked %d times, want %d, %v", c.name, n, c.want, err)
		}
	}
}

// What cannot be looked at neither matches nor does its opposite.
func TestBodyUndecided(t *testing.T) {
	late := errors.New("the body is late")
	unread := request("POST /")
	unread.Body = func() ([]byte, error) { return nil, late }
	gzip := with(request("POST /", "Content-Encoding: gzip"), "Ana")
	deep := strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200)
	many := "[" + strings.Repeat("1,", 30000) + "1]"
	for _, c := range []struct {
		name string
		f    rules.Filter
		r    Request
		want string
	}{
		{"late", inText("."), unread, "the body is late"},
		{"late JSON", inJSON("$", "."), unread, "the body is late"},
		{"late jq", byJQ("true"), unread, "the body is late"},
		{"compressed", inText("."), gzip, "compressed"},
		{"compressed JSON", inJSON("$", "."), gzip, "compressed"},
		{"nested", inJSON("$", "."), with(unread, deep), "nested deeper than 128"},
		{"nested jq", byJQ("true"), with(unread, deep), "nested deeper than 128"},
		{"many steps", inJSON("$[?count($[*]) == 1]", "."), with(unread, many), "too many steps"},
		{"much text", inJSON("$..*", "x$"), with(unread, strings.Repeat("[", 120)+`"`+strings.Repeat("a", 30000)+`"`+strings.Repeat("]", 120)), "too much text"},
		{"much time", inText(`^(?:(a+)+)+(?!b)$`), with(unread, strings.Repeat("a", 64)+"!"), "takes longer than"},
		{"jq takes much time", byJQ("any(.[] as $a | .[] as $b | $a + $b; . > 3)"), with(unread, many), "takes too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, f := range []rules.Filter{c.f, not(c.f)} {
				m, err := Compile(f)
				if err != nil {
					t.Fatal(err)
				}
				begun := time.Now()
				got, err := m.Match(c.r)
				if took := time.Since(begun); took > 3*time.Second {
					t.Errorf("it took %v", took)
				}
				if got || err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, %v, want %s", got, err, c.want)
				}
				if err != nil && strings.Contains(err.Error(), "aaaa") {
					t.Errorf("%v repeats the request", err)
				}
			}
			if m, _ := Compile(one(c.f, method("POST"))); m != nil {
				if ok, err := m.Match(c.r); !ok || err != nil {
					t.Errorf("beside what matches: %v, %v", ok, err)
				}
			}
		})
	}
	plain, _ := Compile(inText("^Ana$"))
	if ok, err := plain.Match(with(request("POST /", "Content-Encoding: identity"), "Ana")); !ok || err != nil {
		t.Errorf("a coding that is none: %v, %v", ok, err)
	}
}

func TestBodyRefused(t *testing.T) {
	for _, c := range []struct {
		f    rules.Filter
		want string
	}{
		{rules.Filter{Body: &rules.Body{Kind: "xml", Matches: pat("x")}}, `there is no kind "xml"`},
		{rules.Filter{Body: &rules.Body{Kind: rules.BodyJSON, Query: pat("$")}}, "what it matches"},
		{rules.Filter{Body: &rules.Body{Kind: rules.BodyText, Query: pat("$"), Matches: pat("x")}}, "what it matches"},
		{rules.Filter{Body: &rules.Body{Kind: rules.BodyJQ}}, "a query"},
		{inText("("), "missing closing"},
		{inText(""), "what it matches"},
		{inJSON("a", "x"), "a query begins with $"},
		{inJSON("$", "("), "missing closing"},
		{byJQ("env"), "env cannot be used"},
		{jqHeader(""), "it is empty"},
		{jqHeader("."), ""},
		{jqHeader("|"), "unexpected"},
	} {
		_, err := Compile(c.f)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

// FuzzBody: whatever a body is, there is an answer, and in time.
func FuzzBody(f *testing.F) {
	m, err := Compile(one(inText(`^(?!x)(a+)+$`), inJSON("$..a[?@.b == $.c && search(@.d, 'e+')]..*", "^x"), byJQ(`.. | strings | test("^y+$")`), byJQ(`[.. | numbers] | add / length == 2`)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"a": [{"b": 1, "d": "eee"}], "c": 1}`))
	f.Add([]byte(strings.Repeat("[", 127) + strings.Repeat("]", 127)))
	f.Add([]byte(`["` + strings.Repeat("a", 1000) + `", 1e999, -0, "\ud800"]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		begun := time.Now()
		r := request("POST /")
		r.Body = func() ([]byte, error) { return body, nil }
		_, _ = m.Match(r)
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
