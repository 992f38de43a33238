// Package ids says which user and group ids a sandbox has beside the caller's
// own, and what the kernel is told about them.
//
// The sandbox maps the caller onto itself, and as many ids as the machine has
// set aside for him (subuid(5)) to the numbers from 0 on: so a file's owner can
// be shown by its number. Package sandbox has them mapped, fusefs shows files by
// them, host says what is missing. Everything here is text and numbers: nothing
// is read or run.
package ids

import (
	"slices"
	"strconv"
	"strings"
)

const (
	// Nobody stands for every id that cannot be shown by its number. The kernel
	// shows the same for ids that are not mapped (/proc/sys/kernel/overflowuid),
	// but lets nobody write to files of theirs (inode_permission, fs/namei.c); so
	// this one is mapped before all others.
	Nobody = 65534
	// invalid is no id (chown(2)).
	invalid = 1<<32 - 1
	// maxExtents is what the kernel takes of a map (user_namespaces(7), 340 lines),
	// less the five into which ranges may be cut.
	maxExtents = 340 - 5
)

// Range is Count ids from First on.
type Range struct{ First, Count uint32 }

func (r Range) end() uint64 { return uint64(r.First) + uint64(r.Count) }

func (r Range) has(id uint32) bool { return id >= r.First && uint64(id) < r.end() }

// Set is ids, in ranges that do not overlap.
type Set []Range

// Has reports whether id is one of them.
func (s Set) Has(id uint32) bool {
	return slices.ContainsFunc(s, func(r Range) bool { return r.has(id) })
}

// Many reports whether there is more than one, the caller's.
func (s Set) Many() bool {
	return len(s) > 1 || len(s) == 1 && s[0].Count > 1
}

// Known are the ids that exist in a sandbox, and the caller's in there.
type Known struct {
	Users, Groups Set
	UID, GID      uint32
}

// Subordinate gives the ranges that text, in the form of /etc/subuid or
// /etc/subgid, sets aside for the user who is called by one of names (his name,
// or his number). What is not of that form, and what overlaps, is left out.
func Subordinate(text string, names ...string) Set {
	var all Set
	for line := range strings.Lines(text) {
		field := strings.Split(strings.TrimSpace(line), ":")
		if len(field) != 3 || field[0] == "" || !slices.Contains(names, field[0]) {
			continue
		}
		r, ok := parseRange(field[1], field[2])
		if ok && !slices.ContainsFunc(all, func(x Range) bool { return uint64(x.First) < r.end() && uint64(r.First) < x.end() }) {
			all = append(all, r)
		}
	}
	return all
}

// parseRange reads a range that ends before what is no id.
func parseRange(first, count string) (Range, bool) {
	a, err := strconv.ParseUint(first, 10, 32)
	if err != nil {
		return Range{}, false
	}
	n, err := strconv.ParseUint(count, 10, 32)
	if err != nil || n == 0 || a+n > invalid {
		return Range{}, false
	}
	return Range{uint32(a), uint32(n)}, true
}

// Extent maps Count ids, from Inside on in the sandbox and from Outside on where
// the caller is.
type Extent struct{ Inside, Outside, Count uint32 }

// Map gives a sandbox's ids: own onto itself, then Nobody, then the others from 0
// on, as far as pool, which stands for them outside, has room. It is nil if pool
// cannot be used.
func Map(own uint32, pool Set) []Extent {
	if own == Nobody || len(pool) == 0 || pool.Has(own) {
		return nil // the caller must not look like anybody, nor anybody like him
	}
	low, high := min(own, Nobody), max(own, Nobody)
	inside := []Range{{Nobody, 1}, {0, low}, {low + 1, high - low - 1}, {high + 1, invalid - high - 1}}
	all := []Extent{{own, own, 1}}
	for _, r := range pool {
		for r.Count > 0 && len(inside) > 0 && len(all) < maxExtents {
			in := &inside[0]
			n := min(in.Count, r.Count)
			if n > 0 {
				all = append(all, Extent{in.First, r.First, n})
			}
			r.First, r.Count = r.First+n, r.Count-n
			if in.First, in.Count = in.First+n, in.Count-n; in.Count == 0 {
				inside = inside[1:]
			}
		}
	}
	return all
}

// Arguments are those of newuidmap(1) and newgidmap(1) after the process id.
func Arguments(all []Extent) []string {
	var args []string
	for _, e := range all {
		for _, n := range []uint32{e.Inside, e.Outside, e.Count} {
			args = append(args, strconv.FormatUint(uint64(n), 10))
		}
	}
	return args
}

// Parse gives the ids that exist inside by text, in the form of /proc/PID/uid_map;
// nil if it is not of that form.
func Parse(text string) Set {
	var all Set
	for line := range strings.Lines(text) {
		field := strings.Fields(line)
		if len(field) != 3 {
			return nil
		}
		r, ok := parseRange(field[0], field[2])
		if !ok {
			return nil
		}
		all = append(all, r)
	}
	return all
}

// Inside gives the number inside of an id by text, in the form of
// /proc/PID/uid_map; the same if it says nothing of it.
func Inside(text string, outside uint32) uint32 {
	for line := range strings.Lines(text) {
		if field := strings.Fields(line); len(field) == 3 {
			in, err := strconv.ParseUint(field[0], 10, 32)
			if out, ok := parseRange(field[1], field[2]); ok && err == nil && out.has(outside) {
				return uint32(in) + outside - out.First
			}
		}
	}
	return outside
}

// Free is a range of count ids that no line of the texts, in the form of
// /etc/subuid, sets aside, where useradd(8) would look first.
func Free(count uint32, texts ...string) Range {
	const first = 100000 // SUB_UID_MIN, login.defs(5)
	free := Range{first, count}
	for _, text := range texts {
		for line := range strings.Lines(text) {
			if field := strings.Split(strings.TrimSpace(line), ":"); len(field) == 3 {
				if r, ok := parseRange(field[1], field[2]); ok && r.end() > uint64(free.First) && r.end()+uint64(count) < invalid {
					free.First = uint32(r.end())
				}
			}
		}
	}
	return free
}
