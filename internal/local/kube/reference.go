package kube

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// A kind is a sort of thing that a target can be.
type kind struct {
	name     string // as a target has it
	api      string // path of the API that knows it
	resource string // in that path
	rbac     string // as roles and kubectl name it
}

// kinds are the objects of the cluster that can be targets, in the order in
// which they are proposed: what people mean most often first.
var kinds = []kind{
	{"deployment", "/apis/apps/v1", "deployments", "deployments.apps"},
	{"statefulset", "/apis/apps/v1", "statefulsets", "statefulsets.apps"},
	{"daemonset", "/apis/apps/v1", "daemonsets", "daemonsets.apps"},
	{"rollout", "/apis/argoproj.io/v1alpha1", "rollouts", "rollouts.argoproj.io"},
	{"cronjob", "/apis/batch/v1", "cronjobs", "cronjobs.batch"},
	{"job", "/apis/batch/v1", "jobs", "jobs.batch"},
	{"service", "/api/v1", "services", "services"},
	{"replicaset", "/apis/apps/v1", "replicasets", "replicasets.apps"},
	{"pod", "/api/v1", "pods", "pods"},
}

// label is the one kind that is no object: the pods that have some labels.
const label = "label"

// kindOf finds a kind by the word in a target.
func kindOf(word string) (kind, bool) {
	switch word {
	case "deploy":
		word = "deployment"
	case label:
		return kind{name: label, rbac: "pods"}, true
	}
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == word })
	if i < 0 {
		return kind{}, false
	}
	return kinds[i], true
}

// kindWords are the names of all kinds.
func kindWords() string {
	var all []string
	for _, k := range kinds {
		all = append(all, k.name)
	}
	return strings.Join(append(all, label), ", ")
}

// A reference is a target as written, taken apart.
type reference struct {
	kind      kind
	name      string // of the object; of a label target the selector
	container string // empty: none was named
}

// String is the reference without its container.
func (r reference) String() string { return r.kind.name + "/" + r.name }

const formats = "KIND/NAME or KIND/NAME/container/C"

// parse takes a target apart. What is wrong with it is a failure with the code
// target-malformed.
func parse(target string) (reference, error) {
	malformed := func(why, do string) (reference, error) {
		return reference{}, failure.Usage("target-malformed", fmt.Sprintf("%q is no target", target), do, "%s", why)
	}
	parts := strings.Split(target, "/")
	k, known := kindOf(parts[0])
	if known && k.name == label {
		return parseLabel(target, malformed)
	}
	r := reference{kind: k}
	switch {
	case slices.Contains(parts, ""):
		return malformed("a part of it is empty; targets are "+formats, "kubectl get pods")
	case len(parts) == 1 && known:
		return malformed("the name is missing; targets are "+formats, fmt.Sprintf("mirrord exec -t %s/NAME ...", target))
	case len(parts) == 1:
		return malformed("it does not say what kind of thing it is", fmt.Sprintf("mirrord exec -t pod/%s ...", target))
	case !known:
		return malformed(fmt.Sprintf("there is no kind %q; targets are %s, and kinds are %s", parts[0], formats, kindWords()), "kubectl get pods")
	case len(path.IsValidPathSegmentName(parts[1])) > 0:
		return malformed(fmt.Sprintf("%q can be nobody's name", parts[1]), "kubectl get pods")
	case len(parts) == 2:
		r.name = parts[1]
		return r, nil
	case len(parts) == 4 && parts[2] == "container":
		r.name, r.container = parts[1], parts[3]
		return r, nil
	case len(parts) == 3:
		return malformed("the word \"container\" is missing before the container's name",
			fmt.Sprintf("mirrord exec -t %s/%s/container/%s ...", parts[0], parts[1], parts[2]))
	}
	return malformed("it has too many parts; targets are "+formats, "kubectl get pods")
}

// parseLabel takes "label/k=v,k=v" apart. Keys may hold a slash, values and
// container names may not.
func parseLabel(target string, malformed func(why, do string) (reference, error)) (reference, error) {
	r := reference{kind: kind{name: label, rbac: "pods"}}
	r.name = strings.TrimPrefix(strings.TrimPrefix(target, label), "/")
	if i := strings.LastIndex(r.name, "/container/"); i >= 0 && !strings.ContainsAny(r.name[i+len("/container/"):], "/=,") {
		r.name, r.container = r.name[:i], r.name[i+len("/container/"):]
		if r.container == "" {
			return malformed("the container's name is missing", "kubectl get pods --show-labels")
		}
	}
	const do = "mirrord exec -t label/app=web,tier=front ...; labels: kubectl get pods --show-labels"
	if r.name == "" {
		return malformed("the labels are missing", do)
	}
	for part := range strings.SplitSeq(r.name, ",") {
		if key, value, ok := strings.Cut(part, "="); !ok || key == "" || value == "" {
			return malformed(fmt.Sprintf("%q is no KEY=VALUE", part), do)
		}
	}
	if _, err := labels.Parse(r.name); err != nil {
		return malformed(err.Error(), do)
	}
	return r, nil
}
