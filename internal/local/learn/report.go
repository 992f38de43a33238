package learn

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mirrord-go/mirrord/internal/rules"
)

const (
	// maxAsked bounds the paths that the machines are asked about for a report:
	// those that were asked for most.
	maxAsked = 256
	// maxLines bounds each list of a report: more nobody reads, and all of it
	// must fit into the session's last moment.
	maxLines = 50
	// few is how many lines a directory may have before it becomes one.
	few = 4
	// slowTime is what a program must have waited for a directory in all to be
	// told of: less nobody feels.
	slowTime = 200 * time.Millisecond
)

// Kind is what a machine has at a path.
type Kind uint8

// Kinds. Unknown is the one of what could not be asked.
const (
	Unknown Kind = iota
	Nothing
	File
	Other // a directory, or a link that may lead to one
)

// Options say what a report is about.
type Options struct {
	Rules  rules.FilesOptions
	Places rules.Places
	Plan   rules.Plan // what is mounted as a whole is not seen
	// View is the directory where the target is shown whatever rules say.
	View string
	// UID is that of the target's process.
	UID uint32
	// Here and Target tell what the two machines have at each of some paths.
	Here, Target func(paths []string) []Kind
}

// Report is what was learned. Its lists are bounded; More counts what they leave
// out. Paths that are no text have U+FFFD for what is none.
type Report struct {
	Mode     string     `json:"mode"`
	Remote   Group      `json:"remote"` // all that came from the target
	From     []Group    `json:"remote_paths"`
	Missing  []Missing  `json:"missing"`
	Nowhere  Noise      `json:"missing_everywhere"` // neither side has it, or nobody could say
	Slow     []Slow     `json:"slow"`
	Refused  []Refused  `json:"refused"`
	Propose  []Proposal `json:"proposals"`
	More     int        `json:"more"`    // lines left out of the lists
	Unseen   []string   `json:"unseen"`  // directories mounted as a whole, some of them
	Mounted  int        `json:"mounted"` // all of them
	Folded   int        `json:"folded"`  // calls that are counted for a directory, beyond the paths that are remembered
	Sofar    bool       `json:"so_far"`  // programs still run
	MaxPaths int        `json:"max_paths"`
}

// Group is what was done with a path, or with several in a directory.
type Group struct {
	path string // as it is

	Path    string `json:"path,omitempty"` // ends with "/" for what is in a directory
	Paths   int    `json:"paths"`          // how many are counted here
	Lookups int    `json:"lookups"`        // names that were looked up
	Opens   int    `json:"opens"`          // files that were opened
	Lists   int    `json:"lists"`          // directories that were listed
	Changes int    `json:"changes"`        // what was made, removed, written to
	Bytes   int64  `json:"bytes"`          // read and written
	Micros  int64  `json:"waited_us"`      // that programs waited, in all
	Trips   int    `json:"round_trips"`    // to the target that they waited for
}

// Missing is what a program asked for that is not on the side that was asked.
type Missing struct {
	Path  string `json:"path"`
	Times int    `json:"times"`
	Asked string `json:"asked"` // local, remote, not found: hidden
	Why   string `json:"why"`   // the rule
	Has   string `json:"has"`   // the side that has it
}

// Noise counts what is missing and nothing can be done about.
type Noise struct {
	Paths   int      `json:"paths"`
	Most    []string `json:"most,omitempty"`  // the directories with most of it, with counts
	Names   []string `json:"names,omitempty"` // those that were asked for most
	Unasked int      `json:"unasked,omitempty"`
}

// Slow is a directory that programs waited for.
type Slow struct {
	Group
	Do string `json:"do"`
}

// Refused is an error that a program got.
type Refused struct {
	Path  string `json:"path"`
	What  string `json:"what"` // read, write, rename
	Error string `json:"error"`
	Times int    `json:"times"`
	Why   string `json:"why"`
	Do    string `json:"do,omitempty"`
}

// maker makes one report.
type maker struct {
	o     Options
	rules *rules.Files
	paths map[string]*seen
	names []string // sorted
	here  map[string]Kind
	r     Report
	wishes
}

// Report makes the report of what was done until now.
func (l *Log) Report(o Options) (*Report, error) {
	r, err := rules.NewFiles(o.Rules, o.Places)
	if err != nil {
		return nil, fmt.Errorf("make the report of files: %w", err)
	}
	m := &maker{o: o, rules: r, paths: map[string]*seen{}, here: map[string]Kind{}, wishes: wishes{rules: r, options: o.Rules, places: o.Places}}
	l.mu.Lock()
	for p, s := range l.paths {
		c := *s
		c.refused = slices.Clone(s.refused)
		m.paths[p] = &c
	}
	m.r = Report{Mode: cmp.Or(o.Rules.Mode, rules.FilesRead), Folded: l.folded, MaxPaths: maxPaths, Slow: []Slow{}, Unseen: []string{}}
	l.mu.Unlock()
	m.names = slices.Sorted(maps.Keys(m.paths))
	m.remote()
	m.missing()
	m.slow()
	m.refusals()
	m.r.Propose, m.r.More = m.proposals(m.r.More)
	m.unseen()
	return &m.r, nil
}

// cut bounds a list, which is one in JSON also if it is empty.
func cut[T any](m *maker, list []T) []T {
	if list == nil {
		return []T{}
	}
	if len(list) > maxLines {
		m.r.More += len(list) - maxLines
		list = list[:maxLines]
	}
	return list
}

// add counts s in g.
func (g *Group) add(s *seen) {
	g.Paths++
	g.Lookups += s.lookups
	g.Opens += s.opens
	g.Lists += s.lists
	g.Changes += s.changes
	g.Bytes += s.bytes
	g.Micros += s.waited.Microseconds()
	g.Trips += s.trips
}

// most sorts groups by what programs waited for them, the longest first.
func most(list []Group) {
	slices.SortFunc(list, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.Micros, a.Micros), cmp.Compare(b.Paths, a.Paths), strings.Compare(a.Path, b.Path))
	})
}

func (m *maker) remote() {
	own := map[string]*seen{}
	for p, s := range m.paths {
		if s.target {
			own[p] = s
			m.r.Remote.add(s)
		}
	}
	list := grouped(own)
	most(list)
	m.r.From = cut(m, list)
}

// hidden reports whether p is shown whatever the rules say.
func (m *maker) hidden(p string) bool {
	return p == "/" || m.o.View != "" && (p == m.o.View || strings.HasPrefix(p, m.o.View+"/"))
}

// missing tells what one side lacks, and the other has; the rest is counted.
func (m *maker) missing() {
	type lack struct {
		path string
		s    *seen
		d    rules.FileDecision
	}
	var all []lack
	for _, p := range m.names {
		if s := m.paths[p]; s.missing() && !m.hidden(p) {
			all = append(all, lack{p, s, m.rules.Decide(p, rules.Read)})
		}
	}
	slices.SortStableFunc(all, func(a, b lack) int { return cmp.Compare(b.s.missed, a.s.missed) })
	// Who is asked is the side that the rules do not name; of what is hidden,
	// this one.
	ask := func(target bool, ask func([]string) []Kind) map[string]Kind {
		var names []string
		for _, l := range all {
			if (l.d.Where == rules.Local) == target && len(names) < maxAsked {
				names = append(names, l.d.Path)
			}
		}
		kinds := map[string]Kind{}
		for i, k := range ask(names) {
			kinds[names[i]] = k
		}
		return kinds
	}
	there, here := ask(true, m.o.Target), ask(false, m.o.Here)
	noise := map[string]int{}
	for _, l := range all {
		kind, has, key, want := here[l.d.Path], rules.Local, "local", rules.Local
		if l.d.Where == rules.Local {
			kind, has, key, want = there[l.d.Path], rules.Remote, "read_only", rules.Remote
		}
		switch kind {
		case File, Other:
			m.r.Missing = append(m.r.Missing, Missing{text(l.path), l.s.missed, l.d.Where.String(), l.d.Why, has.String()})
			if l.d.Where != rules.NotFound { // that is hidden on purpose
				m.wish(wish{key: key, path: l.d.Path, of: l.path, whole: kind == Other, op: rules.Read, want: want})
			}
			continue
		case Unknown:
			m.r.Nowhere.Unasked++
		}
		m.r.Nowhere.Paths++
		if len(m.r.Nowhere.Names) < maxLines {
			m.r.Nowhere.Names = append(m.r.Nowhere.Names, text(l.path))
		}
		noise[parent(l.path)]++
	}
	m.r.Missing = cut(m, m.r.Missing)
	m.r.Nowhere.Most = mostOf(noise)
}

// mostOf names the directories with the highest counts.
func mostOf(counts map[string]int) (list []string) {
	const shown = 5
	dirs := slices.Sorted(maps.Keys(counts))
	slices.SortStableFunc(dirs, func(a, b string) int { return cmp.Compare(counts[b], counts[a]) })
	for _, d := range dirs[:min(len(dirs), shown)] {
		list = append(list, fmt.Sprintf("%s (%d)", text(d), counts[d]))
	}
	return list
}

// slow tells what programs waited for, by directory.
func (m *maker) slow() {
	list := slices.DeleteFunc(grouped(m.paths), func(g Group) bool { return g.Micros < slowTime.Microseconds() })
	most(list)
	for _, g := range cut(m, list) {
		m.r.Slow = append(m.r.Slow, Slow{g, m.faster(g)})
	}
}

// faster says what would make g faster.
func (m *maker) faster(g Group) string {
	p := strings.TrimSuffix(g.path, "/")
	d := m.rules.Decide(cmp.Or(p, "/"), rules.Read)
	switch {
	case m.hidden(cmp.Or(p, "/")):
		return "it is the target's, whatever is configured"
	case d.Where != rules.Remote && g.Trips == 0:
		return "it is local, and this machine was busy"
	case d.Where != rules.Remote:
		return "it is local by rule, and shown path by path since something of the target's may be in it; patterns that begin with ^/ and a directory keep it mounted"
	case m.kindHere(d.Path) == Nothing:
		return "this machine has no " + text(d.Path) + ": with a copy of it here it could be local"
	}
	m.wish(wish{key: "local", path: d.Path, of: p, whole: strings.HasSuffix(g.path, "/") || m.kindHere(d.Path) != File, op: rules.Read, want: rules.Local})
	return "this machine has one too: it could be local, if it serves as well"
}

// kindHere is what this machine has at p.
func (m *maker) kindHere(p string) Kind {
	k, ok := m.here[p]
	if !ok {
		k = m.o.Here([]string{p})[0]
		m.here[p] = k
	}
	return k
}

// unseen names what is mounted as a whole.
func (m *maker) unseen() {
	m.r.Mounted = len(m.o.Plan.Binds)
	const shown = 6
	for _, b := range m.o.Plan.Binds[:min(shown, m.r.Mounted)] {
		m.r.Unseen = append(m.r.Unseen, text(b))
	}
}

// text is p with U+FFFD for what is no text: reports are JSON.
func text(p string) string { return strings.ToValidUTF8(p, "\uFFFD") }

// JSON gives the report as a file has it.
func (r *Report) JSON() (json.RawMessage, error) { return json.Marshal(r) }
