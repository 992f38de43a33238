package document

import (
	"bytes"
	"encoding/json"
	"strings"
)

// bare makes JSON of JSONC: comments, and commas before closing brackets, become
// spaces, so that all else stays where it is. What is not even that is left for
// the JSON parser to complain about.
func bare(text string) string {
	b := []byte(text)
	blank := func(from, to int) {
		for i := from; i < to; i++ {
			if b[i] != '\n' && b[i] != '\r' {
				b[i] = ' '
			}
		}
	}
	comma := -1 // the last comma that is behind a value, while only blanks follow it
	var last byte
	for i := 0; i < len(b); {
		switch rest := text[i:]; {
		case b[i] == '"':
			i += stringLength(rest)
			comma, last = -1, '"'
		case strings.HasPrefix(rest, "//"):
			n := strings.IndexByte(rest, '\n')
			if n < 0 {
				n = len(rest)
			}
			blank(i, i+n)
			i += n
		case strings.HasPrefix(rest, "/*") && strings.Contains(rest[2:], "*/"):
			n := 2 + strings.Index(rest[2:], "*/") + 2
			blank(i, i+n)
			i += n
		default:
			if c := b[i]; strings.IndexByte(" \t\r\n", c) < 0 {
				if (c == '}' || c == ']') && comma >= 0 {
					blank(comma, comma+1)
				}
				comma = -1
				if c == ',' && strings.IndexByte("{[,:\x00", last) < 0 {
					comma = i
				}
				last = c
			}
			i++
		}
	}
	return string(b)
}

// stringLength is how many bytes the JSON string has that s begins with.
func stringLength(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(s)
}

// Value makes a Node of texts, booleans, integers, lists of these and Nodes;
// anything else is a mistake of the caller and becomes Null.
func Value(v any) *Node {
	switch v := v.(type) {
	case *Node:
		return v
	case string:
		return &Node{Kind: String, Text: v}
	case bool:
		return &Node{Kind: Bool, Bool: v}
	case int:
		text, _ := json.Marshal(v)
		return &Node{Kind: Int, Int: int64(v), Text: string(text)}
	case []string:
		n := &Node{Kind: List}
		for _, s := range v {
			n.Items = append(n.Items, Value(s))
		}
		return n
	case []*Node:
		return &Node{Kind: List, Items: v}
	}
	return &Node{}
}

// Set gives a key of a Map a value as Value makes it: in its place if it is
// there, else at the end.
func (n *Node) Set(key string, v any) *Node {
	for i := range n.Keys {
		if n.Keys[i].Key == key {
			n.Keys[i].Value = Value(v)
			return n
		}
	}
	n.Keys = append(n.Keys, Entry{Key: key, Value: Value(v)})
	return n
}

// Delete takes a key from a Map.
func (n *Node) Delete(key string) {
	for i := range n.Keys {
		if n.Keys[i].Key == key {
			n.Keys = append(n.Keys[:i:i], n.Keys[i+1:]...)
			return
		}
	}
}

// Clone is a copy, so that a change of it changes nothing else.
func (n *Node) Clone() *Node {
	c := *n
	c.Items, c.Keys = nil, nil
	for _, item := range n.Items {
		c.Items = append(c.Items, item.Clone())
	}
	for _, e := range n.Keys {
		c.Keys = append(c.Keys, Entry{e.Key, e.Place, e.Value.Clone()})
	}
	return &c
}

// MarshalJSON writes the tree, keys in their order. Only a number that JSON does
// not have, of another format, is an error.
func (n *Node) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // whoever asks for it does that
	write := func(v any) error {
		err := enc.Encode(v)
		b.Truncate(max(b.Len()-1, 0)) // the line's end
		return err
	}
	var err error
	switch n.Kind {
	case Null:
		err = write(nil)
	case Bool:
		err = write(n.Bool)
	case Int, Float:
		err = write(json.Number(n.Text))
	case List:
		b.WriteByte('[')
		for i, item := range n.Items {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := write(item); err != nil {
				return nil, err
			}
		}
		b.WriteByte(']')
	case Map:
		b.WriteByte('{')
		for i, e := range n.Keys {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := write(e.Key); err != nil {
				return nil, err
			}
			b.WriteByte(':')
			if err := write(e.Value); err != nil {
				return nil, err
			}
		}
		b.WriteByte('}')
	default:
		err = write(n.Text)
	}
	return b.Bytes(), err
}
