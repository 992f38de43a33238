package monitor

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
)

// hostile is what strangers may call a pod, a file, a host or themselves.
var hostile = map[string]string{
	"title":       "\x1b]0;owned\x07",
	"clear":       "\x1b[2J\x1b[H",
	"8-bit CSI":   "\u009b2J",
	"raw 8-bit":   "\x9b2J",
	"newline":     "a\nmirrord: all is well",
	"return":      "evil\rgood",
	"backspace":   "evil\b\b\b\bgood",
	"delete":      "\x7f",
	"right left":  "\u202egpj.exe",
	"isolate":     "\u2066x\u2069",
	"tag":         "\U000e0041",
	"zero width":  "pay\u200bpal",
	"separator":   "a\u2028b\u2029c",
	"bell":        "\a",
	"hyperlink":   "\x1b]8;;http://evil\x1b\\here",
	"invalid":     "\xff\xfe",
	"a long line": strings.Repeat("x", 1<<20),
}

// obeys tells what in s a terminal would obey; newlines aside.
func obeys(s string) string {
	for _, r := range s {
		if r != '\n' && steers(r) {
			return string(r)
		}
	}
	if !utf8.ValidString(s) {
		return "bytes that are no text"
	}
	return ""
}

// TestWhatStrangersWrote: nothing of it steers the terminal, begins a line, or
// fills the screen, in any mode.
func TestWhatStrangersWrote(t *testing.T) {
	for name, s := range hostile {
		for mode, lines := range map[Mode]int{Plain: 1, JSON: 1} {
			var out strings.Builder
			m := New(&out, mode, true)
			m.Show(event.Event{Level: event.Warning, Code: "x", Text: s, Facts: map[string]string{s: s}})
			got := out.String()
			if o := obeys(got); o != "" {
				t.Errorf("%s: %q is obeyed in %.200q", name, o, got)
			}
			if n := strings.Count(got, "\n"); n != lines || mode != JSON && !strings.HasPrefix(got, "mirrord: warning: ") {
				t.Errorf("%s: %d lines, %.200q", name, n, got)
			}
			if mode == JSON {
				var e event.Event
				if err := json.Unmarshal([]byte(got), &e); err != nil || e.Text != strings.ToValidUTF8(s, "\uFFFD") && utf8.ValidString(s) {
					t.Errorf("%s: %v, read back as %.100q", name, err, e.Text)
				}
			} else if len(got) > 4*maxLine {
				t.Errorf("%s: a line of %d bytes", name, len(got))
			}

			out.Reset()
			m.Fail(&failure.Error{Code: s, What: s, Why: s, Do: s})
			got = out.String()
			if o := obeys(got); o != "" {
				t.Errorf("%s: %q is obeyed in %.200q", name, o, got)
			}
			for line := range strings.Lines(got) { // a line that a stranger began cannot pass for ours
				if mode != JSON && !strings.HasPrefix(line, "mirrord: ") && !strings.HasPrefix(line, "  ") {
					t.Errorf("%s: a line of its own: %.100q", name, line)
				}
			}
			if n := strings.Count(got, "\nmirrord: "); n > 0 {
				t.Errorf("%s: a line that looks like ours: %.200q", name, got)
			}
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range hostile {
		f.Add(s[:min(len(s), 100)])
	}
	f.Fuzz(func(t *testing.T, s string) {
		c := Clean(s)
		if o := obeys(c); o != "" || strings.Contains(c, "\n") || utf8.RuneCountInString(c) > maxLine {
			t.Errorf("%q becomes %q", s, c)
		}
		if Clean(c) != c {
			t.Errorf("%q is not clean", c)
		}
		var out strings.Builder
		if err := WriteJSON(&out, map[string]string{s: s}, ""); err != nil || obeys(out.String()) != "" {
			t.Errorf("%q becomes %q, %v", s, out.String(), err)
		}
		var back map[string]string
		if err := json.Unmarshal([]byte(out.String()), &back); err != nil || utf8.ValidString(s) && back[s] != s {
			t.Errorf("%q is read back as %q, %v", s, back, err)
		}
	})
}
