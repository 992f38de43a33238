package monitor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
)

// maxLine bounds one line for a person, in characters: a stranger's text must
// not push everything else off the screen.
const maxLine = 4096

// Clean makes one line of s that a terminal shows and does not obey: names of
// pods, files and processes, and messages of others, end up in our lines. All
// that is printed for a person goes through it.
func Clean(s string) string {
	n := 0
	clean := strings.Map(func(r rune) rune {
		switch n++; {
		case n == maxLine:
			return '…'
		case n > maxLine:
			return -1
		case steers(r):
			return '\uFFFD'
		}
		return r
	}, s)
	return clean
}

// steers reports whether a character does something else than show itself:
// control characters, those that turn the direction of text or are not seen
// (Unicode's category Cf), and separators of lines.
func steers(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
}

// WriteJSON writes v, which must be of kinds that JSON has, and a newline. What
// Clean would replace stands escaped in it, so that it can be shown as it is.
func WriteJSON(w io.Writer, v any, indent string) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return err
	}
	var out strings.Builder
	for _, r := range b.String() {
		switch {
		case r == '\n' || !steers(r): // the encoder's own newlines: those in strings are escaped
			out.WriteRune(r)
		default: // only strings have others than ASCII
			for _, u := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(&out, `\u%04x`, u)
			}
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}
