package document

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Values are what templates are filled in with.
type Values struct {
	Env func(name string) (value string, ok bool)
	Key string
	// Branch is asked for the branch of the working directory; an error says why
	// there is none.
	Branch func() (string, error)
}

const forms = `{{ get_env(name="X", default="y") }}, {{ key }} and {{ git_branch }}, each with | default(value="z")`

// Fill fills in the templates of a document, which may stand anywhere in it:
// the text is filled in before it is parsed. usesKey says that the session's
// key was asked for. Every error is an *Error.
func Fill(source string, v Values) (_ *Text, usesKey bool, err error) {
	var out strings.Builder
	var spans []span
	at := 0 // up to where the source is taken over
	for i := 0; ; {
		open := strings.IndexByte(source[i:], '{')
		if open < 0 || i+open+1 >= len(source) {
			break
		}
		open += i
		switch source[open+1] {
		case '%', '#':
			return nil, false, &Error{Plain(source).Place(open), fmt.Sprintf("templates of the form %s are not supported; these are: %s", source[open:open+2], forms)}
		case '{':
		default:
			i = open + 1
			continue
		}
		spans = append(spans, span{out.Len(), at, false})
		out.WriteString(source[at:open])
		t := &template{source: source, at: open + 2, values: v}
		value, err := t.expression()
		if err != nil {
			return nil, false, err
		}
		usesKey = usesKey || t.usesKey
		spans = append(spans, span{out.Len(), open, true})
		out.WriteString(value)
		at, i = t.at, t.at
	}
	spans = append(spans, span{out.Len(), at, false})
	out.WriteString(source[at:])
	return newText(source, out.String(), spans), usesKey, nil
}

// template reads one {{ … }}.
type template struct {
	source  string
	at      int // what comes next
	values  Values
	usesKey bool
}

// result is a value, or why there is none.
type result struct {
	text    string
	missing string
}

func (t *template) fail(at int, format string, args ...any) error {
	return &Error{Plain(t.source).Place(at), fmt.Sprintf(format, args...)}
}

// expression reads up to and with "}}".
func (t *template) expression() (string, error) {
	start := t.at
	r, err := t.operand()
	for err == nil && t.accept("|") {
		var fallback string
		if fallback, err = t.filter(); err == nil && r.missing != "" {
			r = result{text: fallback}
		}
	}
	switch {
	case err != nil:
		return "", err
	case !t.accept("}}"):
		return "", t.unexpected()
	case r.missing != "":
		return "", t.fail(start-2, "%s; give it a default: | default(value=\"x\")", r.missing)
	}
	return r.text, nil
}

func (t *template) operand() (result, error) {
	if text, ok, err := t.literal(); ok || err != nil {
		return result{text: text}, err
	}
	at := t.at
	switch name := t.word(); name {
	case "key":
		t.usesKey = true
		return result{text: t.values.Key}, nil
	case "git_branch":
		branch, err := t.values.Branch()
		if err != nil {
			return result{missing: "the git branch is not known: " + err.Error()}, nil
		}
		return result{text: branch}, nil
	case "get_env":
		return t.getEnv()
	case "":
		return result{}, t.unexpected()
	default:
		return result{}, t.fail(at, "templates know no %q; they can be: %s", name, forms)
	}
}

func (t *template) getEnv() (result, error) {
	start := t.at
	args, err := t.arguments("name", "default")
	if err != nil {
		return result{}, err
	}
	name, ok := args["name"]
	if !ok {
		return result{}, t.fail(start, "get_env needs a name: get_env(name=\"X\")")
	}
	if value, ok := t.values.Env(name); ok {
		return result{text: value}, nil
	}
	if value, ok := args["default"]; ok {
		return result{text: value}, nil
	}
	return result{missing: fmt.Sprintf("the environment variable %s is not set", name)}, nil
}

// filter reads default(value=…).
func (t *template) filter() (string, error) {
	t.space()
	start := t.at
	if name := t.word(); name != "default" {
		return "", t.fail(start, "templates know no filter %q; they can be: %s", name, forms)
	}
	args, err := t.arguments("value")
	if err != nil {
		return "", err
	}
	value, ok := args["value"]
	if !ok {
		return "", t.fail(start, "default needs a value: default(value=\"x\")")
	}
	return value, nil
}

// arguments reads (name="x", …) with the given names, each at most once.
func (t *template) arguments(names ...string) (map[string]string, error) {
	if !t.accept("(") {
		return nil, t.unexpected()
	}
	args := map[string]string{}
	for !t.accept(")") {
		if len(args) > 0 && !t.accept(",") {
			return nil, t.unexpected()
		}
		t.space()
		at := t.at
		name := t.word()
		known := false
		for _, n := range names {
			known = known || n == name
		}
		if _, twice := args[name]; !known || twice {
			return nil, t.fail(at, "expected %s=\"…\" here", strings.Join(names, `="…" or `))
		}
		if !t.accept("=") {
			return nil, t.unexpected()
		}
		value, ok, err := t.literal()
		if err != nil {
			return nil, err
		}
		if !ok {
			at := t.at
			if value = t.word(); value == "" || strings.Trim(value, "0123456789") != "" && value != "true" && value != "false" {
				return nil, t.fail(at, "expected a text in quotes, a number, true or false here")
			}
		}
		args[name] = value
	}
	return args, nil
}

// literal reads a text in quotes of any of the three kinds.
func (t *template) literal() (text string, ok bool, err error) {
	t.space()
	if t.at >= len(t.source) || strings.IndexByte("\"'`", t.source[t.at]) < 0 {
		return "", false, nil
	}
	rest := t.source[t.at+1:]
	end := strings.IndexByte(rest, t.source[t.at])
	if end < 0 || strings.Contains(rest[:end], "\n") {
		return "", false, t.fail(t.at, "this text in a template does not end")
	}
	t.at += end + 2
	return rest[:end], true, nil
}

// word reads letters, digits and underscores.
func (t *template) word() string {
	t.space()
	start := t.at
	for t.at < len(t.source) {
		r, size := utf8.DecodeRuneInString(t.source[t.at:])
		if r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			break
		}
		t.at += size
	}
	return t.source[start:t.at]
}

func (t *template) accept(token string) bool {
	t.space()
	if !strings.HasPrefix(t.source[t.at:], token) {
		return false
	}
	t.at += len(token)
	return true
}

func (t *template) space() {
	for t.at < len(t.source) && strings.IndexByte(" \t\r\n", t.source[t.at]) >= 0 {
		t.at++
	}
}

func (t *template) unexpected() error {
	if t.at >= len(t.source) {
		return t.fail(t.at, "the file ends inside a template")
	}
	r, _ := utf8.DecodeRuneInString(t.source[t.at:])
	return t.fail(t.at, "did not expect %q in a template; templates can be: %s", string(r), forms)
}
