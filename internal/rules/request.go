package rules

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// MaxFilter bounds the text of a filter in bytes: far above what people write,
// far below a message of the protocol.
const MaxFilter = 64 << 10

// FilterKinds are the fields of a Filter, for a person.
const FilterKinds = "header, path, method, host, client, sni, header_jq, body, all_of, any_of, not"

// Filter is a condition on a request. Exactly one field is set. It is JSON on
// the wire as well (Subscribe.Filter).
type Filter struct {
	Header *Pattern `json:"header,omitempty"` // regular expression on "name: value"
	Path   *Pattern `json:"path,omitempty"`   // regular expression on the path, and on the path with its query
	Method *Pattern `json:"method,omitempty"` // a method's name, whatever the case
	Host   *Pattern `json:"host,omitempty"`   // regular expression on the host, and on the host with its port
	// Client is an address of the client, or a prefix of addresses (RFC 4632, RFC 4291 §2.3):
	// like SNI a condition on a connection itself, of any protocol.
	Client *Pattern `json:"client,omitempty"`
	// SNI is a regular expression on the name that a client of TLS asks for (RFC 6066 §3).
	SNI *Pattern `json:"sni,omitempty"`
	// HeaderJQ is a jq program that is given each header as the text "name: value".
	HeaderJQ *Pattern `json:"header_jq,omitempty"`
	Body     *Body    `json:"body,omitempty"`
	AllOf    []Filter `json:"all_of,omitempty"`
	AnyOf    []Filter `json:"any_of,omitempty"`
	Not      *Filter  `json:"not,omitempty"`
}

// Body is a condition on a request's body.
type Body struct {
	Kind    string   `json:"kind"`              // BodyJSON, …
	Query   *Pattern `json:"query,omitempty"`   // of JSON: JSONPath; of jq: the program
	Matches *Pattern `json:"matches,omitempty"` // of JSON and text: regular expression, whose case counts
}

// Kinds of a Body.
const (
	BodyJSON = "json" // one of the parts that Query finds matches
	BodyText = "text" // the bytes match
	BodyJQ   = "jq"   // the first truth value that Query gives is true
)

// What of a body an agent waits for, if nothing else is said, and the most that
// it can be told: the agent's memory is for the connections of others too.
const (
	BodySize, MaxBodySize = 65535, 512 << 10              // bytes
	BodyTime, MaxBodyTime = time.Second, 60 * time.Second // behind the head
)

// inside are the filters that f is made of.
func (f Filter) inside() []Filter {
	all := slices.Concat(f.AllOf, f.AnyOf)
	if f.Not != nil {
		all = append(all, *f.Not)
	}
	return all
}

// Features are those that an agent must have for f (protocol.FeatureHTTPFilter
// and its like).
func (f Filter) Features() []string {
	all := []string{protocol.FeatureHTTPFilter}
	if f.Host != nil {
		all = append(all, protocol.FeatureHostFilter)
	}
	if f.Client != nil {
		all = append(all, protocol.FeatureClientFilter)
	}
	if f.SNI != nil {
		all = append(all, protocol.FeatureSNIFilter)
	}
	if f.Body != nil || f.HeaderJQ != nil {
		all = append(all, protocol.FeatureBodyFilter)
	}
	for _, one := range f.inside() {
		all = append(all, one.Features()...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Text is the filter as protocol.Subscribe has it: JSON, without what only a
// person at this machine wants to know.
func (f Filter) Text() (string, error) {
	bare, err := f.bare()
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(bare)
	if err != nil {
		return "", fmt.Errorf("write http_filter: %w", err)
	}
	if len(b) > MaxFilter {
		return "", fmt.Errorf("http_filter has at most %d bytes as JSON, not %d", MaxFilter, len(b))
	}
	return string(b), nil
}

// bare is a copy without its origin.
func (p *Pattern) bare() *Pattern {
	if p == nil {
		return nil
	}
	return &Pattern{Text: p.Text}
}

// bare is a copy without origins.
func (f Filter) bare() (bare Filter, err error) {
	set := 0
	for _, p := range []struct{ from, to **Pattern }{
		{&f.Header, &bare.Header}, {&f.Path, &bare.Path}, {&f.Method, &bare.Method}, {&f.Host, &bare.Host}, {&f.Client, &bare.Client}, {&f.SNI, &bare.SNI}, {&f.HeaderJQ, &bare.HeaderJQ},
	} {
		if *p.from != nil {
			set++
			*p.to = (*p.from).bare()
		}
	}
	if f.Body != nil {
		set++
		bare.Body = &Body{f.Body.Kind, f.Body.Query.bare(), f.Body.Matches.bare()}
	}
	for _, l := range []struct{ from, to *[]Filter }{{&f.AllOf, &bare.AllOf}, {&f.AnyOf, &bare.AnyOf}} {
		if len(*l.from) > 0 {
			set++
		}
		for _, one := range *l.from {
			b, err := one.bare()
			if err != nil {
				return Filter{}, err
			}
			*l.to = append(*l.to, b)
		}
	}
	if f.Not != nil {
		set++
		not, err := f.Not.bare()
		if err != nil {
			return Filter{}, err
		}
		bare.Not = &not
	}
	if set != 1 {
		return Filter{}, fmt.Errorf("http_filter has %d conditions in one place; it is one of %s", set, FilterKinds)
	}
	return bare, nil
}

// Line gives a header, "name: value", with which a request matches, where the
// filter asks for one header and nothing else, and that in plain text; else "".
func (f Filter) Line() string {
	if f.Header == nil {
		return ""
	}
	plain, err := regexp.Compile(strings.TrimSuffix(strings.TrimPrefix(f.Header.Text, "^"), "$"))
	if err != nil {
		return ""
	}
	line, whole := plain.LiteralPrefix()
	name, value, ok := strings.Cut(line, ": ")
	if !whole || !ok || name == "" || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
		return ""
	}
	if value == "" {
		value = "any"
	}
	return name + ": " + value
}
