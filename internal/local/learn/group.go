package learn

import (
	"maps"
	"slices"
)

// grouped gives a line for each path, and one for all that is in a directory
// where there would be more than a few.
func grouped(paths map[string]*seen) []Group {
	in := map[string][]string{} // by directory, also of those that are no paths themselves
	known := map[string]bool{"/": true}
	for _, p := range slices.Sorted(maps.Keys(paths)) {
		for ; !known[p]; p = parent(p) {
			known[p] = true
			in[parent(p)] = append(in[parent(p)], p)
		}
	}
	return lines("/", paths, in)
}

// lines gives those of what is below dir, and of dir itself unless it was only
// on the way there.
func lines(dir string, paths map[string]*seen, in map[string][]string) (list []Group) {
	if s := paths[dir]; s != nil && (len(in[dir]) == 0 || s.trips+s.lists+s.folded > 0) {
		g := Group{path: dir, Path: text(dir)}
		g.add(s)
		list = append(list, g)
	}
	for _, p := range in[dir] {
		list = append(list, lines(p, paths, in)...)
	}
	if dir == "/" || len(list) <= few {
		return list
	}
	all := Group{path: dir + "/", Path: text(dir) + "/"}
	for _, g := range list {
		all.Paths += g.Paths
		all.Lookups += g.Lookups
		all.Opens += g.Opens
		all.Lists += g.Lists
		all.Changes += g.Changes
		all.Bytes += g.Bytes
		all.Micros += g.Micros
		all.Trips += g.Trips
	}
	return []Group{all}
}
