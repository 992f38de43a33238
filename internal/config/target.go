package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mirrord-go/mirrord/internal/config/document"
)

// targetKinds are the fields of a target written as an object, and how the kind
// is called in a path.
var targetKinds = []struct{ field, kind string }{
	{"pod", "pod"}, {"deployment", "deployment"}, {"rollout", "rollout"}, {"replica_set", "replicaset"},
	{"stateful_set", "statefulset"}, {"daemon_set", "daemonset"}, {"service", "service"}, {"job", "job"}, {"cron_job", "cronjob"},
}

// pathKinds are the kinds of targets in a path.
var pathKinds = []string{"pod", "deployment", "deploy", "rollout", "replicaset", "statefulset", "daemonset", "service", "job", "cronjob", "label", "process"}

// TargetKinds are the kinds of targets, as a path begins with them, and
// "targetless".
func TargetKinds() []string {
	isAlias := func(kind string) bool { return kind == "deploy" }
	return append(slices.DeleteFunc(slices.Clone(pathKinds), isAlias), "targetless")
}

// target reads the root's key of that name: a path, an object with the kind as
// its field, or an object with path and namespace.
func (d *decoder) target(n *document.Node) {
	if n.Kind != document.Map {
		d.targetPath(n)
		return
	}
	if n.Value("path") == nil && (n.Value("namespace") == nil || len(n.Keys) > 1) {
		d.targetObject("target", n)
		return
	}
	for _, e := range n.Keys {
		switch {
		case e.Key != "path" && e.Key != "namespace":
			d.unknown("target", e)
		case e.Value.Kind == document.Null:
		case e.Key == "path" && e.Value.Kind == document.Map:
			d.targetObject("target.path", e.Value)
		case e.Key == "path":
			d.targetPath(e.Value)
		default:
			d.set("target.namespace", e.Value, d.file)
		}
	}
}

// targetPath keeps a target that is written as a path, if it looks like one.
func (d *decoder) targetPath(n *document.Node) {
	if n.Kind != document.String {
		d.add(d.file, n.Place, "target", "found %s, expected a text like \"pod/NAME\", or an object", n)
		return
	}
	parts := strings.Split(n.Text, "/")
	wrong := func(format string, args ...any) {
		d.add(d.file, n.Place, "target", "found %s; "+format, append([]any{n}, args...)...)
	}
	switch {
	case n.Text == "targetless":
	case slices.Contains(parts, ""):
		wrong("a part of it is empty; a target is KIND/NAME or KIND/NAME/container/NAME")
		return
	case len(parts) == 1:
		wrong("it does not say what kind of thing it is; did you mean %q?", "pod/"+n.Text)
		return
	case !slices.Contains(pathKinds, parts[0]):
		if near := Nearest(parts[0], pathKinds); near != "" {
			wrong("there is no kind %q; did you mean %q?", parts[0], near)
		} else {
			wrong("there is no kind %q; there are: %s", parts[0], strings.Join(pathKinds, ", "))
		}
		return
	case parts[0] != "label" && len(parts) != 2 && (len(parts) != 4 || parts[2] != "container"):
		wrong("a target is KIND/NAME or KIND/NAME/container/NAME")
		return
	}
	d.set("target.path", n, d.file)
}

// targetObject makes a path of {"pod": "x", "container": "c"}.
func (d *decoder) targetObject(key string, n *document.Node) {
	var path, container, field string
	before := len(d.list)
	for _, e := range n.Keys {
		i := slices.IndexFunc(targetKinds, func(k struct{ field, kind string }) bool { return k.field == e.Key })
		switch {
		case e.Value.Kind == document.Null:
			continue
		case e.Key == "namespace":
			d.add(d.file, e.Place, key, `the namespace stands beside "path": {"path": {"pod": "x"}, "namespace": "ns"}`)
			continue
		case e.Key == "labels" && field == "":
			path, field = d.labels(e.Value), e.Key
			continue
		case e.Key != "container" && e.Key != "labels" && i < 0:
			names := []string{"container", "labels", "path", "namespace"}
			for _, k := range targetKinds {
				names = append(names, k.field)
			}
			text := "there is no such key; there are: " + strings.Join(names, ", ")
			if near := Nearest(e.Key, names); near != "" {
				text = fmt.Sprintf("there is no such key; did you mean %q?", near)
			}
			d.add(d.file, e.Place, join(key, e.Key), "%s", text)
			continue
		case e.Value.Kind != document.String && e.Key != "labels":
			d.add(d.file, e.Value.Place, join(key, e.Key), "found %s, expected a text", e.Value)
			continue
		case e.Key == "container":
			container = e.Value.Text
			continue
		case field != "":
			d.add(d.file, e.Place, join(key, e.Key), "the target is %s already, in the key %q", path, field)
			continue
		}
		path, field = targetKinds[i].kind+"/"+e.Value.Text, e.Key
		if e.Value.Text == "" || strings.Contains(e.Value.Text, "/") {
			d.add(d.file, e.Value.Place, join(key, e.Key), "found %s, expected a name", e.Value)
		}
	}
	switch {
	case len(d.list) > before:
		return
	case path == "" && container != "":
		d.add(d.file, n.Place, key, `a container of what? name its pod too: {"pod": "x", "container": %q}`, container)
		return
	case path == "": // an empty object: no target
		return
	case container != "":
		path += "/container/" + container
	}
	d.set("target.path", &document.Node{Kind: document.String, Text: path, Place: n.Place}, d.file)
}

// labels makes "label/k=v,…" of an object of texts, or of such a text.
func (d *decoder) labels(n *document.Node) string {
	if n.Kind == document.String && n.Text != "" {
		return "label/" + n.Text
	}
	if n.Kind != document.Map || len(n.Keys) == 0 {
		d.add(d.file, n.Place, "target.labels", "found %s, expected labels: {\"app\": \"shop\"}", n)
		return ""
	}
	var pairs []string
	for _, e := range n.Keys {
		if e.Value.Kind != document.String {
			d.add(d.file, e.Value.Place, "target.labels", "found %s, expected a text", e.Value)
		}
		pairs = append(pairs, e.Key+"="+e.Value.Text)
	}
	return "label/" + strings.Join(pairs, ",")
}
