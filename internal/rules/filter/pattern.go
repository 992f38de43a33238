package filter

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/mirrord-go/mirrord/internal/rules"
	"github.com/mirrord-go/mirrord/internal/rules/expression"
	"github.com/mirrord-go/mirrord/internal/rules/weight"
)

var errEmpty = errors.New("it is empty")

// maxWork bounds what searches in linear time take for a request, in bytes times
// the parts of the expression: a second or two at worst, where every part is tried
// at every byte, and far above what people search for.
const maxWork = 1 << 27

// pattern is an expression that is searched for.
type pattern struct {
	rules.Pattern
	kind  string
	expr  expression.Expression
	parts int
}

func compilePattern(kind string, p rules.Pattern, fold bool) (pattern, error) {
	if p.Text == "" {
		return pattern{}, &PatternError{kind, p, errEmpty}
	}
	expr, err := expression.Compile(p.Text, fold)
	if err != nil {
		return pattern{}, &PatternError{kind, p, err}
	}
	return pattern{p, kind, expr, weight.Of(p.Text)}, nil
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

// errClient says what a client can be.
var errClient = errors.New("it is no address (10.0.0.1, fd00::1) and no prefix of addresses (10.0.0.0/8, fd00::/8)")

// clientNode is a condition on the client's address, which means the same as IPv4 and
// mapped into IPv6.
func clientNode(p rules.Pattern) (node, error) {
	prefix, err := netip.ParsePrefix(p.Text)
	if addr, addrErr := netip.ParseAddr(p.Text); addrErr == nil && addr.Zone() == "" {
		prefix, err = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
	}
	if err != nil || prefix.Addr().Is4In6() {
		return nil, &PatternError{"client", p, errClient}
	}
	return leaf{p, "client", func(s *subject) verdict {
		if !s.Client.IsValid() {
			return unknown
		}
		return decided(prefix.Contains(s.Client.Unmap().WithZone("")))
	}}, nil
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

// serverName is about who asks for nobody, too: no pattern matches that.
func (p pattern) serverName(s *subject) verdict {
	if s.ServerName == "" {
		return no
	}
	return p.search(s, s.ServerName)
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

// errWork is the same for expressions whose search cannot be ended.
var errWork = errors.New("it takes too long for an expression of its size, with the searches before it")

// search looks for the pattern in text. What cannot be decided is unknown, and
// the first such error is noted. An expression that is searched for in linear
// time is decided, but for one that is large in a text that is.
func (p pattern) search(s *subject, text string) verdict {
	var ok bool
	var err error
	if !p.expr.Backtracks() {
		s.work += p.parts * len(text)
	}
	switch {
	case s.work > maxWork:
		err = errWork
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
