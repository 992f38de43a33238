package weight

import (
	"errors"
	"math"
	"regexp/syntax"
	"strings"
	"testing"
)

func TestOf(t *testing.T) {
	for _, c := range []struct {
		text        string
		least, most int
	}{
		{"", 1, 1},
		{"^x-user: ana$", 10, 20},
		{`[a-z0-9]{64}`, 64, 140},
		{`^(?i)authorization: bearer [\w.-]{1,512}$`, 500, 1700},
		{"^x-user: (" + strings.Repeat("someone@example.com|", 500) + "x)$", 20, 12000},
		{`\pL`, 30, 200}, {`\pL{100}`, 100, 400}, // one class
		{"a{1000}", 1000, 2002}, {"a{10,}", 10, 22}, {"(a{30}){30}", 900, 2000},
		{"((a{10}){10}){10}", 1000, 2500}, {"(?:a{0,999}b)*", 999, 3100},
		{strings.Repeat("a{1000}", 100), Max + 1, Max + 1},
		{strings.Repeat(`\pL`, 5000), Max + 1, Max + 1},
		{strings.Repeat("a", maxText+1), Max + 1, Max + 1},
		{"(?!a){1000}", 11, 11}, // not Go's
	} {
		if got := Of(c.text); got < c.least || got > c.most {
			t.Errorf("%.40q weighs %d, want %d to %d", c.text, got, c.least, c.most)
		}
	}
	var heavy *Error
	if err := Check("a{1000}", 999); !errors.As(err, &heavy) {
		t.Errorf("heavier than it may be: %v", err)
	}
	if err := Check("a{1000}", 2002); err != nil {
		t.Error(err)
	}
}

// What is weighed is never much less than what is compiled.
func FuzzOf(f *testing.F) {
	for _, s := range []string{"a{1000}b{1000}", "((a{30}){30})?", `\pL\PN{2,7}`, "(?i)[a-z]*(?:x|y|){3}", "(?:){1000}", "(a*){1000}", "(|a){9}{9}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		weight := Of(text)
		if weight < 0 || weight > Max+1 {
			t.Fatalf("%q weighs %d", text, weight)
		}
		if weight > 4096 { // compiling it is what must not be
			return
		}
		re, err := syntax.Parse(text, syntax.Perl)
		if err != nil {
			return
		}
		p, err := syntax.Compile(re.Simplify())
		if err != nil {
			return
		}
		if got := len(p.Inst); float64(got) > 4*math.Max(float64(weight), 4) {
			t.Errorf("%q weighs %d and has %d instructions", text, weight, got)
		}
	})
}
