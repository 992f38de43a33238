// Package measure turns paired samples into figures: medians, ratios and their
// spread, against budgets, as a table for a person and as JSON for programs.
//
// The bench calls it. It is pure but for calling the two functions of a row,
// one after the other: absolute figures of a busy machine say little, but what
// disturbs both of a pair alike cancels out in their ratio.
package measure

import (
	"context"
	"fmt"
	"math"
	"slices"
)

// MinPairs is the least number of pairs that have a median and quartiles which
// are not the same numbers.
const MinPairs = 3

// A Sampler measures once and gives the value in the row's unit. It is called
// from one goroutine; n counts the calls of this sampler from 0, so that a
// measurement that needs something fresh each time can number it.
type Sampler func(ctx context.Context, n int) (float64, error)

// Constant is the Sampler of a limit that is no measurement.
func Constant(v float64) Sampler {
	return func(context.Context, int) (float64, error) { return v, nil }
}

// A Row is one line of the table: what is compared with what.
type Row struct {
	Area string // start, local, files, stack, outgoing, dns, link, incoming, agent or scale
	Name string
	Unit string // of both samplers
	// Against says in a word or two what the reference is.
	Against         string
	Ours, Reference Sampler
	Budget          Budget
	// Every has the worst pair judged and shown instead of the median: for what
	// must not happen even once.
	Every bool
	// Pairs bounds how often a row is measured whose samples take long, at least
	// MinPairs; 0: as often as is asked for.
	Pairs int
	// Point is where the row stands in a curve of those that grow.
	Point Point
	// Single has a row measured in one pair, and none thrown away: for samples of
	// most of a minute, in which what comes and goes evens out by itself.
	Single bool
}

// A Budget is what a row's figures must keep. It also says which direction is
// better. The zero value is not valid.
type Budget struct {
	kind  budgetKind
	value float64
}

type budgetKind int

const (
	atMost budgetKind = iota + 1
	atLeast
	within
)

// AtMost is kept by ours ≤ factor × reference: less is better.
func AtMost(factor float64) Budget { return Budget{atMost, factor} }

// AtLeast is kept by ours ≥ factor × reference: more is better.
func AtLeast(factor float64) Budget { return Budget{atLeast, factor} }

// Within is kept by ours ≤ reference + extra, in the row's unit: less is better.
func Within(extra float64) Budget { return Budget{within, extra} }

// A Figure is a row that was measured. Ours and Reference are medians. Ratio is
// the median of the pairs' ratios, which is not quite the ratio of the medians.
// For a row with Every all three are those of the worst pair.
type Figure struct {
	Area      string  `json:"area"`
	Name      string  `json:"name"`
	Unit      string  `json:"unit"`
	Ours      float64 `json:"ours"`
	Reference float64 `json:"reference"`
	Against   string  `json:"against"`
	Ratio     float64 `json:"ratio"`
	// Budget is the ratio that must not be passed: the largest one where less is
	// better, the smallest one where more is. A budget in the row's unit is
	// converted with this run's reference.
	Budget float64 `json:"budget"`
	Pass   bool    `json:"pass"`

	Low, High float64 `json:"-"` // quartiles of the pairs' ratios
	budget    Budget
	at        Point
}

// Run measures pairs of row, or as many as the row allows, after one pair that is thrown away, since first
// times are different. Within a pair the order alternates: whatever drifts
// favours neither side. A row that is Single is measured in one pair alone.
// progress, if not nil, hears of each pair.
func Run(ctx context.Context, row Row, pairs int, progress func(ours, reference float64)) (Figure, error) {
	if pairs < MinPairs {
		return Figure{}, fmt.Errorf("%d pairs are too few, %d is the least", pairs, MinPairs)
	}
	if row.Pairs != 0 {
		pairs = max(min(pairs, row.Pairs), MinPairs)
	}
	thrown := 1
	if row.Single {
		pairs, thrown = 1, 0
	}
	ours, reference := make([]float64, 0, pairs), make([]float64, 0, pairs)
	for n := range pairs + thrown {
		o, r, err := pair(ctx, row, n)
		if err != nil {
			return Figure{}, err
		}
		if n < thrown {
			continue
		}
		ours, reference = append(ours, o), append(reference, r)
		if progress != nil {
			progress(o, r)
		}
	}
	return figure(row, ours, reference), nil
}

func pair(ctx context.Context, row Row, n int) (ours, reference float64, err error) {
	sample := func(what string, s Sampler) float64 {
		if err != nil {
			return 0
		}
		var v float64
		if v, err = s(ctx, n); err != nil {
			err = fmt.Errorf("%s: %w", what, err)
		} else if !(v > 0) || math.IsInf(v, 1) {
			err = fmt.Errorf("%s: the measurement gave %v", what, v)
		}
		return v
	}
	if n%2 == 0 {
		ours = sample("ours", row.Ours)
		reference = sample(row.Against, row.Reference)
	} else {
		reference = sample(row.Against, row.Reference)
		ours = sample("ours", row.Ours)
	}
	return ours, reference, err
}

// figure judges the samples of row, pair by pair.
func figure(row Row, ours, reference []float64) Figure {
	ratios := make([]float64, len(ours))
	for i := range ours {
		ratios[i] = ours[i] / reference[i]
	}
	f := Figure{
		Area: row.Area, Name: row.Name, Unit: row.Unit, Against: row.Against, budget: row.Budget, at: row.Point,
		Ours: Quantile(ours, 0.5), Reference: Quantile(reference, 0.5),
		Ratio: Quantile(ratios, 0.5), Low: Quantile(ratios, 0.25), High: Quantile(ratios, 0.75),
	}
	if row.Every {
		worst := slices.Index(ratios, slices.Max(ratios))
		if row.Budget.kind == atLeast {
			worst = slices.Index(ratios, slices.Min(ratios))
		}
		f.Ours, f.Reference, f.Ratio = ours[worst], reference[worst], ratios[worst]
	}
	f.Budget = row.Budget.ratio(f.Reference)
	f.Pass = row.Budget.kept(f.Ratio, f.Budget)
	return f
}

// ratio is the budget as a limit of the ratio.
func (b Budget) ratio(reference float64) float64 {
	if b.kind == within {
		return (reference + b.value) / reference
	}
	return b.value
}

func (b Budget) kept(ratio, limit float64) bool {
	if b.kind == atLeast {
		return ratio >= limit
	}
	return ratio <= limit
}

// Quantile gives the q-quantile (0 to 1) of values, interpolated between
// neighbours; NaN if there are none. It does not change values.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	at := q * float64(len(s)-1)
	i := min(int(at), max(len(s)-2, 0))
	if len(s) == 1 {
		return s[0]
	}
	return s[i] + (at-float64(i))*(s[i+1]-s[i])
}
