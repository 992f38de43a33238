package kube

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Target is a running container of the cluster, or none (Targetless). It is a
// picture of the moment when it was resolved.
type Target struct {
	Targetless bool
	// Workload is the target as it was named, without its container:
	// "deployment/web"; of a pod "pod/web-1".
	Workload  string
	Namespace string
	Pod       string
	UID       string // of the pod
	Node      string
	Container string
	// ContainerID is the runtime's id without the runtime's name, as it stands
	// in the cgroup paths of the node; Runtime is that name ("containerd").
	ContainerID, Runtime string
	HostNetwork          bool // the pod shares the node's network
	// Recreated: a pod that ends gets a successor to which the target's name leads,
	// too. Restarted: a container that ends is started again in the same pod.
	Recreated, Restarted bool
	// Volumes are the places where the container has volumes, clean paths, as
	// the pod declares them; those below /var/run are below /run as well.
	Volumes []string
	// Ports, Probes and GRPCProbes (their ports) are those of all containers of
	// the pod, which have one network.
	Ports      []Port
	Probes     []Probe
	GRPCProbes []uint16
	// Notes are worth a line to the user: which of several pods and containers
	// was chosen, and the like.
	Notes []string

	pod *corev1.Pod // as it was; nil: not known
}

// String is the target as one may write it: "pod/web-1/container/app", or
// "targetless".
func (t *Target) String() string {
	if t.Targetless {
		return "targetless"
	}
	return "pod/" + t.Pod + "/container/" + t.Container
}

// Check tells of a target that Resolve would refuse by how it is written, and
// asks nobody; the code is target-malformed.
func Check(target string) error {
	if target == "" || target == "targetless" {
		return nil
	}
	_, err := parse(target)
	return err
}

// Resolve finds the container that target names: KIND/NAME or
// KIND/NAME/container/C, or label/KEY=VALUE,... in place of KIND/NAME; ""
// and "targetless" give a targetless Target without asking the cluster. Of
// several pods one is chosen, always the same as long as they stay as they
// are, and Notes say which. The container must run; codes of the failures:
// target-malformed, target-not-found, target-not-running, target-ending,
// service-without-pods, container-not-found, container-not-running,
// namespace-not-found, and those of any request (cluster-unreachable,
// cluster-certificate, cluster-login, forbidden, cluster-error).
func (c *Cluster) Resolve(ctx context.Context, target string) (*Target, error) {
	if target == "" || target == "targetless" {
		return &Target{Targetless: true, Namespace: c.namespace}, nil
	}
	r, err := parse(target)
	if err != nil {
		if strings.Contains(target, "/") {
			return nil, err
		}
		return nil, c.withKind(ctx, target, err)
	}
	pod, notes, err := c.find(ctx, r)
	if err != nil {
		return nil, err
	}
	t, err := c.choose(pod, r)
	if err != nil {
		return nil, err
	}
	t.Workload, t.Notes = r.String(), slices.Concat(notes, t.Notes)
	t.Recreated, t.Restarted = renewal(pod, r)
	return t, nil
}

// find gives the pod that stands for r.
func (c *Cluster) find(ctx context.Context, r reference) (*corev1.Pod, []string, error) {
	if r.kind.name == "pod" {
		pod, err := c.pod(ctx, r)
		return pod, nil, err
	}
	w, err := c.workload(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	return c.pick(w, r)
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
