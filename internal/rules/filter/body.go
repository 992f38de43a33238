package filter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mirrord-go/mirrord/internal/rules"
	"github.com/mirrord-go/mirrord/internal/rules/expression"
	"github.com/mirrord-go/mirrord/internal/rules/jq"
	"github.com/mirrord-go/mirrord/internal/rules/jsonpath"
)

const (
	// maxNesting is how deep a document may be nested: parsers of others stop there
	// as well (Rust's serde_json), and searches go down by recursion.
	maxNesting = 128
	// maxSteps bounds the search of one query: some ten times the parts of the
	// largest document, and a fraction of a second.
	maxSteps = 1 << 20
)

var (
	errEncoded = errors.New("the body is compressed (Content-Encoding)")
	errNested  = fmt.Errorf("the body is nested deeper than %d levels", maxNesting)
)

// bodyLeaf is a condition on the body. It is looked at when what the head says
// has not decided.
type bodyLeaf struct{ leaf }

func bodyNode(b rules.Body) (node, error) {
	wrong := func(p *rules.Pattern, format string, args ...any) (node, error) {
		if p == nil {
			p = &rules.Pattern{}
		}
		return nil, &PatternError{"body", *p, fmt.Errorf(format, args...)}
	}
	needs := map[string][2]bool{rules.BodyJSON: {true, true}, rules.BodyText: {false, true}, rules.BodyJQ: {true, false}}
	has := [2]bool{b.Query != nil && b.Query.Text != "", b.Matches != nil && b.Matches.Text != ""}
	switch want, ok := needs[b.Kind]; {
	case !ok:
		return wrong(b.Query, "there is no kind %q; there are json, text, jq", b.Kind)
	case want != has:
		return wrong(b.Query, "a body of kind json has a query and what it matches, of kind text what it matches, of kind jq a query")
	}
	switch b.Kind {
	case rules.BodyJSON:
		query, err := jsonpath.Compile(b.Query.Text)
		if err != nil {
			return wrong(b.Query, "%w", err)
		}
		p, err := compilePattern("body", *b.Matches, false)
		if err != nil {
			return nil, err
		}
		shown := rules.Pattern{Text: b.Query.Text + " matches " + b.Matches.Text, Origin: b.Query.Origin}
		return bodyLeaf{leaf{shown, "body", func(s *subject) verdict { return s.inJSON(shown, query, p) }}}, nil
	case rules.BodyText:
		p, err := compilePattern("body", *b.Matches, false)
		if err != nil {
			return nil, err
		}
		return bodyLeaf{leaf{*b.Matches, "body", func(s *subject) verdict {
			text, err := s.body()
			if err != nil {
				return s.undecided("body", p.Pattern, err)
			}
			return p.search(s, string(text))
		}}}, nil
	}
	program, err := jq.Compile(b.Query.Text)
	if err != nil {
		return wrong(b.Query, "%w", err)
	}
	return bodyLeaf{leaf{*b.Query, "body", func(s *subject) verdict {
		document, ok, err := s.document()
		switch {
		case err != nil:
			return s.undecided("body", *b.Query, err)
		case !ok:
			return no
		}
		return s.run("body", *b.Query, program, document)
	}}}, nil
}

// headerJQ is a condition on the headers, by a program.
func headerJQ(p rules.Pattern) (node, error) {
	if p.Text == "" {
		return nil, &PatternError{"header_jq", p, errEmpty}
	}
	program, err := jq.Compile(p.Text)
	if err != nil {
		return nil, &PatternError{"header_jq", p, err}
	}
	return leaf{p, "header_jq", func(s *subject) verdict {
		for _, line := range s.headerLines() {
			if v := s.run("header_jq", p, program, line); v != no {
				return v
			}
		}
		return no
	}}, nil
}

// run runs a program in the time that is left for the request.
func (s *subject) run(kind string, p rules.Pattern, program jq.Program, v any) verdict {
	if s.spent >= expression.MatchTime {
		return s.undecided(kind, p, errSpent)
	}
	begun := time.Now()
	ok, err := program.Accepts(v, expression.MatchTime-s.spent)
	s.spent += time.Since(begun)
	if err != nil {
		return s.undecided(kind, p, err)
	}
	return decided(ok)
}

// inJSON looks for p in the parts of the body that query finds: texts as they
// are, other values as their JSON.
func (s *subject) inJSON(shown rules.Pattern, query jsonpath.Path, p pattern) verdict {
	document, ok, err := s.document()
	switch {
	case err != nil:
		return s.undecided("body", shown, err)
	case !ok:
		return no
	}
	found, err := query.Select(document, maxSteps)
	if err != nil {
		return s.undecided("body", shown, err)
	}
	written := 0
	for _, part := range found {
		text, ok := part.(string)
		if !ok {
			text = asJSON(part)
		}
		// A part may hold the others: their texts together are many times the body.
		if written += len(text); written > rules.MaxBodySize*2 {
			return s.undecided("body", shown, errors.New("the query finds too much text"))
		}
		if v := p.search(s, text); v != no {
			return v
		}
	}
	return no
}

func asJSON(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // of what was decoded
	return strings.TrimSuffix(b.String(), "\n")
}

// body is the request's body, which is asked for once.
func (s *subject) body() ([]byte, error) {
	if s.asked {
		return s.content, s.unread
	}
	s.asked = true
	for _, line := range s.headerLines() {
		if coding, ok := strings.CutPrefix(line, "content-encoding: "); ok && !strings.EqualFold(coding, "identity") {
			s.unread = errEncoded
			return nil, s.unread
		}
	}
	if s.Body != nil {
		s.content, s.unread = s.Body()
	}
	return s.content, s.unread
}

// document is the body as JSON; false: it is none.
func (s *subject) document() (any, bool, error) {
	if s.parsed {
		return s.json, s.isJSON, s.unread
	}
	text, err := s.body()
	if err != nil {
		return nil, false, err
	}
	s.parsed = true
	if !nested(text, maxNesting) {
		s.unread = errNested
		return nil, false, s.unread
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if !utf8.Valid(text) || d.Decode(&s.json) != nil {
		return nil, false, nil
	}
	_, err = d.Token()
	s.isJSON = errors.Is(err, io.EOF) // nothing stands behind
	return s.json, s.isJSON, nil
}

// nested reports whether no more than most brackets of a JSON text are open at
// once.
func nested(text []byte, most int) bool {
	open, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted:
			if c == '\\' {
				i++
			} else if c == '"' {
				quoted = false
			}
		case c == '"':
			quoted = true
		case c == '[' || c == '{':
			if open++; open > most {
				return false
			}
		case c == ']' || c == '}':
			open--
		}
	}
	return true
}
