package filter

import (
	"errors"
	"fmt"

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

// search looks for the pattern in text. What cannot be decided is unknown, and
// the first such error is noted.
func (p *pattern) search(s *subject, text string) verdict {
	ok, err := p.expr.Match(text)
	if err != nil {
		if s.err == nil {
			s.err = &PatternError{p.kind, p.Pattern, fmt.Errorf("search %d bytes: %w", len(text), err)}
		}
		return unknown
	}
	return decided(ok)
}
