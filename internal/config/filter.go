package config

import (
	"errors"
	"slices"
	"strings"

	"github.com/mirrord-go/mirrord/internal/config/document"
	"github.com/mirrord-go/mirrord/internal/rules"
	"github.com/mirrord-go/mirrord/internal/rules/filter"
)

const filterKey = incomingKey + "http_filter."

// conditionKey is a key of the filter that holds a condition, and what that is
// called where several are combined.
type conditionKey struct{ key, condition string }

var filterKeys = []conditionKey{
	{"header_filter", "header"}, {"path_filter", "path"}, {"method_filter", "method"}, {"host_filter", "host"}, {"client_filter", "client"}, {"sni_filter", "sni"},
	{"header_filter_jq", "query"}, {"body_filter", "body"}, {"all_of", "all_of"}, {"any_of", "any_of"}, {"not", "not"},
}

// httpFilter makes one condition of the filter's keys, nil if there is none.
func (b *builder) httpFilter() *rules.Filter {
	var given []string
	var all []rules.Filter
	before := len(b.list)
	flags := true // in a command line they mean that all of them must match
	for _, k := range filterKeys {
		name := filterKey + k.key
		if !b.has(name) {
			continue
		}
		v := b.values[name]
		given = append(given, name)
		all = append(all, b.condition(v, k.condition, v.node))
		flags = flags && v.from.flag
	}
	switch {
	case len(all) == 0:
		return nil
	case len(all) == 1:
	case flags:
		all = []rules.Filter{{AllOf: all}}
	default:
		b.refuse(given[1], "only one filter can be given, and there is %s; put both in \"all_of\" or \"any_of\"", b.about(given[0]))
		return nil
	}
	if len(b.list) == before { // what is wrong with the whole of what is right in its parts
		if _, err := filter.Compile(all[0]); err != nil {
			b.refuse(given[0], "%v", err)
		}
	}
	return &all[0]
}

// condition makes a filter of a condition and its value.
func (b *builder) condition(v value, kind string, n *document.Node) (f rules.Filter) {
	pattern := &rules.Pattern{Text: n.Text, Origin: v.at(n)}
	switch kind {
	case "header":
		f.Header = pattern
	case "path":
		f.Path = pattern
	case "method":
		f.Method = pattern
	case "host":
		f.Host = pattern
	case "client":
		f.Client = pattern
	case "sni":
		f.SNI = pattern
	case "query":
		f.HeaderJQ = pattern
	case "body":
		return b.body(v, n)
	case "all_of":
		f.AllOf = b.conditions(v, kind, n)
		return f
	case "any_of":
		f.AnyOf = b.conditions(v, kind, n)
		return f
	case "not":
		if one, ok := b.object(v, n); ok {
			f.Not = &one
		}
		return f
	}
	if n.Kind != document.String || n.Text == "" {
		b.add(v.from, n.Place, v.key.Name, "found %s, expected a text that is not empty", n)
		return f
	}
	b.compile(v, n, f)
	return f
}

// compile tells what is wrong with a condition.
func (b *builder) compile(v value, n *document.Node, f rules.Filter) {
	_, err := filter.Compile(f)
	if wrong, ok := errors.AsType[*filter.PatternError](err); ok {
		for _, e := range n.Keys {
			if e.Value.Text == wrong.Pattern.Text {
				n = e.Value
			}
		}
		b.add(v.from, n.Place, v.key.Name, "%q is no pattern: %v", wrong.Pattern.Text, wrong.Err)
	} else if err != nil {
		b.add(v.from, n.Place, v.key.Name, "%v", err)
	}
}

// bodyParts are what a condition on the body of a kind has besides.
var bodyParts = map[string][]string{rules.BodyJSON: {"query", "matches"}, rules.BodyText: {"matches"}, rules.BodyJQ: {"query"}}

const likeBody = `{"body": "json", "query": "$.user", "matches": "^ana$"}`

// body reads a condition on the body: an object.
func (b *builder) body(v value, n *document.Node) (f rules.Filter) {
	wrong := func(n *document.Node, format string, args ...any) rules.Filter {
		b.add(v.from, n.Place, v.key.Name, format, args...)
		return f
	}
	kind := n.Value("body")
	if n.Kind != document.Map || kind == nil {
		return wrong(n, "found %s, expected a condition like %s", n, likeBody)
	}
	parts, ok := bodyParts[kind.Text]
	if !ok || kind.Kind != document.String {
		return wrong(kind, `found %s, expected "json", "text" or "jq"`, kind)
	}
	f.Body = &rules.Body{Kind: kind.Text}
	for _, e := range n.Keys {
		text := &rules.Pattern{Text: e.Value.Text, Origin: v.at(e.Value)}
		switch {
		case e.Key == "body":
			continue
		case !slices.Contains(parts, e.Key):
			return wrong(&document.Node{Place: e.Place}, "there is no %q of a body that is %s; there is: %s", e.Key, kind.Text, strings.Join(parts, ", "))
		case e.Value.Kind != document.String || e.Value.Text == "":
			return wrong(e.Value, "found %s, expected a text that is not empty", e.Value)
		case e.Key == "query":
			f.Body.Query = text
		default:
			f.Body.Matches = text
		}
	}
	for _, part := range parts {
		if n.Value(part) == nil {
			return wrong(n, "a body that is %s needs %q", kind.Text, part)
		}
	}
	b.compile(v, n, f)
	return f
}

// conditions reads a list of conditions.
func (b *builder) conditions(v value, kind string, n *document.Node) (list []rules.Filter) {
	if n.Kind != document.List || len(n.Items) == 0 {
		found := n.String()
		if n.Kind == document.List {
			found = "an empty list"
		}
		b.add(v.from, n.Place, v.key.Name, "found %s, expected conditions like %s", found, likeCondition)
		return nil
	}
	for _, item := range n.Items {
		if one, ok := b.object(v, item); ok {
			list = append(list, one)
		}
	}
	return list
}

const likeCondition = `{"header": "^x-user: me$"}`

// object reads one condition that is an object.
func (b *builder) object(v value, n *document.Node) (f rules.Filter, ok bool) {
	wrong := func(n *document.Node, format string, args ...any) (rules.Filter, bool) {
		b.add(v.from, n.Place, v.key.Name, format, args...)
		return rules.Filter{}, false
	}
	if n.Kind != document.Map || len(n.Keys) == 0 {
		return wrong(n, "found %s, expected a condition like %s", n, likeCondition)
	}
	if n.Value("body") != nil {
		return b.body(v, n), true
	}
	if len(n.Keys) > 1 {
		return wrong(n, "found %d keys, expected one condition in each object", len(n.Keys))
	}
	e := n.Keys[0]
	for _, k := range filterKeys {
		if k.condition == e.Key {
			return b.condition(v, e.Key, e.Value), true
		}
	}
	return wrong(&document.Node{Place: e.Place}, "there is no condition %q; there are: %s", e.Key, conditionNames())
}

func conditionNames() (names string) {
	for i, k := range filterKeys {
		if i > 0 {
			names += ", "
		}
		names += k.condition
	}
	return names
}
