package expression

import (
	"errors"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/dlclark/regexp2/v2"

	"github.com/mirrord-go/mirrord/internal/rules/weight"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		expr, text string
		fold, want bool
	}{
		{"^DB_", "DB_URL", false, true}, {"^DB_", "db_url", false, false}, {"^DB_", "db_url", true, true},
		{"^(?!kube)", "kube-probe", true, false}, {"^(?!kube)", "curl", true, true}, {`(a)\1`, "aa", false, true},
	} {
		x, err := Compile(c.expr, c.fold)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := x.Match(c.text); err != nil || got != c.want {
			t.Errorf("%s in %s: %v, %v, want %v", c.expr, c.text, got, err, c.want)
		}
	}
	x, err := Compile(`^(?:(a+)+)+(?!b)$`, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.Match(strings.Repeat("a", 64) + "!"); err == nil || strings.Contains(err.Error(), "aaa") {
		t.Errorf("an expression that explodes: %v", err)
	}
}

// An expression of some hundred letters is not compiled to some hundred megabytes.
func TestTooLarge(t *testing.T) {
	for _, text := range []string{strings.Repeat("a{1000}", 1000), strings.Repeat(`\pL`, 5000), "^(?:" + strings.Repeat("[a-z]{999}", 100) + ")$"} {
		for _, fold := range []bool{true, false} {
			var heavy *weight.Error
			if _, err := Compile(text, fold); !errors.As(err, &heavy) {
				t.Errorf("%.40q…: %v, want a *weight.Error", text, err)
			}
		}
	}
	if _, err := Compile("^x-user: ("+strings.Repeat("someone@example.com|", 500)+"x{1,64})$", true); err != nil {
		t.Error(err)
	}
}

// What engines read differently is refused.
func TestRefused(t *testing.T) {
	for _, text := range []string{"a{,3}", "a{00}", "a{1,02}", "a{03,}", `\y`, "[a&&b]", "(?u:a)", `\500`, `\07`, `[\12]`, `\'0'`} {
		if _, err := Compile(text, false); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
	for _, text := range []string{"a{0}", "a{0,3}", "a{10,}", `a\{00}`, "[{00}]", "a{0x}", `(a)\1b`, `\x40`, `[\']`} {
		if _, err := Compile(text, false); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func visible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// FuzzEngines compares the two engines on visible ASCII, for everything that
// both compile and check lets pass.
func FuzzEngines(f *testing.F) {
	for _, s := range [][2]string{
		{`^x-a: (b|c)+?d*$`, "x-a: bcd"}, {`[^a-c\d]\b.`, "a1-b"}, {`(?-i:A)b{2,3}`, "Abb"}, {`\Qa.b\E|[[:upper:]]`, "a.b"}, {`(?m)^a$|(?s:.)`, "b"},
		{`[]a]`, "]"}, {`\x41|\x{42}`, "a"}, {`\pL+\PL`, "a1"}, {`(?U)a+b?`, "aab"}, {`a{2}{3}`, "aaaaaa"}, {`[\w-]+`, "a-b"}, {`[a-]`, "-"}, {"a|", ""}, {`\z|\A`, "x"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, p, text string) {
		if len(p) > 64 || len(text) > 64 || !visible(text) || !visible(p) || check(p) != nil {
			return
		}
		linear, err := regexp.Compile("(?i)" + p)
		if err != nil {
			return
		}
		back, err := regexp2.Compile("(?i)"+p, regexp2.RE2)
		if err != nil {
			return // Go's engine takes it
		}
		back.MatchTimeout = MatchTime
		want := linear.MatchString(text)
		if got, err := back.MatchString(text); err == nil && got != want {
			t.Errorf("%q in %q: backtracking says %v, linear %v", p, text, got, want)
		}
	})
}

func TestEngineIsChosen(t *testing.T) {
	for text, linear := range map[string]bool{"^/api/": true, "(a+)+$": true, "(?!a)": false, "a++": false} {
		p, err := Compile(text, true)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.linear != nil; got != linear || reflect.ValueOf(p.back).IsNil() != linear {
			t.Errorf("%q: linear is %v, want %v", text, got, linear)
		}
	}
}
