// Package document reads JSON, YAML and TOML into one tree in which every key
// and every value knows its line and column.
//
// Only config calls it. Each format is first read as a whole by a library, so
// that what is wrong is what the format's own rules call wrong, and then walked
// again for the places. Templates are filled in before, and places still refer
// to what the user wrote. It is pure: it takes text and gives a tree or an
// *Error. Hostile text costs no more than a bounded number of nodes.
package document

import (
	"fmt"
	"path"
	"strings"
	"unicode/utf8"
)

// Kind is the kind of a Node.
type Kind uint8

// Kinds of nodes. Float also holds integers beyond 64 bits; Date only comes
// from TOML.
const (
	Null Kind = iota
	Bool
	Int
	Float
	String
	Date
	List
	Map
)

const (
	// maxDepth is how deep a document may nest, twenty times what a
	// configuration does: the walk is recursive.
	maxDepth = 100
	// maxNodes is how many nodes a document may have, fifty times what a
	// configuration has. YAML's aliases can make more of them than there are
	// atoms.
	maxNodes = 20_000
)

// Place is a line and a column, both from 1, the column in characters. The zero
// value is no place.
type Place struct{ Line, Column int }

// Node is one value and what is in it.
type Node struct {
	Kind  Kind
	Place Place
	Text  string // a String's content; a number or a date as it was written
	Bool  bool
	Int   int64
	Items []*Node // of a List
	Keys  []Entry // of a Map, in the order as written, each key once
}

// Entry is one key of a Map.
type Entry struct {
	Key   string
	Place Place // of the key
	Value *Node
}

// Value gives the value of a key of a Map, nil if there is none.
func (n *Node) Value(key string) *Node {
	for _, e := range n.Keys {
		if e.Key == key {
			return e.Value
		}
	}
	return nil
}

// String says for a person what the value is: `the text "x"`, "a list".
func (n *Node) String() string {
	const shown = 60 // characters of a text, so that a line stays a line
	switch n.Kind {
	case Bool:
		return fmt.Sprint(n.Bool)
	case Int, Float:
		return "the number " + n.Text
	case String:
		if utf8.RuneCountInString(n.Text) > shown {
			return fmt.Sprintf("the text %q", string([]rune(n.Text)[:shown])+"…")
		}
		return fmt.Sprintf("the text %q", n.Text)
	case Date:
		return "the date " + n.Text
	case List:
		return "a list"
	case Map:
		return "an object"
	}
	return "nothing"
}

// add appends an entry unless the key is there already.
func (n *Node) add(e Entry) error {
	for _, old := range n.Keys {
		if old.Key == e.Key {
			return &Error{e.Place, fmt.Sprintf("the key %q stands here for the second time, after line %d", e.Key, old.Place.Line)}
		}
	}
	n.Keys = append(n.Keys, e)
	return nil
}

// Error is why a text is no document.
type Error struct {
	Place Place
	Text  string
}

// Error gives place and text.
func (e *Error) Error() string {
	return fmt.Sprintf("%d:%d: %s", e.Place.Line, e.Place.Column, e.Text)
}

// Format is how a document is written.
type Format uint8

// The formats. JSONC is JSON with comments and commas before closing brackets,
// as editors have it.
const (
	JSON Format = iota
	YAML
	TOML
	JSONC
)

// FormatOf gives the format of a file by its name; ok is false if the name ends
// in something else. A name without an ending is JSON.
func FormatOf(name string) (f Format, ok bool) {
	base := path.Base(name)
	switch strings.ToLower(path.Ext(strings.TrimPrefix(base, "."))) {
	case ".json", "":
		return JSON, true
	case ".yaml", ".yml":
		return YAML, true
	case ".toml":
		return TOML, true
	}
	return 0, false
}

// Parse reads a document, whose root must be a Map; an empty YAML or TOML
// document is an empty one. Every error is an *Error.
func Parse(f Format, t *Text) (*Node, error) {
	if i := invalid(t.String()); i >= 0 {
		return nil, &Error{t.Place(i), "this is no text in UTF-8"}
	}
	var root *Node
	var err error
	switch f {
	case JSON:
		root, err = parseJSON(t)
	case JSONC:
		root, err = parseJSON(t.with(bare(t.String())))
	case YAML:
		root, err = parseYAML(t)
	case TOML:
		root, err = parseTOML(t)
	}
	if err != nil {
		return nil, err
	}
	if root.Kind != Map {
		return nil, &Error{root.Place, fmt.Sprintf("the configuration is %s; it must be an object with keys", root)}
	}
	return root, nil
}

// invalid gives the offset of the first byte that is no UTF-8, or -1.
func invalid(s string) int {
	if utf8.ValidString(s) {
		return -1
	}
	for i, r := range s {
		if _, size := utf8.DecodeRuneInString(s[i:]); r == utf8.RuneError && size == 1 {
			return i
		}
	}
	return -1
}

// budget counts what a walk has made.
type budget struct{ depth, nodes int }

// enter is called for each node, leave after it.
func (b *budget) enter(at Place) error {
	b.depth++
	b.nodes++
	switch {
	case b.depth > maxDepth:
		return &Error{at, fmt.Sprintf("this is nested more than %d deep", maxDepth)}
	case b.nodes > maxNodes:
		return &Error{at, fmt.Sprintf("the document has more than %d values", maxNodes)}
	}
	return nil
}

func (b *budget) leave() { b.depth-- }
