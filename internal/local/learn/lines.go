package learn

import (
	"fmt"
	"strings"
	"time"
)

// maxShown is how many lines of each list a person is shown; all of them are in
// the report's file.
const maxShown = 10

// Head is the report in one line.
func (r *Report) Head() string {
	text := fmt.Sprintf("files: %s came from the target; %d missing here or there, %d slow, %d refused",
		counted(r.Remote.Paths, "path"), len(r.Missing), len(r.Slow), len(r.Refused))
	if r.Sofar {
		text += " until now: processes still run"
	}
	return text
}

// Lines are the rest of the report, for a person: names in it are as they are.
func (r *Report) Lines() (out []string) {
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	title := func(text string, n int) {
		if n > 0 {
			add("%s", text)
		}
	}
	list := func(n int, line func(i int)) {
		for i := range min(n, maxShown) {
			line(i)
		}
		if n > maxShown {
			add("  … and %d more: --learn=FILE has them", n-maxShown)
		}
	}
	if r.Remote.Paths > 0 {
		add("from the target: %s", r.Remote.did())
	}
	list(len(r.From), func(i int) { add("  %s: %s", r.From[i].name(), r.From[i].did()) })

	title("missing on the side that was asked; the other side has it:", len(r.Missing))
	list(len(r.Missing), func(i int) {
		m := r.Missing[i]
		switch m.Asked {
		case "local":
			add("  %s: local by rule and not here; the target has one (%s)", m.Path, m.Why)
		case "remote":
			add("  %s: not in the target; this machine has one (%s)", m.Path, m.Why)
		default:
			add("  %s: hidden on purpose (%s)", m.Path, m.Why)
		}
	})
	if n := r.Nowhere; n.Paths > 0 {
		text := fmt.Sprintf("missing on both sides, as in every search: %s, most in %s", counted(n.Paths, "path"), strings.Join(n.Most, ", "))
		if n.Unasked > 0 {
			text += fmt.Sprintf("; of %d the other side could not tell", n.Unasked)
		}
		add("%s", text)
	}

	title("waited for longest:", len(r.Slow))
	list(len(r.Slow), func(i int) {
		s := r.Slow[i]
		add("  %s: %s in %s; %s", s.name(), s.waited(), counted(s.Trips, "round trip"), s.Do)
	})

	title("refused:", len(r.Refused))
	list(len(r.Refused), func(i int) {
		f := r.Refused[i]
		add("  %s %s: %s, %s: %s", f.What, f.Path, f.Error, counted(f.Times, "time"), f.Why)
		if f.Do != "" {
			add("    %s", f.Do)
		}
	})

	title("what would change it, each by itself (lists are added to those that there are):", len(r.Propose))
	list(len(r.Propose), func(i int) {
		p := r.Propose[i]
		add("  %s", p.Config)
		names := p.Paths
		if len(names) > 2 {
			names = append(names[:2:2], "…")
		}
		add("    %s: %s", strings.Join(names, ", "), p.Effect)
	})

	if r.Folded > 0 {
		add("more than %d paths were asked for: %d later calls are counted for their directories only", r.MaxPaths, r.Folded)
	}
	if r.Mounted > 0 {
		add("not seen: what programs did in %s mounted from this machine as a whole (%s)", counted2(r.Mounted, "directory", "directories"), some(r.Unseen, r.Mounted))
	}
	return out
}

// some is a list of which there are n.
func some(list []string, n int) string {
	text := strings.Join(list, ", ")
	if n > len(list) {
		text += ", …"
	}
	return text
}

func counted(n int, thing string) string { return counted2(n, thing, thing+"s") }

func counted2(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// name is the path, with how many there are in it.
func (g *Group) name() string {
	if strings.HasSuffix(g.Path, "/") && g.Paths > 1 {
		return fmt.Sprintf("%s (%d paths)", g.Path, g.Paths)
	}
	return g.Path
}

func (g *Group) waited() string {
	switch d := time.Duration(g.Micros) * time.Microsecond; {
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	default:
		return d.Round(10 * time.Millisecond).String()
	}
}

// did says what was done.
func (g *Group) did() string {
	var parts []string
	for _, p := range []struct {
		n         int
		one, many string
	}{{g.Lookups, "lookup", "lookups"}, {g.Opens, "open", "opens"}, {g.Lists, "listing", "listings"}, {g.Changes, "change", "changes"}} {
		if p.n > 0 {
			parts = append(parts, counted2(p.n, p.one, p.many))
		}
	}
	if g.Bytes > 0 {
		parts = append(parts, size(g.Bytes))
	}
	return strings.Join(append(parts, fmt.Sprintf("%s waited in %s", g.waited(), counted(g.Trips, "round trip"))), ", ")
}

func size(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d bytes", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
