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
	"iter"
	"strings"
	"time"

	"github.com/mirrord-go/mirrord/internal/rules"
)

// maxDepth bounds filters inside filters: a tree deeper than people write is a
// mistake, and it costs stack.
const maxDepth = 16

// Request is what a filter looks at.
type Request struct {
	Method string
	Target string // as sent: origin form, absolute form, authority or *
	// Headers gives every header as sent, in order. It may be asked several
	// times.
	Headers iter.Seq2[string, string]
}

// Matcher is a compiled filter. It may be used concurrently.
type Matcher struct{ root node }

// PatternError says which pattern of a filter cannot be used.
type PatternError struct {
	Kind    string // "header", "path" or "method"
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
// patterns is a *PatternError, which names the place where it was written.
func Compile(f rules.Filter) (*Matcher, error) {
	root, err := compile(f, 0)
	if err != nil {
		return nil, err
	}
	return &Matcher{root}, nil
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
func (m *Matcher) Match(r Request) (bool, error) {
	s := &subject{Request: r}
	v := m.root.match(s)
	if v == unknown {
		return false, s.err
	}
	return v == yes, nil
}

// verdict is a truth value; unknown is that of a pattern which ran out of
// time. It spreads as in Kleene's logic, so that "not" does not turn a failure
// into a match.
type verdict int8

const (
	no verdict = iota
	unknown
	yes
)

func decided(ok bool) verdict {
	if ok {
		return yes
	}
	return no
}

// node is one condition of a filter.
type node interface{ match(*subject) verdict }

type (
	headerNode struct{ pattern }
	pathNode   struct{ pattern }
	methodNode string
	allNode    []node
	anyNode    []node
	notNode    struct{ node }
)

func (n headerNode) match(s *subject) verdict {
	for _, line := range s.headerLines() {
		// After an error the other lines are not tried: the time is spent.
		if v := n.search(s, line); v != no {
			return v
		}
	}
	return no
}

func (n pathNode) match(s *subject) verdict {
	whole := pathOf(s.Target)
	path, _, query := strings.Cut(whole, "?")
	if v := n.search(s, path); v != no || !query {
		return v
	}
	return n.search(s, whole)
}

func (n methodNode) match(s *subject) verdict { return decided(strings.EqualFold(s.Method, string(n))) }

func (n allNode) match(s *subject) verdict {
	v := yes
	for _, c := range n {
		if v = min(v, c.match(s)); v == no {
			break
		}
	}
	return v
}

func (n anyNode) match(s *subject) verdict {
	v := no
	for _, c := range n {
		if v = max(v, c.match(s)); v == yes {
			break
		}
	}
	return v
}

func (n notNode) match(s *subject) verdict { return yes - n.node.match(s) }

// subject is a request under examination.
type subject struct {
	Request
	spent  time.Duration // on searches that backtrack
	lines  []string      // see headerLines
	listed bool
	err    error // of the first pattern that could not be decided
}

// headerLines gives each header as "name: value": the name in lower case, as
// HTTP/2 has it, the value trimmed. Values that are not visible ASCII are left
// out: what they mean is between the two ends.
func (s *subject) headerLines() []string {
	if s.listed || s.Headers == nil {
		return s.lines
	}
	s.listed = true
	for name, value := range s.Headers {
		if value = strings.Trim(value, " \t"); visible(value) {
			s.lines = append(s.lines, strings.ToLower(name)+": "+value)
		}
	}
	return s.lines
}

func visible(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < ' ' && c != '\t') || c > '~' {
			return false
		}
	}
	return true
}

// pathOf gives path and query of a request's target (RFC 9112 §3.2). The
// authority form, of CONNECT, has neither.
func pathOf(target string) string {
	if strings.HasPrefix(target, "/") || target == "*" {
		return target
	}
	_, rest, ok := strings.Cut(target, "://")
	if !ok {
		return ""
	}
	switch at := strings.IndexAny(rest, "/?"); {
	case at < 0:
		return "/"
	case rest[at] == '?':
		return "/" + rest[at:]
	default:
		return rest[at:]
	}
}

// compile makes the node of f, which stands in depth others.
func compile(f rules.Filter, depth int) (node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("a filter has at most %d levels", maxDepth)
	}
	var nodes []node
	var errs []error
	add := func(n node, err error) { nodes, errs = append(nodes, n), append(errs, err) }
	if f.Header != nil {
		p, err := compilePattern("header", *f.Header)
		add(headerNode{p}, err)
	}
	if f.Path != nil {
		p, err := compilePattern("path", *f.Path)
		add(pathNode{p}, err)
	}
	if f.Method != nil {
		var err error
		if f.Method.Text == "" {
			err = &PatternError{"method", *f.Method, errEmpty}
		}
		add(methodNode(f.Method.Text), err)
	}
	if f.AllOf != nil {
		list, err := compileList("all_of", f.AllOf, depth)
		add(allNode(list), err)
	}
	if f.AnyOf != nil {
		list, err := compileList("any_of", f.AnyOf, depth)
		add(anyNode(list), err)
	}
	if f.Not != nil {
		n, err := compile(*f.Not, depth+1)
		add(notNode{n}, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	switch len(nodes) {
	case 0:
		return nil, errors.New("a filter is empty: it needs one of header, path, method, all_of, any_of, not")
	case 1:
		return nodes[0], nil
	}
	return nil, errors.New("a filter has more than one of header, path, method, all_of, any_of, not: put them into all_of or any_of")
}

func compileList(name string, list []rules.Filter, depth int) ([]node, error) {
	if len(list) == 0 {
		return nil, fmt.Errorf("%s is an empty list", name)
	}
	var nodes []node
	var errs []error
	for _, f := range list {
		n, err := compile(f, depth+1)
		nodes, errs = append(nodes, n), append(errs, err)
	}
	return nodes, errors.Join(errs...)
}
