package status

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/activity"
)

// Filter says which events are meant. The zero value means all.
type Filter struct {
	Text  string // as it was written
	terms []term
}

// term is one of a filter's words, all of which must hold.
type term struct {
	not    bool
	key    string   // empty: any text
	values []string // one of them, in lower case
}

// field gives what a key is about, and whether a part of it is enough.
var fields = map[string]struct {
	of   func(activity.Event) string
	part bool
}{
	"kind":    {of: func(e activity.Event) string { return e.Kind }},
	"session": {of: func(e activity.Event) string { return e.Session }},
	"flow":    {of: func(e activity.Event) string { return e.Flow }},
	"what":    {of: func(e activity.Event) string { return e.What }},
	"where":   {of: func(e activity.Event) string { return e.Where }},
	"mode":    {of: func(e activity.Event) string { return e.Mode }},
	"method":  {of: func(e activity.Event) string { return e.Method }},
	"status":  {of: func(e activity.Event) string { return number(e.Status) }},
	"port":    {of: func(e activity.Event) string { return number(int(e.Port)) }},
	"type":    {of: func(e activity.Event) string { return e.Type }},
	"level":   {of: func(e activity.Event) string { return e.Level }},
	"path":    {of: func(e activity.Event) string { return e.Path }, part: true},
	"name":    {of: func(e activity.Event) string { return e.Name }, part: true},
	"address": {of: func(e activity.Event) string { return e.Address }, part: true},
	"client":  {of: func(e activity.Event) string { return e.Client }, part: true},
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// ParseFilter reads a filter: words, all of which must hold. KEY=VALUE,VALUE… is
// about one thing, a kind alone about that kind, anything else about the text of
// the line; ! in front says the opposite.
func ParseFilter(text string) (Filter, error) {
	f := Filter{Text: text}
	for word := range strings.FieldsSeq(strings.ToLower(text)) {
		var t term
		word, t.not = strings.CutPrefix(word, "!")
		key, values, ok := strings.Cut(word, "=")
		switch {
		case !ok && slices.Contains(activity.Kinds(), word):
			t.key, t.values = "kind", []string{word}
		case !ok:
			t.values = []string{word}
		default:
			if _, known := fields[key]; !known {
				var keys []string
				for k := range fields {
					keys = append(keys, k)
				}
				slices.Sort(keys)
				return Filter{}, failure.Usage("status-filter", fmt.Sprintf("%q is no filter of events", text),
					"write for example: --filter 'request path=/api status=5xx !method=options'", "there is no key %q; there are %s", key, strings.Join(keys, ", "))
			}
			t.key, t.values = key, strings.Split(values, ",")
		}
		f.terms = append(f.terms, t)
	}
	return f, nil
}

// Match reports whether e is meant. What is missed always is.
func (f Filter) Match(e activity.Event) bool {
	if e.Kind == activity.Missed {
		return true
	}
	for _, t := range f.terms {
		if t.holds(e) == t.not {
			return false
		}
	}
	return true
}

func (t term) holds(e activity.Event) bool {
	have, part := "", true
	if t.key == "" {
		have = Line(e)
	} else {
		field := fields[t.key]
		have, part = field.of(e), field.part
	}
	have = strings.ToLower(have)
	return slices.ContainsFunc(t.values, func(want string) bool {
		switch {
		case part:
			return want != "" && strings.Contains(have, want)
		case t.key == "status" && len(want) == 3 && want[1:] == "xx":
			return len(have) == 3 && have[0] == want[0]
		}
		return have == want
	})
}
