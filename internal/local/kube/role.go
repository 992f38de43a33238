package kube

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// A Rule is one rule of a role, as the cluster has it.
type Rule struct {
	Groups    []string `json:"apiGroups"`
	Resources []string `json:"resources"`
	Verbs     []string `json:"verbs"`
	// Without says what a session lacks without the rule; empty: there is none.
	Without string `json:"-"`
}

// A Role is what a session needs in one namespace.
type Role struct {
	Namespace string
	Rules     []Rule
}

// Subject is who gets a role: kind "User", "Group" or "ServiceAccount".
type Subject struct {
	Kind, Name, Namespace string // the namespace of a service account
}

// ParseServiceAccount reads NAME or NAMESPACE:NAME; without a namespace it is
// one of namespace.
func ParseServiceAccount(text, namespace string) (Subject, error) {
	ns, name, ok := strings.Cut(text, ":")
	if !ok {
		ns, name = namespace, text
	}
	if ns == "" || name == "" {
		return Subject{}, failure.Usage("service-account-malformed", fmt.Sprintf("%q is no service account", text), "mirrord rbac --serviceaccount NAMESPACE:NAME", "a part of it is empty")
	}
	return Subject{"ServiceAccount", name, ns}, nil
}

// Roles puts permissions into roles, one for each namespace in the order of
// their appearance. Those of the whole cluster are left out: no role can give
// them, and a session does without. Verbs of one resource are one rule where a
// lack of them means the same.
func Roles(needs []Permission) (all []Role) {
	for _, p := range needs {
		if p.Namespace == "" {
			continue
		}
		i := slices.IndexFunc(all, func(r Role) bool { return r.Namespace == p.Namespace })
		if i < 0 {
			i = len(all)
			all = append(all, Role{Namespace: p.Namespace})
		}
		group, resource, sub := p.parts()
		if sub != "" {
			resource += "/" + sub
		}
		rules := all[i].Rules
		j := slices.IndexFunc(rules, func(r Rule) bool { return r.Groups[0] == group && r.Resources[0] == resource && r.Without == p.Need })
		if j < 0 {
			all[i].Rules = append(rules, Rule{Groups: []string{group}, Resources: []string{resource}, Verbs: []string{p.Verb}, Without: p.Need})
			continue
		}
		rules[j].Verbs = append(rules[j].Verbs, p.Verb)
	}
	return all
}

// Forms of Manifest.
const (
	FormYAML = "yaml"
	FormJSON = "json"
)

// Manifest is the roles as objects called name, with a binding of each where
// there are subjects: what kubectl apply -f - takes. As YAML each rule that a
// session can do without says what it does without it.
func Manifest(form, name string, roles []Role, subjects []Subject) (string, error) {
	if form == FormJSON {
		return manifestJSON(name, roles, subjects)
	}
	var parts []string
	for _, r := range roles {
		var b strings.Builder
		fmt.Fprintf(&b, "apiVersion: %s/v1\nkind: Role\nmetadata: {name: %s, namespace: %s}\nrules:\n", rbacGroup, quoted(name), quoted(r.Namespace))
		for _, rule := range r.Rules {
			if rule.Without != "" {
				fmt.Fprintf(&b, "# Without it: %s.\n", rule.Without)
			}
			fmt.Fprintf(&b, "- {apiGroups: [%q], resources: [%s], verbs: [%s]}\n", rule.Groups[0], rule.Resources[0], strings.Join(rule.Verbs, ", "))
		}
		parts = append(parts, b.String())
		if len(subjects) == 0 {
			continue
		}
		b.Reset()
		fmt.Fprintf(&b, "apiVersion: %s/v1\nkind: RoleBinding\nmetadata: {name: %s, namespace: %s}\nroleRef: {apiGroup: %s, kind: Role, name: %s}\nsubjects:\n",
			rbacGroup, quoted(name), quoted(r.Namespace), rbacGroup, quoted(name))
		for _, s := range subjects {
			if s.Kind == "ServiceAccount" {
				fmt.Fprintf(&b, "- {kind: %s, name: %s, namespace: %s}\n", s.Kind, quoted(s.Name), quoted(s.Namespace))
			} else {
				fmt.Fprintf(&b, "- {apiGroup: %s, kind: %s, name: %s}\n", rbacGroup, s.Kind, quoted(s.Name))
			}
		}
		parts = append(parts, b.String())
	}
	return strings.Join(parts, "---\n"), nil
}

const rbacGroup = "rbac.authorization.k8s.io"

// quoted is a text as YAML takes it anywhere; JSON's quotes are YAML's.
func quoted(text string) string {
	if text != "" && strings.Trim(text, "abcdefghijklmnopqrstuvwxyz-") == "" && !slices.Contains([]string{"true", "false", "null", "yes", "no", "on", "off"}, text) && text[0] != '-' {
		return text
	}
	b, _ := json.Marshal(text) // a string always can be
	return string(b)
}

func manifestJSON(name string, roles []Role, subjects []Subject) (string, error) {
	type meta struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	}
	type subject struct {
		Group     string `json:"apiGroup,omitempty"`
		Kind      string `json:"kind"`
		Name      string `json:"name"`
		Namespace string `json:"namespace,omitempty"`
	}
	type role struct {
		API   string `json:"apiVersion"`
		Kind  string `json:"kind"`
		Meta  meta   `json:"metadata"`
		Rules []Rule `json:"rules"`
	}
	type binding struct {
		API      string            `json:"apiVersion"`
		Kind     string            `json:"kind"`
		Meta     meta              `json:"metadata"`
		Ref      map[string]string `json:"roleRef"`
		Subjects []subject         `json:"subjects"`
	}
	items := []any{}
	const api = rbacGroup + "/v1"
	for _, r := range roles {
		m := meta{name, r.Namespace}
		items = append(items, role{api, "Role", m, r.Rules})
		if len(subjects) == 0 {
			continue
		}
		b := binding{api, "RoleBinding", m, map[string]string{"apiGroup": rbacGroup, "kind": "Role", "name": name}, nil}
		for _, s := range subjects {
			group := rbacGroup
			if s.Kind == "ServiceAccount" {
				group = ""
			}
			b.Subjects = append(b.Subjects, subject{group, s.Kind, s.Name, s.Namespace})
		}
		items = append(items, b)
	}
	out, err := json.MarshalIndent(map[string]any{"apiVersion": "v1", "kind": "List", "items": items}, "", "  ")
	return string(out) + "\n", err
}

// TargetNamespace is the namespace that targets are looked for in by a user
// with these options: the named one, else the context's.
func TargetNamespace(o Options) (string, error) {
	if o.Namespace != "" {
		return o.Namespace, nil
	}
	c, err := Connect(o)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return cmp.Or(c.Namespace(), "default"), nil
}
