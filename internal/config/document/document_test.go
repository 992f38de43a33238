package document

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// dump writes a tree with its places: key@line:column=value@line:column.
func dump(n *Node) string {
	var b strings.Builder
	var walk func(n *Node)
	walk = func(n *Node) {
		switch n.Kind {
		case List:
			b.WriteString("[")
			for i, item := range n.Items {
				if i > 0 {
					b.WriteString(" ")
				}
				walk(item)
			}
			b.WriteString("]")
		case Map:
			b.WriteString("{")
			for i, e := range n.Keys {
				if i > 0 {
					b.WriteString(" ")
				}
				fmt.Fprintf(&b, "%s@%d:%d=", e.Key, e.Place.Line, e.Place.Column)
				walk(e.Value)
			}
			b.WriteString("}")
		case Null:
			b.WriteString("null")
		case String:
			fmt.Fprintf(&b, "%q", n.Text)
		case Int:
			fmt.Fprint(&b, n.Int)
		case Bool:
			fmt.Fprint(&b, n.Bool)
		default:
			b.WriteString(n.String())
		}
		fmt.Fprintf(&b, "@%d:%d", n.Place.Line, n.Place.Column)
	}
	walk(n)
	return b.String()
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name string
		f    Format
		text string
		want string // or the error
	}{
		{"json", JSON, "{\n  \"é\": {\"b\": [1, \"x\", true, null]},\n\t\"c\" :  -1.5\n}", `{é@2:3={b@2:9=[1@2:15 "x"@2:18 true@2:23 null@2:29]@2:14}@2:8 c@3:2=the number -1.5@3:9}@1:1`},
		{"json, mark", JSON, "\ufeff{\"a\":1}", `{a@1:3=1@1:7}@1:2`},
		{"json, empty parts", JSON, `{"a":{},"b":[]}`, `{a@1:2={}@1:6 b@1:9=[]@1:13}@1:1`},
		{"json, huge number", JSON, `{"a":99999999999999999999}`, `{a@1:2=the number 99999999999999999999@1:6}@1:1`},
		{"json, empty", JSON, " \n", `1:1: the file is empty; the smallest configuration is {}`},
		{"json, comment", JSON, "{\n  // x\n}", `2:3: JSON has no comments; write the file as YAML (.yaml) or TOML (.toml) to have them`},
		{"json, hash comment", JSON, "# x\n{}", `1:1: JSON has no comments; write the file as YAML (.yaml) or TOML (.toml) to have them`},
		{"json, last comma", JSON, "{\"a\": [1,\n]}", `1:9: JSON has no comma before "]"`},
		{"json, single quotes", JSON, "{'a': 1}", `1:2: JSON writes texts in double quotes`},
		{"json, ends", JSON, `{"a": "x`, `1:9: this is not JSON: the file ends before the value does`},
		{"json, more", JSON, `{} {}`, `1:4: this is not JSON: invalid character '{' after top-level value`},
		{"json, twice", JSON, "{\"a\": 1,\n \"a\": 2}", `2:2: the key "a" stands here for the second time, after line 1`},
		{"json, list", JSON, ` []`, `1:2: the configuration is a list; it must be an object with keys`},
		{"json, deep", JSON, strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200), `1:501: this is nested more than 100 deep`},
		{"json, no utf-8", JSON, "{\"a\": \"\xff\"}", `1:8: this is no text in UTF-8`},

		{"yaml", YAML, "# c\né:\n  b: [1, x, true, ~]\nc:   -1.5\nd: 2020-01-01\ne: yes\nf: 0x1F\ng: \"1\"\n", `{é@2:1={b@3:3=[1@3:7 "x"@3:10 true@3:13 null@3:19]@3:6}@3:3 c@4:1=the number -1.5@4:6 d@5:1="2020-01-01"@5:4 e@6:1="yes"@6:4 f@7:1=31@7:4 g@8:1="1"@8:4}@2:1`},
		{"yaml, empty", YAML, "", `{}@1:1`},
		{"yaml, comment only", YAML, "# c\n", `{}@1:1`},
		{"yaml, null only", YAML, "---\n", `{}@2:1`},
		{"yaml, numbers as keys", YAML, "8080: x\n", `{8080@1:1="x"@1:7}@1:1`},
		{"yaml, alias", YAML, "a: &x [1]\nb: *x\n", `{a@1:1=[1@1:8]@1:4 b@2:1=[1@1:8]@2:4}@1:1`},
		{"yaml, merge", YAML, "a: &x {p: 1, q: 2}\nb:\n  <<: *x\n  q: 3\n", `{a@1:1={p@1:8=1@1:11 q@1:14=2@1:17}@1:4 b@2:1={q@4:3=3@4:6 p@1:8=1@1:11}@3:3}@1:1`},
		{"yaml, merge of no map", YAML, "<<: 1\n", `1:5: << takes objects, not the number 1`},
		{"yaml, loop", YAML, "a: &x [*x]\n", `1:4: this is nested more than 100 deep`},
		{"yaml, bomb", YAML, "a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n",
			`1:10: the document has more than 20000 values`},
		{"yaml, twice", YAML, "a: 1\nb: 2\na: 3\n", `3:1: the key "a" stands here for the second time, after line 1`},
		{"yaml, two documents", YAML, "a: 1\n---\nb: 1\n", `2:1: the file holds a second document; a configuration is one`},
		{"yaml, indent", YAML, "a: b: c\n", `1:5: this is not YAML: mapping values are not allowed in this context`},
		{"yaml, tab", YAML, "a:\n\tb: 1\n", `2:1: this is not YAML: a tab cannot indent; use spaces`},
		{"yaml, open list", YAML, "a: [1,2\nb: 3\n", `2:2: this is not YAML: did not find expected ',' or ']' while parsing a flow sequence`},
		{"yaml, anchor", YAML, "a: *x\n", `1:4: this is not YAML: unknown anchor 'x' referenced`},
		{"yaml, key", YAML, "? [x]\n: 3\n", `1:3: a key must be a text`},
		{"yaml, tag", YAML, "a: !foo 3\n", `1:4: the tag !foo is not known here`},
		{"yaml, list", YAML, "- a\n", `1:1: the configuration is a list; it must be an object with keys`},

		{"toml", TOML, "# c\n\"é\" = \"x\"\n[a.b]\nc.d = [1, {e = 2, f.g = \"é\"}, []]\nh = 2020-01-01\n[[t]]\ni = {}\n[[t]]\n[t.u]\nj = 0x1F\nk = 1.5\nl = true\n",
			`{é@2:1="x"@2:7 a@3:2={b@3:4={c@4:1={d@4:3=[1@4:8 {e@4:12=2@4:16 f@4:19={g@4:21="é"@4:25}@4:19}@4:11 []@4:7]@4:7}@4:1 h@5:1=the date 2020-01-01@5:5}@3:4}@3:2 t@6:3=[{i@7:1={}@7:5}@6:3 {u@9:4={j@10:1=31@10:5 k@11:1=the number 1.5@11:5 l@12:1=true@12:5}@9:4}@8:3]@6:3}@1:1`},
		{"toml, empty", TOML, "", `{}@1:1`},
		{"toml, twice", TOML, "a = 1\na = 2\n", `2:1: this is not TOML: key a is already defined`},
		{"toml, no value", TOML, "a = \n", `1:5: this is not TOML: unexpected character U+000A at start of value`},
		{"toml, place in characters", TOML, "\"é\" = tru\n", `1:7: this is not TOML: expected keyword "true"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := Parse(c.f, Plain(c.text))
			got := fmt.Sprint(err)
			if err == nil {
				got = dump(n)
			}
			if got != c.want {
				t.Errorf("%s\n got  %s\n want %s", c.text, got, c.want)
			}
		})
	}
}

func TestFill(t *testing.T) {
	values := Values{
		Env: func(name string) (string, bool) {
			return map[string]string{"A": "long value", "E": ""}[name], name == "A" || name == "E"
		},
		Key: "k-1", Branch: func() (string, error) { return "main", nil },
	}
	for _, c := range []struct{ source, want string }{
		{"plain { }} text", "plain { }} text"},
		{"x{{ key }}y{{git_branch}}", "xk-1ymain"},
		{`{{ get_env(name="A") }}|{{ get_env( name = 'B' , default = "d" ) }}|{{get_env(name="E", default="d")}}`, "long value|d|"},
		{"{{ get_env(name=`B`) | default(value='f') }}", "f"},
		{`{{ get_env(name="B", default=80) }}`, "80"},
		{`{{ "{{" }}`, "{{"},
		{`{{{ key }}}`, `1:3: did not expect "{" in a template; templates can be: ` + forms},
		{"a\n  {% if x %}", "2:3: templates of the form {% are not supported; these are: " + forms},
		{"{# x #}", "1:1: templates of the form {# are not supported; these are: " + forms},
		{"{{ user }}", `1:4: templates know no "user"; they can be: ` + forms},
		{"{{ key | upper }}", `1:10: templates know no filter "upper"; they can be: ` + forms},
		{"é {{ get_env(name=\"B\") }}", `1:3: the environment variable B is not set; give it a default: | default(value="x")`},
		{"{{ get_env() }}", `1:11: get_env needs a name: get_env(name="X")`},
		{"{{ get_env(nam='x') }}", `1:12: expected name="…" or default="…" here`},
		{"{{ get_env(name=x) }}", `1:17: expected a text in quotes, a number, true or false here`},
		{"{{ key | default() }}", `1:10: default needs a value: default(value="x")`},
		{"{{ 'x\n' }}", `1:4: this text in a template does not end`},
		{"{{ key", `1:7: the file ends inside a template`},
		{"{{ key key }}", `1:8: did not expect "k" in a template; templates can be: ` + forms},
	} {
		text, _, err := Fill(c.source, values)
		got := fmt.Sprint(err)
		if err == nil {
			got = text.String()
		}
		if got != c.want {
			t.Errorf("%s\n got  %s\n want %s", c.source, got, c.want)
		}
	}
	values.Branch = func() (string, error) { return "", errors.New("no repository") }
	if _, _, err := Fill("{{ git_branch }}", values); err == nil || !strings.Contains(err.Error(), "no repository") {
		t.Errorf("an unknown branch: %v", err)
	}
	if text, _, err := Fill("{{ git_branch | default(value='x') }}", values); err != nil || text.String() != "x" {
		t.Errorf("an unknown branch with a default: %v", err)
	}
}

// Places refer to what the user wrote, whatever stands in for a template.
func TestPlacesBehindTemplates(t *testing.T) {
	for f, source := range map[Format]string{
		JSON: "{\"a\": \"{{ get_env(name=\"A\") }}\", \"b\": 1,\n\"c\": {{ key }}, \"d\": 2}",
		YAML: "a: \"{{ get_env(name='A') }}\"\nb: 1\nc: {{ key }}\nd: 2",
		TOML: "a = \"{{ get_env(name='A') }}\"\nb = 1\nc = {{ key }}\nd = 2",
	} {
		text, used, err := Fill(source, Values{Env: func(string) (string, bool) { return "two words", true }, Key: "\"one\" "})
		if err != nil || !used {
			t.Fatal(err, used)
		}
		n, err := Parse(f, text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for _, key := range []string{"a", "b", "c", "d"} {
			v := n.Value(key)
			line := strings.Split(source, "\n")[v.Place.Line-1]
			want := map[string]string{"a": "\"{{", "b": "1", "c": "{{", "d": "2"}[key]
			if rest := string([]rune(line)[v.Place.Column-1:]); !strings.HasPrefix(rest, want) {
				t.Errorf("format %d: %s is at %v, before %q", f, key, v.Place, rest)
			}
		}
	}
}

func TestFormatOf(t *testing.T) {
	for name, want := range map[string]Format{"a.json": JSON, "a": JSON, ".mirrord": JSON, "x.y/a": JSON, "a.YAML": YAML, "a.yml": YAML, ".a.toml": TOML} {
		if got, ok := FormatOf(name); !ok || got != want {
			t.Errorf("%s is %d, %v, want %d", name, got, ok, want)
		}
	}
	for _, name := range []string{"a.txt", "a.", "a.json5"} {
		if _, ok := FormatOf(name); ok {
			t.Errorf("%s has a format", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"{\"a\": [1, {\"b\": null}]}", "a:\n - &x b\n - *x\n<<: {c: 1}", "a.b = [1, {c = 2}]\n[[d]]\ne = 1979-05-27", "{{ get_env(name='A', default=\"x\") | default(value=1) }}",
		"[a]\n[a.b]\n[[a.c]]\n", "? a\n: !!int 3", "a: \u2028b\r\nc: \x85", "{{", "a: |\n  x\n b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text, _, err := Fill(s, Values{Env: func(string) (string, bool) { return "v", true }, Key: "k", Branch: func() (string, error) { return "b", nil }})
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Errorf("%q: %T", s, err)
			}
			return
		}
		for _, format := range []Format{JSON, YAML, TOML} {
			n, err := Parse(format, text)
			if err != nil {
				e, ok := errors.AsType[*Error](err)
				if !ok || e.Place.Line < 1 || e.Place.Column < 1 {
					t.Errorf("%q: %T at %v", s, err, e)
				}
				continue
			}
			_ = dump(n)
		}
	})
}
