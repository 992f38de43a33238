package measure

import (
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"
)

// A Point is where a figure stands in a curve.
type Point struct {
	Curve string  // its name; empty: the figure is in none
	Of    string  // what there is more of, in plural
	At    float64 // how many of them
}

// A Curve is how something grows.
type Curve struct {
	Name, Of, Unit string
	X, Y           []float64 // by X
}

// Curves are those of the figures, in the order in which they begin.
func Curves(figures []Figure) (list []Curve) {
	figures = slices.Clone(figures)
	slices.SortStableFunc(figures, func(a, b Figure) int { return int(a.at.At - b.at.At) })
	for _, f := range figures {
		if f.at.Curve == "" {
			continue
		}
		i := slices.IndexFunc(list, func(c Curve) bool { return c.Name == f.at.Curve })
		if i < 0 {
			i = len(list)
			list = append(list, Curve{Name: f.at.Curve, Of: f.at.Of, Unit: f.Unit})
		}
		list[i].X, list[i].Y = append(list[i].X, f.at.At), append(list[i].Y, f.Ours)
	}
	slices.SortStableFunc(list, func(a, b Curve) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// The drawing, in pixels.
const (
	width, height = 480, 280
	left, right   = 64, 16 // of the axes
	top, bottom   = 36, 44
)

// SVG draws c (https://www.w3.org/TR/SVG11/): its points, a line through them, and in
// dashes how it would grow if it were in proportion to the first.
func (c Curve) SVG(w io.Writer) error {
	if len(c.X) == 0 {
		return fmt.Errorf("curve %s has no points", c.Name)
	}
	mostX, mostY := c.X[len(c.X)-1], slices.Max(c.Y)
	x := func(v float64) float64 { return left + v/mostX*(width-left-right) }
	y := func(v float64) float64 { return height - bottom - v/mostY*(height-top-bottom) }
	var b strings.Builder
	put := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	put(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" fill="none">`, width, height)
	put(`<rect width="%d" height="%d" fill="#fff"/>`, width, height)
	put(`<text x="%d" y="20" fill="#111" font-size="14">%s, %s</text>`, left, escaped(c.Name), escaped(c.Unit))
	put(`<path d="M%d %dV%dH%d" stroke="#888"/>`, left, top, height-bottom, width-right)
	put(`<text x="%d" y="%d" fill="#444" text-anchor="end">%s</text>`, left-6, top+4, number(mostY))
	put(`<text x="%d" y="%d" fill="#444" text-anchor="end">0</text>`, left-6, height-bottom+4)
	put(`<text x="%d" y="%d" fill="#444" text-anchor="middle">%s</text>`, (left+width-right)/2, height-6, escaped(c.Of))
	end, slope := mostX, c.Y[0]/c.X[0]
	if slope*end > mostY {
		end = mostY / slope
	}
	put(`<path d="M%.1f %.1fL%.1f %.1f" stroke="#999" stroke-dasharray="4 4"/>`, x(0), y(0), x(end), y(slope*end))
	var line []string
	for i := range c.X {
		line = append(line, fmt.Sprintf("%.1f,%.1f", x(c.X[i]), y(c.Y[i])))
	}
	put(`<polyline points="%s" stroke="#0b5fff" stroke-width="2"/>`, strings.Join(line, " "))
	for i := range c.X {
		put(`<circle cx="%.1f" cy="%.1f" r="3.5" fill="#0b5fff"><title>%s: %s %s</title></circle>`, x(c.X[i]), y(c.Y[i]), number(c.X[i]), number(c.Y[i]), escaped(c.Unit))
		if i == 0 || x(c.X[i])-x(c.X[i-1]) > 24 {
			put(`<text x="%.1f" y="%d" fill="#444" text-anchor="middle">%s</text>`, x(c.X[i]), height-bottom+16, number(c.X[i]))
		}
	}
	put(`</svg>`)
	_, err := io.WriteString(w, b.String())
	return err
}

// escaped is text in XML.
func escaped(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // of a Builder
	return b.String()
}
