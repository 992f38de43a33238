package learn

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mirrord-go/mirrord/internal/rules"
)

const (
	// maxNames is how many names of one directory a pattern has: a longer one is
	// not read.
	maxNames = 8
	// maxWishes bounds the paths that patterns are made for.
	maxWishes = 256
)

// Proposal is a part of a configuration, valid by itself: its lists are to be
// added to those that there are.
type Proposal struct {
	Config json.RawMessage `json:"config"`
	// Paths are some of those that it is proposed for, and Effect what becomes of
	// them.
	Paths  []string `json:"paths"`
	Effect string   `json:"effect"`
	// For is whether it changes reading or writing.
	For string `json:"for"`
}

// wish is a path that would better be somewhere else.
type wish struct {
	key   string // of the list: local, read_only, read_write
	path  string // as the lists see it: mapped
	whole bool   // what is below it as well
	of    string // what a program asked for
	op    rules.Op
	want  rules.Where
}

// wishes collects what would change something.
type wishes struct {
	rules   *rules.Files
	options rules.FilesOptions
	places  rules.Places
	all     []wish
}

func (w *wishes) wish(x wish) {
	if len(w.all) < maxWishes && x.path != "" && x.path != "/" && x.of != "/" && !slices.Contains(w.all, x) {
		w.all = append(w.all, x)
	}
}

// group is what one pattern is for.
type group struct {
	key, dir string
	whole    bool
	op       rules.Op
	want     rules.Where
}

// proposals makes patterns of the wishes: one for several names in a directory.
// Only what really changes the decision for each of its paths is proposed. more
// is what lists leave out, with what this one does.
func (w *wishes) proposals(more int) (list []Proposal, _ int) {
	list = []Proposal{}
	groups := map[group][]wish{}
	for _, x := range w.all {
		g := group{x.key, parent(x.path), x.whole, x.op, x.want}
		groups[g] = append(groups[g], x)
	}
	order := slices.SortedFunc(maps.Keys(groups), func(a, b group) int {
		return cmp.Or(strings.Compare(a.key, b.key), strings.Compare(a.dir, b.dir), cmp.Compare(a.op, b.op), cmp.Compare(a.want, b.want), func() int {
			if a.whole == b.whole {
				return 0
			}
			return map[bool]int{true: 1, false: -1}[a.whole]
		}())
	})
	for _, g := range order {
		names := map[string][]string{} // what was asked for, by the path for the pattern
		for _, x := range groups[g] {
			if _, ok := w.proposal(g, []string{x.path}, []string{x.of}); ok {
				names[x.path] = append(names[x.path], x.of)
			}
		}
		for some := range slices.Chunk(slices.Sorted(maps.Keys(names)), maxNames) {
			var of []string
			for _, name := range some {
				of = append(of, names[name]...)
			}
			p, ok := w.proposal(g, some, of)
			switch {
			case !ok:
			case len(list) < maxLines:
				list = append(list, p)
			default:
				more++
			}
		}
	}
	return list, more
}

// proposal is one for some paths of a group, which programs asked for by the
// names of; ok is false if it would change nothing.
func (w *wishes) proposal(g group, paths, of []string) (_ Proposal, ok bool) {
	expr := patternFor(g, paths)
	o := w.options
	fs := map[string]any{g.key: []string{expr}}
	if o.Mode == rules.FilesLocal { // in which lists are ignored
		o.Mode = rules.FilesLocalWithOverrides
		fs["mode"] = o.Mode
	}
	add := func(list *[]rules.Pattern) { *list = append(slices.Clip(*list), rules.Pattern{Text: expr}) }
	switch g.key {
	case "local":
		add(&o.Local)
	case "read_only":
		add(&o.ReadOnly)
	case "read_write":
		add(&o.ReadWrite)
	}
	then, err := rules.NewFiles(o, w.places)
	if err != nil {
		return Proposal{}, false
	}
	for _, p := range of {
		if w.rules.Decide(p, g.op).Where == g.want || then.Decide(p, g.op).Where != g.want {
			return Proposal{}, false
		}
	}
	config, err := fragment(fs)
	if err != nil {
		return Proposal{}, false
	}
	names := make([]string, len(of))
	for i, p := range of {
		names[i] = text(p)
	}
	return Proposal{config, names, effect(g), map[rules.Op]string{rules.Read: "read", rules.Write: "write"}[g.op]}, true
}

// fragment is a configuration of feature.fs alone.
func fragment(fs map[string]any) (json.RawMessage, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(map[string]any{"feature": map[string]any{"fs": fs}})
	return json.RawMessage(strings.TrimSuffix(b.String(), "\n")), err
}

// effect says what a pattern does.
func effect(g group) string {
	switch {
	case g.key == "read_write":
		return "read and written in the target"
	case g.key == "read_only" && g.op == rules.Write:
		return "read in the target, written here"
	case g.key == "read_only":
		return "read in the target"
	}
	return "this machine's"
}

// patternFor is an anchored regular expression that matches paths, all in one
// directory, and what is below them if they are meant as a whole.
func patternFor(g group, paths []string) string {
	names := make([]string, len(paths))
	for i, p := range paths {
		names[i] = quote(path.Base(p))
	}
	dir := quote(g.dir)
	if g.dir != "/" {
		dir += "/"
	}
	end := "$"
	if g.whole {
		end = "(/|$)"
	}
	if len(names) == 1 {
		return "^" + dir + names[0] + end
	}
	return "^" + dir + "(" + strings.Join(names, "|") + ")" + end
}

// quote is a pattern of Go's that matches s. It is text even if s is none, and
// has nothing that a terminal would obey: each byte that is no text is U+FFFD to
// package regexp.
func quote(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError, !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\x{%x}`, r)
		default:
			b.WriteString(regexp.QuoteMeta(s[:n]))
		}
		s = s[n:]
	}
	return b.String()
}
