package waits

import (
	"reflect"
	"testing"
	"time"
)

// TestHistograms: a wait is in the bucket whose bound it does not pass.
func TestHistograms(t *testing.T) {
	var table Table
	if got := table.Histograms(); len(got) > 0 {
		t.Errorf("of nothing: %v", got)
	}
	for _, took := range []time.Duration{0, 10 * time.Microsecond, 10*time.Microsecond + 1, 3 * time.Millisecond, 5 * time.Millisecond, 12 * time.Second, 11 * time.Second} {
		table.Observe("read", took)
	}
	table.Observe("open", 700*time.Microsecond)
	want := []Histogram{
		{Operation: "open", Count: 1, Longest: 0.7, Buckets: []Bucket{{1, 1}}},
		{Operation: "read", Count: 7, Longest: 12_000, Buckets: []Bucket{{0.01, 2}, {0.02, 1}, {5, 2}, {12_000, 2}}},
	}
	if got := table.Histograms(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestWithin(t *testing.T) {
	h := Histogram{Count: 100, Longest: 7, Buckets: []Bucket{{0.01, 49}, {1, 50}, {10, 1}}}
	for _, c := range []struct{ part, want float64 }{{0.1, 0.01}, {0.49, 0.01}, {0.5, 1}, {0.99, 1}, {0.999, 7}, {1, 7}} {
		if got := h.Within(c.part); got != c.want {
			t.Errorf("%v: got %v, want %v", c.part, got, c.want)
		}
	}
	if got := (Histogram{}).Within(0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

// TestObserveMakesNothing: it stands before every read of a program.
func TestObserveMakesNothing(t *testing.T) {
	var table Table
	table.Observe("read", 0)
	if n := testing.AllocsPerRun(100, func() { table.Observe("read", time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
