package demo

import (
	"fmt"
	"io"
	"strings"
)

// page is what a person sees of the story: a heading per step, commands behind
// a $, what they printed, and a mark with the evidence.
type page struct {
	out    io.Writer
	colour bool
}

// Colours of a terminal (ECMA-48, SGR).
const (
	bold, dim, red, green = "1", "2", "31", "32"
)

func (p *page) paint(colour, text string) string {
	if !p.colour {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// write loses nothing that anybody waits for: a person has closed the page.
func (p *page) write(format string, args ...any) { fmt.Fprintf(p.out, format, args...) }

func (p *page) heading(n int, title string) {
	p.write("\n%s\n", p.paint(bold, fmt.Sprintf("%2d  %s", n, title)))
}

func (p *page) command(line string) { p.write("    $ %s\n", line) }

// output shows what was printed, each line in its place.
func (p *page) output(text string) {
	for line := range strings.Lines(text) {
		p.write("    %s\n", p.paint(dim, strings.TrimRight(line, "\r\n")))
	}
}

func (p *page) verdict(ok bool, evidence string) {
	mark := p.paint(green, "✓")
	if !ok {
		mark = p.paint(red, "✗")
	}
	p.write("    %s %s\n", mark, evidence)
}
