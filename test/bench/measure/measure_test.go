package measure

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
)

func TestQuantile(t *testing.T) {
	for name, c := range map[string]struct {
		values []float64
		q      float64
		want   float64
	}{
		"one":            {[]float64{7}, 0.25, 7},
		"odd median":     {[]float64{9, 1, 5}, 0.5, 5},
		"even median":    {[]float64{4, 1, 3, 2}, 0.5, 2.5},
		"lower quartile": {[]float64{5, 4, 3, 2, 1}, 0.25, 2},
		"between":        {[]float64{0, 10}, 0.25, 2.5},
		"least":          {[]float64{3, 1, 2}, 0, 1},
		"greatest":       {[]float64{3, 1, 2}, 1, 3},
	} {
		t.Run(name, func(t *testing.T) {
			before := append([]float64{}, c.values...)
			if got := Quantile(c.values, c.q); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
			for i := range before {
				if c.values[i] != before[i] {
					t.Errorf("the values were changed: got %v, want %v", c.values, before)
				}
			}
		})
	}
	if got := Quantile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("of nothing: got %v, want NaN", got)
	}
}

// series is a Sampler that gives values in turn and notes who was asked.
func series(who string, log *strings.Builder, values ...float64) Sampler {
	return func(_ context.Context, n int) (float64, error) {
		log.WriteString(who)
		return values[n], nil
	}
}

func TestRun(t *testing.T) {
	var log strings.Builder
	row := Row{Area: "local", Name: "x", Unit: "ms", Against: "native", Budget: AtMost(1.5),
		Ours:      series("o", &log, 1000, 2, 2, 30, 2, 2),
		Reference: series("r", &log, 1, 1, 2, 10, 2, 1)}
	seen := 0
	f, err := Run(t.Context(), row, 5, func(float64, float64) { seen++ })
	if err != nil {
		t.Fatal(err)
	}
	if got, want := log.String(), "or"+"ro"+"or"+"ro"+"or"+"ro"; got != want {
		t.Errorf("order: got %s, want %s", got, want)
	}
	// The pairs' ratios are 2, 1, 3, 1, 2; the ratio of the medians would be 1.
	if f.Ours != 2 || f.Reference != 2 || f.Ratio != 2 || f.Low != 1 || f.High != 2 || f.Budget != 1.5 || f.Pass {
		t.Errorf("got %+v", f)
	}
	if seen != 5 {
		t.Errorf("progress: got %d pairs, want 5", seen)
	}
}

func TestRunFewer(t *testing.T) {
	for name, c := range map[string]struct{ row, pairs, want int }{
		"as asked":        {0, 7, 7},
		"fewer":           {3, 7, 3},
		"no more":         {9, 5, 5},
		"never too few":   {1, 7, MinPairs},
		"the least of it": {3, 3, 3},
	} {
		t.Run(name, func(t *testing.T) {
			got := 0
			row := Row{Against: "native", Budget: AtMost(1), Ours: Constant(1), Reference: Constant(1), Pairs: c.row}
			if _, err := Run(t.Context(), row, c.pairs, func(float64, float64) { got++ }); err != nil || got != c.want {
				t.Errorf("got %d pairs, %v; want %d", got, err, c.want)
			}
		})
	}
}

func TestSingle(t *testing.T) {
	calls := 0
	ours := func(context.Context, int) (float64, error) { calls++; return 19, nil }
	f, err := Run(t.Context(), Row{Against: "native", Budget: AtLeast(0.95), Ours: ours, Reference: Constant(20), Single: true}, 7, nil)
	if err != nil || calls != 1 || f.Ours != 19 || f.Ratio != 0.95 || f.Low != 0.95 || f.High != 0.95 || !f.Pass {
		t.Errorf("measured %d times, got %+v, %v", calls, f, err)
	}
}

func TestEvery(t *testing.T) {
	for name, c := range map[string]struct {
		budget      Budget
		ours, ratio float64
		pass        bool
	}{
		"more is better": {AtLeast(1), 50, 0.5, false},
		"less is better": {AtMost(1.5), 100, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := figure(Row{Budget: c.budget, Every: true}, []float64{100, 50, 100}, []float64{100, 100, 100})
			if f.Ours != c.ours || f.Ratio != c.ratio || f.Pass != c.pass {
				t.Errorf("got %v, ratio %v, pass %v; want %v, %v, %v", f.Ours, f.Ratio, f.Pass, c.ours, c.ratio, c.pass)
			}
		})
	}
}

func TestRunFails(t *testing.T) {
	good := Constant(1)
	for name, c := range map[string]struct {
		ours, reference Sampler
		pairs           int
		want            string
	}{
		"too few pairs": {good, good, 2, "too few"},
		"ours":          {func(context.Context, int) (float64, error) { return 0, errors.New("gone") }, good, 5, "ours: gone"},
		"reference":     {good, func(context.Context, int) (float64, error) { return 0, errors.New("gone") }, 5, "native: gone"},
		"nothing":       {Constant(0), good, 5, "gave 0"},
		"no number":     {good, Constant(math.NaN()), 5, "gave NaN"},
		"no end":        {good, Constant(math.Inf(1)), 5, "gave +Inf"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Run(t.Context(), Row{Against: "native", Ours: c.ours, Reference: c.reference, Budget: AtMost(1)}, c.pairs, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestBudget(t *testing.T) {
	for name, c := range map[string]struct {
		budget          Budget
		ours, reference float64
		limit           float64
		pass            bool
		text            string
	}{
		"less, kept":            {AtMost(1.3), 13, 10, 1.3, true, "≤ 1.3"},
		"less, missed":          {AtMost(1.3), 13.1, 10, 1.3, false, "≤ 1.3"},
		"more, kept":            {AtLeast(0.95), 95, 100, 0.95, true, "≥ 0.95"},
		"more, missed":          {AtLeast(0.95), 94, 100, 0.95, false, "≥ 0.95"},
		"in the unit, kept":     {Within(0.5), 1, 0.5, 2, true, "≤ 2.00 (+0.5 ms)"},
		"in the unit, missed":   {Within(0.5), 1.1, 0.5, 2, false, "≤ 2.00 (+0.5 ms)"},
		"a limit of less, kept": {AtMost(1), 150, 200, 1, true, "≤ 1"},
	} {
		t.Run(name, func(t *testing.T) {
			f := figure(Row{Unit: "ms", Budget: c.budget}, []float64{c.ours}, []float64{c.reference})
			if f.Budget != c.limit || f.Pass != c.pass {
				t.Errorf("got limit %v, pass %v; want %v, %v", f.Budget, f.Pass, c.limit, c.pass)
			}
			if got := f.budgetText(); got != c.text {
				t.Errorf("got %q, want %q", got, c.text)
			}
		})
	}
}

func sample() Report {
	pair := func(r Row, ours, reference float64) Figure { return figure(r, []float64{ours}, []float64{reference}) }
	return Report{Machine: "2 × Some CPU", Commit: "abc", Rows: []Figure{
		pair(Row{Area: "local", Name: "stat", Unit: "µs", Against: "native", Budget: AtMost(1.05)}, 1.23456, 1.2),
		pair(Row{Area: "outgoing", Name: "bulk <down>", Unit: "MB/s", Against: "port-forward", Budget: AtLeast(0.95)}, 123.456, 1234.5678),
	}}
}

func TestTable(t *testing.T) {
	var got strings.Builder
	if err := sample().Table(&got); err != nil {
		t.Fatal(err)
	}
	want := `what                   ours      reference  against       ratio (quartiles)  budget  pass
local: stat            1.23 µs   1.2 µs     native        1.03 (1.03–1.03)   ≤ 1.05  yes

outgoing: bulk <down>  123 MB/s  1230 MB/s  port-forward  0.10 (0.10–0.10)   ≥ 0.95  NO
`
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
}

// The form is what scripts rely on: exactly these names.
func TestJSON(t *testing.T) {
	var got strings.Builder
	if err := sample().JSON(&got); err != nil {
		t.Fatal(err)
	}
	want := `{
  "machine": "2 × Some CPU",
  "commit": "abc",
  "rows": [
    {
      "area": "local",
      "name": "stat",
      "unit": "µs",
      "ours": 1.23,
      "reference": 1.2,
      "against": "native",
      "ratio": 1.03,
      "budget": 1.05,
      "pass": true
    },
    {
      "area": "outgoing",
      "name": "bulk <down>",
      "unit": "MB/s",
      "ours": 123,
      "reference": 1230,
      "against": "port-forward",
      "ratio": 0.1,
      "budget": 0.95,
      "pass": false
    }
  ]
}
`
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
	var back Report
	if err := json.Unmarshal([]byte(got.String()), &back); err != nil {
		t.Fatal(err)
	}
}

func TestRounded(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 1234567: "1230000", 0.00012345: "0.000123", 12.35: "12.3", 99.99: "100", 3: "3"} {
		if got := number(v); got != want {
			t.Errorf("%v: got %s, want %s", v, got, want)
		}
	}
}
