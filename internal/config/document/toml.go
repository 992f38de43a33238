package document

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

func parseTOML(t *Text) (*Node, error) {
	text := []byte(t.String())
	var all map[string]any
	if err := toml.Unmarshal(text, &all); err != nil {
		e, ok := errors.AsType[*toml.DecodeError](err)
		if !ok {
			return nil, &Error{Place{1, 1}, "this is not TOML: " + err.Error()}
		}
		line, column := e.Position() // the column in bytes
		at := t.offset(line, 1) + max(column-1, 0)
		return nil, &Error{t.Place(at), "this is not TOML: " + strings.TrimPrefix(e.Error(), "toml: ")}
	}
	w := &tomlWalk{t: t, root: &Node{Kind: Map, Place: Place{1, 1}}}
	w.table = w.root
	w.p.Reset(text)
	for w.p.NextExpression() {
		if err := w.expression(w.p.Expression()); err != nil {
			return nil, err
		}
	}
	if err := w.p.Error(); err != nil {
		return nil, &Error{Place{1, 1}, "this is not TOML: " + err.Error()}
	}
	return w.root, nil
}

// tomlWalk goes through a text that is known to be TOML.
type tomlWalk struct {
	t           *Text
	p           unstable.Parser
	root, table *Node // table: the one whose header was last
	b           budget
}

func (w *tomlWalk) expression(e *unstable.Node) (err error) {
	switch e.Kind {
	case unstable.Table:
		w.table, _, err = w.descend(w.root, e.Key(), false)
	case unstable.ArrayTable:
		var list *Node
		var at Place
		if list, at, err = w.descend(w.root, e.Key(), true); err != nil {
			return err
		}
		w.table = &Node{Kind: Map, Place: at}
		list.Items = append(list.Items, w.table)
	case unstable.KeyValue:
		err = w.pair(w.table, e)
	}
	return err
}

// descend goes down a dotted key from n, making what is not there: maps, and
// at its end a map or a list.
func (w *tomlWalk) descend(n *Node, keys unstable.Iterator, list bool) (_ *Node, at Place, err error) {
	for keys.Next() {
		k := keys.Node()
		at = w.t.Place(int(k.Raw.Offset))
		child := n.Value(string(k.Data))
		if child == nil {
			if err := w.b.enter(at); err != nil {
				return nil, at, err
			}
			w.b.leave()
			child = &Node{Kind: Map, Place: at}
			if list && keys.IsLast() {
				child.Kind = List
			}
			n.Keys = append(n.Keys, Entry{string(k.Data), at, child})
		}
		if child.Kind == List && !(list && keys.IsLast()) && len(child.Items) > 0 {
			child = child.Items[len(child.Items)-1] // [[a]] then [a.b]
		}
		n = child
	}
	want := Map
	if list {
		want = List
	}
	if n.Kind != want {
		return nil, at, &Error{at, fmt.Sprintf("the key stands for %s already", n)}
	}
	return n, at, nil
}

// pair reads "a.b = value" into the table n.
func (w *tomlWalk) pair(n *Node, e *unstable.Node) error {
	var path []*unstable.Node
	for keys := e.Key(); keys.Next(); {
		path = append(path, keys.Node())
	}
	last := path[len(path)-1]
	for _, k := range path[:len(path)-1] {
		at := w.t.Place(int(k.Raw.Offset))
		child := n.Value(string(k.Data))
		if child == nil {
			child = &Node{Kind: Map, Place: at}
			n.Keys = append(n.Keys, Entry{string(k.Data), at, child})
		}
		if child.Kind != Map {
			return &Error{at, fmt.Sprintf("the key stands for %s already", child)}
		}
		n = child
	}
	// The library gives lists no place: a value begins after the equals sign.
	at := int(last.Raw.Offset + last.Raw.Length)
	for text := w.t.String(); at < len(text) && strings.IndexByte(" \t=", text[at]) >= 0; {
		at++
	}
	value, err := w.value(e.Value(), w.t.Place(at))
	if err != nil {
		return err
	}
	return n.add(Entry{string(last.Data), w.t.Place(int(last.Raw.Offset)), value})
}

// value reads a value; at is its place if the library does not know it.
func (w *tomlWalk) value(v *unstable.Node, at Place) (*Node, error) {
	if v.Raw.Length > 0 {
		at = w.t.Place(int(v.Raw.Offset))
	}
	n := &Node{Place: at}
	if err := w.b.enter(at); err != nil {
		return nil, err
	}
	defer w.b.leave()
	n.Text = string(v.Data)
	switch v.Kind {
	case unstable.String:
		n.Kind = String
	case unstable.Bool:
		n.Kind, n.Bool = Bool, n.Text == "true"
	case unstable.Integer:
		n.Kind = Int
		i, err := strconv.ParseInt(strings.TrimPrefix(n.Text, "+"), 0, 64)
		if err != nil {
			n.Kind = Float
		}
		n.Int = i
	case unstable.Float:
		n.Kind = Float
	case unstable.Array:
		n.Kind = List
		for items := v.Children(); items.Next(); {
			item, err := w.value(items.Node(), at)
			if err != nil {
				return nil, err
			}
			n.Items = append(n.Items, item)
		}
	case unstable.InlineTable:
		n.Kind = Map
		for pairs := v.Children(); pairs.Next(); {
			if err := w.pair(n, pairs.Node()); err != nil {
				return nil, err
			}
		}
	default:
		n.Kind = Date
	}
	return n, nil
}
