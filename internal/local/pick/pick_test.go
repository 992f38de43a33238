package pick

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

var targets = []Item{
	{"deployment/shop", "2/2  8080"}, {"deployment/pay", "1/1  9000"}, {"statefulset/db", "1/1  5432"}, {"pod/shop-7d4b9", "1/1  8080"},
}

func TestKeysChoose(t *testing.T) {
	for _, c := range []struct {
		name   string
		sent   []string // at once each
		want   string   // marked at the end; empty: nothing
		result Result
	}{
		{"the first", []string{"\r"}, "deployment/shop", Chosen},
		{"arrows", []string{"\x1b[B\x1b[B", "\x1b[A", "\n"}, "deployment/pay", Chosen},
		{"arrows of the other mode", []string{"\x1bOB", "\r"}, "deployment/pay", Chosen},
		{"control keys", []string{"\x0e\x0e\x10\r"}, "deployment/pay", Chosen},
		{"not beyond the ends", []string{"\x1b[A", "\x1b[6~", "\x1b[B"}, "pod/shop-7d4b9", Goes},
		{"typed", []string{"Shop p", "od\r"}, "pod/shop-7d4b9", Chosen},
		{"by what is beside it", []string{"5432\r"}, "statefulset/db", Chosen},
		{"nothing fits", []string{"nowhere\r"}, "", Goes},
		{"taken back", []string{"dbx", "\x7f\r"}, "statefulset/db", Chosen},
		{"all taken back", []string{"nowhere", "\x15\r"}, "deployment/shop", Chosen},
		{"a key without a meaning", []string{"\x1b[15~\x1b[C\x00\r"}, "deployment/shop", Chosen},
		{"escape", []string{"\x1b"}, "deployment/shop", Cancelled},
		{"interrupt", []string{"sh\x03"}, "deployment/shop", Cancelled},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := New("which?", targets)
			var result Result
			for _, sent := range c.sent {
				for _, key := range Keys([]byte(sent)) {
					result = l.Key(key)
				}
			}
			if got, _ := l.Selected(); got != c.want || result != c.result {
				t.Errorf("got %q, %v, want %q, %v", got, result, c.want, c.result)
			}
		})
	}
}

func TestLines(t *testing.T) {
	l := New("which?", targets)
	l.Key("s")
	l.Key("\x1b[B")
	got := l.Lines(40, 24, false)
	want := []string{
		"which?",
		"> s",
		"  deployment/shop  2/2  8080",
		"* statefulset/db   1/1  5432",
		"  pod/shop-7d4b9   1/1  8080",
		"3 of 4; type to narrow, arrows, Enter; E",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	if got := l.Lines(80, 24, true)[3]; got != "\x1b[7m* statefulset/db   1/1  5432\x1b[0m" {
		t.Errorf("the marked line: %q", got)
	}
}

// What is marked is shown, however small the terminal; and there are no more
// lines than it has.
func TestLinesScroll(t *testing.T) {
	var many []Item
	for i := range 100 {
		many = append(many, Item{Name: fmt.Sprintf("pod/n-%02d", i)})
	}
	l := New("which?", many)
	for i := range 250 {
		key := "\x1b[B"
		if i >= 120 {
			key = "\x1b[A"
		}
		l.Key(key)
		for _, height := range []int{1, 4, 9} {
			lines := l.Lines(80, height, false)
			if len(lines) > max(height, 4) || !slices.ContainsFunc(lines, func(s string) bool { return strings.HasPrefix(s, "* ") }) {
				t.Fatalf("step %d, %d lines: %q", i, height, lines)
			}
		}
	}
}

// Names are strangers' words.
func TestLinesAreEscaped(t *testing.T) {
	l := New("which?", []Item{{"pod/\x1b[31mred", "\x1b]0;title\x07"}})
	if text := strings.Join(l.Lines(80, 24, false), "\n"); strings.ContainsAny(text, "\x1b\x07") {
		t.Errorf("%q", text)
	}
}

func FuzzKeys(f *testing.F) {
	f.Add([]byte("\x1b[A\x1b[5~shop\r"))
	f.Add([]byte("\x1b["))
	f.Fuzz(func(t *testing.T, sent []byte) {
		keys := Keys(sent)
		if strings.Join(keys, "") != string([]rune(string(sent))) {
			t.Errorf("%q became %q", sent, keys)
		}
		l := New("which?", targets)
		for _, k := range keys {
			l.Key(k)
			l.Lines(20, 5, true)
		}
	})
}
