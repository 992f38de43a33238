package filter

import (
	"errors"
	"fmt"
	"slices"

	"github.com/mirrord-go/mirrord/internal/rules"
)

// maxDepth bounds filters inside filters: a tree deeper than people write is a
// mistake, and it costs stack.
const maxDepth = 16

// verdict is a truth value; unknown is that of a pattern which ran out of
// time. It spreads as in Kleene's logic, so that "not" does not turn a failure
// into a match.
type verdict int8

const (
	no verdict = iota
	unknown
	yes
)

func decided(ok bool) verdict {
	if ok {
		return yes
	}
	return no
}

func (v verdict) String() string { return []string{"does not match", "is undecided", "matches"}[v] }

// node is one condition of a filter.
type node interface{ match(*subject) verdict }

type (
	allNode []node
	anyNode []node
	notNode struct{ node }
	// leaf is a condition that looks at the request itself.
	leaf struct {
		rules.Pattern
		kind string
		test func(*subject) verdict
	}
)

func (n leaf) match(s *subject) verdict {
	v := unknown
	if !s.whole || n.kind == "client" || n.kind == "sni" && !s.nameless {
		v = n.test(s)
	}
	if s.look != nil {
		s.look(Step{n.kind, n.Pattern, v.String()})
	}
	return v
}

func (n allNode) match(s *subject) verdict {
	v := yes
	for _, c := range n {
		if v = min(v, c.match(s)); v == no {
			break
		}
	}
	return v
}

func (n anyNode) match(s *subject) verdict {
	v := no
	for _, c := range n {
		if v = max(v, c.match(s)); v == yes {
			break
		}
	}
	return v
}

func (n notNode) match(s *subject) verdict { return yes - n.node.match(s) }

// compile makes the node of f, which stands in depth others.
func compile(f rules.Filter, depth int) (node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("a filter has at most %d levels", maxDepth)
	}
	var nodes []node
	var errs []error
	add := func(n node, err error) { nodes, errs = append(nodes, n), append(errs, err) }
	if f.Header != nil {
		add(searchNode("header", *f.Header, pattern.header))
	}
	if f.Path != nil {
		add(searchNode("path", *f.Path, pattern.path))
	}
	if f.Host != nil {
		add(searchNode("host", *f.Host, pattern.host))
	}
	if f.Method != nil {
		add(methodNode(*f.Method))
	}
	if f.Client != nil {
		add(clientNode(*f.Client))
	}
	if f.SNI != nil {
		add(searchNode("sni", *f.SNI, pattern.serverName))
	}
	if f.HeaderJQ != nil {
		add(headerJQ(*f.HeaderJQ))
	}
	if f.Body != nil {
		add(bodyNode(*f.Body))
	}
	if f.AllOf != nil {
		list, err := compileList("all_of", f.AllOf, depth)
		add(allNode(list), err)
	}
	if f.AnyOf != nil {
		list, err := compileList("any_of", f.AnyOf, depth)
		add(anyNode(list), err)
	}
	if f.Not != nil {
		n, err := compile(*f.Not, depth+1)
		add(notNode{n}, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	switch len(nodes) {
	case 0:
		return nil, errors.New("a filter is empty: it needs one of " + rules.FilterKinds)
	case 1:
		return nodes[0], nil
	}
	return nil, errors.New("a filter has more than one of " + rules.FilterKinds + ": put them into all_of or any_of")
}

func compileList(name string, list []rules.Filter, depth int) ([]node, error) {
	if len(list) == 0 {
		return nil, fmt.Errorf("%s is an empty list", name)
	}
	var nodes []node
	var errs []error
	for _, f := range list {
		n, err := compile(f, depth+1)
		nodes, errs = append(nodes, n), append(errs, err)
	}
	slices.SortStableFunc(nodes, func(a, b node) int { return order(a) - order(b) })
	return nodes, errors.Join(errs...)
}

// order is 1 for what looks at the body, which has to be waited for, else 0.
func order(n node) (last int) {
	switch n := n.(type) {
	case bodyLeaf:
		return 1
	case notNode:
		return order(n.node)
	case allNode:
		for _, c := range n {
			last = max(last, order(c))
		}
	case anyNode:
		for _, c := range n {
			last = max(last, order(c))
		}
	}
	return last
}

// asksServerName reports whether n has a condition on whom a client of TLS asks for.
func asksServerName(n node) bool {
	switch n := n.(type) {
	case leaf:
		return n.kind == "sni"
	case notNode:
		return asksServerName(n.node)
	case allNode:
		return slices.ContainsFunc(n, asksServerName)
	case anyNode:
		return slices.ContainsFunc(n, asksServerName)
	}
	return false
}
