package document

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v4"
)

func parseYAML(t *Text) (*Node, error) {
	loader, err := yaml.NewLoader(strings.NewReader(t.String()))
	if err != nil {
		return nil, explainYAML(t, err)
	}
	var root, second yaml.Node
	switch err := loader.Load(&root); {
	case errors.Is(err, io.EOF):
		return &Node{Kind: Map, Place: Place{1, 1}}, nil
	case err != nil:
		return nil, explainYAML(t, err)
	}
	switch err := loader.Load(&second); {
	case err == nil:
		return nil, &Error{t.Place(t.offset(second.Line, second.Column)), "the file holds a second document; a configuration is one"}
	case !errors.Is(err, io.EOF):
		return nil, explainYAML(t, err)
	}
	y := &yamlWalk{t: t}
	n, err := y.node(&root)
	if err == nil && n.Kind == Null { // nothing but a comment or ---
		n.Kind = Map
	}
	return n, err
}

func explainYAML(t *Text, err error) error {
	e, ok := errors.AsType[*yaml.LoadError](err)
	if !ok {
		return &Error{Place{1, 1}, "this is not YAML: " + err.Error()}
	}
	text := e.Message
	if e.ContextMsg != "" {
		text += " " + e.ContextMsg
	}
	at := t.Place(t.offset(e.Mark.Line, e.Mark.Column))
	if rest := t.String()[t.offset(e.Mark.Line, e.Mark.Column):]; strings.HasPrefix(rest, "\t") {
		text = "a tab cannot indent; use spaces"
	}
	return &Error{at, "this is not YAML: " + text}
}

// yamlWalk turns the library's nodes into ours: aliases and merge keys
// resolved, scalars typed as YAML 1.2 has them.
type yamlWalk struct {
	t *Text
	b budget
}

func (y *yamlWalk) place(n *yaml.Node) Place { return y.t.Place(y.t.offset(n.Line, n.Column)) }

func (y *yamlWalk) node(from *yaml.Node) (*Node, error) {
	n := &Node{Place: y.place(from)}
	if err := y.b.enter(n.Place); err != nil {
		return nil, err
	}
	defer y.b.leave()
	switch from.Kind {
	case yaml.DocumentNode:
		if len(from.Content) != 1 {
			return n, nil
		}
		return y.node(from.Content[0])
	case yaml.AliasNode:
		if from.Alias == nil {
			return n, nil
		}
		same, err := y.node(from.Alias)
		if err != nil {
			return nil, err
		}
		same.Place = n.Place // where it is used
		return same, nil
	case yaml.SequenceNode:
		n.Kind = List
		for _, c := range from.Content {
			item, err := y.node(c)
			if err != nil {
				return nil, err
			}
			n.Items = append(n.Items, item)
		}
		return n, nil
	case yaml.MappingNode:
		return n, y.mapping(n, from)
	case yaml.ScalarNode:
		return n, y.scalar(n, from)
	}
	return n, nil
}

func (y *yamlWalk) mapping(n *Node, from *yaml.Node) error {
	n.Kind = Map
	var merged []Entry
	for i := 0; i+1 < len(from.Content); i += 2 {
		k := from.Content[i]
		value, err := y.node(from.Content[i+1])
		if err != nil {
			return err
		}
		switch {
		case k.Kind == yaml.AliasNode && k.Alias != nil && k.Alias.Kind == yaml.ScalarNode:
			err = n.add(Entry{k.Alias.Value, y.place(k), value})
		case k.Kind != yaml.ScalarNode:
			err = &Error{y.place(k), "a key must be a text"}
		case k.ShortTag() == "!!merge":
			var more []Entry
			more, err = mergedEntries(value)
			merged = append(merged, more...)
		default:
			err = n.add(Entry{k.Value, y.place(k), value})
		}
		if err != nil {
			return err
		}
	}
	for _, e := range merged { // what the mapping says itself wins, then the first
		if n.Value(e.Key) == nil {
			n.Keys = append(n.Keys, e)
		}
	}
	return nil
}

// mergedEntries are what a merge key (<<) brings in.
func mergedEntries(value *Node) ([]Entry, error) {
	all := []*Node{value}
	if value.Kind == List {
		all = value.Items
	}
	var entries []Entry
	for _, m := range all {
		if m.Kind != Map {
			return nil, &Error{m.Place, fmt.Sprintf("<< takes objects, not %s", m)}
		}
		entries = append(entries, m.Keys...)
	}
	return entries, nil
}

func (y *yamlWalk) scalar(n *Node, from *yaml.Node) error {
	n.Text = from.Value
	switch tag := from.ShortTag(); tag {
	case "!!str", "!!timestamp":
		n.Kind = String
	case "!!null":
		n.Kind, n.Text = Null, ""
	case "!!bool":
		n.Kind = Bool
		if err := from.Decode(&n.Bool); err != nil {
			n.Kind = String
		}
	case "!!int":
		n.Kind = Int
		if err := from.Decode(&n.Int); err != nil {
			n.Kind = Float
		}
	case "!!float":
		n.Kind = Float
	default:
		return &Error{n.Place, fmt.Sprintf("the tag %s is not known here", tag)}
	}
	return nil
}
