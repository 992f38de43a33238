package measure

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A Report is the result of a run. Its JSON form is read by scripts: fields are
// only ever added.
type Report struct {
	Machine string   `json:"machine"`
	Commit  string   `json:"commit"`
	Rows    []Figure `json:"rows"`
}

// JSON writes r with figures as they are shown in the table, which is more than
// they are worth, and a newline at the end.
func (r Report) JSON(w io.Writer) error {
	rows := make([]Figure, len(r.Rows))
	for i, f := range r.Rows {
		f.Ours, f.Reference, f.Ratio, f.Budget = rounded(f.Ours), rounded(f.Reference), rounded(f.Ratio), rounded(f.Budget)
		rows[i] = f
	}
	r.Rows = rows
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Table writes the figures as an aligned table, an empty line between areas.
func (r Report) Table(w io.Writer) error {
	lines := [][]string{{"what", "ours", "reference", "against", "ratio (quartiles)", "budget", "pass"}}
	area := ""
	for _, f := range r.Rows {
		if f.Area != area && area != "" {
			lines = append(lines, nil)
		}
		area = f.Area
		pass := "yes"
		if !f.Pass {
			pass = "NO"
		}
		lines = append(lines, []string{f.Area + ": " + f.Name, number(f.Ours) + " " + f.Unit, number(f.Reference) + " " + f.Unit, f.Against,
			fmt.Sprintf("%.2f (%.2f–%.2f)", f.Ratio, f.Low, f.High), f.budgetText(), pass})
	}
	_, err := io.WriteString(w, aligned(lines))
	return err
}

// budgetText is the budget as it was given.
func (f Figure) budgetText() string {
	switch f.budget.kind {
	case atLeast:
		return "≥ " + number(f.budget.value)
	case within:
		return fmt.Sprintf("≤ %.2f (+%s %s)", f.Budget, number(f.budget.value), f.Unit)
	}
	return "≤ " + number(f.budget.value)
}

// aligned pads the cells of each column to its widest.
func aligned(lines [][]string) string {
	var width []int
	for _, cells := range lines {
		for i, c := range cells {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	var b strings.Builder
	for _, cells := range lines {
		var line strings.Builder
		for i, c := range cells {
			line.WriteString(c + strings.Repeat(" ", width[i]-utf8.RuneCountInString(c)+2))
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}

// digits is how many digits of a figure are shown: the third is noise already.
const digits = 3

func rounded(v float64) float64 {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return v
	}
	r, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'e', digits-1, 64), 64)
	return r
}

// number is v for a person, without an exponent.
func number(v float64) string { return strconv.FormatFloat(rounded(v), 'f', -1, 64) }
