package config

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/mirrord-go/mirrord/internal/config/document"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
)

// Modes of a service.
const (
	ModeSplit   = "split"   // requests that the filter matches are stolen
	ModeReplace = "replace" // all of the target's traffic is stolen
	ModeMirror  = "mirror"  // requests that the filter matches are copied
)

// Modes are all of them.
func Modes() []string { return []string{ModeSplit, ModeReplace, ModeMirror} }

// Services is what a file of several services holds, for sessions that begin and
// end together.
type Services struct {
	File  string // as a person reads it
	Key   string // the name of these sessions
	List  []Service
	Notes []event.Event // what a person should know; of Config's warnings, too
}

// Service is one of them.
type Service struct {
	Name      string
	Argv      []string
	Container bool   // mirrord container runs it
	Dir       string // that it works in, absolute
	Mode      string
	Skip      bool // unless it is named
	// Infer: nothing says what its target is; that has its name.
	Infer bool
	// Keyed: the filter is that of the key, which the file does not say.
	Keyed bool
	Where string // file:line:column
	// Config is what its session is like.
	Config Config
	// Environ are the variables of its session: without those that the file beats.
	Environ []string

	values map[string]value
}

// SetTarget says what the target is, where that was to be inferred.
func (s *Service) SetTarget(path string) {
	s.Config.Target = path
	s.values["target.path"] = value{key: newSchema().keys["target.path"], node: &document.Node{Kind: document.String, Text: path}, from: origin{file: true}}
}

// Document is the configuration of the service as a file of its own, in JSON:
// read as one, with Environ and in Dir, it means Config.
func (s *Service) Document() []byte {
	root := map[string]any{}
	for name, v := range s.values {
		if v.key.Status != Works || !v.from.file && !v.from.flag {
			continue // what variables say they say again
		}
		at := root
		path := strings.Split(name, ".")
		for _, section := range path[:len(path)-1] {
			inner, ok := at[section].(map[string]any)
			if !ok {
				inner = map[string]any{}
				at[section] = inner
			}
			at = inner
		}
		at[path[len(path)-1]] = plain(v.node)
	}
	return literal(root)
}

// literal is v as JSON that holds no template: what looks like one is what the
// file's templates have become.
func literal(v map[string]any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // it was read from a file of such values
	}
	// Outside of texts JSON has none of these.
	for _, begin := range []string{"{{", "{%", "{#"} {
		text = bytes.ReplaceAll(text, []byte(begin), []byte(strings.ReplaceAll(begin, "{", `\u007b`)))
	}
	return text
}

const (
	// servicesFile is where services are found without being named.
	servicesFile = "mirrord-up.yaml"
	// maxName bounds the name of a service, which stands before each of its lines.
	maxName = 63

	keyHeader = "baggage"
	keyMember = "mirrord-session="
)

// KeyHeader is the header, with its value, by which the filter of a key knows a
// request (W3C Baggage).
func KeyHeader(key string) string { return keyHeader + ": " + keyMember + key }

// keyFilter is the expression for KeyHeader, among other members. Keys of which
// one begins with the other are two.
func keyFilter(key string) string {
	return "^" + keyHeader + ": (.*[,;\\s])?" + keyMember + regexp.QuoteMeta(key) + "([,;\\s].*)?$"
}

// LoadServices reads the file of services that s names, or servicesFile. Those in
// only are meant, or all that are not skipped; mode is theirs if it is not empty.
// s.RandomKey is the key where nobody gave one. For several sessions the file
// beats variables, which could not tell one from another; flags beat both. Errors
// are those of Load, and up-service-unknown.
func LoadServices(s Sources, only []string, mode string) (Services, error) {
	set := newSettings(s.Environ, s.Flags)
	u := &services{src: &s, set: set, only: only, mode: mode, schema: newSchema()}
	name, _, ok := set.lookup(configFile)
	if !ok || set.flags[configFile].Value == "" {
		name = servicesFile
	}
	f, err := u.read(name)
	if err != nil {
		return Services{}, err
	}
	u.Key, _, ok = set.lookup("MIRRORD_KEY")
	if !ok {
		u.Key = s.RandomKey()
	}
	root, err := f.parse(&s, settings{set.env, map[string]Setting{"MIRRORD_KEY": {Value: u.Key}}})
	if e, ok := errors.AsType[*document.Error](err); ok {
		u.add(u.file, e.Place, "", "%s", e.Text)
		return Services{}, u.failed()
	}
	if err := u.all(root); err != nil {
		return Services{}, err
	}
	return u.Services, u.failed()
}

// services reads a file of services.
type services struct {
	Services
	problems
	src    *Sources
	set    settings
	only   []string
	mode   string
	schema *schema
	file   origin
	common []document.Entry
	notes  []noted
}

// noted is a note of a service; of none if that is empty.
type noted struct {
	service string
	event.Event
}

func (u *services) read(name string) (*file, error) {
	b := &builder{src: u.src}
	name = filepath.Clean(name)
	u.File, u.file = name, origin{name: name, file: true}
	format, ok := document.FormatOf(name)
	if !ok {
		return nil, failure.Usage("config-unreadable", fmt.Sprintf("the file of services %s cannot be read", name), "rename it to what it is",
			"its name ends in %q; it can end in .yaml, .yml, .json or .toml", filepath.Ext(name))
	}
	text, err := u.src.Read(b.absolute(name))
	if err != nil {
		f := failure.Wrap(err, "config-unreadable", fmt.Sprintf("the file of services %s cannot be read", name), "write one: mirrord up init; or name another: mirrord up -f FILE")
		f.Exit = failure.ExitUsage
		return nil, f
	}
	return &file{name, format, string(text)}, nil
}

// failed is the failure of all mistakes, nil if there are none.
func (u *services) failed() error {
	err := u.failure()
	if f := failure.From(err); f != nil {
		f.Do = "docs/flows/up.md has every key with an example"
		return f
	}
	return nil
}

// all reads the root.
func (u *services) all(root *document.Node) error {
	var list *document.Node
	for _, e := range root.Keys {
		switch {
		case e.Key == "$schema":
		case e.Key == "common" && e.Value.Kind == document.Null:
		case e.Key == "common" && e.Value.Kind != document.Map:
			u.add(u.file, e.Value.Place, "common", "found %s, expected an object", e.Value)
		case e.Key == "common":
			u.common = e.Value.Keys
		case e.Key == "services" && e.Value.Kind != document.Map:
			u.add(u.file, e.Value.Place, "services", "found %s, expected an object with a key for each service", e.Value)
		case e.Key == "services":
			list = e.Value
		case u.schema.keys[e.Key] != nil || u.schema.children[e.Key] != nil:
			u.add(u.file, e.Place, e.Key, "this is a key of a session's configuration, and this file is one of services; write it in \"config_patch\" of a service, or run mirrord exec -f %s", u.File)
		default:
			u.unknown("", e, []string{"common", "services"})
		}
	}
	if len(u.problems.list) == 0 && (list == nil || len(list.Keys) == 0) {
		u.add(u.file, root.Place, "", "there are no services; the smallest file is  services: {NAME: {run: {command: [PROGRAM]}}}")
	}
	if list == nil {
		return nil
	}
	if err := u.named(list); err != nil {
		return err
	}
	for _, e := range list.Keys {
		if err := u.service(e); err != nil {
			return err
		}
	}
	u.tell()
	return nil
}

// named fails for a service that is asked for and not there.
func (u *services) named(list *document.Node) error {
	var names []string
	for _, e := range list.Keys {
		names = append(names, e.Key)
	}
	for _, name := range u.only {
		if slices.Contains(names, name) {
			continue
		}
		do := "one of these: " + strings.Join(names, ", ")
		if near := Nearest(name, names); near != "" {
			do = fmt.Sprintf("did you mean: mirrord up %s", near)
		}
		return failure.Usage("up-service-unknown", fmt.Sprintf("there is no service %q", name), do, "%s has %s", u.File, strings.Join(names, ", "))
	}
	return nil
}

// service reads one, unless it is not meant: then it may have mistakes.
func (u *services) service(e document.Entry) error {
	key := "services." + e.Key
	switch {
	case len(u.only) > 0 && !slices.Contains(u.only, e.Key):
		return nil
	case e.Key == "" || len(e.Key) > maxName || strings.ContainsFunc(e.Key, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		u.add(u.file, e.Place, key, "a service's name has 1 to %d letters and no spaces", maxName)
		return nil
	case e.Value.Kind != document.Map:
		u.add(u.file, e.Value.Place, key, "found %s, expected an object: {run: {command: [PROGRAM]}}", e.Value)
		return nil
	}
	d := &decoder{schema: u.schema, file: u.file, values: map[string]value{}}
	r := &reading{u: u, d: d, key: key, at: e.Place, s: Service{Name: e.Key, Dir: u.src.Dir, Where: u.file.at(e.Place), values: d.values}}
	for _, c := range u.common {
		r.common(c)
	}
	var patch *document.Node
	for _, k := range e.Value.Keys {
		if k.Key == "config_patch" {
			patch = k.Value
		} else if k.Value.Kind != document.Null || !slices.Contains(serviceKeys, k.Key) {
			r.field(k)
		}
	}
	if len(r.s.Argv) == 0 && e.Value.Value("run") == nil {
		u.add(u.file, e.Place, key, "it has nothing to run: write  run: {command: [PROGRAM, ARGUMENT]}")
	}
	if patch != nil {
		r.patch(patch)
	}
	r.incoming()
	if r.s.Skip && len(u.only) == 0 {
		u.problems.list = append(u.problems.list, d.list...)
		return nil
	}
	return r.finish()
}

// tell makes the notes: what is said of all services is said once.
func (u *services) tell() {
	services := map[string][]string{}
	for _, n := range u.notes {
		services[n.Text] = append(services[n.Text], n.service)
	}
	for _, n := range u.notes {
		of := services[n.Text]
		if of == nil {
			continue // said
		}
		delete(services, n.Text)
		if of[0] != "" && len(of) < len(u.List) {
			n.Text = strings.Join(slices.Compact(of), ", ") + ": " + n.Text
		}
		u.Notes = append(u.Notes, n.Event)
	}
}

// unknown tells of a key that there is not.
func (u *services) unknown(section string, e document.Entry, names []string) {
	text := "there is no such key; there are: " + strings.Join(names, ", ")
	if near := Nearest(e.Key, names); near != "" {
		text = fmt.Sprintf("there is no such key; did you mean %q?", near)
	}
	u.add(u.file, e.Place, join(section, e.Key), "%s", text)
}

// dirOf is a directory of the file, from the working directory.
func (u *services) dirOf(n *document.Node) string {
	b := &builder{decoder: &decoder{values: map[string]value{"dir": {node: n}}}, src: u.src, home: u.set.env["HOME"]}
	return cmp.Or(b.path("dir"), u.src.Dir)
}
