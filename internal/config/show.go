package config

import (
	"slices"

	"github.com/mirrord-go/mirrord/internal/config/document"
	"github.com/mirrord-go/mirrord/internal/event"
)

// Shown is what holds for a key.
type Shown struct {
	Key string `json:"key"`
	// Value as it was given, in the shape of JSON; of a default, how a person
	// reads it.
	Value   any    `json:"value,omitempty"`
	From    string `json:"from"` // file:line:column, a variable, a flag; or "default"
	Ignored bool   `json:"ignored,omitempty"`
}

// FromDefault is where a value comes from that nobody gave.
const FromDefault = "default"

// Show tells what Load would make of s, key by key: those that were given, and
// with all also the others that have an effect. Values that may be secret (of
// variables and databases) are hidden.
func Show(s Sources, all bool) ([]Shown, []event.Event, error) {
	b, err := load(s)
	if err != nil {
		return nil, nil, err
	}
	var list []Shown
	for i := range keyTable {
		k := &keyTable[i]
		v, given := b.values[k.Name]
		switch {
		case given:
			list = append(list, Shown{Key: k.Name, Value: v.shown(), From: v.from.at(v.node.Place), Ignored: k.Status != Works})
		case all && k.Status == Works:
			list = append(list, Shown{Key: k.Name, Value: k.Default, From: FromDefault})
		}
	}
	return list, b.notes.events, nil
}

// valuesOfVariables are the keys whose values are those of variables.
var valuesOfVariables = []string{"feature.env.override", "feature.env.mapping"}

func (v value) shown() any {
	if v.key.Name == "feature.db_branches" { // addresses of databases, with their passwords
		return hidden
	}
	shown := plain(v.node)
	if names, ok := shown.(map[string]any); ok && slices.Contains(valuesOfVariables, v.key.Name) {
		for name := range names {
			names[name] = hidden
		}
	}
	return shown
}

// plain is a value in the shape of JSON.
func plain(n *document.Node) any {
	switch n.Kind {
	case document.Bool:
		return n.Bool
	case document.Int:
		return n.Int
	case document.Float:
		return n.Text
	case document.List:
		list := []any{}
		for _, item := range n.Items {
			list = append(list, plain(item))
		}
		return list
	case document.Map:
		m := map[string]any{}
		for _, e := range n.Keys {
			m[e.Key] = plain(e.Value)
		}
		return m
	case document.Null:
		return nil
	}
	return n.Text
}
