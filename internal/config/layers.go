package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/mirrord-go/mirrord/internal/config/document"
	"github.com/mirrord-go/mirrord/internal/debugger"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// settings are the environment's variables with what the flags put in place of
// them.
type settings struct {
	env   map[string]string
	flags map[string]Setting
}

func newSettings(environ []string, flags map[string]Setting) settings {
	env := map[string]string{}
	for _, kv := range environ {
		if name, v, ok := strings.Cut(kv, "="); ok {
			env[name] = v
		}
	}
	return settings{env, flags}
}

// lookup gives the value of a variable and who gave it. An empty one counts as
// not set, so an empty flag takes a variable away.
func (s settings) lookup(name string) (v string, from origin, ok bool) {
	if f, given := s.flags[name]; given {
		return f.Value, origin{name: "--" + f.Flag, flag: true}, f.Value != ""
	}
	v = s.env[name]
	return v, origin{name: name}, v != ""
}

// Variables of mirrord that are no key's own.
const (
	legacyWrite = "MIRRORD_FILE_OPS"    // true: mode write
	legacyRead  = "MIRRORD_FILE_RO_OPS" // true: mode read; both false: mode local
	// ignorePorts are ports of localhost that are a debugger's: one, or A-B, or
	// several with commas between.
	ignorePorts = "MIRRORD_IGNORE_DEBUGGER_PORTS"
	// tomcatPort is one more: the one at which an editor tells Tomcat to end.
	tomcatPort = "MIRRORD_TOMCAT_SERVER_PORT"
	// detectPort is which debuggers' ports are looked for in command lines: one
	// kind, or several with commas between.
	detectPort = "MIRRORD_DETECT_DEBUGGER_PORT"
)

// needlessVars are variables of mirrord that mean nothing here, and why.
var needlessVars = map[string]string{
	"MIRRORD_LOG":                   "-v shows details",
	"MIRRORD_LAYER_LOG_PATH":        "nothing is injected into programs",
	"MIRRORD_LAYER_FILE":            "nothing is injected into programs",
	"MIRRORD_DONT_LOAD":             "nothing is injected into programs",
	"MIRRORD_RESOLVED_CONFIG":       "a configuration is always made from its sources",
	"MIRRORD_CHECK_VERSION":         "there is no version check",
	"MIRRORD_EXT_PRINT_CONFIG":      "mirrord config show prints the configuration",
	"MIRRORD_CONTAINER_USE_RUNTIME": "the command of mirrord container names the engine",
	"MIRRORD_OVERRIDE_HOSTNAME":     "for Windows only; feature.hostname says whose name it is",
}

// operatorVars is how variables begin that have no meaning without mirrord's
// Operator, and no key.
const operatorVars = "MIRRORD_PREVIEW_"

// overlay lays the variables over what the file says.
func (d *decoder) overlay(s settings) {
	for i := range keyTable {
		k := &keyTable[i]
		if k.Var == "" {
			continue
		}
		v, from, ok := s.lookup(k.Var)
		if !ok {
			continue
		}
		if k.Name == "agent.image.registry" || k.Name == "agent.image.tag" {
			// The only variables that are weaker than the file.
			if d.has(k.Name) || d.has("agent.image") && d.values["agent.image"].from.file {
				continue
			}
		}
		if n := d.parse(k, v, from); n != nil {
			d.set(k.Name, n, from)
		}
	}
	if _, _, ok := s.lookup("MIRRORD_FILE_MODE"); !ok {
		d.legacyFiles(s)
	}
}

// legacyFiles reads the two variables that file modes had before they had
// names.
func (d *decoder) legacyFiles(s settings) {
	read, readSet := d.legacy(s, legacyRead)
	write, writeSet := d.legacy(s, legacyWrite)
	mode, from := "", origin{name: legacyRead}
	switch {
	case write:
		mode, from = "write", origin{name: legacyWrite}
	case read:
		mode = "read"
	case writeSet && readSet:
		mode = "local"
	default:
		return
	}
	d.set("feature.fs.mode", &document.Node{Kind: document.String, Text: mode}, from)
}

// legacy reads one of these variables.
func (d *decoder) legacy(s settings, name string) (yes, set bool) {
	text, from, ok := s.lookup(name)
	if ok && text != "true" && text != "false" {
		d.add(from, document.Place{}, "feature.fs.mode", "found %q, expected true or false", text)
	}
	return text == "true", ok
}

// debuggers reads the variable of the kinds of debuggers; nil: it is not set.
func (d *decoder) debuggers(s settings) (all []debugger.Kind) {
	text, from, ok := s.lookup(detectPort)
	if !ok {
		return nil
	}
	for part := range strings.SplitSeq(text, ",") {
		kind := debugger.Kind(strings.TrimSpace(part))
		if !slices.Contains(debugger.Kinds(), kind) {
			d.add(from, document.Place{}, "debuggers", "found %q, expected %s", part, joined(debugger.Kinds()))
			continue
		}
		all = append(all, kind)
	}
	return all
}

// joined makes "a, b or c" of kinds.
func joined(kinds []debugger.Kind) string {
	var text string
	for i, k := range kinds {
		switch {
		case i > 0 && i == len(kinds)-1:
			text += " or "
		case i > 0:
			text += ", "
		}
		text += string(k)
	}
	return text
}

// debuggerPorts reads the variables of ports that are a debugger's, or an editor's.
func (d *decoder) debuggerPorts(s settings) (all []rules.PortRange) {
	for _, name := range []string{ignorePorts, tomcatPort} {
		text, from, ok := s.lookup(name)
		if !ok {
			continue
		}
		for part := range strings.SplitSeq(text, ",") {
			first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
			if !isRange {
				last = first
			}
			a, aerr := strconv.ParseUint(first, 10, 16)
			z, zerr := strconv.ParseUint(last, 10, 16)
			if aerr != nil || zerr != nil || a == 0 || z < a {
				d.add(from, document.Place{}, "debugger ports", "found %q, expected a port, a range as in 5005-5010, or several with commas between", part)
				continue
			}
			all = append(all, rules.PortRange{First: uint16(a), Last: uint16(z)})
		}
	}
	return all
}

// parse makes of a variable's text what the file would have; nil if it is
// wrong.
func (d *decoder) parse(k *Key, text string, from origin) *document.Node {
	n := &document.Node{Kind: document.String, Text: text}
	wrong := func(expected string) *document.Node {
		d.add(from, document.Place{}, k.Name, "found %q, expected %s", text, expected)
		return nil
	}
	switch k.Type {
	case Bool:
		if text != "true" && text != "false" {
			return wrong("true or false")
		}
		return &document.Node{Kind: document.Bool, Bool: text == "true"}
	case Number:
		if k.Name == "feature.fs.cache" && (text == "off" || text == "false") {
			text = "0"
		}
		i, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return wrong("a whole number")
		}
		return &document.Node{Kind: document.Int, Int: i, Text: text}
	case Choice:
		switch k.Name {
		case "feature.fs.mode": // the flag's spelling has dashes
			n.Text = strings.ReplaceAll(text, "-", "")
		case flushKey:
			if yes, err := strconv.ParseBool(text); err == nil && len(text) > 1 {
				n.Text = flush(yes)
			}
		case "feature.network.incoming.mode":
			n.Text = map[string]string{"true": "steal", "false": "off"}[text]
			if n.Text == "" {
				n.Text = text
			}
		}
	case Names, Texts, Patterns, Addresses, Ports:
		n = &document.Node{Kind: document.List}
		for part := range strings.SplitSeq(text, ";") {
			item := &document.Node{Kind: document.String, Text: strings.TrimSpace(part)}
			if item.Text == "" {
				continue
			}
			if k.Type == Ports {
				i, err := strconv.ParseInt(item.Text, 10, 64)
				if err != nil {
					return wrong("ports, 80;8080")
				}
				item.Kind, item.Int = document.Int, i
			}
			n.Items = append(n.Items, item)
		}
		if len(n.Items) == 0 {
			return nil
		}
	}
	return n
}

func (d *decoder) has(name string) bool { _, ok := d.values[name]; return ok }

// text gives the value of a text, "" if there is none.
func (d *decoder) text(name string) string {
	if !d.has(name) {
		return ""
	}
	return d.values[name].node.Text
}

// yes gives the value of a Bool, or fallback.
func (d *decoder) yes(name string, fallback bool) bool {
	if !d.has(name) {
		return fallback
	}
	return d.values[name].node.Bool
}

// about names a key and where it was given, for messages about two of them.
func (d *decoder) about(name string) string {
	v := d.values[name]
	if v.from.file {
		return fmt.Sprintf("%s in line %d", v.name, v.node.Place.Line)
	}
	return v.from.name
}

// refuse tells of a mistake of a key's value as a whole.
func (d *decoder) refuse(name, format string, args ...any) {
	v := d.values[name]
	d.add(v.from, v.node.Place, name, format, args...)
}
