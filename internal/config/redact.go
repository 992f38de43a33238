package config

import (
	"regexp"
	"slices"
	"strings"

	"github.com/mirrord-go/mirrord/internal/rules"
)

// hidden stands for a value that was taken out.
const hidden = "(hidden)"

// headerName is the beginning of a condition on a header that is no more than
// the header's name.
var headerName = regexp.MustCompile(`^(?:\(\?[a-z]+\))?\^?[A-Za-z0-9_-]+ *: *`)

// beforeQuery is what a condition on a path says before the query, or before a
// value in it: a question mark that means itself, or an equals sign that does.
var beforeQuery = regexp.MustCompile(`^.*?(?:\\\?|\[\?\]|[^?<(]=)`)

// beforeBody is where what a body must match begins.
var beforeBody = regexp.MustCompile(`^\^?`)

// quoted is a text in a program of jq, or in a JSONPath.
var quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'`)

// Redacted gives c without what may be secret in it: names stay, values of
// variables, of headers, of queries and of bodies go. It also gives those values, for whoever looks
// for them elsewhere. c itself is not changed.
func (c Config) Redacted() (Config, []string) {
	var secrets []string
	hide := func(value string) string {
		if value == "" {
			return ""
		}
		secrets = append(secrets, value)
		return hidden
	}
	if c.Env.Override != nil {
		override := map[string]rules.Pattern{}
		for name, p := range c.Env.Override {
			p.Text = hide(p.Text)
			override[name] = p
		}
		c.Env.Override = override
	}
	c.Env.Mapping = slices.Clone(c.Env.Mapping)
	for i := range c.Env.Mapping {
		c.Env.Mapping[i].Value = hide(c.Env.Mapping[i].Value)
	}
	if c.Incoming.HTTP != nil {
		http := *c.Incoming.HTTP
		http.Filter = redactFilter(http.Filter, hide)
		c.Incoming.HTTP = &http
	}
	return c, secrets
}

func redactFilter(f rules.Filter, hide func(string) string) rules.Filter {
	after := func(kept *regexp.Regexp, p rules.Pattern) *rules.Pattern {
		name := kept.FindString(p.Text)
		value, end := strings.CutSuffix(p.Text[len(name):], "$") // what is repeated elsewhere has none
		p.Text = name + hide(value)
		if end {
			p.Text += "$"
		}
		return &p
	}
	if f.Header != nil {
		f.Header = after(headerName, *f.Header)
	}
	if f.Path != nil && beforeQuery.MatchString(f.Path.Text) {
		f.Path = after(beforeQuery, *f.Path)
	}
	texts := func(p *rules.Pattern) *rules.Pattern {
		if p == nil {
			return nil
		}
		return &rules.Pattern{Origin: p.Origin, Text: quoted.ReplaceAllStringFunc(p.Text, func(text string) string {
			return text[:1] + hide(text[1:len(text)-1]) + text[:1]
		})}
	}
	f.HeaderJQ = texts(f.HeaderJQ)
	if f.Body != nil {
		body := *f.Body
		if body.Query = texts(body.Query); body.Matches != nil {
			body.Matches = after(beforeBody, *body.Matches)
		}
		f.Body = &body
	}
	list := func(old []rules.Filter) (all []rules.Filter) {
		for _, g := range old {
			all = append(all, redactFilter(g, hide))
		}
		return all
	}
	f.AllOf, f.AnyOf = list(f.AllOf), list(f.AnyOf)
	if f.Not != nil {
		g := redactFilter(*f.Not, hide)
		f.Not = &g
	}
	return f
}
