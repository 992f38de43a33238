package dump

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mirrord-go/mirrord/internal/local/monitor"
)

const (
	// maxRow is how many characters of text stand in a row: with what stands in
	// front of them they fit into a usual terminal.
	maxRow = 100
	// hexRow is the same in bytes, for what is no text.
	hexRow = 16
)

// Text gives the lines of a record for a person. Nothing in them steers a terminal.
func Text(r Record) (lines []string) {
	head := fmt.Sprintf("%s  #%d ", r.At.Local().Format("15:04:05.000"), r.Connection)
	switch r.Kind {
	case Open:
		return []string{head + monitor.Clean(fmt.Sprintf("open   %s → %s", r.Client, r.Server))}
	case Close:
		text := fmt.Sprintf("close  after %s, %d bytes", after(r.Millis), r.Bytes)
		if r.Error != "" {
			text += "; " + r.Error
		}
		return []string{head + monitor.Clean(text)}
	case Data:
		lines = append(lines, head+fmt.Sprintf("+%s  %d bytes from %s", after(r.Millis), len(r.Data), monitor.Clean(r.Client)))
		for _, row := range rows(r.Data) {
			lines = append(lines, "    "+row)
		}
	}
	return lines
}

// after is a time in milliseconds for a person.
func after(ms float64) string {
	return time.Duration(ms * float64(time.Millisecond)).Round(100 * time.Microsecond).String()
}

// rows shows bytes: text with its lines, what is not seen escaped as in Go's
// strings; what is no text, byte by byte as hexdump -C does.
func rows(b []byte) (all []string) {
	if !readable(b) {
		for at := 0; at < len(b); at += hexRow {
			all = append(all, hex(at, b[at:min(len(b), at+hexRow)]))
		}
		return all
	}
	var row strings.Builder
	width := 0
	flush := func() {
		all = append(all, row.String())
		row.Reset()
		width = 0
	}
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		text := string(r)
		switch {
		case r == utf8.RuneError && n == 1:
			text = fmt.Sprintf(`\x%02x`, b[0])
		case r == '\n':
			row.WriteString(`\n`)
			flush()
			b = b[n:]
			continue
		case r == '\r':
			text = `\r`
		case r == '\t':
			text = `\t`
		case r == '\\':
			text = `\\`
		case monitor.Clean(text) != text:
			text = fmt.Sprintf(`\u%04x`, r)
			if r < 0x80 {
				text = fmt.Sprintf(`\x%02x`, r)
			} else if r > 0xffff {
				text = fmt.Sprintf(`\U%08x`, r)
			}
		}
		if width += len([]rune(text)); width > maxRow {
			flush()
			width = len([]rune(text))
		}
		row.WriteString(text)
		b = b[n:]
	}
	if row.Len() > 0 {
		flush()
	}
	return all
}

// readable reports whether b is mostly text: not more than one byte in eight is
// what text has not.
func readable(b []byte) bool {
	odd, all := 0, len(b)
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && n == 1 && utf8.FullRune(b): // else it is cut at the end
			odd++
		case r < ' ' && r != '\n' && r != '\r' && r != '\t', r == 0x7f:
			odd++
		}
		b = b[n:]
	}
	return odd*8 <= all
}

// hex is a row of at most hexRow bytes.
func hex(at int, b []byte) string {
	var left, right strings.Builder
	for i, c := range b {
		if i == hexRow/2 {
			left.WriteByte(' ')
		}
		fmt.Fprintf(&left, "%02x ", c)
		if c < ' ' || c > '~' {
			c = '.'
		}
		right.WriteByte(c)
	}
	return fmt.Sprintf("%06x  %-*s |%s|", at, 3*hexRow+1, left.String(), right.String())
}
