// Package interleave puts what several programs write into one place, line by
// whole line, with the program's name before each.
//
// Only cli calls it. It writes to what it is given and knows neither processes
// nor signals. Lines of one program keep their order, and no line of one is cut by
// another's. To a file or a pipe bytes go as they are; a terminal shows them and
// does not obey them, colours excepted, and is shown an unfinished line (a
// question, dots) when its program waits. An error of the place that is written
// to ends the copying of a program's output with that error.
package interleave

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	// maxLine is how much of a line without an end is kept: what is longer, such as
	// a program's binary output, comes in several lines.
	maxLine = 64 << 10
	// quietTime is how long a program must write nothing for an unfinished line to
	// be shown: less than a person takes for a hang.
	quietTime = 200 * time.Millisecond
)

// Place is where lines are written to.
type Place struct {
	W        io.Writer
	Terminal bool
	Colour   bool
	JSON     bool // an object a line, with the name and what it is
}

// Output keeps the lines of several streams apart. All places that may be the
// same terminal must share one. The zero value is ready; its streams may be used
// concurrently.
type Output struct {
	mu   sync.Mutex
	open *Stream // whose unfinished line the terminal shows
}

// Stream is the output of one program. It must not be used concurrently.
type Stream struct {
	o      *Output
	p      Place
	head   string // before each line
	name   string
	what   string
	rest   []byte // a line that has no end yet
	shown  int    // of rest, by the terminal
	closed bool
}

// colours tell the programs apart: the six of ECMA-48 that are seen on a light
// and on a dark ground.
var colours = []string{"\x1b[36m", "\x1b[33m", "\x1b[32m", "\x1b[35m", "\x1b[34m", "\x1b[31m"}

const reset = "\x1b[0m"

// Whole writes lines that are whole, as they are, to w.
func (o *Output) Whole(w io.Writer) io.Writer { return &whole{Stream{o: o, p: Place{W: w}}} }

type whole struct{ Stream }

// Write implements io.Writer.
func (w *whole) Write(b []byte) (int, error) {
	w.o.mu.Lock()
	defer w.o.mu.Unlock()
	return len(b), w.write(b)
}

// Stream makes one, of the program with that name and number; width is the
// longest name's. what is said of its lines in JSON: stdout, stderr.
func (o *Output) Stream(p Place, name string, number, width int, what string) *Stream {
	head := name + strings.Repeat(" ", max(0, width-len([]rune(name)))) + " | "
	if p.Colour {
		head = colours[number%len(colours)] + head + reset
	}
	return &Stream{o: o, p: p, head: head, name: name, what: what}
}

// Write takes any bytes and writes the lines that end in them.
func (s *Stream) Write(b []byte) (int, error) {
	s.o.mu.Lock()
	defer s.o.mu.Unlock()
	var out []byte
	n := len(b)
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			s.rest = append(s.rest, b...)
			for len(s.rest) > maxLine {
				next := bytes.Clone(s.rest[maxLine:])
				s.rest = s.rest[:maxLine]
				out = s.line(out)
				s.rest = next
			}
			break
		}
		s.rest = append(s.rest, b[:i]...)
		for len(s.rest) > maxLine {
			next := bytes.Clone(s.rest[maxLine:])
			s.rest = s.rest[:maxLine]
			out = s.line(out)
			s.rest = next
		}
		out = s.line(out)
		b = b[i+1:]
	}
	return n, s.write(out)
}

// line appends what is kept to out, as a line. mu is held.
func (s *Stream) line(out []byte) []byte {
	switch {
	case s.p.JSON:
		out = append(out, object(s.name, s.what, s.rest)...)
	case s.p.Terminal:
		text := tame(s.rest[s.shown:])
		if s.o.open != s {
			out = append(out, s.head...)
		}
		out = append(out, text...)
	default:
		out = append(append(out, s.head...), s.rest...)
	}
	if s.o.open == s {
		s.o.open = nil
	}
	s.rest, s.shown = s.rest[:0], 0
	return append(out, '\n')
}

// write puts whole lines, after the end of the line that another one has left
// open. mu is held.
func (s *Stream) write(out []byte) error {
	if len(out) == 0 {
		return nil
	}
	if open := s.o.open; open != nil && open != s {
		s.o.open = nil
		if _, err := io.WriteString(open.p.W, "\n"); err != nil {
			return err
		}
	}
	_, err := s.p.W.Write(out)
	return err
}

// show shows a terminal the line that is not finished.
func (s *Stream) show() error {
	s.o.mu.Lock()
	defer s.o.mu.Unlock()
	if !s.p.Terminal || s.p.JSON || s.shown == len(s.rest) {
		return nil
	}
	text := tame(s.rest[s.shown:])
	if s.o.open != s {
		text = append([]byte(s.head), text...)
	}
	s.shown = len(s.rest)
	err := s.write(text)
	s.o.open = s
	return err
}

// Close writes what has no end, as a line.
func (s *Stream) Close() error {
	s.o.mu.Lock()
	defer s.o.mu.Unlock()
	if s.closed || len(s.rest) == 0 && s.o.open != s {
		s.closed = true
		return nil
	}
	s.closed = true
	if s.shown > 0 && s.o.open != s && s.shown == len(s.rest) {
		return nil // another line has ended it already
	}
	return s.write(s.line(nil))
}

// Copy reads f to its end and writes it, then closes s.
func (s *Stream) Copy(f *os.File) error {
	buf := make([]byte, 32<<10)
	for {
		var quiet time.Time
		if s.unshown() {
			quiet = time.Now().Add(quietTime)
		}
		_ = f.SetReadDeadline(quiet) // what has none is shown at its end
		n, err := f.Read(buf)
		if n > 0 {
			if _, werr := s.Write(buf[:n]); werr != nil {
				return werr
			}
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if err := s.show(); err != nil {
				return err
			}
		case err != nil:
			return s.Close()
		}
	}
}

// unshown tells whether a terminal waits for the end of a line.
func (s *Stream) unshown() bool { return s.p.Terminal && len(s.rest) > s.shown }

// object is a line as JSON.
func object(name, what string, text []byte) []byte {
	b, err := json.Marshal(struct {
		Service string `json:"service"`
		Stream  string `json:"stream"`
		Text    string `json:"text"`
	}{name, what, string(bytes.TrimSuffix(text, []byte{'\r'}))})
	if err != nil {
		panic(err) // three texts
	}
	return b
}
