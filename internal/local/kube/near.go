package kube

import (
	"fmt"
	"slices"
	"strings"
)

// maxNear is how many near names a message offers: more are not read.
const maxNear = 3

// few is how many letters may differ at most between near names.
const few = 3

// near gives those of names that someone who wrote name may have meant, best
// first, at most maxNear. A name that begins with what was written, or with it
// up to one of its dashes (the pod of another roll-out), is near whatever
// follows; otherwise few letters may differ.
func near(name string, names []string) []string {
	type candidate struct {
		name  string
		score int // lower is nearer; up to few it is the number of letters that differ
	}
	var found []candidate
	for _, n := range names {
		d := distance(name, n)
		switch {
		case strings.HasPrefix(n, name+"-"):
			found = append(found, candidate{n, 0})
		case d <= max(1, min(few, len(name)/3)):
			found = append(found, candidate{n, d})
		case strings.HasPrefix(n, name) && name != "":
			found = append(found, candidate{n, few + 1})
		default:
			// The longest stem in common: web-7d4-x2 and web-9f8-k1 share "web-".
			for i, stem := few+2, name; ; i++ {
				cut := strings.LastIndexByte(stem, '-')
				if cut < 0 {
					break
				}
				stem = stem[:cut]
				if strings.HasPrefix(n, stem+"-") {
					found = append(found, candidate{n, i})
					break
				}
			}
		}
	}
	slices.SortFunc(found, func(a, b candidate) int {
		if a.score != b.score {
			return a.score - b.score
		}
		return strings.Compare(a.name, b.name)
	})
	var best []string
	for _, f := range found[:min(maxNear, len(found))] {
		if f.score == found[0].score || f.score <= few { // what is clearly further away only distracts
			best = append(best, f.name)
		}
	}
	return best
}

// suggest gives what to type: command with the nearest of names in place of
// its %s, or otherwise if none is near.
func suggest(name string, names []string, command, otherwise string) string {
	n := near(name, names)
	if len(n) == 0 {
		return otherwise
	}
	return fmt.Sprintf("did you mean: "+command, n[0])
}

// distance is the number of letters to add, drop, replace or swap with their
// neighbour to make b of a (optimal string alignment).
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
