// Package jsonpath finds parts of a JSON document by a query of RFC 9535, with
// mirrord's own function typeof.
//
// A query is a developer's, documents are anybody's: a search counts its steps
// and gives up, so that no document makes one of many thousands of parts cost
// seconds. It touches nothing.
package jsonpath

import (
	"errors"
	"math"
)

// ErrSteps: the search took more steps than it may.
var ErrSteps = errors.New("the query takes too many steps")

// Path is a compiled query. It may be used concurrently.
type Path struct{ segments []segment }

// Compile reads a query. The error says what is wrong, and where.
func Compile(query string) (Path, error) {
	p := &parser{text: query}
	return p.query()
}

// Select gives the parts of document that the query means, in at most so many
// steps, else ErrSteps. The document is made of nil, bool, json.Number, string,
// []any and map[string]any, and stays as it is.
func (p Path) Select(document any, steps int) ([]any, error) {
	r := &run{root: document, steps: steps}
	found := r.walk(p.segments, document)
	if r.steps < 0 {
		return nil, ErrSteps
	}
	return found, nil
}

// run is one search.
type run struct {
	root  any
	steps int // left; below 0 the search has failed and only ends
}

// step spends n steps; false: there are none left.
func (r *run) step(n int) bool {
	r.steps = max(r.steps-n, -1)
	return r.steps >= 0
}

// segment takes each part to some of what is in it.
type segment struct {
	descends  bool // and in all that is below it
	selectors []selector
}

// selector adds to found what it selects of v.
type selector interface {
	choose(r *run, v any, found []any) []any
}

func (r *run) walk(segments []segment, from any) []any {
	found := []any{from}
	for _, s := range segments {
		var next []any
		for _, v := range found {
			if s.descends {
				next = r.descend(s.selectors, v, next)
			} else {
				next = r.choose(s.selectors, v, next)
			}
		}
		found = next
	}
	return found
}

func (r *run) choose(selectors []selector, v any, found []any) []any {
	for _, s := range selectors {
		if !r.step(1) {
			break
		}
		found = s.choose(r, v, found)
	}
	return found
}

func (r *run) descend(selectors []selector, v any, found []any) []any {
	found = r.choose(selectors, v, found)
	each(v, func(inside any) bool {
		found = r.descend(selectors, inside, found)
		return r.steps >= 0
	})
	return found
}

// each visits what an array or object holds, until visit says false.
func each(v any, visit func(any) bool) {
	switch v := v.(type) {
	case []any:
		for _, inside := range v {
			if !visit(inside) {
				return
			}
		}
	case map[string]any:
		for _, inside := range v {
			if !visit(inside) {
				return
			}
		}
	}
}

type (
	name  string
	index int64
	every struct{}
	slice struct{ start, end, step *int64 }
	where struct{ logical }
)

func (n name) choose(_ *run, v any, found []any) []any {
	if object, ok := v.(map[string]any); ok {
		if inside, ok := object[string(n)]; ok {
			found = append(found, inside)
		}
	}
	return found
}

func (i index) choose(_ *run, v any, found []any) []any {
	array, _ := v.([]any)
	at := int64(i)
	if at < 0 {
		at += int64(len(array))
	}
	if at >= 0 && at < int64(len(array)) {
		found = append(found, array[at])
	}
	return found
}

func (every) choose(r *run, v any, found []any) []any {
	each(v, func(inside any) bool {
		found = append(found, inside)
		return r.step(1)
	})
	return found
}

// choose follows RFC 9535 §2.3.4.2.2.
func (s slice) choose(r *run, v any, found []any) []any {
	array, ok := v.([]any)
	if !ok {
		return found
	}
	n, step := int64(len(array)), int64(1)
	if s.step != nil {
		step = *s.step
	}
	start, end := int64(0), n
	if step < 0 {
		start, end = n-1, -n-1
	}
	if s.start != nil {
		start = *s.start
	}
	if s.end != nil {
		end = *s.end
	}
	if start < 0 && s.start != nil {
		start += n
	}
	if end < 0 {
		end += n
	}
	switch {
	case step > 0:
		for i := max(start, 0); i < min(end, n) && r.step(1); i += min(step, math.MaxInt32) {
			found = append(found, array[i])
		}
	case step < 0:
		for i := min(start, n-1); i > max(end, -1) && r.step(1); i += max(step, math.MinInt32) {
			found = append(found, array[i])
		}
	}
	return found
}

func (w where) choose(r *run, v any, found []any) []any {
	each(v, func(inside any) bool {
		if w.holds(r, inside) {
			found = append(found, inside)
		}
		return r.step(1)
	})
	return found
}
