package config

import (
	"slices"
	"strings"

	"github.com/mirrord-go/mirrord/internal/config/document"
	"github.com/mirrord-go/mirrord/internal/event"
)

// serviceKeys are the keys of a service.
var serviceKeys = []string{"target", "env", "default_mode", "http_filter", "ignore_ports", "skip", "context", "messages", "run", "config_patch"}

// commonKeys are those of common, and the keys of a session that they are.
var commonKeys = map[string]string{"accept_invalid_certificates": "accept_invalid_certificates", "operator": "operator", "telemetry": "telemetry", "context": "kube_context"}

// reading is one service while it is read.
type reading struct {
	u   *services
	d   *decoder
	key string // services.NAME
	at  document.Place
	s   Service

	mode *document.Node // where the file says it
}

// as reads something as a key of a session's configuration, and calls the
// mistakes in it as the file does.
func (r *reading) as(session, here string, read func()) {
	before := len(r.d.list)
	read()
	for i := range r.d.list[before:] {
		p := &r.d.list[before+i]
		if rest, ok := strings.CutPrefix(p.key, session); ok {
			p.key = here + rest
		}
	}
}

func (r *reading) common(e document.Entry) {
	key, ok := commonKeys[e.Key]
	if e.Value.Kind == document.Null && ok {
		return
	}
	if !ok {
		r.u.unknown("common", e, []string{"accept_invalid_certificates", "context", "operator", "telemetry"})
		return
	}
	r.as(key, "common."+e.Key, func() { r.d.set(key, e.Value, r.d.file) })
}

// field reads a key of the service.
func (r *reading) field(e document.Entry) {
	here := join(r.key, e.Key)
	wrong := func(expected string) {
		r.u.add(r.u.file, e.Value.Place, here, "found %s, expected %s", e.Value, expected)
	}
	section := func(name string) {
		r.as(name, here, func() {
			if e.Value.Kind == document.Map {
				r.d.section(name, e.Value)
			} else {
				r.d.short(name, e.Value)
			}
		})
	}
	switch e.Key {
	case "target":
		r.target(here, e.Value)
	case "env":
		section("feature.env")
	case "http_filter":
		section(strings.TrimSuffix(filterKey, "."))
	case "ignore_ports":
		r.as(incomingKey+"ignore_ports", here, func() { r.d.set(incomingKey+"ignore_ports", e.Value, r.d.file) })
	case "context":
		r.as("kube_context", here, func() { r.d.set("kube_context", e.Value, r.d.file) })
	case "default_mode":
		if e.Value.Kind != document.String || !slices.Contains(Modes(), e.Value.Text) {
			wrong(strings.Join(Modes(), ", "))
			return
		}
		r.mode = e.Value
	case "skip":
		if r.s.Skip = e.Value.Bool; e.Value.Kind != document.Bool {
			wrong("true or false")
		}
	case "messages":
		r.d.setAs("messages", "feature.split_queues", e.Value, r.d.file)
	case "run":
		r.run(here, e.Value)
	default:
		r.u.unknown(r.key, e, serviceKeys)
	}
}

// target reads what the target is; none is no target.
func (r *reading) target(here string, n *document.Node) {
	if n.Kind == document.String && n.Text == "none" {
		n = &document.Node{Kind: document.String, Text: "targetless", Place: n.Place}
	}
	r.as("target", here, func() { r.d.target(n) })
}

// run reads what to run.
func (r *reading) run(here string, n *document.Node) {
	if n.Kind != document.Map {
		r.u.add(r.u.file, n.Place, here, "found %s, expected an object: {command: [PROGRAM, ARGUMENT]}", n)
		return
	}
	for _, e := range n.Keys {
		key := join(here, e.Key)
		wrong := func(n *document.Node, expected string) {
			r.u.add(r.u.file, n.Place, key, "found %s, expected %s", n, expected)
		}
		switch e.Key {
		case "type":
			if r.s.Container = e.Value.Text == "container"; e.Value.Kind != document.String || e.Value.Text != "exec" && !r.s.Container {
				wrong(e.Value, "exec or container")
			}
		case "dir":
			if e.Value.Kind != document.String || e.Value.Text == "" {
				wrong(e.Value, "a directory")
				continue
			}
			r.s.Dir = r.u.dirOf(e.Value)
		case "command":
			if e.Value.Kind != document.List || len(e.Value.Items) == 0 {
				wrong(e.Value, `a list of program and arguments: ["node", "app.js"]`)
				continue
			}
			for i, item := range e.Value.Items {
				switch {
				case i == 0 && item.Text == "", item.Kind != document.String && item.Kind != document.Int: // a port is often written without quotes
					wrong(item, "a text; write it in quotes")
				}
				r.s.Argv = append(r.s.Argv, item.Text)
			}
		default:
			r.u.unknown(here, e, []string{"command", "dir", "type"})
		}
	}
	if n.Value("command") == nil {
		r.u.add(r.u.file, n.Place, here, "it has no command: [PROGRAM, ARGUMENT]")
	}
}

// patch reads more keys of the session, which beat those of the service.
func (r *reading) patch(n *document.Node) {
	here := join(r.key, "config_patch")
	if n.Kind == document.Null {
		return
	}
	if n.Kind != document.Map {
		r.u.add(r.u.file, n.Place, here, "found %s, expected an object with keys of a session's configuration", n)
		return
	}
	r.as("", here+".", func() { r.d.section("", n) })
}

// incoming makes the mode and the filter of a session of the service's mode.
func (r *reading) incoming() {
	place := r.at
	r.s.Mode = ModeSplit
	if r.mode != nil {
		r.s.Mode, place = r.mode.Text, r.mode.Place
	}
	if r.u.mode != "" {
		r.s.Mode = r.u.mode
	}
	set := func(key, text string) {
		r.d.set(key, &document.Node{Kind: document.String, Text: text, Place: place}, r.d.file)
	}
	filtered := slices.ContainsFunc(filterKeys, func(k conditionKey) bool { return r.d.has(filterKey + k.key) })
	r.s.Infer = !r.d.has("target.path")
	if !r.s.Infer && r.d.values["target.path"].node.Text == "targetless" {
		set(incomingKey+"mode", "off")
		if r.mode != nil || filtered {
			r.note(event.Info, "it has no target, so there is no traffic for it: default_mode and http_filter do nothing")
		}
		r.dropFilter()
		return
	}
	switch {
	case r.d.has(incomingKey+"mode") && r.u.mode == "": // by config_patch
		r.s.Mode = r.d.values[incomingKey+"mode"].node.Text
		return
	case r.s.Mode == ModeReplace:
		set(incomingKey+"mode", "steal")
		r.dropFilter()
		r.note(event.Info, "in mode replace all of the target's traffic comes here; mirrord's Operator would scale the target down, too")
		if filtered {
			r.note(event.Info, "http_filter does nothing in mode replace")
		}
		return
	case r.s.Mode == ModeMirror:
		set(incomingKey+"mode", "mirror")
	default:
		set(incomingKey+"mode", "steal")
	}
	if !filtered {
		r.s.Keyed = true
		set(filterKey+"header_filter", keyFilter(r.u.Key))
	}
}

// dropFilter forgets the filter.
func (r *reading) dropFilter() {
	for name := range r.d.values {
		if strings.HasPrefix(name, filterKey) {
			delete(r.d.values, name)
		}
	}
}

// finish makes the session's configuration of what was read.
func (r *reading) finish() error {
	src := *r.u.src
	src.Dir, src.TargetLater = r.s.Dir, true
	r.s.Environ = r.environ()
	b := &builder{decoder: r.d, src: &src, home: r.u.set.env["HOME"]}
	var err error
	r.as("feature.env", r.key+".env", func() {
		r.as(strings.TrimSuffix(incomingKey, "."), r.key, func() {
			err = b.resolve(newSettings(r.s.Environ, withoutFile(r.u.set.flags)))
		})
	})
	r.u.problems.list = append(r.u.problems.list, r.d.list...)
	if err != nil {
		return err
	}
	b.notes.ignored(r.d.values, nil)
	for _, e := range b.notes.events {
		r.note(e.Level, e.Text)
	}
	r.s.Config = b.cfg
	r.u.List = append(r.u.List, r.s)
	return nil
}

// withoutFile leaves out the flag that names a file: it is the services'.
func withoutFile(flags map[string]Setting) map[string]Setting {
	session := map[string]Setting{}
	for name, s := range flags {
		if name != configFile {
			session[name] = s
		}
	}
	return session
}

// environ leaves out the variables that the file beats, and those that could
// contradict it.
func (r *reading) environ() (environ []string) {
	beaten := map[string]bool{configFile: true, "MIRRORD_KEY": true, "MIRRORD_IMPERSONATED_TARGET": true}
	for i := range keyTable {
		if k := &keyTable[i]; k.Var != "" && r.d.has(k.Name) || strings.HasPrefix(k.Name, incomingKey+"http_filter.") {
			beaten[k.Var] = true
		}
	}
	if r.d.has("feature.fs.mode") {
		beaten[legacyRead], beaten[legacyWrite] = true, true
	}
	if r.d.has("feature.env.include") || r.d.has("feature.env.exclude") {
		beaten["MIRRORD_OVERRIDE_ENV_VARS_INCLUDE"], beaten["MIRRORD_OVERRIDE_ENV_VARS_EXCLUDE"] = true, true
	}
	for _, kv := range r.u.src.Environ {
		if name, _, _ := strings.Cut(kv, "="); !beaten[name] {
			environ = append(environ, kv)
		}
	}
	return append(environ, "MIRRORD_KEY="+r.u.Key)
}

func (r *reading) note(level event.Level, text string) {
	r.u.notes = append(r.u.notes, noted{r.s.Name, event.Event{Level: level, Code: "config", Text: text}})
}
