package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mirrord-go/mirrord/internal/config/document"
)

// value is what a key was given, of a kind that fits the key's type.
type value struct {
	key  *Key
	node *document.Node
	from origin
	name string // as it was written: the key's, or that of a section in its short form
}

// at says for a person where a part of the value was written: it becomes the
// Origin of rules.
func (v value) at(n *document.Node) string {
	if !v.from.file {
		return v.from.name
	}
	return fmt.Sprintf("%s in %s:%d", v.name, v.from.name, n.Place.Line)
}

// decoder turns documents and variables into values.
type decoder struct {
	*schema
	problems
	file   origin
	values map[string]value
}

// section reads the keys of an object.
func (d *decoder) section(name string, n *document.Node) {
	for _, e := range n.Keys {
		full := join(name, e.Key)
		switch {
		case strings.Contains(e.Key, "."): // would look like a path of sections
			d.unknown(name, e)
		case e.Value.Kind == document.Null: // as if it were not there
			if d.keys[full] == nil && d.children[full] == nil {
				d.unknown(name, e)
			}
		case full == "$schema": // for editors
		case full == "target":
			d.target(e.Value)
		case d.children[full] != nil && e.Value.Kind == document.Map:
			d.section(full, e.Value)
		case d.keys[full] != nil:
			d.set(full, e.Value, d.file)
		case d.children[full] != nil:
			d.short(full, e.Value)
		default:
			d.unknown(name, e)
		}
	}
}

// shownNames is how many keys of a section are listed when none is near: a line.
const shownNames = 12

// unknown tells of a key that there is not, and what may have been meant.
func (d *decoder) unknown(section string, e document.Entry) {
	full := join(section, e.Key)
	text := "there is no such key"
	names := slices.Sorted(slices.Values(d.children[section]))
	if instead := removed[full]; instead != "" {
		text = instead
	} else if full == "services" {
		text += "; this is a file of services: mirrord up -f " + d.file.name
	} else if outer, inner, dotted := strings.Cut(e.Key, "."); dotted && slices.Contains(names, outer) {
		text += fmt.Sprintf("; write it inside: {%q: {%q: …}}", outer, inner)
	} else if near := Nearest(e.Key, d.children[section]); near != "" {
		text += fmt.Sprintf("; did you mean %q?", near)
	} else if there := d.elsewhere(e.Key); there != "" {
		text += "; there is " + there
	} else if len(names) <= shownNames {
		text += "; there are: " + strings.Join(names, ", ")
	}
	d.add(d.file, e.Place, full, "%s", text)
}

// set checks a value and keeps it, unless it is wrong.
func (d *decoder) set(name string, n *document.Node, from origin) { d.setAs(name, name, n, from) }

// setAs is set for a value that was written as the value of another name: of
// the section.
func (d *decoder) setAs(written, name string, n *document.Node, from origin) {
	if name == "feature.fs.cache" && (n.Kind == document.String && n.Text == "off" || n.Kind == document.Bool && !n.Bool) {
		n = &document.Node{Kind: document.Int, Place: n.Place} // to YAML "off" may be a truth value
	}
	v := value{d.keys[name], n, from, written}
	if d.check(v) {
		d.values[name] = v
	}
}

// short reads what stands in place of a section's object: true and false, and
// for some a mode.
func (d *decoder) short(section string, n *document.Node) {
	const incoming = "feature.network.incoming"
	expected := "true, false or an object"
	off := []string{}
	switch section {
	case "feature.env":
		if n.Kind == document.Bool {
			if !n.Bool {
				d.setAs(section, "feature.env.exclude", &document.Node{Kind: document.String, Text: "*", Place: n.Place}, d.file)
			}
			return
		}
	case "feature.fs", incoming:
		if n.Kind == document.String {
			d.setAs(section, section+".mode", n, d.file)
			return
		}
		expected = strings.Join(d.keys[section+".mode"].Choices(), ", ") + ", " + expected
		off = []string{section + ".mode"}
	case "feature.network":
		off = []string{incoming + ".mode", "feature.network.outgoing.tcp", "feature.network.outgoing.udp", "feature.network.dns.enabled"}
	case "feature.network.outgoing":
		off = []string{section + ".tcp", section + ".udp"}
	case "feature.network.dns":
		off = []string{section + ".enabled"}
	case "feature.copy_target":
		if n.Kind == document.Bool {
			d.setAs(section, section+".enabled", n, d.file)
			return
		}
	case incoming + ".http_filter":
		if n.Kind == document.Bool { // true: the section's defaults, which filter nothing
			return
		}
	default:
		d.add(d.file, n.Place, section, "found %s, expected an object", n)
		return
	}
	if n.Kind != document.Bool {
		d.add(d.file, n.Place, section, "found %s, expected %s", n, expected)
		return
	}
	if n.Bool {
		return
	}
	for _, name := range off {
		no := &document.Node{Kind: document.Bool, Place: n.Place}
		switch name {
		case "feature.fs.mode":
			no = &document.Node{Kind: document.String, Text: "local", Place: n.Place}
		case incoming + ".mode":
			no = &document.Node{Kind: document.String, Text: "off", Place: n.Place}
		}
		d.setAs(section, name, no, d.file)
	}
}
