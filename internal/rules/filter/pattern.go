package filter

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"time"

	"github.com/dlclark/regexp2/v2"

	"github.com/mirrord-go/mirrord/internal/rules"
)

// matchTime bounds one search of the backtracking engine, whose clock ticks
// every 100 ms: a pattern that needs longer for one line is not usable, and
// the agent's processor is for others too.
const matchTime = 100 * time.Millisecond

var errEmpty = errors.New("it is empty")

// pattern is a regular expression that is searched for, whatever the case.
//
// The dialect is that of Rust's fancy-regex: what Go's regexp knows, with
// look-around, back-references, atomic groups and possessive quantifiers.
// Go's engine, which is linear in time, is used wherever it can compile the
// pattern; on visible ASCII both mean the same by everything that passes
// check. (FuzzEngines compares them.)
type pattern struct {
	rules.Pattern
	kind   string
	linear *regexp.Regexp  // nil: backtracking
	back   *regexp2.Regexp // nil: linear
}

func compilePattern(kind string, p rules.Pattern) (pattern, error) {
	refuse := func(err error) (pattern, error) { return pattern{}, &PatternError{kind, p, err} }
	if p.Text == "" {
		return refuse(errEmpty)
	}
	if err := check(p.Text); err != nil {
		return refuse(err)
	}
	text := "(?i)" + p.Text
	linear, err := regexp.Compile(text)
	if err == nil {
		return pattern{p, kind, linear, nil}, nil
	}
	back, berr := regexp2.Compile(text, regexp2.RE2)
	if berr == nil {
		back.MatchTimeout = matchTime
		return pattern{p, kind, nil, back}, nil
	}
	// Both say what is wrong; Go's is wrong when it only does not know a word.
	var se *syntax.Error
	if errors.As(err, &se) && (se.Code == syntax.ErrInvalidPerlOp || se.Code == syntax.ErrInvalidEscape || se.Code == syntax.ErrInvalidNamedCapture) {
		return refuse(trimPattern(berr, text))
	}
	return refuse(trimPattern(err, text))
}

// trimPattern takes our own prefix out of what an engine says.
func trimPattern(err error, text string) error {
	said := strings.TrimPrefix(err.Error(), "error parsing regexp: ")
	said = strings.TrimSuffix(said, fmt.Sprintf(" in `%s`", text))
	return errors.New(strings.ReplaceAll(said, "`"+text+"`", "`"+strings.TrimPrefix(text, "(?i)")+"`"))
}

// search looks for the pattern in text. Out of time, or of memory, it is
// unknown and the first such error is noted.
func (p *pattern) search(s *subject, text string) verdict {
	if p.linear != nil {
		return decided(p.linear.MatchString(text))
	}
	ok, err := p.back.MatchString(text)
	if err != nil {
		if s.err == nil {
			if errors.Is(err, regexp2.ErrBacktrackingStackLimit) {
				err = errors.New("it needs too much memory")
			} else {
				err = fmt.Errorf("it takes longer than %v", matchTime) // the engine's own text holds the request
			}
			s.err = &PatternError{p.kind, p.Pattern, fmt.Errorf("search %d bytes: %w", len(text), err)}
		}
		return unknown
	}
	return decided(ok)
}

// check refuses what an engine here would take for something else than the
// dialect means, so that no filter is silently another one: set operations in
// classes, {,n}, flags and escapes of one engine alone.
func check(p string) error {
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '\\':
			if i+1 < len(p) && p[i+1] == 'Q' {
				end := strings.Index(p[i:], `\E`)
				if end < 0 {
					return nil // literal to its end
				}
				i += end + 1
				continue
			}
			if err := checkEscape(p[i:]); err != nil {
				return err
			}
			i++
		case '[':
			n, err := checkClass(p[i:])
			if err != nil {
				return err
			}
			i += n - 1
		case '{':
			if strings.HasPrefix(p[i:], "{,") {
				return errors.New("{,n} is not a repetition in every engine: write {0,n}, or \\{ for a brace")
			}
		case '(':
			if err := checkFlags(p[i:]); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkEscape looks at the escape that p begins with.
func checkEscape(p string) error {
	if len(p) < 2 {
		return nil // the engines refuse it
	}
	c := p[1]
	letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
	if letter && !strings.ContainsRune("AabBdDEfknpPrsStuvwWxzZ", rune(c)) || c == '<' || c == '>' {
		return fmt.Errorf("the escape \\%c is not supported", c)
	}
	return nil
}

// checkClass looks at the character class that p begins with and gives its
// length.
func checkClass(p string) (int, error) {
	i := 1
	if strings.HasPrefix(p[i:], "^") {
		i++
	}
	if strings.HasPrefix(p[i:], "]") {
		i++ // a bracket in first place is itself
	}
	for i < len(p) {
		rest := p[i:]
		switch {
		case rest[0] == ']':
			return i + 1, nil
		case rest[0] == '\\':
			if strings.HasPrefix(rest, `\b`) || strings.HasPrefix(rest, `\B`) || strings.HasPrefix(rest, `\Q`) {
				return 0, fmt.Errorf("the escape %s is not supported in a character class", rest[:2])
			}
			if err := checkEscape(rest); err != nil {
				return 0, err
			}
			i += 2
		case strings.HasPrefix(rest, "[:"):
			end := strings.Index(rest, ":]")
			if end < 0 {
				return 0, errors.New("a [: in a character class has no :]")
			}
			i += end + 2
		case rest[0] == '[', strings.HasPrefix(rest, "&&"), strings.HasPrefix(rest, "--"), strings.HasPrefix(rest, "~~"):
			return 0, errors.New(`classes in classes and set operations are not supported: write \[ for a bracket, \- for a dash`)
		default:
			i++
		}
	}
	return i, nil // no end: the engines say so
}

// checkFlags looks at the group that p begins with.
func checkFlags(p string) error {
	rest, ok := strings.CutPrefix(p, "(?")
	if !ok {
		return nil
	}
	n := 0
	for n < len(rest) && (rest[n] == '-' || rest[n] >= 'a' && rest[n] <= 'z' || rest[n] >= 'A' && rest[n] <= 'Z') {
		n++
	}
	if n == 0 || n == len(rest) || rest[n] != ')' && rest[n] != ':' {
		return nil // not flags
	}
	for _, c := range rest[:n] {
		if !strings.ContainsRune("imsUx-", c) {
			return fmt.Errorf("the flag %c is not supported", c)
		}
	}
	return nil
}
