package config

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/mirrord-go/mirrord/internal/config/document"
	"github.com/mirrord-go/mirrord/internal/rules"
	"github.com/mirrord-go/mirrord/internal/rules/expression"
)

// maxPort is the largest port; 0 is none.
const maxPort = 65535

// check tells of everything that is wrong with a value by itself, and reports
// whether nothing is.
func (d *decoder) check(v value) bool {
	before := len(d.list)
	n := v.node
	wrong := func(n *document.Node, expected string) {
		d.add(v.from, n.Place, v.name, "found %s, expected %s", n, expected)
	}
	switch v.key.Type {
	case Bool:
		if n.Kind != document.Bool {
			wrong(n, "true or false")
		}
	case Text, Path, Expression, Condition:
		switch {
		case n.Kind == document.Int || n.Kind == document.Float || n.Kind == document.Bool:
			wrong(n, "a text; write it in quotes")
		case n.Kind != document.String:
			wrong(n, "a text")
		case n.Text == "":
			wrong(n, "a text that is not empty")
		}
	case Choice:
		if n.Kind == document.Bool && v.name == flushKey {
			n.Kind, n.Text = document.String, flush(n.Bool)
		}
		d.checkChoice(v)
	case Number:
		switch {
		case n.Kind != document.Int:
			wrong(n, "a whole number")
		case n.Int < 0 || n.Int > v.key.Max():
			wrong(n, fmt.Sprintf("0 to %d", v.key.Max()))
		}
	case Names, Texts, Patterns, Addresses:
		for _, item := range items(n) {
			switch {
			case item.Kind != document.String:
				wrong(item, "a text, or a list of texts")
			case item.Text == "" && v.key.Type == Patterns:
				wrong(item, "a regular expression; an empty one matches everything")
			case item.Text == "":
				wrong(item, "a text that is not empty")
			default:
				d.checkText(v, item, item.Text)
			}
		}
	case Conditions:
		if n.Kind != document.List {
			wrong(n, "a list of conditions")
		}
	case Negated:
		if n.Kind != document.Map {
			wrong(n, `a condition like {"header": "^x-user: me$"}`)
		}
	case BodyMatch:
		if n.Kind != document.Map {
			wrong(n, "a condition like "+likeBody)
		}
	case Pairs, PathMap, Expressions:
		if n.Kind != document.Map {
			wrong(n, "an object of texts")
			break
		}
		for _, e := range n.Keys {
			switch {
			case e.Value.Kind != document.String:
				d.add(v.from, e.Value.Place, join(v.key.Name, e.Key), "found %s, expected a text; write it in quotes", e.Value)
			case e.Key == "":
				d.add(v.from, e.Place, v.key.Name, "found an empty name")
			default:
				d.checkText(v, &document.Node{Place: e.Place}, e.Key)
			}
		}
	case Quantities:
		d.checkQuantities(v)
	case Tolerations:
		d.checkTolerations(v)
	case References:
		d.checkReferences(v)
	case Ports:
		for _, item := range items(n) {
			checkPort(item, wrong)
		}
	case PortPairs:
		if n.Kind != document.List {
			wrong(n, "a list of pairs of ports: [[80, 8080]]")
			break
		}
		for _, pair := range n.Items {
			if pair.Kind != document.List || len(pair.Items) != 2 {
				wrong(pair, "two ports: [80, 8080]")
				continue
			}
			checkPort(pair.Items[0], wrong)
			checkPort(pair.Items[1], wrong)
		}
	}
	return len(d.list) == before
}

func checkPort(n *document.Node, wrong func(*document.Node, string)) {
	if n.Kind != document.Int || n.Int < 1 || n.Int > maxPort {
		wrong(n, "a port, 1 to 65535")
	}
}

func (d *decoder) checkChoice(v value) {
	n, all := v.node, v.key.Choices()
	for _, c := range all {
		if n.Kind == document.String && n.Text == c {
			return
		}
	}
	text := fmt.Sprintf("found %s, expected %s", n, alternatives(all))
	if near := Nearest(n.Text, all); n.Kind == document.String && near != "" {
		text += fmt.Sprintf("; did you mean %q?", near)
	}
	d.add(v.from, n.Place, v.name, "%s", text)
}

// alternatives writes "a", "b" or "c".
func alternatives(all []string) string {
	quoted := make([]string, len(all))
	for i, a := range all {
		quoted[i] = fmt.Sprintf("%q", a)
	}
	last := len(quoted) - 1
	return strings.Join(quoted[:last], ", ") + " or " + quoted[last]
}

// checkText checks one text of a list, or one name of an object.
func (d *decoder) checkText(v value, at *document.Node, text string) {
	var err error
	switch v.key.Type {
	case Patterns, PathMap:
		if _, err = regexp.Compile("(?i)" + text); err != nil {
			err = fmt.Errorf("%q is no regular expression: %s", text, regexpFault(err))
		}
	case Expressions:
		if _, err = expression.Compile(text, false); err != nil {
			err = fmt.Errorf("%q is no regular expression: %w", text, err)
		}
	case Addresses:
		if _, err = rules.ParseAddress(text); err != nil {
			err = fmt.Errorf("%q is no address: %w", text, err)
		} else if strings.HasPrefix(v.key.Name, "feature.network.dns.") && strings.Contains(text, "://") {
			err = fmt.Errorf("%q names a protocol; lookups have none", text)
		}
	}
	if err != nil {
		d.add(v.from, at.Place, v.key.Name, "%v", err)
	}
}

// regexpFault is the error without the flags that were put in front.
func regexpFault(err error) string {
	e, ok := errors.AsType[*syntax.Error](err)
	if !ok {
		return err.Error()
	}
	if e.Code == syntax.ErrInvalidPerlOp {
		return fmt.Sprintf("%s: %s; patterns for paths cannot look around", e.Code, e.Expr)
	}
	if expr := strings.TrimPrefix(e.Expr, "(?i)"); expr != "" {
		return fmt.Sprintf("%s: %s", e.Code, expr)
	}
	return e.Code.String()
}

// items are the values of a list, or the single one that stands for it.
func items(n *document.Node) []*document.Node {
	if n.Kind == document.List {
		return n.Items
	}
	return []*document.Node{n}
}

// same reports whether the value says what holds anyway.
func (v value) same() bool {
	switch n := v.node; n.Kind {
	case document.Bool:
		return v.key.Default == fmt.Sprint(n.Bool) || v.key.Type == Open && !n.Bool
	case document.String, document.Int:
		return v.key.Default == n.Text
	case document.List:
		return len(n.Items) == 0
	case document.Map:
		return len(n.Keys) == 0
	}
	return false
}
