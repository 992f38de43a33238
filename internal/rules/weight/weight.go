// Package weight tells how large a regular expression becomes, before it is
// compiled.
//
// Go's engine is linear in time, not in memory: it writes repetitions out, so that
// a few thousand characters become hundreds of megabytes of instructions, and a
// class of Unicode has hundreds of ranges each time it is named. Expressions of
// filters come from whoever has a session, and are compiled in the agent, and in
// those of others on the same port; some come from clients of the target. So they
// are weighed wherever they are compiled. It is pure.
package weight

import (
	"fmt"
	"regexp/syntax"
)

const (
	// Max is the most that all expressions of a filter weigh together: some
	// thousand names, or some hundred long repetitions.
	Max = 32 << 10
	// maxText bounds an expression in bytes, since reading it takes memory as well:
	// of classes alone some 30 MiB.
	maxText = 16 << 10
	// perRange is how many ranges of classes count as one instruction.
	perRange = 8
)

// Error says that an expression is too heavy.
type Error struct{ Most int }

func (e *Error) Error() string {
	return fmt.Sprintf("it is too large: what its repetitions and classes stand for has more than %d parts", e.Most)
}

// Check gives an *Error if an expression weighs more than most.
func Check(text string, most int) error {
	if Of(text) > most {
		return &Error{most}
	}
	return nil
}

// Of is about how many instructions an expression becomes, at most Max+1. One
// that Go cannot read counts as its length: the other engine repeats by counting.
func Of(text string) int {
	if len(text) > maxText {
		return Max + 1
	}
	re, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return len(text)
	}
	parts, ranges := count(re)
	return min(parts+ranges/perRange, Max+1)
}

// count gives what re becomes: instructions, and ranges of classes, which
// repetitions share.
func count(re *syntax.Regexp) (parts, ranges int) {
	for _, sub := range re.Sub {
		p, r := count(sub)
		parts, ranges = parts+p, ranges+r
	}
	switch re.Op {
	case syntax.OpLiteral:
		parts = len(re.Rune)
	case syntax.OpCharClass:
		ranges = len(re.Rune) / 2
	case syntax.OpRepeat: // each that may be missing has a branch before it
		parts = parts*max(re.Min, re.Max, 1) + max(re.Max-re.Min, 0)
	}
	return min(parts+1, Max+1), ranges
}
