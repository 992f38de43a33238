package document

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestJSONC(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"plain", `{"a": [1, 2.5, true, null, "x"]}`, `{"a":[1,2.5,true,null,"x"]}`},
		{"comments", "// top\n{\"a\": 1, // one\n/* two\nlines */ \"b\": 2 /**/}// end", `{"a":1,"b":2}`},
		{"trailing commas", "{\"a\": [1, 2, /* x */ ], // y\n}", `{"a":[1,2]}`},
		{"commas that stay", `{"a": [1, 2], "b": {}, "c": []}`, `{"a":[1,2],"b":{},"c":[]}`},
		{"texts that look like it", `{"a": "http://x/*,}*/ \\", "b": ",]", "c//": "\""}`, `{"a":"http://x/*,}*/ \\","b":",]","c//":"\""}`},
		{"order", `{"z": 1, "a": 2}`, `{"z":1,"a":2}`},
		{"no character of HTML", `{"a": "x && y"}`, `{"a":"x \u0026\u0026 y"}`},
	} {
		n, err := Parse(JSONC, Plain(c.text))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got, err := json.Marshal(n); err != nil || string(got) != c.want {
			t.Errorf("%s: got %s, %v; want %s", c.name, got, err, c.want)
		}
	}
	for _, c := range []struct{ text, want string }{
		{"{\n  // é\n  \"a\": 1,\n  \"b\": ]\n}", "4:8: "},
		{"{,}", "1:2: "},
		{"{\"a\": 1 /* never closed }", "1:9: "},
		{"", "1:1: the file is empty"},
	} {
		if _, err := Parse(JSONC, Plain(c.text)); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %s", c.text, err, c.want)
		}
	}
}

func TestPlacesOfJSONC(t *testing.T) {
	n, err := Parse(JSONC, Plain("{ /* é */\n // x\n\t\"a\": [\n 1,\n ], \"b\": 2 }"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := n.Keys[1].Place, (Place{5, 5}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestChange(t *testing.T) {
	n, err := Parse(JSONC, Plain(`{"a": 1, "b": {"c": [1]}}`))
	if err != nil {
		t.Fatal(err)
	}
	c := n.Clone()
	c.Set("a", []string{"x"}).Set("d", true).Set("e", 7).Set("f", []*Node{Value("y")})
	c.Value("b").Set("c", "z")
	c.Delete("none")
	got, _ := json.Marshal(c)
	if want := `{"a":["x"],"b":{"c":"z"},"d":true,"e":7,"f":["y"]}`; string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
	c.Delete("b")
	if got, _ := json.Marshal(n); string(got) != `{"a":1,"b":{"c":[1]}}` {
		t.Errorf("the original is %s", got)
	}
}
