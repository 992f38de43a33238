package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// Target is a running container of the cluster, or none (Targetless). It is a
// picture of the moment when it was resolved.
type Target struct {
	Targetless bool
	Namespace  string
	Pod        string
	UID        string // of the pod
	Node       string
	Container  string
	// ContainerID is the runtime's id without the runtime's name, as it stands
	// in the cgroup paths of the node; Runtime is that name ("containerd").
	ContainerID, Runtime string
	HostNetwork          bool // the pod shares the node's network
	// Notes are worth a line to the user: which of several containers was
	// chosen, and the like.
	Notes []string
}

// String is the target as one may write it: "pod/web-1/container/app", or
// "targetless".
func (t *Target) String() string {
	if t.Targetless {
		return "targetless"
	}
	return "pod/" + t.Pod + "/container/" + t.Container
}

// sidecars are containers that stand beside the one that people mean. The list
// is mirrord's own.
var sidecars = []string{"kuma-sidecar", "kuma-init", "istio-proxy", "istio-init", "linkerd-proxy", "linkerd-init",
	"vault-agent", "vault-agent-init", "queue-proxy", "traffic-agent"}

// defaultContainer is kubectl's annotation for the same choice.
const defaultContainer = "kubectl.kubernetes.io/default-container"

// A reference is a target as written, taken apart.
type reference struct{ kind, name, container string }

// pick finds the pod that stands for a target of one kind.
type pick func(c *Cluster, ctx context.Context, r reference) (*corev1.Pod, error)

// kinds are the targets that have a name in the cluster. The empty pick marks
// those that mirrord knows of and this version cannot resolve.
var kinds = map[string]pick{
	"pod":        (*Cluster).pod,
	"deployment": nil, "deploy": nil, "rollout": nil, "statefulset": nil, "daemonset": nil,
	"replicaset": nil, "service": nil, "job": nil, "cronjob": nil, "label": nil,
}

// Resolve finds the container that target names: "pod/NAME" or
// "pod/NAME/container/NAME"; "" and "targetless" give a targetless Target
// without asking the cluster. The container must run; codes of the failures:
// target-malformed, target-kind, target-not-found, target-not-running,
// target-ending, container-not-found, container-not-running, and those of any
// request (cluster-unreachable, cluster-certificate, cluster-login, forbidden,
// cluster-error).
func (c *Cluster) Resolve(ctx context.Context, target string) (*Target, error) {
	if target == "" || target == "targetless" {
		return &Target{Targetless: true, Namespace: c.namespace}, nil
	}
	r, err := parse(target)
	if err != nil {
		return nil, err
	}
	pod, err := kinds[r.kind](c, ctx, r)
	if err != nil {
		return nil, err
	}
	return c.choose(pod, r)
}

const formats = "pod/NAME or pod/NAME/container/NAME"

// parse takes a target apart.
func parse(target string) (reference, error) {
	malformed := func(why, do string) (reference, error) {
		return reference{}, failure.Usage("target-malformed", fmt.Sprintf("%q is no target", target), do, "%s", why)
	}
	parts := strings.Split(target, "/")
	find, known := kinds[parts[0]]
	switch {
	case slices.Contains(parts, ""):
		return malformed("a part of it is empty; targets are "+formats, "kubectl get pods")
	case len(parts) == 1 && known:
		return malformed("the name is missing; targets are "+formats, fmt.Sprintf("mirrord exec -t %s/NAME ...", target))
	case len(parts) == 1:
		return malformed("it does not say what kind of thing it is", fmt.Sprintf("mirrord exec -t pod/%s ...", target))
	case !known:
		return malformed(fmt.Sprintf("there is no kind %q; targets are %s", parts[0], formats), "kubectl get pods")
	case find == nil:
		return reference{}, failure.Usage("target-kind", fmt.Sprintf("%s: this version of mirrord takes pods only", target),
			"name one of its pods: kubectl get pods, then mirrord exec -t pod/NAME ...", "choosing among the pods of a %s is not there yet", parts[0])
	case len(parts) == 2:
		return reference{kind: parts[0], name: parts[1]}, nil
	case len(parts) == 4 && parts[2] == "container":
		return reference{kind: parts[0], name: parts[1], container: parts[3]}, nil
	case len(parts) == 3:
		return malformed("the word \"container\" is missing before the container's name",
			fmt.Sprintf("mirrord exec -t %s/%s/container/%s ...", parts[0], parts[1], parts[2]))
	}
	return malformed("it has too many parts; targets are "+formats, "kubectl get pods")
}

// pod gets the pod that r names.
func (c *Cluster) pod(ctx context.Context, r reference) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	err := c.core.Get().Namespace(c.namespace).Resource("pods").Name(r.name).Do(impatient(ctx)).Into(pod)
	if err == nil {
		return pod, nil
	}
	if apierrors.IsNotFound(err) {
		return nil, c.notFound(ctx, r, err)
	}
	return nil, c.explain(ctx, err, "get", "pods", c.namespace)
}

// maxListed bounds the pods that near names are looked for among, so that a
// wrong name in a huge namespace is still answered at once.
const maxListed = 1000

// notFound names the pods that may have been meant, if the user may list them.
func (c *Cluster) notFound(ctx context.Context, r reference, cause error) error {
	f := &failure.Error{Code: "target-not-found", What: fmt.Sprintf("there is no pod %q", r.name), Cause: cause,
		Why: "looked in " + c.place(c.namespace), Do: "kubectl get pods -n " + c.namespace}
	list := &corev1.PodList{}
	err := c.core.Get().Namespace(c.namespace).Resource("pods").
		VersionedParams(&metav1.ListOptions{Limit: maxListed}, c.words.parameters).Do(impatient(ctx)).Into(list)
	if err != nil { // the pod is not there either way
		return f
	}
	if len(list.Items) == 0 {
		f.Why += ", which has no pods at all"
		f.Do = "name the right namespace: mirrord exec -n NAMESPACE ...; all pods: kubectl get pods -A"
		return f
	}
	var names []string
	for _, p := range list.Items {
		names = append(names, p.Name)
	}
	if n := near(r.name, names); len(n) > 0 {
		f.Why += "; near names: " + strings.Join(n, ", ")
		f.Do = fmt.Sprintf("mirrord exec -t pod/%s ...; all of them: %s", n[0], f.Do)
	}
	return f
}

// choose checks that pod runs and picks its container.
func (c *Cluster) choose(pod *corev1.Pod, r reference) (*Target, error) {
	if pod.DeletionTimestamp != nil {
		return nil, failure.New("target-ending", fmt.Sprintf("pod %q is being deleted", pod.Name),
			"wait for its successor: kubectl get pods -n "+pod.Namespace, "since %s", pod.DeletionTimestamp.UTC().Format("15:04:05 MST"))
	}
	if pod.Status.Phase != corev1.PodRunning {
		return nil, failure.New("target-not-running", fmt.Sprintf("pod %q does not run", pod.Name),
			fmt.Sprintf("kubectl describe pod %s -n %s", pod.Name, pod.Namespace), "%s", strings.Join(append([]string{"it is " + string(pod.Status.Phase)}, reasons(pod)...), ", "))
	}
	name, notes, err := container(pod, r.container)
	if err != nil {
		return nil, err
	}
	status := containerStatus(pod, name)
	runtime, id, ok := strings.Cut(status.ContainerID, "://")
	if status.State.Running == nil || !ok || id == "" {
		return nil, failure.New("container-not-running", fmt.Sprintf("container %q of pod %q does not run", name, pod.Name),
			fmt.Sprintf("kubectl logs %s -c %s -n %s --previous", pod.Name, name, pod.Namespace), "%s", doing(status.State))
	}
	if !status.Ready {
		notes = append(notes, fmt.Sprintf("container %q runs but is not ready: its pod gets no traffic from services", name))
	}
	return &Target{Namespace: pod.Namespace, Pod: pod.Name, UID: string(pod.UID), Node: pod.Spec.NodeName, Container: name,
		ContainerID: id, Runtime: runtime, HostNetwork: pod.Spec.HostNetwork, Notes: notes}, nil
}

// container chooses the container: the named one, else the one of kubectl's
// annotation, else the first of the pod's specification that is no known
// sidecar, else the first. The status lists them by name, so its first one
// would be chance.
func container(pod *corev1.Pod, named string) (name string, notes []string, err error) {
	var all, eligible []string
	for _, c := range pod.Spec.Containers {
		all = append(all, c.Name)
		if !slices.Contains(sidecars, c.Name) {
			eligible = append(eligible, c.Name)
		}
	}
	if named != "" {
		nameable := slices.Clone(all)
		for _, c := range pod.Spec.InitContainers {
			if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways { // Kubernetes' own sidecars
				nameable = append(nameable, c.Name)
			}
		}
		for _, c := range pod.Spec.EphemeralContainers {
			nameable = append(nameable, c.Name)
		}
		if slices.Contains(nameable, named) {
			return named, nil, nil
		}
		return "", nil, failure.New("container-not-found", fmt.Sprintf("pod %q has no container %q", pod.Name, named),
			suggest(named, nameable, "mirrord exec -t pod/"+pod.Name+"/container/%s ...", "mirrord exec -t pod/"+pod.Name+"/container/"+nameable[0]+" ..."),
			"its containers are %s", strings.Join(nameable, ", "))
	}
	if slices.Contains(all, "traffic-agent") {
		notes = append(notes, "the pod has a traffic-agent of Telepresence: an intercept of it and a session may disturb each other")
	}
	if a := pod.Annotations[defaultContainer]; slices.Contains(all, a) {
		return a, notes, nil
	}
	if len(eligible) == 0 {
		return all[0], notes, nil
	}
	if len(eligible) > 1 {
		notes = append(notes, fmt.Sprintf("pod has %d containers (%s): chose %q; another one: -t pod/%s/container/%s",
			len(eligible), strings.Join(eligible, ", "), eligible[0], pod.Name, eligible[1]))
	}
	return eligible[0], notes, nil
}

// containerStatus is the status of a container of any sort, empty if there is
// none yet.
func containerStatus(pod *corev1.Pod, name string) corev1.ContainerStatus {
	for _, l := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for _, s := range l {
			if s.Name == name {
				return s
			}
		}
	}
	return corev1.ContainerStatus{}
}

// reasons says why a pod is not where it should be, as far as it says itself.
func reasons(pod *corev1.Pod) []string {
	var why []string
	add := func(reason, message string) {
		if reason == "" {
			return
		}
		if message != "" {
			reason += " (" + message + ")"
		}
		why = append(why, reason)
	}
	add(pod.Status.Reason, pod.Status.Message)
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			add(c.Reason, c.Message)
		}
	}
	for _, l := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for _, s := range l {
			switch {
			case s.State.Waiting != nil:
				add(s.Name+": "+s.State.Waiting.Reason, s.State.Waiting.Message)
			case s.State.Terminated != nil && s.State.Terminated.ExitCode != 0:
				add(s.Name+": "+doing(s.State), "")
			}
		}
	}
	return why
}

// doing says what a container does instead of running.
func doing(s corev1.ContainerState) string {
	switch {
	case s.Waiting != nil && s.Waiting.Message != "":
		return fmt.Sprintf("it waits: %s (%s)", s.Waiting.Reason, s.Waiting.Message)
	case s.Waiting != nil && s.Waiting.Reason != "":
		return "it waits: " + s.Waiting.Reason
	case s.Terminated != nil:
		return fmt.Sprintf("it ended with code %d (%s)", s.Terminated.ExitCode, s.Terminated.Reason)
	case s.Running != nil:
		return "it runs, but the cluster does not say as what"
	}
	return "the cluster does not say why"
}
