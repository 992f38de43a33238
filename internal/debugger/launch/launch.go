// Package launch rewrites launch configurations of editors, so that what they
// debug runs in a session.
//
// The command line prints the result, and editors may ask for it. A field that
// holds a program with arguments gets mirrord in front; a field that holds one
// path gets a small script (a shim). It is pure: it reads a configuration and
// says what files are to be made. What it cannot wrap it refuses, so that
// nothing runs outside of the session unnoticed.
package launch

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/mirrord-go/mirrord/internal/config/document"
	"github.com/mirrord-go/mirrord/internal/failure"
)

// Options of Rewrite.
type Options struct {
	Mirrord string   // how mirrord is called
	Args    []string // flags of exec; where the configuration has its own (mirrord), they are used
	Session string   // the id of one that is kept, for exec to join instead: no flags, nor what the configuration says
	Storage string   // absolute; the directory for shims and what is built
	// Resolve gives the value of a variable of the editor's: "workspaceFolder",
	// "env:HOME". Only shims need them here. Optional.
	Resolve func(name string) (string, bool)
	// Look finds a program that the configuration does not name; "" if there is
	// none. Optional: then its name is used.
	Look func(name string) string
}

// File is one to be made, with mode 0700, in a directory of the same mode. The
// name changes with the content, so one that is there needs no second look.
type File struct {
	Path    string `json:"path"`
	Content string `json:"-"`
	// CopyOf is a file whose content it is to have, if that exists; then Content
	// is empty.
	CopyOf string `json:"-"`
}

// Result is a rewritten configuration, and what belongs to it.
type Result struct {
	Configuration *document.Node   `json:"configuration"`
	Tasks         []*document.Node `json:"tasks,omitempty"`    // for "tasks" of tasks.json
	Settings      *document.Node   `json:"settings,omitempty"` // for settings.json
	Files         []File           `json:"files,omitempty"`
	Notes         []string         `json:"notes,omitempty"` // for a person
	Wrapped       bool             `json:"wrapped"`         // false: the configuration is as it was
}

// Names gives the names of the configurations of a launch.json.
func Names(root *document.Node) (names []string) {
	for _, c := range items(root, "configurations") {
		if name := text(c, "name"); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func items(n *document.Node, key string) []*document.Node {
	if list := n.Value(key); list != nil {
		return list.Items
	}
	return nil
}

// text gives a key of a map as a text; "" if it is none.
func text(n *document.Node, key string) string {
	if v := n.Value(key); v != nil && v.Kind == document.String {
		return v.Text
	}
	return ""
}

// Parse reads a launch.json; file is its name for messages. An error has the
// code launch-invalid.
func Parse(file, content string) (*document.Node, error) {
	root, err := document.Parse(document.JSONC, document.Plain(content))
	if e, ok := errors.AsType[*document.Error](err); ok {
		return nil, invalid(file, e.Place, e.Text)
	}
	return root, err
}

func invalid(file string, at document.Place, why string) error {
	return failure.Usage("launch-invalid", fmt.Sprintf("%s:%d: the launch configuration is wrong", file, at.Line), "correct it there", "%s", why)
}

// Find gives the configuration of that name. An error has the code
// launch-missing.
func Find(file string, root *document.Node, name string) (*document.Node, error) {
	for _, c := range items(root, "configurations") {
		if text(c, "name") == name {
			return c, nil
		}
	}
	for _, c := range items(root, "compounds") {
		if text(c, "name") != name {
			continue
		}
		var parts []string
		for _, p := range items(c, "configurations") {
			parts = append(parts, fmt.Sprintf("%q", p.Text))
		}
		return nil, failure.Usage("launch-missing", fmt.Sprintf("%s:%d: %q is a compound", file, c.Place.Line, name), "name one of its configurations",
			"it starts %s", strings.Join(parts, ", "))
	}
	var names []string
	for _, n := range Names(root) {
		names = append(names, fmt.Sprintf("%q", n))
	}
	why := "it has no configurations at all"
	if len(names) > 0 {
		why = "it has " + strings.Join(names, ", ")
	}
	return nil, failure.Usage("launch-missing", fmt.Sprintf("%s has no configuration %q", file, name), "name one that it has: mirrord debug-config FILE NAME", "%s", why)
}

// rewriting is one run of Rewrite.
type rewriting struct {
	Options
	file string
	c    *document.Node // a copy, which is changed
	r    Result
}

// kinds are what is done for each type of configuration.
var kinds = map[string]func(*rewriting) error{
	"node": (*rewriting).node, "pwa-node": (*rewriting).node, "node-terminal": (*rewriting).nodeTerminal,
	"debugpy": (*rewriting).python, "python": (*rewriting).python,
	"go": (*rewriting).golang, "cppdbg": (*rewriting).cppdbg, "lldb": (*rewriting).lldb, "java": (*rewriting).java,
}

// windows are types that open a window of the editor's or a browser's.
var windows = []string{"extensionHost", "pwa-extensionHost", "chrome", "pwa-chrome", "msedge", "pwa-msedge"}

// Rewrite makes of a configuration of file one whose program runs in a session.
// c is not changed. Errors have the codes launch-type and launch-invalid.
func Rewrite(file string, c *document.Node, o Options) (Result, error) {
	w := &rewriting{Options: o, file: file, c: c.Clone()}
	w.r.Configuration = w.c
	enabled, err := w.own()
	if err != nil {
		return Result{}, err
	}
	kind, request := text(w.c, "type"), text(w.c, "request")
	rewrite := kinds[kind]
	switch {
	case kind == "":
		return Result{}, invalid(file, c.Place, "the configuration has no type")
	case !enabled:
		w.note("the configuration says that mirrord is not wanted: it is as it was")
		return w.r, nil
	case slices.Contains(windows, kind):
		w.note("a configuration of type %s opens a window and stays as it was; wrap the service behind it", kind)
		return w.r, nil
	case rewrite == nil:
		return Result{}, failure.Usage("launch-type", fmt.Sprintf("%s:%d: mirrord does not know how to wrap type %q", file, c.Place.Line, kind),
			fmt.Sprintf("wrap it by hand: put %q in front of the command, or start that in a terminal and attach to the debugger's port", strings.Join(w.command(), " ")),
			"it knows cppdbg, debugpy, go, java, lldb, node, node-terminal, pwa-node and python")
	case request == "attach":
		w.note("attaching needs no change: start the program with %s ..., and attach to the port that it listens on, which is open here by the same number", strings.Join(w.command(), " "))
		return w.r, nil
	}
	if err := rewrite(w); err != nil {
		return Result{}, err
	}
	w.r.Wrapped = true
	return w.r, nil
}

// own reads what the configuration says about mirrord itself: the property
// "mirrord", which is taken out, and the variables of mirrord's own extension.
func (w *rewriting) own() (enabled bool, err error) {
	enabled = true
	if env := w.c.Value("env"); env != nil && text(env, "MIRRORD_ACTIVE") == "0" {
		enabled = false
	}
	m := w.c.Value("mirrord")
	if m == nil {
		return enabled, nil
	}
	w.c.Delete("mirrord")
	for _, e := range m.Keys {
		switch v := e.Value; {
		case e.Key == "target" && v.Kind == document.String:
			w.Args = append(slices.Clip(w.Args), "-t", v.Text)
		case e.Key == "config" && v.Kind == document.String:
			w.Args = append(slices.Clip(w.Args), "-f", v.Text)
		case e.Key == "enabled" && v.Kind == document.Bool:
			enabled = v.Bool
		default:
			return false, invalid(w.file, e.Place, fmt.Sprintf("mirrord.%s is %s; there are target and config, texts, and enabled, true or false", e.Key, v))
		}
	}
	return enabled, nil
}

func (w *rewriting) note(format string, args ...any) {
	w.r.Notes = append(w.r.Notes, fmt.Sprintf(format, args...))
}

// command is what stands in front of a wrapped program.
func (w *rewriting) command() []string {
	args := w.Args
	if w.Session != "" {
		args = []string{"--session", w.Session}
	}
	return slices.Concat([]string{w.Mirrord, "exec"}, args, []string{"--"})
}

// wrap puts command in front of program words.
func (w *rewriting) wrap(words ...string) []string { return append(w.command(), words...) }

// own fields, with what they must be.

// text gives a field that must be a text; "" if it is not there.
func (w *rewriting) text(key string) (string, error) {
	v := w.c.Value(key)
	if v == nil || v.Kind == document.Null {
		return "", nil
	}
	if v.Kind != document.String {
		return "", invalid(w.file, v.Place, fmt.Sprintf("%s is %s; it must be a text", key, v))
	}
	return v.Text, nil
}

// list gives a field that must be a list of texts, or one text.
func (w *rewriting) list(key string) (all []string, err error) {
	v := w.c.Value(key)
	if v == nil || v.Kind == document.Null {
		return nil, nil
	}
	if v.Kind == document.String {
		return []string{v.Text}, nil
	}
	for _, item := range v.Items {
		if item.Kind != document.String {
			return nil, invalid(w.file, item.Place, fmt.Sprintf("%s has %s in it; it must be a list of texts", key, item))
		}
		all = append(all, item.Text)
	}
	if v.Kind != document.List {
		return nil, invalid(w.file, v.Place, fmt.Sprintf("%s is %s; it must be a list of texts", key, v))
	}
	return all, nil
}

// already reports whether a program is mirrord, and says so.
func (w *rewriting) already(program string) bool {
	yes := path.Base(program) == "mirrord" || program == w.Mirrord
	if yes {
		w.note("it runs in a session already: it is as it was")
	}
	return yes
}
