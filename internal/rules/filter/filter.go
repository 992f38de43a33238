// Package filter decides whether an HTTP request is meant by a rules.Filter.
//
// A filter is compiled once and asked for every request, on the agent and, to
// explain, on the developer's machine; it travels between them as JSON. It is
// pure but for the clock that bounds a match: patterns are the user's, requests
// are anybody's, and some pairs of the two take a backtracking engine for ever.
package filter

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/mirrord-go/mirrord/internal/rules"
	"github.com/mirrord-go/mirrord/internal/rules/weight"
)

// Matcher is a compiled filter. It may be used concurrently.
type Matcher struct {
	root   node
	weight int
}

// PatternError says which pattern of a filter cannot be used.
type PatternError struct {
	Kind    string // "header", "path", …
	Pattern rules.Pattern
	Err     error
}

func (e *PatternError) Error() string {
	text := fmt.Sprintf("%s filter %q: %v", e.Kind, e.Pattern.Text, e.Err)
	if e.Pattern.Origin != "" {
		text = e.Pattern.Origin + ": " + text
	}
	return text
}

// Unwrap gives Err.
func (e *PatternError) Unwrap() error { return e.Err }

// Compile checks f and makes a Matcher of it. What is wrong with one of its
// patterns is a *PatternError, which names the place where it was written. All of
// its patterns together weigh no more than weight.Max.
func Compile(f rules.Filter) (*Matcher, error) {
	heavy, err := weigh(f)
	if err != nil {
		return nil, err
	}
	root, err := compile(f, 0)
	if err != nil {
		return nil, err
	}
	return &Matcher{root, heavy}, nil
}

// Bytes is about how much memory m holds.
func (m *Matcher) Bytes() int { return m.weight * perPart }

// perPart is about what a part of a pattern takes, in bytes: its instruction, what
// the engine derives from that, and the state of a search.
const perPart = 256

// weigh is what the patterns of f weigh together, before one of them is compiled.
func weigh(f rules.Filter) (sum int, err error) {
	sum = 1
	add := func(kind string, p *rules.Pattern) {
		if p == nil || err != nil {
			return
		}
		n := weight.Of(p.Text)
		if sum += n; n > weight.Max {
			err = &PatternError{kind, *p, &weight.Error{Most: weight.Max}}
		}
	}
	add("header", f.Header)
	add("path", f.Path)
	add("host", f.Host)
	add("method", f.Method)
	add("client", f.Client)
	add("sni", f.SNI)
	add("header_jq", f.HeaderJQ)
	if f.Body != nil {
		add("body", f.Body.Query)
		add("body", f.Body.Matches)
	}
	if err != nil {
		return 0, err
	}
	inside := slices.Concat(f.AllOf, f.AnyOf)
	if f.Not != nil {
		inside = append(inside, *f.Not)
	}
	for _, one := range inside {
		n, err := weigh(one)
		if err != nil {
			return 0, err
		}
		if sum += n; sum > weight.Max {
			return 0, fmt.Errorf("a filter is too large: what the repetitions and classes of its patterns stand for has more than %d parts", weight.Max)
		}
	}
	return sum, nil
}

// Parse reads what rules.Filter.Text wrote and compiles it. A kind of filter that a newer
// release knows is an error: it must not match more than was meant.
func Parse(text string) (*Matcher, error) {
	if len(text) > rules.MaxFilter {
		return nil, fmt.Errorf("a filter has at most %d bytes as JSON, not %d", rules.MaxFilter, len(text))
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	var f rules.Filter
	if err := d.Decode(&f); err != nil {
		return nil, fmt.Errorf("read a filter: %w", err)
	}
	if d.More() {
		return nil, errors.New("read a filter: more than one value")
	}
	return Compile(f)
}

// Match reports whether r is meant. All its searches together take no longer
// than one may (expression.MatchTime), and the one that is begun last. When a pattern could not be decided in
// time and the rest does not decide either, the answer is no, with the error.
func (m *Matcher) Match(r Request) (bool, error) { return m.match(&subject{Request: r}) }

func (m *Matcher) match(s *subject) (bool, error) {
	v := m.root.match(s)
	if v == unknown {
		return false, s.err
	}
	return v == yes, nil
}

// Whole reports whether all of a connection of that client is meant, whatever it
// carries. serverName is as in Request, nil: it is not known yet. decided false: that
// takes a look at its requests.
func (m *Matcher) Whole(client netip.Addr, serverName *string) (meant, decided bool) {
	s := &subject{Request: Request{Client: client}, whole: true, nameless: serverName == nil}
	if serverName != nil {
		s.ServerName = *serverName
	}
	v := m.root.match(s)
	return v == yes, v != unknown
}

// AsksServerName reports whether it may matter whom a client of TLS asks for.
func (m *Matcher) AsksServerName() bool { return asksServerName(m.root) }

// Step is a condition that was looked at, in the order of looking.
type Step struct {
	Kind    string // "header", "path", …
	Pattern rules.Pattern
	Holds   string // "matches", "does not match", "is undecided"
}

func (s Step) String() string {
	text := fmt.Sprintf("%s %q %s", s.Kind, s.Pattern.Text, s.Holds)
	if s.Pattern.Origin != "" {
		text += " (" + s.Pattern.Origin + ")"
	}
	return text
}

// Explain is Match with the steps that led to its answer.
func (m *Matcher) Explain(r Request) (matched bool, steps []Step, err error) {
	s := &subject{Request: r, look: func(one Step) { steps = append(steps, one) }}
	matched, err = m.match(s)
	return matched, steps, err
}
