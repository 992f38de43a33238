package jsonpath

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/mirrord-go/mirrord/internal/rules/weight"
)

// parser reads a query by the grammar of RFC 9535. Its functions begin where
// what they are named for may be, and leave at behind it.
type parser struct {
	text string
	at   int
	deep int // conditions around this place
}

// maxDeep bounds conditions within conditions: more is a mistake, and costs
// stack.
const maxDeep = 32

func (p *parser) wrong(format string, args ...any) error {
	return fmt.Errorf("at character %d: %s", utf8.RuneCountInString(p.text[:p.at])+1, fmt.Sprintf(format, args...))
}

// take passes over s if it is next.
func (p *parser) take(s string) bool {
	if strings.HasPrefix(p.text[p.at:], s) {
		p.at += len(s)
		return true
	}
	return false
}

// next is the byte at hand, 0 at the end.
func (p *parser) next() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

func (p *parser) blank() {
	for strings.IndexByte(" \t\n\r", p.next()) >= 0 && p.at < len(p.text) {
		p.at++
	}
}

func (p *parser) query() (Path, error) {
	if !p.take("$") {
		return Path{}, p.wrong("a query begins with $")
	}
	segments, _, err := p.segments()
	if err == nil && p.at < len(p.text) {
		err = p.wrong("expected . or [ or the end")
	}
	return Path{segments}, err
}

// segments reads what follows $ or @; one: it means one part at most.
func (p *parser) segments() (all []segment, one bool, err error) {
	one = true
	for {
		before := p.at
		p.blank()
		var s segment
		switch {
		case p.take(".."):
			s.descends = true
			s.selectors, err = p.afterDots()
		case p.take("."):
			s.selectors, err = p.shorthand()
		case p.next() == '[':
			s.selectors, err = p.bracketed()
		default:
			p.at = before
			return all, one, nil
		}
		if err != nil {
			return nil, false, err
		}
		if one = one && !s.descends && len(s.selectors) == 1; one {
			switch s.selectors[0].(type) {
			case name, index:
			default:
				one = false
			}
		}
		all = append(all, s)
	}
}

func (p *parser) afterDots() ([]selector, error) {
	if p.next() == '[' {
		return p.bracketed()
	}
	return p.shorthand()
}

func letter(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80 && c != utf8.RuneError
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// shorthand reads a name or * behind a dot.
func (p *parser) shorthand() ([]selector, error) {
	if p.take("*") {
		return []selector{every{}}, nil
	}
	begin := p.at
	for p.at < len(p.text) {
		c, n := utf8.DecodeRuneInString(p.text[p.at:])
		if !letter(c) && (p.at == begin || !digit(p.next())) {
			break
		}
		p.at += n
	}
	if p.at == begin {
		return nil, p.wrong("expected a name, * or [")
	}
	return []selector{name(p.text[begin:p.at])}, nil
}

func (p *parser) bracketed() (all []selector, err error) {
	p.take("[")
	for {
		p.blank()
		s, err := p.selector()
		if err != nil {
			return nil, err
		}
		all = append(all, s)
		p.blank()
		if p.take("]") {
			return all, nil
		}
		if !p.take(",") {
			return nil, p.wrong("expected , or ]")
		}
	}
}

func (p *parser) selector() (selector, error) {
	switch c := p.next(); {
	case c == '\'' || c == '"':
		text, err := p.quoted()
		return name(text), err
	case p.take("*"):
		return every{}, nil
	case p.take("?"):
		p.blank()
		l, err := p.or()
		return where{l}, err
	case c == ':' || c == '-' || digit(c):
		return p.indexOrSlice()
	}
	return nil, p.wrong("expected a name in quotes, a number, *, : or ?")
}

func (p *parser) indexOrSlice() (selector, error) {
	var parts [3]*int64
	for i := range parts {
		if c := p.next(); c == '-' || digit(c) {
			n, err := p.integer()
			if err != nil {
				return nil, err
			}
			parts[i] = &n
		}
		end := p.at
		p.blank()
		if i == 2 || !p.take(":") {
			p.at = end
			if i == 0 {
				return index(*parts[0]), nil
			}
			break
		}
		p.blank()
	}
	return slice{parts[0], parts[1], parts[2]}, nil
}

// maxInteger is the largest number that all implementations hold (RFC 7493).
const maxInteger = 1<<53 - 1

func (p *parser) integer() (int64, error) {
	begin := p.at
	p.take("-")
	for digit(p.next()) {
		p.at++
	}
	text := p.text[begin:p.at]
	digits := strings.TrimPrefix(text, "-")
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || len(digits) > 1 && digits[0] == '0' || text == "-0" || n > maxInteger || n < -maxInteger {
		p.at = begin
		return 0, p.wrong("%s is no whole number", text)
	}
	return n, nil
}

// quoted reads a text in single or double quotes.
func (p *parser) quoted() (string, error) {
	quote := p.next()
	p.at++
	var b strings.Builder
	for {
		c, n := utf8.DecodeRuneInString(p.text[p.at:])
		switch {
		case n == 0:
			return "", p.wrong("expected the end of a text, %c", quote)
		case c < ' ' || c == utf8.RuneError && n == 1:
			return "", p.wrong("a character that cannot stand in a text")
		case c == rune(quote):
			p.at++
			return b.String(), nil
		case c == '\\':
			p.at++
			r, err := p.escaped(quote)
			if err != nil {
				return "", err
			}
			b.WriteRune(r)
		default:
			b.WriteRune(c)
			p.at += n
		}
	}
}

func (p *parser) escaped(quote byte) (rune, error) {
	c := p.next()
	if c == quote {
		p.at++
		return rune(c), nil
	}
	if i := strings.IndexByte(`bfnrt/\`, c); i >= 0 && c != 0 {
		p.at++
		return rune("\b\f\n\r\t/\\"[i]), nil
	}
	if c != 'u' {
		return 0, p.wrong("no escape is written so")
	}
	r, ok := p.unit()
	if ok && utf16.IsSurrogate(r) {
		low, more := rune(0), false
		if p.take(`\`) {
			low, more = p.unit()
		}
		r = utf16.DecodeRune(r, low)
		ok = more && r != utf8.RuneError
	}
	if !ok {
		return 0, p.wrong(`expected \u and four hexadecimal digits`)
	}
	return r, nil
}

// unit reads uXXXX.
func (p *parser) unit() (rune, bool) {
	if !p.take("u") || len(p.text)-p.at < 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(p.text[p.at:p.at+4], 16, 16)
	p.at += 4
	return rune(n), err == nil
}

func (p *parser) or() (logical, error) {
	if p.deep++; p.deep > maxDeep {
		return nil, p.wrong("conditions stand in %d others at most", maxDeep)
	}
	defer func() { p.deep-- }()
	var any anyOf
	for {
		var all allOf
		for {
			l, err := p.basic()
			if err != nil {
				return nil, err
			}
			all = append(all, l)
			if p.blank(); !p.take("&&") {
				break
			}
			p.blank()
		}
		any = append(any, all)
		if !p.take("||") {
			return any, nil
		}
		p.blank()
	}
}

func (p *parser) basic() (logical, error) {
	negated := p.take("!")
	if negated {
		p.blank()
	}
	l, err := p.test(negated)
	if negated && err == nil {
		l = not{l}
	}
	return l, err
}

// test reads what is true or false by itself, or a comparison, which cannot
// stand behind a !.
func (p *parser) test(negated bool) (logical, error) {
	if p.take("(") {
		p.blank()
		l, err := p.or()
		if err != nil {
			return nil, err
		}
		if p.blank(); !p.take(")") {
			return nil, p.wrong("expected )")
		}
		return l, nil
	}
	begin := p.at
	left, one, err := p.operand()
	if err != nil {
		return nil, err
	}
	end := p.at
	p.blank()
	for _, op := range []string{"==", "!=", "<=", ">=", "<", ">"} {
		if negated || !p.take(op) {
			continue
		}
		p.blank()
		middle := p.at
		right, oneRight, err := p.operand()
		switch {
		case err != nil:
			return nil, err
		case !one:
			p.at = begin
			return nil, p.wrong("what is compared must be one value")
		case !oneRight:
			p.at = middle
			return nil, p.wrong("what is compared must be one value")
		}
		return comparison{left, right, op}, nil
	}
	p.at = end
	switch l := left.(type) {
	case query:
		return exists{l}, nil
	case function:
		if _, valued := functions[l.name]; !valued {
			return l, nil
		}
	}
	p.at = begin
	return nil, p.wrong("expected something that is true or false")
}

// operand reads a literal, a query or a function; one: it has one value at most.
func (p *parser) operand() (_ operand, one bool, err error) {
	switch c := p.next(); {
	case c == '\'' || c == '"':
		text, err := p.quoted()
		return literal{text}, true, err
	case c == '-' || digit(c):
		n, err := p.number()
		return literal{n}, true, err
	case c == '@' || c == '$':
		p.at++
		segments, one, err := p.segments()
		return query{c == '$', segments}, one, err
	}
	begin := p.at
	for c := p.next(); c >= 'a' && c <= 'z' || p.at > begin && (c == '_' || digit(c)); c = p.next() {
		p.at++
	}
	word := p.text[begin:p.at]
	if p.next() == '(' {
		f, err := p.function(word, begin)
		_, valued := functions[word]
		return f, valued, err
	}
	switch word {
	case "true":
		return literal{true}, true, nil
	case "false":
		return literal{false}, true, nil
	case "null":
		return literal{nil}, true, nil
	}
	p.at = begin
	return nil, false, p.wrong("expected a value, @, $ or a function")
}

// numeral is a number as JSON has it, and -0.
var numeral = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?`)

func (p *parser) number() (json.Number, error) {
	text := numeral.FindString(p.text[p.at:])
	if text == "" {
		return "", p.wrong("expected a number")
	}
	p.at += len(text)
	return json.Number(text), nil
}

func (p *parser) function(word string, begin int) (f function, err error) {
	f.name = word
	over, valued := functions[word]
	want := 1
	if !valued {
		if want = 2; word != "match" && word != "search" {
			p.at = begin
			return f, p.wrong("there is no function %q; there are length, count, match, search, value, typeof", word)
		}
	}
	p.take("(")
	for i := range want {
		p.blank()
		at := p.at
		o, one, err := p.operand()
		if err != nil {
			return f, err
		}
		q, queries := o.(query)
		switch {
		case over && !queries:
			p.at = at
			return f, p.wrong("%s is of a query", word)
		case !over && !one:
			p.at = at
			return f, p.wrong("%s is of one value", word)
		}
		f.over, f.of = q, append(f.of, o)
		if l, ok := o.(literal); ok && i == 1 {
			if text, ok := l.is.(string); ok {
				f.parts = weight.Of(text)
				if f.linear, err = compilePattern(word, text, weight.Max); err != nil {
					p.at = at
					return f, p.wrong("%q is no pattern: %v", text, err)
				}
			}
		}
		p.blank()
		if i < want-1 && !p.take(",") {
			return f, p.wrong("expected , and another argument")
		}
	}
	if !p.take(")") {
		return f, p.wrong("expected )")
	}
	return f, nil
}
