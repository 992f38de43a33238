package config

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/config/document"
)

// Pod is what the agent's pod gets beside what the agent needs, or in place of
// what it would get. An agent in the target's pod gets nothing of it.
type Pod struct {
	Labels         map[string]string `json:"labels,omitempty"`      // of Job and pod
	Annotations    map[string]string `json:"annotations,omitempty"` // of Job and pod
	NodeSelector   map[string]string `json:"node_selector,omitempty"`
	ServiceAccount string            `json:"service_account,omitempty"`
	PriorityClass  string            `json:"priority_class,omitempty"`
	PullSecrets    []string          `json:"pull_secrets,omitempty"` // names
	// Tolerations is a JSON list of tolerations in Kubernetes' form; empty: every
	// taint is tolerated.
	Tolerations string `json:"tolerations,omitempty"`
	// Requests and Limits are quantities by resource; nil: the agent's usual ones.
	Requests map[string]string `json:"requests,omitzero"`
	Limits   map[string]string `json:"limits,omitzero"`
	// AppArmor and Seccomp are types of profiles, "Localhost/NAME" for one of the
	// node's; empty: the agent's usual ones.
	AppArmor   string `json:"app_armor,omitempty"`
	Seccomp    string `json:"seccomp,omitempty"`
	Privileged bool   `json:"privileged,omitempty"`
	Meshed     bool   `json:"meshed,omitempty"` // a mesh may put its proxy beside the agent
}

// ownLabels are what the agent is found by.
const ownLabels = "mirrord/"

func (b *builder) pod() {
	p := &b.cfg.Agent.Pod
	p.Labels, p.Annotations, p.NodeSelector = b.texts("agent.labels"), b.texts("agent.annotations"), b.texts("agent.node_selector")
	p.ServiceAccount, p.PriorityClass = b.text("agent.service_account"), b.text("agent.priority_class")
	p.Requests, p.Limits = b.texts("agent.resources.requests"), b.texts("agent.resources.limits")
	p.AppArmor, p.Seccomp = b.profile("agent.security_context.app_armor_profile"), b.profile("agent.security_context.seccomp_profile")
	p.Privileged, p.Meshed = b.yes("agent.privileged", false), !b.yes("agent.disable_mesh_sidecar_injection", true)
	if b.has("agent.image_pull_secrets") {
		for _, item := range b.values["agent.image_pull_secrets"].node.Items {
			p.PullSecrets = append(p.PullSecrets, item.Value("name").Text)
		}
	}
	if b.has("agent.tolerations") {
		p.Tolerations = tolerations(b.values["agent.tolerations"].node)
	}
	for _, name := range []string{"agent.labels", "agent.annotations"} {
		if !b.has(name) {
			continue
		}
		for _, e := range b.values[name].node.Keys {
			if strings.HasPrefix(e.Key, ownLabels) {
				b.add(b.file, e.Place, name, "%q is mirrord's own: sessions are found by it", e.Key)
			}
		}
	}
	if memory, ok := p.Limits["memory"]; ok {
		if n, _ := quantity(memory); n < budget.AgentPod {
			b.notes.warn("the limit of memory (%s) is below the %d MiB that the agent of a busy session may take: the cluster may end it then (%s)",
				memory, budget.AgentPod>>20, b.about("agent.resources.limits"))
		}
	}
	b.podUnused()
}

// podKeys are those of Pod.
func (b *builder) podKeys() (given []string) {
	for _, name := range []string{
		"agent.labels", "agent.annotations", "agent.node_selector", "agent.service_account", "agent.priority_class", "agent.image_pull_secrets",
		"agent.tolerations", "agent.resources.requests", "agent.resources.limits", "agent.security_context.app_armor_profile.type",
		"agent.security_context.seccomp_profile.type", "agent.privileged", "agent.disable_mesh_sidecar_injection",
	} {
		if b.has(name) && !b.values[name].same() {
			given = append(given, name)
		}
	}
	return given
}

// podUnused tells of what has no effect in this session, and forgets it.
func (b *builder) podUnused() {
	p := &b.cfg.Agent.Pod
	given := b.podKeys()
	switch {
	case b.cfg.Agent.Ephemeral && len(given) > 0:
		b.notes.warn("%s: nothing is done about that, the agent runs in the target's pod (%s)", strings.Join(given, ", "), b.about("agent.ephemeral"))
		*p = Pod{}
	case b.cfg.Targetless() && p.Privileged:
		b.notes.warn("agent.privileged does nothing: there is no target to enter (%s)", b.about("agent.privileged"))
		p.Privileged = false
	case !b.cfg.Targetless() && len(p.NodeSelector) > 0:
		b.notes.warn("agent.node_selector does nothing: the agent runs on its target's node (%s)", b.about("agent.node_selector"))
		p.NodeSelector = nil
	}
}

// texts gives an object of texts, nil if there is none.
func (b *builder) texts(name string) map[string]string {
	if !b.has(name) {
		return nil
	}
	all := map[string]string{}
	for _, e := range b.values[name].node.Keys {
		all[e.Key] = e.Value.Text
	}
	return all
}

// profile gives the type of a security profile, with its name.
func (b *builder) profile(section string) string {
	kind, name := b.text(section+".type"), b.text(section+".localhost_profile")
	const localhost = "Localhost"
	switch {
	case kind == localhost && name == "":
		b.refuse(section+".type", "found %q, which needs the profile's name beside it: localhost_profile", kind)
	case kind != localhost && name != "":
		b.refuse(section+".localhost_profile", `found a profile's name, but the type beside it is not %q`, localhost)
	case kind == localhost:
		return kind + "/" + name
	}
	return kind
}

// tolerationFields are the fields of a toleration in Kubernetes' API, with what
// they may be; no list: any text.
var tolerationFields = map[string][]string{
	"key": nil, "value": nil, "tolerationSeconds": nil,
	"operator": {"Exists", "Equal", "Lt", "Gt"},
	"effect":   {"NoSchedule", "PreferNoSchedule", "NoExecute"},
}

// checkTolerations checks a list of objects as in a pod's spec.
func (d *decoder) checkTolerations(v value) {
	names := []string{"effect", "key", "operator", "tolerationSeconds", "value"}
	for _, item := range d.objects(v, `[{"key": "dedicated", "operator": "Exists"}]`, names) {
		for _, e := range item.Keys {
			choices, known := tolerationFields[e.Key]
			at := v.key.Name + "." + e.Key
			switch {
			case !known || e.Value.Kind == document.Null:
			case e.Key == "tolerationSeconds":
				if e.Value.Kind != document.Int {
					d.add(v.from, e.Value.Place, at, "found %s, expected a whole number of seconds", e.Value)
				}
			case e.Value.Kind != document.String:
				d.add(v.from, e.Value.Place, at, "found %s, expected a text; write it in quotes", e.Value)
			case choices != nil && !slices.Contains(choices, e.Value.Text):
				d.add(v.from, e.Value.Place, at, "found %s, expected %s", e.Value, alternatives(choices))
			}
		}
	}
}

// checkReferences checks a list of objects that have a name each.
func (d *decoder) checkReferences(v value) {
	for _, item := range d.objects(v, `[{"name": "registry-secret"}]`, []string{"name"}) {
		if n := item.Value("name"); n == nil || n.Kind != document.String || n.Text == "" {
			d.add(v.from, item.Place, v.key.Name, `found no name in this object, expected {"name": "…"}`)
		}
	}
}

// objects gives the objects of a list. What is no object, and fields that none
// of them has, are problems.
func (d *decoder) objects(v value, example string, fields []string) (all []*document.Node) {
	if v.node.Kind != document.List {
		d.add(v.from, v.node.Place, v.name, "found %s, expected a list as %s", v.node, example)
		return nil
	}
	for _, item := range v.node.Items {
		if item.Kind != document.Map {
			d.add(v.from, item.Place, v.key.Name, "found %s, expected an object as in %s", item, example)
			continue
		}
		for _, e := range item.Keys {
			if !slices.Contains(fields, e.Key) {
				text := "there is no such field; there are: " + strings.Join(fields, ", ")
				if near := Nearest(e.Key, fields); near != "" {
					text = fmt.Sprintf("there is no such field; did you mean %q?", near)
				}
				d.add(v.from, e.Place, v.key.Name+"."+e.Key, "%s", text)
			}
		}
		all = append(all, item)
	}
	return all
}

// tolerations is a checked list as JSON.
func tolerations(n *document.Node) string {
	list := []map[string]any{}
	for _, item := range n.Items {
		fields := map[string]any{}
		for _, e := range item.Keys {
			switch e.Value.Kind {
			case document.String:
				fields[e.Key] = e.Value.Text
			case document.Int:
				fields[e.Key] = e.Value.Int
			}
		}
		list = append(list, fields)
	}
	text, _ := json.Marshal(list) // of texts and numbers
	return string(text)
}

// checkQuantities checks an object of amounts.
func (d *decoder) checkQuantities(v value) {
	if v.node.Kind != document.Map {
		d.add(v.from, v.node.Place, v.name, `found %s, expected an object as {"cpu": "500m", "memory": "256Mi"}`, v.node)
		return
	}
	for _, e := range v.node.Keys {
		_, ok := quantity(e.Value.Text)
		if kind := e.Value.Kind; !ok || kind != document.String && kind != document.Int && kind != document.Float {
			d.add(v.from, e.Value.Place, join(v.key.Name, e.Key), "found %s, expected an amount as 500m, 2, 256Mi or 1G", e.Value)
		}
	}
}

// amount is a quantity in Kubernetes' notation
// (kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity),
// without a sign: resources are not negative.
var amount = regexp.MustCompile(`^(\d+\.?\d*|\.\d+)([numkMGTPE]?|[KMGTPE]i|[eE][+-]?\d{1,2})$`)

// scales are the factors of an amount's suffixes.
var scales = map[string]float64{
	"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
	"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60,
}

// quantity reads an amount.
func quantity(text string) (float64, bool) {
	m := amount.FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	scale, ok := scales[m[2]]
	if !ok { // an exponent
		n, err := strconv.ParseFloat(text, 64)
		return n, err == nil
	}
	n, err := strconv.ParseFloat(m[1], 64)
	return n * scale, err == nil
}
