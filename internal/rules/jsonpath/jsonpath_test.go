package jsonpath

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mirrord-go/mirrord/internal/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

func parse(t testing.TB, text string) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

// store is the document of RFC 9535 §1.5.
const store = `{"store": {"book": [
	{"category": "reference", "author": "Nigel Rees", "title": "Sayings of the Century", "price": 8.95},
	{"category": "fiction", "author": "Evelyn Waugh", "title": "Sword of Honour", "price": 12.99},
	{"category": "fiction", "author": "Herman Melville", "title": "Moby Dick", "isbn": "0-553-21311-3", "price": 8.99},
	{"category": "fiction", "author": "J. R. R. Tolkien", "title": "The Lord of the Rings", "isbn": "0-395-19395-8", "price": 22.99}],
	"bicycle": {"color": "red", "price": 399}}}`

// logic is the document of RFC 9535 §2.3.5.3.
const logic = `{"a": [3, 5, 1, 2, 4, 6, {"b": "j"}, {"b": "k"}, {"b": {}}, {"b": "kilo"}], "o": {"p": 1, "q": 2, "r": 3, "s": 5, "t": {"u": 6}}, "e": "f"}`

// compared is the document of RFC 9535 §2.3.5.3, table 11.
const compared = `{"obj": {"x": "y"}, "arr": [2, 3]}`

func TestSelect(t *testing.T) {
	for _, c := range []struct{ query, document, want string }{
		{"$", "7", "[7]"},
		{"$.store.book[*].author", store, `["Evelyn Waugh","Herman Melville","J. R. R. Tolkien","Nigel Rees"]`},
		{"$..author", store, `["Evelyn Waugh","Herman Melville","J. R. R. Tolkien","Nigel Rees"]`},
		{"$.store..price", store, "[12.99,22.99,399,8.95,8.99]"},
		{"$..book[2].title", store, `["Moby Dick"]`},
		{"$..book[-1].title", store, `["The Lord of the Rings"]`},
		{"$..book[0,1].price", store, "[12.99,8.95]"},
		{"$..book[:2].price", store, "[12.99,8.95]"},
		{"$..book[?@.isbn].price", store, "[22.99,8.99]"},
		{"$..book[?@.price<10].title", store, `["Moby Dick","Sayings of the Century"]`},
		{"$.store.bicycle", store, `[{"color":"red","price":399}]`},

		{`$.o['j j']['k.k']`, `{"o": {"j j": {"k.k": 3}}}`, "[3]"},
		{`$["'"]["@"]`, `{"'": {"@": 2}}`, "[2]"},
		{`$['\u263a', "\uD83D\uDE00", '\'', "\n"]`, `{"☺": 1, "😀": 2, "'": 3, "\n": 4}`, "[1,2,3,4]"},
		{"$.☺", `{"☺": 1}`, "[1]"},
		{"$ .a [ 0 ] ", `{"a": [1]}`, ""}, // nothing may stand behind
		{"$ .a\n[ 0 , 1 ]", `{"a": [1, 2]}`, "[1,2]"},
		{"$[1]", "[1]", "[]"},
		{"$[-2]", "[1]", "[]"},
		{"$.a", "[1]", "[]"},
		{"$[0]", `{"a": 1}`, "[]"},
		{"$[*]", `{"a": 1, "b": [2]}`, "[1,[2]]"},
		{"$[*]", "1", "[]"},

		{"$[1:3]", `["a","b","c","d","e","f","g"]`, `["b","c"]`},
		{"$[5:]", `["a","b","c","d","e","f","g"]`, `["f","g"]`},
		{"$[1:5:2]", `["a","b","c","d","e","f","g"]`, `["b","d"]`},
		{"$[5:1:-2]", `["a","b","c","d","e","f","g"]`, `["d","f"]`},
		{"$[::-1]", "[1,2,3]", "[1,2,3]"},
		{"$[-2:]", "[1,2,3]", "[2,3]"},
		{"$[:-1]", "[1,2,3]", "[1,2]"},
		{"$[::0]", "[1,2,3]", "[]"},
		{"$[2:-9:-1]", "[1,2,3]", "[1,2,3]"},
		{"$[-9:9:9007199254740991]", "[1,2,3]", "[1]"},
		{"$[ : : ]", "[1,2]", "[1,2]"},

		{"$.a[?@.b == 'kilo']", logic, `[{"b":"kilo"}]`},
		{"$.a[?(@.b == 'kilo')]", logic, `[{"b":"kilo"}]`},
		{"$.a[?@>3.5]", logic, "[4,5,6]"},
		{"$.a[?@.b]", logic, `[{"b":"j"},{"b":"k"},{"b":"kilo"},{"b":{}}]`},
		{"$[?@.*]", logic, `[[3,5,1,2,4,6,{"b":"j"},{"b":"k"},{"b":{}},{"b":"kilo"}],{"p":1,"q":2,"r":3,"s":5,"t":{"u":6}}]`},
		{"$[?@[?@.b]]", logic, `[[3,5,1,2,4,6,{"b":"j"},{"b":"k"},{"b":{}},{"b":"kilo"}]]`},
		{"$.o[?@<3, ?@<3]", logic, "[1,1,2,2]"},
		{`$.a[?@<2 || @.b == "k"]`, logic, `[1,{"b":"k"}]`},
		{`$.a[?match(@.b, "[jk]")]`, logic, `[{"b":"j"},{"b":"k"}]`},
		{`$.a[?search(@.b, "[jk]")]`, logic, `[{"b":"j"},{"b":"k"},{"b":"kilo"}]`},
		{"$.o[?@>1 && @<4]", logic, "[2,3]"},
		{"$.o[?@.u || @.x]", logic, `[{"u":6}]`},
		{"$.a[?@.b == $.x]", logic, "[1,2,3,4,5,6]"},
		{"$.a[?@ == @]", logic, `[1,2,3,4,5,6,{"b":"j"},{"b":"k"},{"b":"kilo"},{"b":{}}]`},
		{"$.o[?!(@ == 1) && !@.u]", logic, "[2,3,5]"},

		{"$[?$.absent1 == $.absent2]", compared, "both"}, {"$[?$.absent1 <= $.absent2]", compared, "both"}, {"$[?$.absent == 'g']", compared, "[]"},
		{"$[?$.absent1 != $.absent2]", compared, "[]"}, {"$[?$.absent != 'g']", compared, "both"}, {"$[?1 <= 2]", compared, "both"}, {"$[?1 > 2]", compared, "[]"},
		{"$[?13 == '13']", compared, "[]"}, {"$[?'a' <= 'b']", compared, "both"}, {"$[?'a' > 'b']", compared, "[]"}, {"$[?$.obj == $.arr]", compared, "[]"},
		{"$[?$.obj != $.arr]", compared, "both"}, {"$[?$.obj == $.obj]", compared, "both"}, {"$[?$.arr == $.arr]", compared, "both"}, {"$[?$.obj == 17]", compared, "[]"},
		{"$[?$.obj != 17]", compared, "both"}, {"$[?$.obj <= $.arr]", compared, "[]"}, {"$[?$.obj < $.arr]", compared, "[]"}, {"$[?$.obj <= $.obj]", compared, "both"},
		{"$[?$.arr <= $.arr]", compared, "both"}, {"$[?1 <= $.arr]", compared, "[]"}, {"$[?true <= true]", compared, "both"}, {"$[?true > true]", compared, "[]"},
		{"$[?17 == $.obj]", compared, "[]"}, {"$[?null == $.arr]", compared, "[]"}, {"$[?-0 == 0 && 1e2 == 100.0]", compared, "both"},

		{"$[?length(@) == 2]", compared, "[[2,3]]"},
		{"$[?length(@.x) == 1]", compared, `[{"x":"y"}]`},
		{"$[?count(@.*) == 1]", compared, `[{"x":"y"}]`},
		{"$[?count(@['x','x']) == 2]", compared, `[{"x":"y"}]`},
		{"$[?value(@..x) == 'y']", compared, `[{"x":"y"}]`},
		{"$[?typeof(@) == 'array']", compared, "[[2,3]]"},
		{"$[?typeof(@) == 'null' || typeof(@) == 'bool' || typeof(@) == 'number']", `[null, true, 1, "x", {}]`, "[1,null,true]"},
		{"$[?typeof(@.*) == 'string' || typeof(@) == 'object']", `[["x"], {}]`, `[["x"],{}]`},
		{`$[?match(@, 'a.b')]`, `["axb", "a\nb", "xaxb", "a.b"]`, `["a.b","axb"]`},
		{`$[?search(@, 'a[.]b|\\.')]`, `["axb", "a.bc"]`, `["a.bc"]`},
		{`$.s[?search(@, $.p)]`, `{"s": ["axb", "b"], "p": "a"}`, `["axb"]`},
		{`$.s[?search(@, $.p)]`, `{"s": ["axb", "b"], "p": "("}`, `[]`},
		{`$.s[?search(@, $.p)]`, `{"s": ["axb", 7], "p": 7}`, `[]`},
	} {
		p, err := Compile(c.query)
		if c.want == "" {
			if err == nil {
				t.Errorf("%s was taken", c.query)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.query, err)
			continue
		}
		found, err := p.Select(parse(t, c.document), 10000)
		if err != nil {
			t.Errorf("%s: %v", c.query, err)
		}
		var got []string
		for _, v := range found {
			b, _ := json.Marshal(v)
			got = append(got, string(b))
		}
		slices.Sort(got)
		if c.want == "both" {
			c.want = `[[2,3],{"x":"y"}]`
		}
		if text := "[" + strings.Join(got, ",") + "]"; text != c.want && !(strings.HasPrefix(c.want, "[[3") && len(text) == len(c.want)) {
			t.Errorf("%s: got %s, want %s", c.query, text, c.want)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, query := range []string{
		"", "a", "@.a", " $", "$ ", "$.", "$..", "$a", "$.1a", "$[", "$[]", "$[a]", "$['a]", "$['\\x']", "$['\\u12']", "$['\\ud800']", "$['\\ud800\\u0041']", "$[\"\\'\"]", "$['\n']",
		"$[01]", "$[-0]", "$[1.0]", "$[9007199254740992]", "$[1:2:3:4]", "$[1 2]", "$[,1]", "$[1,]", "$. a", "$.a. b", "$.. a", "$[:x]",
		"$[?]", "$[?1]", "$[?@.a == ]", "$[?@.a = 1]", "$[?@.a === 1]", "$[?@.* == 1]", "$[?1 == @..a]", "$[?(@.a]", "$[?!@.a == 1]", "$[?@.a &&]", "$[?@.a & @.b]", "$[?'a']", "$[?true]", "$[?@.a == True]",
		"$[?length(@.*) == 1]", "$[?length(@)]", "$[?count(1) == 1]", "$[?match(@.a)]", "$[?match(@.a, 'x', 1)]", "$[?match(@.a, 'x') == true]", "$[?search(@.a, '(')]", "$[?nothing(@) == 1]", "$[?length (@) == 1]",
		"$[?" + strings.Repeat("(", maxDeep+1) + "@.a" + strings.Repeat(")", maxDeep+1) + "]", "$[?@.a == 01]", "$[?@.a == .1]", "$[?@.a == 1.]", "$[?!!@.a]", "$\xff",
	} {
		if _, err := Compile(query); err == nil {
			t.Errorf("%q was taken", query)
		} else if !strings.HasPrefix(err.Error(), "at character ") {
			t.Errorf("%q: %v", query, err)
		}
	}
}

// A document that makes a query cost more than its size is given up.
func TestSteps(t *testing.T) {
	deep := strings.Repeat(`{"a":[1,2,3],"b":`, 100) + "1" + strings.Repeat("}", 100)
	wide := "[" + strings.Repeat(`"`+strings.Repeat("a", 100)+`",`, 3000) + "1]"
	for query, document := range map[string]string{
		"$..*..*..*": deep, "$..[?$..[?@..a]]": deep, "$[?$[?search(@, $[0])]]": wide, "$[?$ == $]": wide, "$[::1, ::-1, *]": "[" + strings.Repeat("1,", 50000) + "1]",
	} {
		p, err := Compile(query)
		if err != nil {
			t.Fatal(err)
		}
		if found, err := p.Select(parse(t, document), 100000); !errors.Is(err, ErrSteps) || found != nil {
			t.Errorf("%s: %d parts, %v", query, len(found), err)
		}
	}
}

// A pattern that stands in the document, or in the query, is not compiled if its
// repetitions make much of it: clients of the target send documents.
func TestLargePatterns(t *testing.T) {
	p, err := Compile("$[?search(@.text, @.pattern)]")
	if err != nil {
		t.Fatal(err)
	}
	for pattern, want := range map[string]int{"a{100}": 1, strings.Repeat("a{1000}", 36): 0} {
		document := []any{map[string]any{"text": strings.Repeat("a", 10000), "pattern": pattern}}
		if found, err := p.Select(document, 100000); len(found) != want || err != nil {
			t.Errorf("%.10s: %d parts, %v, want %d", pattern, len(found), err, want)
		}
	}
	document := []any{map[string]any{"text": strings.Repeat("a", 500000), "pattern": "x(a?){100}y"}}
	if _, err := p.Select(document, 100000); !errors.Is(err, ErrSteps) {
		t.Errorf("a long search: %v, want %v", err, ErrSteps)
	}
	if _, err := Compile("$[?search(@, '" + strings.Repeat("a{1000}", 100) + "')]"); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("in a query: %v", err)
	}
}

func FuzzSelect(f *testing.F) {
	for _, query := range []string{"$..a[?@.b=='x' && !(count(@.*)>1)]", "$[1:-1:2,'a']", `$[?search(@.a,"x.")]`, "$[?typeof(@)!='null'||$.x<=@.y]", `$["\u00e9\ud83d\ude00"]`} {
		f.Add(query, `{"a":[{"b":"x"},null,1.5,{"c":{"a":[true]}}]}`)
	}
	f.Fuzz(func(t *testing.T, query, document string) {
		p, err := Compile(query)
		if err != nil {
			return
		}
		d := json.NewDecoder(strings.NewReader(document))
		d.UseNumber()
		var v any
		if d.Decode(&v) != nil {
			return
		}
		found, err := p.Select(v, 10000)
		if len(found) > 10001 || err != nil && found != nil {
			t.Errorf("%d parts, %v", len(found), err)
		}
	})
}
