package filter

import (
	"errors"
	"fmt"
	"time"

	"github.com/mirrord-go/mirrord/internal/rules"
	"github.com/mirrord-go/mirrord/internal/rules/expression"
)

var errEmpty = errors.New("it is empty")

// pattern is an expression that is searched for, whatever the case.
type pattern struct {
	rules.Pattern
	kind string
	expr expression.Expression
}

func compilePattern(kind string, p rules.Pattern) (pattern, error) {
	if p.Text == "" {
		return pattern{}, &PatternError{kind, p, errEmpty}
	}
	expr, err := expression.Compile(p.Text, true)
	if err != nil {
		return pattern{}, &PatternError{kind, p, err}
	}
	return pattern{p, kind, expr}, nil
}

// errSpent is about a request that has many lines to search, or a filter with
// many patterns: what one search may take is enough for all of them.
var errSpent = fmt.Errorf("it takes longer than %v with the searches before it", expression.MatchTime)

// search looks for the pattern in text. What cannot be decided is unknown, and
// the first such error is noted. An expression that is searched for in linear
// time is decided always.
func (p *pattern) search(s *subject, text string) verdict {
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
		if s.err == nil {
			s.err = &PatternError{p.kind, p.Pattern, fmt.Errorf("search %d bytes: %w", len(text), err)}
		}
		return unknown
	}
	return decided(ok)
}
