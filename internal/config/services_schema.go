package config

// ServicesSchema describes files of services for editors, as Schema does
// configurations.
func ServicesSchema() map[string]any {
	s := newSchema()
	text := object{"type": []any{"string", "null"}, "minLength": 1}
	command := object{"type": "array", "minItems": 1, "items": object{"type": []any{"string", "integer"}}, "description": "program and arguments"}
	whole := Schema()
	target := targetSchema()
	target["anyOf"] = append(target["anyOf"].([]any), object{"enum": []any{"none", nil}})
	service := object{"type": "object", "additionalProperties": false, "properties": object{
		"target":       target,
		"env":          s.withShort("feature.env", s.section("feature.env")),
		"http_filter":  s.withShort("feature.network.incoming.http_filter", s.section("feature.network.incoming.http_filter")),
		"ignore_ports": s.described(s.keys[incomingKey+"ignore_ports"]),
		"default_mode": object{"enum": append(anys(Modes()), nil), "description": "what becomes of the target's traffic. Default: " + ModeSplit},
		"context":      s.described(s.keys["kube_context"]),
		"skip":         object{"type": []any{"boolean", "null"}, "description": "run it only if it is named"},
		"messages":     object{"description": about(s.keys["feature.split_queues"])},
		"config_patch": object{"type": []any{"object", "null"}, "properties": whole["properties"], "additionalProperties": false, "description": "more keys of a session's configuration"},
		"run": object{"type": "object", "additionalProperties": false, "required": []any{"command"}, "properties": object{
			"type": object{"enum": []any{"exec", "container"}}, "dir": text, "command": command}},
	}, "required": []any{"run"}}
	common := object{}
	for name, key := range commonKeys {
		common[name] = s.described(s.keys[key])
	}
	return object{
		"$schema": whole["$schema"], "title": "mirrord up", "description": "Services that mirrord runs together.", "type": "object", "additionalProperties": false,
		"properties": object{
			"$schema":  object{"type": "string", "description": "where editors find this description of the keys"},
			"common":   object{"type": []any{"object", "null"}, "properties": common, "additionalProperties": false},
			"services": object{"type": "object", "additionalProperties": service, "minProperties": 1},
		},
		"required": []any{"services"},
	}
}
