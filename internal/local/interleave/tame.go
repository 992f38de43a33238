package interleave

import (
	"bytes"
	"regexp"
	"unicode"
	"unicode/utf8"
)

// sgr is the control sequence that sets colours (ECMA-48, 8.3.117), the only one
// that a program's line may hold: all others move the cursor, clear what others
// have written, or change the terminal for good.
var sgr = regexp.MustCompile(`^\x1b\[[0-9;:]*m`)

// sequence is any other one: control sequences, strings up to their end, and
// single shifts.
var sequence = regexp.MustCompile(`^\x1b(?:\[[0-?]*[ -/]*[@-~]?|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~]?)`)

// tame makes of a line what a terminal shows on one line: it takes out the
// sequences that would do something else, and what a carriage return would write
// over. A colour does not reach beyond the line.
func tame(line []byte) []byte {
	line = bytes.TrimRight(line, "\r")
	if i := bytes.LastIndexByte(line, '\r'); i >= 0 {
		line = line[i+1:]
	}
	out := make([]byte, 0, len(line))
	coloured := false
	for len(line) > 0 {
		if line[0] == 0x1b {
			if m := sgr.Find(line); m != nil {
				out, line, coloured = append(out, m...), line[len(m):], true
				continue
			}
			line = line[len(sequence.Find(line)):]
			continue
		}
		r, n := utf8.DecodeRune(line)
		switch {
		case r == '\t':
			out = append(out, '\t')
		case r == utf8.RuneError && n == 1, unicode.IsControl(r):
			out = append(out, "\uFFFD"...)
		default:
			out = append(out, line[:n]...)
		}
		line = line[n:]
	}
	if coloured {
		out = append(out, reset...)
	}
	return out
}
