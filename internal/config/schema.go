package config

import (
	"maps"
	"slices"
	"strings"
)

// object is a part of a JSON schema.
type object = map[string]any

// Schema describes configurations for editors, in the words of JSON Schema
// (draft 7, json-schema.org/draft-07). It is made from the table of keys. What
// it refuses Load refuses too; Load checks more: patterns, addresses, and what
// contradicts itself.
func Schema() map[string]any {
	s := newSchema()
	root := s.section("")
	properties := root["properties"].(object)
	properties["$schema"] = object{"type": "string", "description": "where editors find this description of the keys"}
	properties["target"] = targetSchema()
	root["$schema"] = "http://json-schema.org/draft-07/schema#"
	root["title"] = "mirrord"
	root["description"] = "What a session of mirrord is like."
	return root
}

// section describes the object of a section.
func (s *schema) section(name string) object {
	properties := object{}
	for _, child := range s.children[name] {
		full := join(name, child)
		switch key, inside := s.keys[full], s.children[full]; {
		case len(inside) == 0:
			properties[child] = s.described(key)
		case key != nil: // a text that may be written in parts
			properties[child] = object{"description": about(key), "examples": []any{key.Example()}, "anyOf": []any{s.key(key), s.section(full)}}
		default:
			properties[child] = s.withShort(full, s.section(full))
		}
	}
	return object{"type": []any{"object", "null"}, "properties": properties, "additionalProperties": false}
}

// shortForms are the sections for which something stands that is no object:
// true or false, and for those with a mode the mode.
var shortForms = []string{
	"feature.env", "feature.fs", "feature.network", "feature.network.incoming", "feature.network.outgoing", "feature.network.dns",
	"feature.copy_target", "feature.network.incoming.http_filter",
}

func (s *schema) withShort(name string, section object) object {
	if !slices.Contains(shortForms, name) {
		return section
	}
	forms := []any{section, object{"type": "boolean"}}
	if mode := s.keys[name+".mode"]; mode != nil {
		forms = append(forms, s.key(mode))
	}
	return object{"anyOf": forms}
}

func about(k *Key) string {
	text := strings.ReplaceAll(k.About, "`", "")
	switch k.Status {
	case Operator:
		text = "Has an effect only with mirrord's Operator: " + text
	case Needless:
		text = "Does nothing: " + text
	case Later:
		text = "Not supported yet: " + text
	case Instead:
		text = "Has an effect only with mirrord's Operator. Here " + text
	}
	return text
}

func (s *schema) described(k *Key) object {
	d := maps.Clone(s.key(k))
	d["description"] = about(k)
	if k.Default != "" {
		d["description"] = about(k) + ". Default: " + strings.ReplaceAll(k.Default, "`", "")
	}
	if e := k.Example(); e != nil {
		d["examples"] = []any{e}
	}
	if k.Status == Needless {
		d["deprecated"] = true
	}
	return d
}

// template is a text that holds an expression: what it becomes is not known
// before.
var template = object{"type": "string", "pattern": `\{\{`}

// key describes the values that a key takes. A key that is null is as if it were
// not there.
func (s *schema) key(k *Key) object {
	texts := func(item object) object { return listOrOne(item) }
	filled := object{"type": "string", "minLength": 1}
	switch k.Type {
	case Bool:
		return object{"type": []any{"boolean", "null"}}
	case Number:
		number := object{"type": []any{"integer", "null"}, "minimum": 0, "maximum": k.Max()}
		if k.Name == "feature.fs.cache" {
			return object{"anyOf": []any{number, object{"enum": []any{"off", false}}}}
		}
		return number
	case Choice:
		all := []any{nil}
		for _, c := range k.Choices() {
			all = append(all, c)
		}
		if strings.HasSuffix(k.Name, "incoming.mode") || k.Name == flushKey {
			all = append(all, true, false)
		}
		return object{"anyOf": []any{object{"enum": all}, template}}
	case Names, Texts, Addresses:
		return texts(filled)
	case Patterns:
		return texts(object{"type": "string", "minLength": 1, "format": "regex"})
	case Conditions:
		return object{"type": []any{"array", "null"}, "minItems": 1, "items": condition()}
	case Negated:
		return condition()
	case BodyMatch:
		return bodyCondition()
	case Pairs, PathMap, Expressions:
		return object{"type": []any{"object", "null"}, "additionalProperties": object{"type": "string"}}
	case Ports:
		return listOrOne(port)
	case PortPairs:
		return object{"type": []any{"array", "null"}, "items": object{"type": "array", "items": port, "minItems": 2, "maxItems": 2}}
	case Quantities:
		return object{"type": []any{"object", "null"}, "additionalProperties": object{"anyOf": []any{
			object{"type": "string", "pattern": amount.String()}, object{"type": "number", "minimum": 0}}}}
	case Tolerations:
		fields := object{"tolerationSeconds": object{"type": []any{"integer", "null"}}}
		for name, choices := range tolerationFields {
			if choices != nil {
				fields[name] = object{"enum": append(anys(choices), nil)}
			} else if fields[name] == nil {
				fields[name] = object{"type": []any{"string", "null"}}
			}
		}
		return object{"type": []any{"array", "null"}, "items": object{"type": "object", "properties": fields, "additionalProperties": false}}
	case References:
		return object{"type": []any{"array", "null"}, "items": object{"type": "object", "properties": object{"name": filled},
			"required": []any{"name"}, "additionalProperties": false}}
	case Open:
		return object{}
	}
	return object{"type": []any{"string", "null"}, "minLength": 1}
}

var port = object{"type": "integer", "minimum": 1, "maximum": maxPort}

// condition is one on a request. Those inside it have the same form, which is
// not said again: a part of a schema has no name that another could refer to.
func condition() object {
	text := object{"type": "string", "minLength": 1}
	list := object{"type": "array", "minItems": 1, "items": object{"type": "object", "minProperties": 1}}
	return object{"anyOf": []any{bodyCondition(), object{"type": "object", "additionalProperties": false, "minProperties": 1, "maxProperties": 1, "properties": object{
		"header": text, "path": text, "method": text, "host": text, "client": text, "sni": text, "query": text, "all_of": list, "any_of": list, "not": list["items"]}}}}
}

func bodyCondition() object {
	text := object{"type": "string", "minLength": 1}
	return object{"type": "object", "additionalProperties": false, "required": []any{"body"}, "minProperties": 2, "properties": object{
		"body": object{"enum": []any{"json", "text", "jq"}}, "query": text, "matches": text}}
}

// listOrOne is a list, or one of its values in place of it.
func listOrOne(item object) object {
	return object{"anyOf": []any{item, object{"type": []any{"array", "null"}, "items": item}}}
}

func anys(texts []string) (all []any) {
	for _, t := range texts {
		all = append(all, t)
	}
	return all
}

// targetSchema describes the target: a path, an object with the kind as its
// field, or one with path and namespace.
func targetSchema() object {
	fields := object{
		"container": object{"type": []any{"string", "null"}, "minLength": 1, "description": "one of the pod's containers"},
		"labels": object{"description": "labels of the pod", "anyOf": []any{
			object{"type": "string", "minLength": 1}, object{"type": []any{"object", "null"}, "additionalProperties": object{"type": "string"}, "minProperties": 1}}},
	}
	for _, k := range targetKinds {
		fields[k.field] = object{"type": []any{"string", "null"}, "pattern": "^[^/]+$", "description": "name of the " + k.kind}
	}
	text := object{"type": "string", "description": "KIND/NAME, KIND/NAME/container/NAME, label/KEY=VALUE, process/PID, targetless, or pick: asks on the terminal",
		"pattern":  `\{\{|^(targetless|pick)$|^label/.+$|^(` + strings.Join(pathKinds, "|") + `)/[^/]+(/container/[^/]+)?$`,
		"examples": []any{"pod/shop-7d4b9", "deployment/shop/container/api"}}
	kinds := object{"type": []any{"object", "null"}, "properties": fields, "additionalProperties": false}
	whole := object{"type": "object", "additionalProperties": false, "properties": object{
		"path":      object{"anyOf": []any{text, kinds}},
		"namespace": object{"type": []any{"string", "null"}, "minLength": 1, "description": "the target's namespace"},
	}}
	return object{"description": "What to run in the context of.", "anyOf": []any{text, kinds, whole}}
}
