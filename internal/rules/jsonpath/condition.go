package jsonpath

import (
	"encoding/json"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/mirrord-go/mirrord/internal/rules/weight"
)

// logical is an expression that is true or false about a part.
type logical interface {
	holds(r *run, v any) bool
}

// operand is an expression with a value; none is "Nothing" of RFC 9535.
type operand interface {
	value(r *run, v any) (value any, some bool)
}

type (
	anyOf      []logical
	allOf      []logical
	not        struct{ logical }
	exists     struct{ query }
	comparison struct {
		left, right operand
		op          string
	}
	literal struct{ is any }
	// query is a path from the document's root or from the part at hand.
	query struct {
		root     bool
		segments []segment
	}
	// function is called with the values of operands, or with the parts of a query.
	function struct {
		name   string
		of     []operand
		over   query
		linear *regexp.Regexp // of a literal pattern
		parts  int            // of that
	}
)

func (a anyOf) holds(r *run, v any) bool {
	for _, l := range a {
		if l.holds(r, v) {
			return true
		}
	}
	return false
}

func (a allOf) holds(r *run, v any) bool {
	for _, l := range a {
		if !l.holds(r, v) {
			return false
		}
	}
	return true
}

func (n not) holds(r *run, v any) bool { return !n.logical.holds(r, v) }

func (e exists) holds(r *run, v any) bool { return len(e.parts(r, v)) > 0 }

func (q query) parts(r *run, v any) []any {
	if !r.step(1) {
		return nil
	}
	if q.root {
		v = r.root
	}
	return r.walk(q.segments, v)
}

func (l literal) value(*run, any) (any, bool) { return l.is, true }

// value is that of a query which means one part at most.
func (q query) value(r *run, v any) (any, bool) {
	if found := q.parts(r, v); len(found) == 1 {
		return found[0], true
	}
	return nil, false
}

func (c comparison) holds(r *run, v any) bool {
	a, someA := c.left.value(r, v)
	b, someB := c.right.value(r, v)
	same := func() bool { return someA == someB && (!someA || equal(r, a, b)) }
	switch c.op {
	case "==":
		return same()
	case "!=":
		return !same()
	case "<":
		return someA && someB && less(r, a, b)
	case ">":
		return someA && someB && less(r, b, a)
	case "<=":
		return same() || someA && someB && less(r, a, b)
	}
	return same() || someA && someB && less(r, b, a)
}

// textCost is how many bytes of a text are looked at in a step.
const textCost = 64

func equal(r *run, a, b any) bool {
	if !r.step(1) {
		return false
	}
	switch a := a.(type) {
	case json.Number:
		b, ok := b.(json.Number)
		return ok && (a == b || number(a) == number(b))
	case string:
		b, ok := b.(string)
		return ok && len(a) == len(b) && r.step(len(a)/textCost) && a == b
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !equal(r, a[i], b[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for k := range a {
			other, ok := b[k]
			if !ok || !equal(r, a[k], other) {
				return false
			}
		}
		return true
	}
	switch b.(type) { // two of these cannot be compared by ==
	case []any, map[string]any:
		return false
	}
	return a == b
}

func less(r *run, a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		b, ok := b.(json.Number)
		return ok && number(a) < number(b)
	case string: // by code points, as UTF-8 is by bytes
		b, ok := b.(string)
		return ok && r.step(min(len(a), len(b))/textCost) && a < b
	}
	return false
}

func number(n json.Number) float64 {
	f, _ := n.Float64() // what is too large is infinite
	return f
}

// functions are those that have a value; true: of parts of a query, else of a
// value. match and search are true or false.
var functions = map[string]bool{"length": false, "count": true, "value": true, "typeof": true}

func (f function) value(r *run, v any) (any, bool) {
	if !functions[f.name] { // length
		switch is, _ := f.of[0].value(r, v); is := is.(type) {
		case string:
			return whole(utf8.RuneCountInString(is)), r.step(len(is) / textCost)
		case []any:
			return whole(len(is)), true
		case map[string]any:
			return whole(len(is)), true
		}
		return nil, false
	}
	found := f.over.parts(r, v)
	switch {
	case f.name == "count":
		return whole(len(found)), true
	case len(found) != 1:
		return nil, false
	case f.name == "typeof":
		return typeOf(found[0]), true
	}
	return found[0], true
}

func whole(n int) json.Number {
	b, _ := json.Marshal(n)
	return json.Number(b)
}

func typeOf(v any) string {
	switch v.(type) {
	case bool:
		return "bool"
	case json.Number:
		return "number"
	case string:
		return "string"
	case []any:
		return "array"
	case map[string]any:
		return "object"
	}
	return "null"
}

const (
	// maxPattern bounds a pattern that stands in the document, in bytes.
	maxPattern = 256
	// compileCost is the steps of compiling one, which is done each time, and what
	// it may weigh: repetitions make thousands of instructions of a few letters.
	compileCost = 1 << 10
)

// holds is match(text, pattern) and search(text, pattern).
func (f function) holds(r *run, v any) bool {
	text, ok := f.text(r, v, 0)
	if !ok {
		return false
	}
	exp, parts := f.linear, f.parts
	if exp == nil {
		pattern, ok := f.text(r, v, 1)
		if !ok || len(pattern) > maxPattern || !r.step(compileCost) {
			return false
		}
		if exp, _ = compilePattern(f.name, pattern, compileCost); exp == nil {
			return false
		}
		parts = weight.Of(pattern)
	}
	// At worst every part is tried at every byte.
	return r.step(len(text)*parts/textCost+1) && exp.MatchString(text)
}

func (f function) text(r *run, v any, i int) (string, bool) {
	is, some := f.of[i].value(r, v)
	text, ok := is.(string)
	return text, some && ok
}

// compilePattern reads an I-Regexp (RFC 9485) for match, of the whole text, or
// search, which weighs no more than most.
func compilePattern(function, pattern string, most int) (*regexp.Regexp, error) {
	if err := weight.Check(pattern, most); err != nil {
		return nil, err
	}
	if function == "match" {
		return regexp.Compile(`\A(?:` + dots(pattern) + `)\z`)
	}
	return regexp.Compile(dots(pattern))
}

// dots makes a dot neither of the two ends of a line, where Go's is not one.
func dots(pattern string) string {
	var b strings.Builder
	class := false
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\' && i+1 < len(pattern):
			b.WriteByte(c)
			i++
		case c == '[':
			class = true
		case c == ']':
			class = false
		case c == '.' && !class:
			b.WriteString(`[^\n\r]`)
			continue
		}
		b.WriteByte(pattern[i])
	}
	return b.String()
}
