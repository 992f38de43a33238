// Package jq runs programs of jq that say yes or no about a value.
//
// Programs are a developer's, values are anybody's. So a program is made only of
// words whose work and whose results stay in proportion to the value: nothing
// that repeats, multiplies or changes, nothing from outside (env, input, debug),
// no definitions. What several generators make together still grows with their
// number; time ends that. It touches nothing; github.com/itchyny/gojq runs it.
//
// Hazards. Time does not end one function. Those of regular expressions compile
// what they are given and keep it as long as the program, so they get texts of the
// program alone; and those that find all places count characters from the beginning
// for each, so they are not to be had.
package jq

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/itchyny/gojq"

	"github.com/mirrord-go/mirrord/internal/rules/weight"
)

// ErrTime: the program took longer than it may.
var ErrTime = errors.New("the program takes too long")

// words are the functions that a program may use.
var words = []string{
	"abs", "add", "all", "any", "arrays", "ascii_downcase", "ascii_upcase", "booleans", "capture", "ceil", "contains",
	"empty", "endswith", "error", "fabs", "false", "first", "flatten", "floor", "from_entries", "fromjson", "group_by",
	"has", "in", "index", "indices", "infinite", "inside", "isempty", "isinfinite", "isnan", "isnormal", "iterables",
	"join", "keys", "keys_unsorted", "last", "length", "limit", "ltrim", "ltrimstr", "map", "map_values", "match",
	"max", "max_by", "min", "min_by", "nan", "not", "null", "nulls", "numbers", "objects", "rindex", "round", "rtrim",
	"rtrimstr", "scalars", "select", "sort", "sort_by", "split", "startswith", "strings", "test", "to_entries",
	"toboolean", "tojson", "tonumber", "tostring", "trim", "trimstr", "true", "type", "unique", "unique_by",
	"utf8bytelength", "values", "with_entries",
}

// operators are those that a program may use.
var operators = []gojq.Operator{
	gojq.OpPipe, gojq.OpComma, gojq.OpAdd, gojq.OpSub, gojq.OpDiv, gojq.OpMod, gojq.OpEq, gojq.OpNe,
	gojq.OpGt, gojq.OpLt, gojq.OpGe, gojq.OpLe, gojq.OpAnd, gojq.OpOr, gojq.OpAlt,
}

// Program is a compiled program. It may be used concurrently.
type Program struct{ code *gojq.Code }

// Compile reads a program. The error says what is wrong with it.
func Compile(text string) (Program, error) {
	q, err := gojq.Parse(text)
	if err != nil {
		return Program{}, err
	}
	if err := check(reflect.ValueOf(q)); err != nil {
		return Program{}, err
	}
	code, err := gojq.Compile(q)
	return Program{code}, err
}

// Accepts reports whether the first truth value that the program gives for v is
// true. v is made of nil, bool, json.Number, string, []any and map[string]any,
// and stays as it is. An error of the program itself ends what it gives. ErrTime
// means that there was no answer before limit.
func (p Program) Accepts(v any, limit time.Duration) (bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	outputs := p.code.RunWithContext(ctx, v)
	for {
		output, more := outputs.Next()
		if !more {
			return false, nil
		}
		switch output := output.(type) {
		case bool:
			return output, nil
		case error:
			if ctx.Err() != nil {
				return false, ErrTime
			}
			return false, nil
		}
	}
}

// searches are the words that look for regular expressions, which weigh no more
// than maxWeight each: nothing ends a search.
var searches = []string{"capture", "match", "test"}

const maxWeight = 512

// checkSearch looks at test(EXPRESSION) and test(EXPRESSION; FLAGS), and their
// like.
func checkSearch(f gojq.Func) error {
	if len(f.Args) > 2 {
		return nil // there is none
	}
	var texts [2]string
	for i, a := range f.Args {
		text, ok := literal(a)
		if !ok && !(i == 1 && a.Term != nil && a.Term.Type == gojq.TermTypeNull) {
			return fmt.Errorf("%s in a filter needs its expression, and flags, as texts", f.Name)
		}
		texts[i] = text
	}
	if strings.Contains(texts[1], "g") {
		return fmt.Errorf("the flag g of %s cannot be used in a filter", f.Name)
	}
	if err := weight.Check(texts[0], maxWeight); err != nil {
		return fmt.Errorf("the expression of %s: %w", f.Name, err)
	}
	return nil
}

// literal is the text that q is, if it is nothing else.
func literal(q *gojq.Query) (string, bool) {
	t := q.Term
	if t == nil || t.Type != gojq.TermTypeString || t.Str == nil || len(t.Str.Queries) > 0 || len(t.SuffixList) > 0 ||
		q.Left != nil || q.Right != nil || len(q.FuncDefs) > 0 || len(q.Patterns) > 0 {
		return "", false
	}
	return t.Str.Str, true
}

// check looks at every part of a program.
func check(v reflect.Value) error {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil
		}
		return check(v.Elem())
	case reflect.Slice:
		for i := range v.Len() {
			if err := check(v.Index(i)); err != nil {
				return err
			}
		}
	case reflect.Struct:
		if err := checkPart(v.Interface()); err != nil {
			return err
		}
		for i := range v.NumField() {
			if err := check(v.Field(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkPart(part any) error {
	word := ""
	switch part := part.(type) {
	case gojq.Query:
		if op := part.Op; op != 0 && !slices.Contains(operators, op) {
			return fmt.Errorf("the operator %v cannot be used in a filter", op)
		}
	case gojq.Func:
		switch name := part.Name; {
		case name == "$ENV", name == "$__loc__", name[0] != '$' && !slices.Contains(words, name):
			return fmt.Errorf("%s cannot be used in a filter", name)
		case name == "split" && len(part.Args) > 1:
			return errors.New("split by an expression cannot be used in a filter")
		case slices.Contains(searches, name):
			return checkSearch(part)
		}
	case gojq.Import:
		word = "import"
	case gojq.FuncDef:
		word = "def"
	case gojq.Reduce:
		word = "reduce"
	case gojq.Foreach:
		word = "foreach"
	case gojq.Label:
		word = "label"
	}
	if word != "" {
		return fmt.Errorf("%s cannot be used in a filter", word)
	}
	return nil
}
