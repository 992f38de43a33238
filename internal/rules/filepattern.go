package rules

import (
	"fmt"
	"path"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
)

// PatternError says which pattern of the user's cannot be used.
type PatternError struct {
	Key     string // of the configuration: "feature.fs.local"
	Pattern Pattern
	Err     error
}

// Error gives the place, the pattern and what is wrong with it.
func (e *PatternError) Error() string { return fmt.Sprintf("%s: %v", origin(e.Key, e.Pattern), e.Err) }

// Unwrap gives Err.
func (e *PatternError) Unwrap() error { return e.Err }

// origin names a pattern for a person.
func origin(key string, p Pattern) string {
	if p.Origin != "" {
		key = p.Origin
	}
	return fmt.Sprintf("%s: %q", key, p.Text)
}

// pattern is a regular expression on paths, unanchored, whatever the case, and
// what is known of the paths that it can match.
type pattern struct {
	re  *regexp.Regexp
	why string
	// Every path that matches begins with one of the heads, whatever the case.
	heads []head
	// literal are the heads as the user wrote them.
	literal []head
}

// head is how a path begins.
type head struct {
	text string
	end  end
}

// end says what follows a head in the paths that match.
type end uint8

const (
	endSome  end = iota // something: not everything that begins so matches
	endAny              // anything: everything that begins so matches
	endExact            // nothing
)

func newPattern(key string, p Pattern) (*pattern, error) {
	re, err := regexp.Compile("(?i)" + p.Text)
	if err != nil {
		if _, plain := regexp.Compile(p.Text); plain != nil {
			err = plain // without what was added to it
		}
		return nil, &PatternError{key, p, err}
	}
	c := &pattern{re: re, why: origin(key, p), literal: heads(p.Text, true)}
	for _, h := range heads("(?i)"+p.Text, false) {
		c.heads = append(c.heads, head{fold(h.text), h.end})
	}
	return c, nil
}

// holds reports whether the pattern matches p, and counts in the guarded
// directory that p is in (empty: none).
func (c *pattern) holds(p, guard string) bool {
	return c.into(guard) && c.re.MatchString(p)
}

// into reports whether the pattern counts in the guarded directory: it must
// name it.
func (c *pattern) into(guard string) bool {
	if guard == "" {
		return true
	}
	g := fold(guard)
	return slices.ContainsFunc(c.heads, func(h head) bool { return h.text == g || strings.HasPrefix(h.text, g+"/") })
}

// apply gives p the name that the mapping has for it.
func (m mapping) apply(p, guard string) (string, bool) {
	if !m.into(guard) {
		return "", false
	}
	at := m.re.FindStringSubmatchIndex(p)
	if at == nil {
		return "", false
	}
	to := m.re.ExpandString([]byte(p[:at[0]]), m.to, p, at)
	return path.Clean("/" + string(to) + p[at[1]:]), true
}

// slashed is dir as the beginning of what is below it, for comparing.
func slashed(dir string) string {
	if dir == "/" {
		return "/"
	}
	return fold(dir) + "/"
}

// reaches reports whether the pattern may match dir or something below it.
func (c *pattern) reaches(dir string) bool {
	below := slashed(dir)
	return slices.ContainsFunc(c.heads, func(h head) bool {
		return strings.HasPrefix(h.text, below) || h.text+"/" == below || h.end != endExact && strings.HasPrefix(below, h.text)
	})
}

// everywhere reports whether nothing tells the directories below dir apart: if
// the pattern may match below one it may below all.
func (c *pattern) everywhere(dir string) bool {
	below := slashed(dir)
	return slices.ContainsFunc(c.heads, func(h head) bool { return h.end != endExact && strings.HasPrefix(below, h.text) })
}

// covers reports whether the pattern matches all that is below dir.
func (c *pattern) covers(dir string) bool {
	below := slashed(dir)
	return slices.ContainsFunc(c.heads, func(h head) bool { return h.end == endAny && strings.HasPrefix(below, h.text) })
}

// namesBelow reports whether the pattern begins with a path and may match
// something strictly below dir, which is in guard.
func (c *pattern) namesBelow(dir, guard string) bool {
	below := slashed(dir)
	return c.into(guard) && slices.ContainsFunc(c.heads, func(h head) bool {
		if len(h.text) < 2 { // "" or "/": it names nothing
			return false
		}
		return len(h.text) > len(below) && strings.HasPrefix(h.text, below) || h.end != endExact && strings.HasPrefix(below, h.text)
	})
}

// leads reports whether the pattern spells out something strictly below dir.
func (c *pattern) leads(dir string) bool {
	below := slashed(dir)
	return slices.ContainsFunc(c.heads, func(h head) bool { return strings.HasPrefix(h.text, below) })
}

// names gives the names in dir that the pattern spells out.
func (c *pattern) names(dir string) (names []string) {
	below := strings.TrimSuffix(dir, "/") + "/"
	for _, h := range c.literal {
		rest, ok := strings.CutPrefix(h.text, below)
		name, _, whole := strings.Cut(rest, "/")
		if ok && name != "" && (whole || h.end != endSome) {
			names = append(names, name)
		}
	}
	return names
}

// fold gives the same text for all that differ in case only, by the folding
// that package regexp uses.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for x := unicode.SimpleFold(r); x != r; x = unicode.SimpleFold(x) {
			least = min(least, x)
		}
		return least
	}, s)
}

const (
	// maxHeads bounds the heads of one pattern: what has more alternatives is
	// taken to begin with what they share.
	maxHeads = 64
	// maxSteps bounds the work on one pattern: alternatives within alternatives
	// multiply.
	maxSteps = 4096
	// maxClass bounds a class of characters that is taken as alternatives.
	maxClass = 16
)

// heads gives how the texts begin that match expr, which compiles. A pattern
// that is not anchored has one empty head. Unless as is set, a head whose case
// matters is not taken to be all there is.
func heads(expr string, as bool) []head {
	anywhere := []head{{"", endSome}}
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return anywhere
	}
	var list []head
	for _, b := range (&analysis{maxSteps}).step(re, []beginning{{}}) {
		switch {
		case !b.anchored:
			return anywhere
		case b.state == exact:
			list = append(list, head{b.text, endExact})
		case b.state == required || b.cased && !as:
			list = append(list, head{b.text, endSome})
		default:
			list = append(list, head{b.text, endAny})
		}
	}
	return list
}

// beginning is what a text that matches the expression so far begins with.
type beginning struct {
	text     string
	anchored bool  // the text begins here
	cased    bool  // in this case only
	state    state // what came behind text
}

type state uint8

const (
	growing  state = iota // nothing
	optional              // what may be empty
	required              // what may not
	exact                 // the end
)

// analysis follows one pattern.
type analysis struct{ left int } // steps

// step continues every beginning with re.
func (a *analysis) step(re *syntax.Regexp, list []beginning) []beginning {
	// more is where nothing is known of re but that it is not empty.
	more := func(b beginning) []beginning {
		b.state = required
		return []beginning{b}
	}
	each := func(do func(b beginning) []beginning) (all []beginning) {
		for _, b := range list {
			a.left--
			all = append(all, do(b)...)
		}
		if len(all) > maxHeads || a.left < 0 { // too many to tell apart: as many as there were
			for i := range list {
				list[i].state = required
			}
			return list
		}
		return all
	}
	literal := func(b beginning, r rune, cased bool) beginning {
		b.text += string(r)
		b.cased = b.cased || cased
		return b
	}
	if a.left < 0 {
		return each(more)
	}
	switch re.Op {
	case syntax.OpNoMatch:
		return nil
	case syntax.OpEmptyMatch:
		return list
	case syntax.OpCapture:
		return a.step(re.Sub[0], list)
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			list = a.step(sub, list)
		}
		return list
	case syntax.OpBeginText:
		return each(func(b beginning) []beginning {
			if b.anchored || b.state != growing {
				return more(b)
			}
			b.anchored = true
			return []beginning{b}
		})
	case syntax.OpLiteral:
		return each(func(b beginning) []beginning {
			if b.state != growing || !b.anchored {
				return more(b)
			}
			for _, r := range re.Rune {
				b = literal(b, r, re.Flags&syntax.FoldCase == 0 && unicode.SimpleFold(r) != r)
			}
			return []beginning{b}
		})
	case syntax.OpCharClass:
		var runes []rune
		for i := 0; i < len(re.Rune) && len(runes) <= maxClass; i += 2 {
			for r := re.Rune[i]; r <= re.Rune[i+1] && len(runes) <= maxClass; r++ {
				runes = append(runes, r)
			}
		}
		return each(func(b beginning) []beginning {
			if b.state != growing || !b.anchored || len(runes) > maxClass {
				return more(b)
			}
			var all []beginning
			for _, r := range runes {
				other := unicode.SimpleFold(r)
				for other != r && slices.Contains(runes, other) {
					other = unicode.SimpleFold(other)
				}
				all = append(all, literal(b, r, other != r))
			}
			return all
		})
	case syntax.OpAlternate:
		return each(func(b beginning) (all []beginning) {
			for _, sub := range re.Sub {
				all = append(all, a.step(sub, []beginning{b})...)
			}
			return all
		})
	case syntax.OpQuest:
		return each(func(b beginning) []beginning { return append(a.step(re.Sub[0], []beginning{b}), b) })
	case syntax.OpStar:
		return each(func(b beginning) []beginning {
			if b.state == growing {
				b.state = optional
			}
			return []beginning{b}
		})
	case syntax.OpEndText:
		return each(func(b beginning) []beginning {
			if b.state != growing {
				return more(b)
			}
			b.state = exact
			return []beginning{b}
		})
	}
	return each(more)
}
