package jq

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

func parse(t testing.TB, text string) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAccepts(t *testing.T) {
	const order = `{"id": 9007199254740993, "user": {"name": "Ana", "tags": ["a", "b"]}, "items": [{"n": 1}, {"n": 2.50}], "empty": null}`
	for _, c := range []struct {
		program, value string
		want           bool
	}{
		{`. == "x-user: ana"`, `"x-user: ana"`, true},
		{`startswith("x-user: ") and (split(": ") | .[1] == "ana")`, `"x-user: ana"`, true},
		{`test("^X-USER: "; "i")`, `"x-user: ana"`, true},
		{`.user.name == "Ana"`, order, true},
		{`.user.name == "ana"`, order, false},
		{`.user.name | ascii_downcase == "ana"`, order, true},
		{`.id == 9007199254740993`, order, true},
		{`.id == 9007199254740992`, order, false},
		{`.items | any(.n == 2.5)`, order, true},
		{`any(.items[]; .n > 2)`, order, true},
		{`all(.items[]; .n > 2)`, order, false},
		{`[.items[].n] | add > 3`, order, true},
		{`.items | length == 2`, order, true},
		{`.user.tags | index("b") != null`, order, true},
		{`.user | has("name")`, order, true},
		{`.items[0].n as $n | $n == 1`, order, true},
		{`.empty // "x" | . == "x"`, order, true},
		{`if .id then .user.name == "Ana" else false end`, order, true},
		{`.. | .n? // empty | . == 1`, order, true},
		{`first(.items[].n) == 1`, order, true},
		{`"\(.user.name)!" == "Ana!"`, order, true},
		{`try error("x") catch . == "x"`, `1`, true},
		{`.user | to_entries | map(.key) | contains(["name"])`, order, true},
		{`.items[1:] | length == 1`, order, true},
		// The first truth value counts.
		{`.user.name, false, true`, order, false},
		{`.user.name, true, false`, order, true},
		{`.user.name`, order, false},
		{`empty`, order, false},
		// An error is no truth value, and the end.
		{`.user.name.x, true`, order, false},
		{`error("x"), true`, order, false},
		{`.user.name.x?, true`, order, true},
		{`startswith("x")`, `7`, false},
	} {
		p, err := Compile(c.program)
		if err != nil {
			t.Errorf("%s: %v", c.program, err)
			continue
		}
		if got, err := p.Accepts(parse(t, c.value), time.Minute); got != c.want || err != nil {
			t.Errorf("%s: %v, %v, want %v", c.program, got, err, c.want)
		}
	}
}

func TestRefused(t *testing.T) {
	for program, want := range map[string]string{
		"": "missing query", ".a[": "unexpected", "x": "x cannot be used in a filter", "$x": "variable not defined",
		"def f: f; f": "def", "reduce .[] as $x (0; . + $x)": "reduce", "foreach .[] as $x (0; 1)": "foreach", "label $f | 1": "label",
		`import "a" as a; 1`: "import", "env.HOME": "env", "$ENV.HOME": "$ENV", "input": "input", "inputs": "inputs", "debug": "debug", "stderr": "stderr",
		"now": "now", "range(9)": "range", "repeat(.)": "repeat", "while(true; .)": "while", "until(false; .)": "until", "recurse": "recurse", "[limit(3; repeat(1))]": "repeat",
		".a = 1": "operator =", ".a |= 1": "operator |=", ".a += 1": "operator +=", `"a" * 1000000`: "operator *", "gsub(\"a\"; .b)": "gsub", "[.[] | {a: now}]": "now",
		`"\(now)"`: "now", ".[now]": "now", "if now then 1 else 2 end": "now", ". as [$a, {b: $c}] | now": "now", "@base32d \"\\(now)\"": "now", "try now": "now", ".a | -now": "now",
		"implode": "implode", "combinations": "combinations", "input_filename": "input_filename", "halt": "halt", "$__prog_args": "variable not defined", "getpath([])": "getpath", "$__loc__": "$__loc__",
		"test(1; 2; 3)": "function not defined", "ltrimstr": "function not defined", "splits(1)": "splits", "tojson(1)": "function not defined", "test": "function not defined",
	} {
		if _, err := Compile(program); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", program, err, want)
		}
	}
}

// Regular expressions are texts of the program, of no great weight, and look for
// one place: what a request names is not compiled, and kept, for each request.
func TestSearches(t *testing.T) {
	for _, program := range []string{`test("^a+$")`, `test("A"; "i")`, `test("a"; "im")`, `test("a"; null)`, `match("a").length == 1`, `capture("(?<x>a)").x == "a"`, `split("b")[0] == "a"`} {
		p, err := Compile(program)
		if err != nil {
			t.Errorf("%s: %v", program, err)
			continue
		}
		if ok, err := p.Accepts("a", time.Minute); !ok || err != nil {
			t.Errorf("%s: %v, %v", program, ok, err)
		}
	}
	for program, want := range map[string]string{
		`.p as $p | .t | test($p)`: "as texts", `test(.)`: "as texts", `test("a" + .)`: "as texts", `test("\(.)")`: "as texts", `test(["a", "i"])`: "as texts", `test("a"; .)`: "as texts",
		`test("a"[1:])`: "as texts", `match("a"; "g")`: "flag g", `capture("a"; "gi")`: "flag g", `[scan("a")]`: "scan", `split("a"; null)`: "split by",
		`test("` + strings.Repeat("a{1000}", 20) + `")`: "too large",
	} {
		if _, err := Compile(program); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", program, err, want)
		}
	}
}

// A program that takes long ends, whatever it has found.
func TestTime(t *testing.T) {
	v := parse(t, "["+strings.Repeat("1,", 3000)+"1]")
	p, err := Compile(`[.[] as $a | .[] as $b | select($a + $b > 3 and $a * 1 == 1)] | length > 0`)
	if err == nil {
		t.Fatal("it multiplies")
	}
	if p, err = Compile(`any(.[] as $a | .[] as $b | .[] as $c | $a + $b + $c; . > 3)`); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if ok, err := p.Accepts(v, 50*time.Millisecond); ok || !errors.Is(err, ErrTime) {
		t.Errorf("got %v, %v", ok, err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// Whatever the program and the value, there is an answer in time.
func FuzzAccepts(f *testing.F) {
	f.Add(`.a.b == "x"`, `{"a": {"b": "x"}}`)
	f.Add(`any(.[]; test("a+"))`, `["b", "aa"]`)
	f.Add(`[.. | tojson] | join(",") | fromjson? | length > 1`, `[[[[1]]], {"a": 1e999}]`)
	f.Fuzz(func(t *testing.T, program, value string) {
		p, err := Compile(program)
		if err != nil {
			return
		}
		d := json.NewDecoder(bytes.NewReader([]byte(value)))
		d.UseNumber()
		var v any
		if d.Decode(&v) != nil {
			return
		}
		begun := time.Now()
		_, _ = p.Accepts(v, 20*time.Millisecond)
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("%s took %v", program, took)
		}
	})
}
