// Package expression is the dialect of regular expressions that mirrord's
// users write for HTTP filters and names of variables.
//
// It is that of Rust's fancy-regex: what Go's regexp knows, with look-around,
// back-references, atomic groups and possessive quantifiers. Go's engine, which
// is linear in time, is used wherever it can compile the expression; on visible
// ASCII both mean the same by everything that Compile takes. It is pure; a
// match of the other engine is bounded in time and memory.
package expression

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"time"

	"github.com/dlclark/regexp2/v2"

	"github.com/mirrord-go/mirrord/internal/rules/weight"
)

// MatchTime bounds one search of the backtracking engine, whose clock ticks
// every 100 ms: an expression that needs longer for one line is not usable, and
// the agent's processor is for others too.
const MatchTime = 100 * time.Millisecond

// Expression is a compiled expression. It may be used concurrently.
type Expression struct {
	linear *regexp.Regexp  // nil: backtracking
	back   *regexp2.Regexp // nil: linear
}

// Compile reads an expression, which is searched for; with fold whatever the
// case. What engines do not agree about is an error, and so is what would be too
// large (*weight.Error).
func Compile(text string, fold bool) (Expression, error) {
	if err := errors.Join(check(text), weight.Check(text, weight.Max)); err != nil {
		return Expression{}, err
	}
	flagged := text
	if fold {
		flagged = "(?i)" + text
	}
	linear, err := regexp.Compile(flagged)
	if err == nil {
		return Expression{linear: linear}, nil
	}
	back, berr := regexp2.Compile(flagged, regexp2.RE2)
	if berr == nil {
		back.MatchTimeout = MatchTime
		return Expression{back: back}, nil
	}
	// Both say what is wrong; Go's is wrong when it only does not know a word.
	var se *syntax.Error
	if errors.As(err, &se) && (se.Code == syntax.ErrInvalidPerlOp || se.Code == syntax.ErrInvalidEscape || se.Code == syntax.ErrInvalidNamedCapture) {
		err = berr
	}
	return Expression{}, trim(err, flagged, text)
}

// trim takes our own prefix out of what an engine says.
func trim(err error, flagged, text string) error {
	said := strings.TrimPrefix(err.Error(), "error parsing regexp: ")
	said = strings.TrimSuffix(said, fmt.Sprintf(" in `%s`", flagged))
	return errors.New(strings.ReplaceAll(said, "`"+flagged+"`", "`"+text+"`"))
}

// Backtracks reports whether a search may take longer than its text is long,
// and so end undecided.
func (x Expression) Backtracks() bool { return x.linear == nil }

// Match searches text. An error says that it could not be decided within the
// bounds; it does not hold the text.
func (x Expression) Match(text string) (bool, error) {
	if x.linear != nil {
		return x.linear.MatchString(text), nil
	}
	ok, err := x.back.MatchString(text)
	switch {
	case errors.Is(err, regexp2.ErrBacktrackingStackLimit):
		return false, errors.New("it needs too much memory")
	case err != nil: // the engine's own words hold the text
		return false, fmt.Errorf("it takes longer than %v", MatchTime)
	}
	return ok, nil
}
