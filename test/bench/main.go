// Command bench measures mirrord against what one would use without it, on the
// end-to-end cluster, and prints a table of ratios.
//
//	bench [-rows AREA[/WORDS],...] [-pairs N] [-out FILE]
//
// Everything is measured in pairs, ours and the reference in turn, since the
// machine has other work to do as well: judge ratios, not absolute figures.
// The table goes to stdout, progress to stderr. The exit code is 0 when all
// rows were measured, whether budgets hold or not, and 1 when one could not be.
//
// It needs root, for the cluster; mirrord itself and what it is compared with
// run as an ordinary user. Everything it makes lies in one namespace and one
// directory, and is removed in the end. A row is one measure.Row in the file
// of its area; docs/performance.md says what each means.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/test/bench/measure"
)

// defaultPairs for a median with quartiles in a run of some minutes.
const defaultPairs = 4

// An area makes its rows. What they need is started here and ended by the world.
type area struct {
	name string
	rows func(ctx context.Context, w *world) ([]measure.Row, error)
}

// areas in the order of the table.
var areas = []area{
	{"start", startRows}, {"local", localRows}, {"files", filesRows}, {"stack", stackRows}, {"outgoing", outgoingRows}, {"dns", dnsRows}, {"link", linkRows}, {"incoming", incomingRows}, {"scale", scaleRows},
}

func main() {
	rows := flag.String("rows", "", "areas to measure, with commas between, or area/words: its rows that have all these words; empty: all")
	pairs := flag.Int("pairs", defaultPairs, "pairs of each row")
	out := flag.String("out", "", "file for the result as JSON")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *rows, *pairs, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, names string, pairs int, out string) (err error) {
	wanted, err := choose(names)
	if err != nil {
		return err
	}
	if pairs < measure.MinPairs {
		return fmt.Errorf("%d pairs are too few, %d is the least", pairs, measure.MinPairs)
	}
	say("set-up")
	w, err := setUp(ctx, pairs)
	if err != nil {
		return fmt.Errorf("set-up: %w", err)
	}
	report := measure.Report{Machine: machine(), Commit: commit(ctx)}
	var failed []error
	for _, c := range wanted {
		figures, err := measureArea(ctx, w, c)
		report.Rows = append(report.Rows, figures...)
		failed = append(failed, err)
	}
	failed = append(failed, w.tearDown())
	if err := report.Table(os.Stdout); err != nil {
		return err
	}
	if out != "" {
		failed = append(failed, write(out, report.JSON))
		for _, c := range measure.Curves(report.Rows) {
			failed = append(failed, write(filepath.Join(filepath.Dir(out), "curves", strings.NewReplacer(" ", "-", ",", "").Replace(c.Name)+".svg"), c.SVG))
		}
	}
	return errors.Join(failed...)
}

// measureArea measures what it can and says what it could not.
func measureArea(ctx context.Context, w *world, c choice) ([]measure.Figure, error) {
	a := c.area
	rows, err := a.rows(ctx, w)
	if err == nil {
		rows, err = c.of(rows)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", a.name, err), w.endArea())
	}
	var figures []measure.Figure
	var failed []error
	for _, row := range rows {
		row.Area = a.name
		begin := time.Now()
		f, err := measure.Run(ctx, row, w.pairs, nil)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %s: %w", a.name, row.Name, err))
			say("%s: %s: could not be measured: %v", a.name, row.Name, err)
			continue
		}
		say("%s: %s: %.2f (%.1fs)", a.name, row.Name, f.Ratio, time.Since(begin).Seconds())
		figures = append(figures, f)
	}
	return figures, errors.Join(append(failed, w.endArea())...)
}

// A choice is an area of which all rows are wanted, or those that have all
// words of one of the texts in their name or in what they are against.
type choice struct {
	area
	words []string
}

// of gives the rows that are wanted. A text that fits no row is an error.
func (c choice) of(rows []measure.Row) (list []measure.Row, err error) {
	if len(c.words) == 0 {
		return rows, nil
	}
	found := map[string]bool{}
	for _, row := range rows {
		has := func(words string) bool {
			for word := range strings.FieldsSeq(words) {
				if !strings.Contains(row.Name+" "+row.Against, word) {
					return false
				}
			}
			return true
		}
		if slices.ContainsFunc(c.words, has) {
			list = append(list, row)
		}
		for _, words := range c.words {
			found[words] = found[words] || has(words)
		}
	}
	for _, words := range c.words {
		if !found[words] {
			return nil, fmt.Errorf("no row has the words %q", words)
		}
	}
	return list, nil
}

// choose gives the areas, or parts of them, that names lists, in that order.
func choose(names string) (list []choice, err error) {
	if names == "" {
		for _, a := range areas {
			list = append(list, choice{area: a})
		}
		return list, nil
	}
	for name := range strings.SplitSeq(names, ",") {
		name, words, part := strings.Cut(strings.TrimSpace(name), "/")
		i := slices.IndexFunc(areas, func(a area) bool { return a.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no area %q; there are: %s", name, areaNames())
		}
		k := slices.IndexFunc(list, func(c choice) bool { return c.name == name })
		switch {
		case k < 0 && part:
			list = append(list, choice{areas[i], []string{words}})
		case k < 0:
			list = append(list, choice{area: areas[i]})
		case !part:
			list[k].words = nil // all of it
		case len(list[k].words) > 0:
			list[k].words = append(list[k].words, words)
		}
	}
	return list, nil
}

func areaNames() string {
	var names []string
	for _, a := range areas {
		names = append(names, a.name)
	}
	return strings.Join(names, ", ")
}

// write replaces the file as a whole: a reader never sees half a result.
func write(path string, content func(io.Writer) error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".bench-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // when it could not be renamed
	if err := errors.Join(content(f), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// say reports progress.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }
