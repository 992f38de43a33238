package expression

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// padded is a repetition with a number like 00 or 01.
var padded = regexp.MustCompile(`^\{(0\d+(,\d*)?|\d+,0\d+)\}`)

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
			if i+1 < len(p) && p[i+1] == '\'' { // of a group's name, or of itself
				return errors.New(`the escape \' is not supported: write ' alone`)
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
			if n := padded.FindString(p[i:]); n != "" {
				return fmt.Errorf("%s is not a repetition in every engine: write its numbers without a 0 before them, or \\{ for a brace", n)
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
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	if c == '0' || digit(c) && len(p) > 2 && digit(p[2]) {
		return fmt.Errorf("the octal escape %s is not supported: write \\x and two hexadecimal digits", p[:2])
	}
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
