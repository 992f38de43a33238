package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mirrord-go/mirrord/internal/event"
)

// notes collect what a person should know about a configuration that works.
type notes struct{ events []event.Event }

func (n *notes) warn(format string, args ...any) {
	n.events = append(n.events, event.Event{Level: event.Warning, Code: "config", Text: fmt.Sprintf(format, args...)})
}

// ignored makes one note of each kind of keys and variables that do nothing.
func (n *notes) ignored(values map[string]value, env map[string]string) {
	var operator, later []string
	instead, needless := map[string][]string{}, map[string][]string{} // by reason
	for _, name := range slices.Sorted(maps.Keys(values)) {
		v := values[name]
		if v.same() {
			continue
		}
		shown := v.name
		if !v.from.file {
			shown = v.from.name
		}
		switch v.key.Status {
		case Operator:
			operator = append(operator, shown)
		case Later:
			later = append(later, shown)
		case Needless:
			needless[v.key.About] = append(needless[v.key.About], shown)
		case Instead:
			instead[v.key.About] = append(instead[v.key.About], shown)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		switch why := needlessVars[name]; {
		case env[name] == "":
		case why != "":
			needless[why] = append(needless[why], name)
		case strings.HasPrefix(name, operatorVars):
			operator = append(operator, name)
		}
	}
	// Each a line of its own: it must be read before the command does harm.
	for _, what := range slices.Sorted(maps.Keys(instead)) {
		n.warn("%s has an effect only with mirrord's Operator: here %s", strings.Join(instead[what], ", "), strings.ReplaceAll(what, "`", ""))
	}
	if len(later) > 0 {
		n.warn("not supported yet, ignored: %s", strings.Join(later, ", "))
	}
	if len(operator) > 0 {
		n.add("has an effect only with mirrord's Operator, ignored: " + strings.Join(operator, ", "))
	}
	if len(needless) > 0 {
		var parts []string
		for _, why := range slices.Sorted(maps.Keys(needless)) {
			parts = append(parts, fmt.Sprintf("%s (%s)", strings.Join(needless[why], ", "), strings.ReplaceAll(why, "`", "")))
		}
		n.add("not needed here, ignored: " + strings.Join(parts, "; "))
	}
}

func (n *notes) add(text string) {
	n.events = append(n.events, event.Event{Level: event.Info, Code: "config", Text: text})
}
