package filter

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mirrord-go/mirrord/internal/rules"
	"github.com/mirrord-go/mirrord/internal/rules/expression"
)

var errEmpty = errors.New("it is empty")

// pattern is an expression that is searched for.
type pattern struct {
	rules.Pattern
	kind string
	expr expression.Expression
}

func compilePattern(kind string, p rules.Pattern, fold bool) (pattern, error) {
	if p.Text == "" {
		return pattern{}, &PatternError{kind, p, errEmpty}
	}
	expr, err := expression.Compile(p.Text, fold)
	if err != nil {
		return pattern{}, &PatternError{kind, p, err}
	}
	return pattern{p, kind, expr}, nil
}

// searchNode is a condition on a part of the head, whatever its case.
func searchNode(kind string, p rules.Pattern, test func(pattern, *subject) verdict) (node, error) {
	c, err := compilePattern(kind, p, true)
	return leaf{p, kind, func(s *subject) verdict { return test(c, s) }}, err
}

func methodNode(p rules.Pattern) (node, error) {
	if p.Text == "" {
		return nil, &PatternError{"method", p, errEmpty}
	}
	return leaf{p, "method", func(s *subject) verdict { return decided(strings.EqualFold(s.Method, p.Text)) }}, nil
}

func (p pattern) header(s *subject) verdict { return p.first(s, s.headerLines()...) }

func (p pattern) path(s *subject) verdict {
	whole := pathOf(s.Target)
	path, _, query := strings.Cut(whole, "?")
	if !query {
		return p.search(s, path)
	}
	return p.first(s, path, whole)
}

func (p pattern) host(s *subject) verdict {
	for _, host := range s.hosts() {
		all := []string{withoutPort(host)}
		if all[0] != host {
			all = append(all, host)
		}
		if v := p.first(s, all...); v != no {
			return v
		}
	}
	return no
}

// first looks for the pattern in texts until it is found. After an error the
// others are not tried: the time is spent.
func (p pattern) first(s *subject, texts ...string) verdict {
	for _, text := range texts {
		if v := p.search(s, text); v != no {
			return v
		}
	}
	return no
}

// errSpent is about a request that has many lines to search, or a filter with
// many patterns: what one search may take is enough for all of them.
var errSpent = fmt.Errorf("it takes longer than %v with the searches before it", expression.MatchTime)

// search looks for the pattern in text. What cannot be decided is unknown, and
// the first such error is noted. An expression that is searched for in linear
// time is decided always.
func (p pattern) search(s *subject, text string) verdict {
	var ok bool
	var err error
	switch {
	case !p.expr.Backtracks():
		ok, err = p.expr.Match(text)
	case s.spent >= expression.MatchTime:
		err = errSpent
	default:
		begun := time.Now()
		ok, err = p.expr.Match(text)
		s.spent += time.Since(begun)
	}
	if err != nil {
		return s.undecided(p.kind, p.Pattern, fmt.Errorf("search %d bytes: %w", len(text), err))
	}
	return decided(ok)
}

// undecided notes why a condition could not be decided.
func (s *subject) undecided(kind string, p rules.Pattern, err error) verdict {
	if s.err == nil {
		s.err = &PatternError{kind, p, err}
	}
	return unknown
}
