package document

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// byteOrderMark is what some editors put in front of a text.
const byteOrderMark = "\ufeff"

func parseJSON(t *Text) (*Node, error) {
	text := t.String()
	start := 0
	if strings.HasPrefix(text, byteOrderMark) {
		start = len(byteOrderMark)
	}
	var all any
	if err := json.Unmarshal([]byte(text[start:]), &all); err != nil {
		return nil, explainJSON(t, start, err)
	}
	j := &jsonWalk{t: t, text: text[start:], start: start, dec: json.NewDecoder(strings.NewReader(text[start:]))}
	j.dec.UseNumber()
	return j.node()
}

// explainJSON gives the library's error its place, and the usual mistakes
// their names.
func explainJSON(t *Text, start int, err error) error {
	syntax, ok := errors.AsType[*json.SyntaxError](err)
	if !ok {
		return &Error{Place{1, 1}, err.Error()}
	}
	text := t.String()
	at := min(start+max(int(syntax.Offset)-1, 0), len(text))
	what := "this is not JSON: " + syntax.Error()
	before := strings.TrimRight(text[:at], " \t\r\n")
	switch {
	case strings.TrimSpace(text[start:]) == "":
		return &Error{t.Place(0), "the file is empty; the smallest configuration is {}"}
	case at+1 >= len(text) && strings.Contains(syntax.Error(), "unexpected end"):
		at, what = len(text), "this is not JSON: the file ends before the value does"
	case strings.HasPrefix(text[at:], "/"), strings.HasPrefix(text[at:], "#"):
		what = "JSON has no comments; write the file as YAML (.yaml) or TOML (.toml) to have them"
	case strings.HasSuffix(before, ",") && (text[at] == '}' || text[at] == ']'):
		at, what = len(before)-1, fmt.Sprintf("JSON has no comma before %q", string(text[at]))
	case strings.HasPrefix(text[at:], "'"):
		what = "JSON writes texts in double quotes"
	}
	return &Error{t.Place(at), what}
}

// jsonWalk goes through a text that is known to be JSON.
type jsonWalk struct {
	t     *Text
	text  string
	start int // offset of text in t
	dec   *json.Decoder
	b     budget
}

// next is the place of the token that comes next.
func (j *jsonWalk) next() Place {
	at := int(j.dec.InputOffset())
	for at < len(j.text) && strings.IndexByte(" \t\r\n,:", j.text[at]) >= 0 {
		at++
	}
	return j.t.Place(j.start + at)
}

func (j *jsonWalk) node() (*Node, error) {
	n := &Node{Place: j.next()}
	if err := j.b.enter(n.Place); err != nil {
		return nil, err
	}
	defer j.b.leave()
	token, err := j.dec.Token()
	if err != nil {
		return nil, &Error{n.Place, "this is not JSON: " + err.Error()}
	}
	switch v := token.(type) {
	case bool:
		n.Kind, n.Bool = Bool, v
	case string:
		n.Kind, n.Text = String, v
	case json.Number:
		n.Kind, n.Text = Float, v.String()
		if i, err := strconv.ParseInt(n.Text, 10, 64); err == nil {
			n.Kind, n.Int = Int, i
		}
	case json.Delim:
		n.Kind = List
		if v == '{' {
			n.Kind = Map
		}
		for j.dec.More() {
			if err := j.element(n); err != nil {
				return nil, err
			}
		}
		_, err = j.dec.Token() // the closing one
	}
	if err != nil {
		return nil, &Error{n.Place, "this is not JSON: " + err.Error()}
	}
	return n, nil
}

// element reads an item, or a key with its value, into n.
func (j *jsonWalk) element(n *Node) error {
	e := Entry{Place: j.next()}
	if n.Kind == Map {
		token, err := j.dec.Token()
		if err != nil {
			return &Error{e.Place, "this is not JSON: " + err.Error()}
		}
		e.Key, _ = token.(string)
	}
	var err error
	if e.Value, err = j.node(); err != nil {
		return err
	}
	if n.Kind == Map {
		return n.add(e)
	}
	n.Items = append(n.Items, e.Value)
	return nil
}
