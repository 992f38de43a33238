package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mirrord-go/mirrord/internal/config/document"
	"github.com/mirrord-go/mirrord/internal/failure"
)

// shownProblems is how many mistakes are shown at a time: a screen of them.
const shownProblems = 10

// origin is where a value was written: in the file, in an environment variable
// or in a flag.
type origin struct {
	name string // of the file, the variable, or the flag with its dashes
	file bool
	flag bool
}

// at is a place in the origin, as an editor understands it.
func (o origin) at(p document.Place) string {
	if !o.file {
		return o.name
	}
	return fmt.Sprintf("%s:%d:%d", o.name, p.Line, p.Column)
}

// problem is one mistake.
type problem struct {
	from  origin
	place document.Place
	key   string // with its sections; "" if it is about no key
	text  string
}

func (p problem) String() string {
	if p.key == "" {
		return p.from.at(p.place) + ": " + p.text
	}
	return p.from.at(p.place) + ": " + p.key + ": " + p.text
}

// problems collects mistakes, so that all of them are told at once.
type problems struct{ list []problem }

func (ps *problems) add(from origin, at document.Place, key, format string, args ...any) {
	ps.list = append(ps.list, problem{from, at, key, fmt.Sprintf(format, args...)})
}

// failure makes one message of all mistakes, nil if there are none.
func (ps *problems) failure() error {
	if len(ps.list) == 0 {
		return nil
	}
	slices.SortStableFunc(ps.list, func(a, b problem) int {
		switch {
		case a.from.file != b.from.file: // the file first
			if a.from.file {
				return -1
			}
			return 1
		case a.place.Line != b.place.Line:
			return a.place.Line - b.place.Line
		}
		return a.place.Column - b.place.Column
	})
	var lines []string
	for _, p := range ps.list {
		lines = append(lines, p.String())
	}
	lines = slices.Compact(lines)
	what := "the configuration has a mistake"
	if n := len(lines); n > 1 {
		what = fmt.Sprintf("the configuration has %d mistakes", n)
		if n > shownProblems {
			lines = append(lines[:shownProblems], fmt.Sprintf("and %d more", n-shownProblems))
		}
	}
	return failure.Usage("config-invalid", what, "docs/configuration.md has every key with an example", "%s", strings.Join(lines, "\n"))
}
