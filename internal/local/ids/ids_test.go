package ids

import (
	"math"
	"slices"
	"strings"
	"testing"
)

func TestSubordinate(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       Set
	}{
		{"nothing", "", nil},
		{"by name", "ana:100000:65536\n", Set{{100000, 65536}}},
		{"by number", "1000:100000:65536", Set{{100000, 65536}}},
		{"somebody else's", "bob:100000:65536\nanabel:165536:65536\n", nil},
		{"several", "ana:100000:10\nbob:100010:5\nana:200000:20\n", Set{{100000, 10}, {200000, 20}}},
		{"overlapping", "ana:100000:10\nana:100009:10\n1000:100000:10\n", Set{{100000, 10}}},
		{"odd lines", "# a comment\n\nana\nana:1\nana:x:5\nana:5:x\nana:5:0\nana:-5:10\nana:1:2:3\n:1:2\nana:300000:3\n", Set{{300000, 3}}},
		{"beyond the last id", "ana:4294967290:6\nana:4294967290:5\n", Set{{4294967290, 5}}},
	} {
		if got := Subordinate(c.text, "ana", "1000"); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
	if got := Subordinate(":5:5\n", ""); got != nil {
		t.Errorf("a user without a name: got %v, want none", got)
	}
}

func TestMap(t *testing.T) {
	for _, c := range []struct {
		name string
		own  uint32
		pool Set
		want []Extent
	}{
		{"what distributions give", 1000, Set{{100000, 65536}}, []Extent{{1000, 1000, 1}, {65534, 100000, 1},
			{0, 100001, 1000}, {1001, 101001, 64533}, {65535, 165534, 2}}},
		{"root", 0, Set{{100000, 65536}}, []Extent{{0, 0, 1}, {65534, 100000, 1}, {1, 100001, 65533}, {65535, 165534, 2}}},
		{"a number above", 165536, Set{{100000, 65536}}, []Extent{{165536, 165536, 1}, {65534, 100000, 1}, {0, 100001, 65534}, {65535, 165535, 1}}},
		{"the number after nobody", 65535, Set{{100000, 65537}}, []Extent{{65535, 65535, 1}, {65534, 100000, 1}, {0, 100001, 65534}, {65536, 165535, 2}}},
		{"one id", 1000, Set{{7, 1}}, []Extent{{1000, 1000, 1}, {65534, 7, 1}}},
		{"few ids in pieces", 1000, Set{{7, 1}, {200000, 3}, {300000, 2}}, []Extent{{1000, 1000, 1}, {65534, 7, 1}, {0, 200000, 3}, {3, 300000, 2}}},
		{"none", 1000, nil, nil},
		{"the caller's own among them", 100005, Set{{100000, 65536}}, nil},
		{"nobody calls", 65534, Set{{100000, 65536}}, nil},
	} {
		if got := Map(c.own, c.pool); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
	if got, want := strings.Join(Arguments(Map(1000, Set{{7, 1}})), " "), "1000 1000 1 65534 7 1"; got != want {
		t.Errorf("arguments: got %q, want %q", got, want)
	}
}

// TestMapsHoldInTheKernel: no number twice on either side, not too many lines,
// and what the kernel then tells is the same set.
func TestMapsHoldInTheKernel(t *testing.T) {
	var many Set
	for i := range uint32(1000) {
		many = append(many, Range{100000 + 3*i, 2})
	}
	for _, pool := range []Set{{{100000, 65536}}, {{1 << 31, 1<<31 - 1}}, {{1, 5}, {9, 70000}}, many} {
		for _, own := range []uint32{0, 1000, 65533, 65535, 80000, math.MaxUint32 - 1} {
			all := Map(own, pool)
			if pool.Has(own) != (all == nil) {
				t.Errorf("own %d: got %v", own, all)
			}
			if len(all) > 340 {
				t.Errorf("own %d: got %d lines", own, len(all))
			}
			for i, a := range all {
				if a.Count == 0 {
					t.Errorf("own %d: an empty line: %v", own, all)
				}
				for _, b := range all[:i] {
					if meet(a.Inside, a.Count, b.Inside, b.Count) || meet(a.Outside, a.Count, b.Outside, b.Count) {
						t.Errorf("own %d: %v and %v overlap", own, a, b)
					}
				}
			}
			var text strings.Builder
			for i, n := range Arguments(all) {
				text.WriteString(n + " ")
				if i%3 == 2 {
					text.WriteString("\n")
				}
			}
			if known := Parse(text.String()); all != nil && (!known.Has(own) || !known.Has(Nobody) || !known.Many()) {
				t.Errorf("own %d: got %v of %q", own, known, text.String())
			}
		}
	}
}

func meet(a, n, b, m uint32) bool {
	return uint64(a) < uint64(b)+uint64(m) && uint64(b) < uint64(a)+uint64(n)
}

func TestParse(t *testing.T) {
	one := Parse("      1000       1000          1\n")
	if !slices.Equal(one, Set{{1000, 1}}) || one.Many() || !one.Has(1000) || one.Has(1001) || one.Has(999) {
		t.Errorf("one id: got %v", one)
	}
	all := Parse("         0          0 4294967295\n")
	if !all.Many() || !all.Has(0) || !all.Has(math.MaxUint32-1) || all.Has(math.MaxUint32) {
		t.Errorf("all ids: got %v", all)
	}
	if got := Parse("0 1000 1\n65534 100000 1\n"); !slices.Equal(got, Set{{0, 1}, {65534, 1}}) || !got.Many() {
		t.Errorf("two ids: got %v", got)
	}
	for _, text := range []string{"", "\n", "1 2", "a 1 1", "1 1 0"} {
		if got := Parse(text); got != nil || got.Many() {
			t.Errorf("%q: got %v, want none", text, got)
		}
	}
}

func TestFree(t *testing.T) {
	for _, c := range []struct {
		texts []string
		want  Range
	}{
		{nil, Range{100000, 65536}},
		{[]string{"bob:1000:5\n", "odd\n"}, Range{100000, 65536}},
		{[]string{"bob:100000:65536\n", "bob:100000:70000\n"}, Range{170000, 65536}},
		{[]string{"bob:4294900000:60000\nann:100000:65536\n"}, Range{165536, 65536}},
	} {
		if got := Free(65536, c.texts...); got != c.want {
			t.Errorf("%q: got %v, want %v", c.texts, got, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("1000 1000 1\n0 100000 1000\n", "ana:100000:65536\n", uint32(1000))
	f.Fuzz(func(t *testing.T, text, lines string, own uint32) {
		for _, r := range slices.Concat(Parse(text), Subordinate(lines, "ana")) {
			if r.Count == 0 || uint64(r.First)+uint64(r.Count) > math.MaxUint32 {
				t.Errorf("got %v", r)
			}
		}
		for _, e := range Map(own, Subordinate(lines, "ana")) {
			if e.Count == 0 || uint64(e.Inside)+uint64(e.Count) > math.MaxUint32 || e.Inside != own && meet(e.Inside, e.Count, own, 1) {
				t.Errorf("got %v", e)
			}
		}
		Free(65536, text, lines)
	})
}
