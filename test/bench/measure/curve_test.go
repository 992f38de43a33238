package measure

import (
	"encoding/xml"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

func at(curve string, n, ours float64) Figure {
	return Figure{Unit: "ms", Ours: ours, at: Point{Curve: curve, Of: "pods", At: n}}
}

func TestCurves(t *testing.T) {
	got := Curves([]Figure{{Ours: 1}, at("ls", 100, 7), at("agents", 1, 3), at("ls", 10, 5), at("agents", 2, 4)})
	want := []Curve{{"agents", "pods", "ms", []float64{1, 2}, []float64{3, 4}}, {"ls", "pods", "ms", []float64{10, 100}, []float64{5, 7}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestSVG: what is drawn is XML, and stays inside its frame however it grows.
func TestSVG(t *testing.T) {
	for name, c := range map[string]Curve{
		"slower than in proportion": {"ls <of>", "pods & more", "ms", []float64{10, 100, 1000}, []float64{5, 7, 30}},
		"faster":                    {"a", "b", "MB", []float64{1, 2, 4}, []float64{1, 10, 100}},
		"one point":                 {"a", "b", "MB", []float64{3}, []float64{4}},
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			if err := c.SVG(&b); err != nil {
				t.Fatal(err)
			}
			text := b.String()
			if strings.Contains(text, "-1") && strings.Contains(text, `y="-`) || strings.Contains(text, "NaN") || strings.Count(text, "<circle") != len(c.X) {
				t.Errorf("got %s", text)
			}
			for d := xml.NewDecoder(strings.NewReader(text)); ; {
				_, err := d.Token()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatalf("%v in %s", err, text)
				}
			}
		})
	}
	if (Curve{}).SVG(io.Discard) == nil {
		t.Error("nothing is drawn")
	}
}
