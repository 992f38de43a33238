package kube

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// sidecars are containers that stand beside the one that people mean. The list
// is mirrord's own.
var sidecars = []string{"kuma-sidecar", "kuma-init", "istio-proxy", "istio-init", "linkerd-proxy", "linkerd-init",
	"vault-agent", "vault-agent-init", "queue-proxy", "traffic-agent"}

// defaultContainer is kubectl's annotation for the same choice.
const defaultContainer = "kubectl.kubernetes.io/default-container"

// choose checks that pod runs and picks its container.
func (c *Cluster) choose(pod *corev1.Pod, r reference) (*Target, error) {
	if len(pod.Spec.Containers) == 0 { // the API server takes none of these
		return nil, failure.New("cluster-error", fmt.Sprintf("what answers for %s is no pod: it has no containers", r),
			"look whether a proxy answers instead of the API server: kubectl get pods -o yaml", "the answer was good JSON")
	}
	if pod.DeletionTimestamp != nil {
		return nil, failure.New("target-ending", fmt.Sprintf("pod %q is being deleted", pod.Name),
			"wait for its successor: kubectl get pods -n "+pod.Namespace, "since %s", pod.DeletionTimestamp.UTC().Format("15:04:05 MST"))
	}
	name, notes, err := container(pod, r.container)
	if pod.Status.Phase != corev1.PodRunning && !(err == nil && initializing(pod, name)) {
		return nil, failure.New("target-not-running", fmt.Sprintf("pod %q does not run", pod.Name),
			fmt.Sprintf("kubectl describe pod %s -n %s", pod.Name, pod.Namespace), "%s", strings.Join(append([]string{"it is " + string(pod.Status.Phase)}, reasons(pod)...), ", "))
	}
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
	t := &Target{Namespace: pod.Namespace, Pod: pod.Name, UID: string(pod.UID), Node: pod.Spec.NodeName, Container: name,
		ContainerID: id, Runtime: runtime, HostNetwork: pod.Spec.HostNetwork, Ports: ports(pod), Notes: notes, pod: pod}
	t.Probes, t.GRPCProbes = probes(pod)
	t.Volumes = volumes(pod, name)
	return t, nil
}

// volumes are the mount points of a container's volumes; one by subPath is a
// file or a directory of one. The runtime follows the image's links, which are
// not known here, and nearly all images have /var/run -> /run: what is below
// the one is taken to be below both.
func volumes(pod *corev1.Pod, name string) (all []string) {
	for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		if c.Name != name {
			continue
		}
		for _, m := range c.VolumeMounts {
			p := path.Clean(m.MountPath)
			all = append(all, p)
			if below, ok := strings.CutPrefix(p, "/var/run/"); ok {
				all = append(all, "/run/"+below)
			}
		}
	}
	return all
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
		return named, nil, exists(pod, named, all)
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

// exists is an error unless pod has a container named so that can be entered:
// one of the ordinary ones, a sidecar among the init containers, another init
// container while it runs, or an ephemeral one.
func exists(pod *corev1.Pod, named string, ordinary []string) error {
	nameable := slices.Clone(ordinary)
	over := ""
	for _, c := range pod.Spec.InitContainers {
		switch {
		case c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways, initializing(pod, c.Name):
			nameable = append(nameable, c.Name)
		case c.Name == named:
			over = fmt.Sprintf("%q is an init container that does not run; ", named)
		}
	}
	for _, c := range pod.Spec.EphemeralContainers {
		nameable = append(nameable, c.Name)
	}
	if slices.Contains(nameable, named) {
		return nil
	}
	return failure.New("container-not-found", fmt.Sprintf("pod %q has no container %q", pod.Name, named),
		suggest(named, nameable, "mirrord exec -t pod/"+pod.Name+"/container/%s ...", "mirrord exec -t pod/"+pod.Name+"/container/"+nameable[0]+" ..."),
		"%sits containers are %s", over, strings.Join(nameable, ", "))
}

// initializing reports whether name is an init container that runs now.
func initializing(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(pod.Status.InitContainerStatuses, func(s corev1.ContainerStatus) bool {
		return s.Name == name && s.State.Running != nil
	})
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
