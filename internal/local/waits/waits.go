// Package waits counts how long a program waits for what it asks, by the name of the
// operation, as histograms. It touches nothing of the machine.
package waits

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// bounds are the upper ones of the buckets, which hold them: each is about double the
// one before, so what is said of a wait is not off by more.
var bounds = [...]time.Duration{
	10 * time.Microsecond, 20 * time.Microsecond, 50 * time.Microsecond, 100 * time.Microsecond, 200 * time.Microsecond, 500 * time.Microsecond,
	1 * time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, 1 * time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second,
}

// Histogram are the waits for one operation. Times are in milliseconds.
type Histogram struct {
	Operation string  `json:"operation"`
	Count     int64   `json:"count"`
	Longest   float64 `json:"longest_ms"`
	// Buckets are those that are not empty, by their bounds.
	Buckets []Bucket `json:"buckets"`
}

// Bucket is how many waits were longer than the bound before, and not longer than Most.
type Bucket struct {
	Most  float64 `json:"most_ms"` // of the last one, all that is longer than its bound, the longest
	Count int64   `json:"count"`
}

// Within is what so much of the waits (0.5: half of them) was not longer than, in
// milliseconds: a bucket's bound, or the longest.
func (h Histogram) Within(part float64) float64 {
	var seen int64
	for _, b := range h.Buckets {
		if seen += b.Count; float64(seen) >= part*float64(h.Count) {
			return min(b.Most, h.Longest)
		}
	}
	return h.Longest
}

// Table has the histograms. Its zero value is empty. Its methods may be called
// concurrently.
type Table struct {
	mu sync.Mutex
	of map[string]*counts
}

type counts struct {
	buckets [len(bounds) + 1]int64
	longest time.Duration
}

// Observe counts a wait. There are as many histograms as operations were ever named:
// names are the caller's own, not a stranger's.
func (t *Table) Observe(operation string, took time.Duration) {
	i, _ := slices.BinarySearch(bounds[:], took)
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.of[operation]
	if c == nil {
		if t.of == nil {
			t.of = map[string]*counts{}
		}
		c = &counts{}
		t.of[operation] = c
	}
	c.buckets[i]++
	c.longest = max(c.longest, took)
}

// Histograms are those of now, sorted by operation.
func (t *Table) Histograms() (list []Histogram) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(t.of)) {
		c := t.of[name]
		h := Histogram{Operation: name, Longest: millis(c.longest)}
		for i, n := range c.buckets {
			if n == 0 {
				continue
			}
			most := c.longest
			if i < len(bounds) {
				most = bounds[i]
			}
			h.Buckets = append(h.Buckets, Bucket{Most: millis(most), Count: n})
			h.Count += n
		}
		list = append(list, h)
	}
	return list
}

func millis(d time.Duration) float64 {
	return float64(d.Round(time.Microsecond)) / float64(time.Millisecond)
}
