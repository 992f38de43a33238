package rules

import (
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/dlclark/regexp2/v2"
)

// matchTime bounds one match of an expression that Go's own engine cannot do:
// such engines may need a time that doubles with each character. Names are
// short, so only a hostile expression gets there; it then matches nothing.
const matchTime = 100 * time.Millisecond

// expression is a regular expression in the dialect that mirrord's users write:
// Go's, and look-around, back-references and atomic groups. It is unanchored
// and case-sensitive.
type expression struct {
	linear       *regexp.Regexp // nil if Go's engine cannot do it
	backtracking *regexp2.Regexp
}

func compile(text string) (expression, error) {
	if x, err := regexp.Compile(text); err == nil {
		return expression{linear: x}, nil
	}
	x, err := regexp2.Compile(text, regexp2.RE2)
	if err != nil {
		return expression{}, errors.New(strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	x.MatchTimeout = matchTime
	return expression{backtracking: x}, nil
}

func (x expression) match(s string) bool {
	if x.linear != nil {
		return x.linear.MatchString(s)
	}
	ok, err := x.backtracking.MatchString(s)
	return err == nil && ok
}

// CheckExpression says what is wrong with a regular expression of
// EnvOptions.Mapping; nil: nothing.
func CheckExpression(text string) error {
	_, err := compile(text)
	return err
}
