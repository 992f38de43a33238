package kube

import (
	"cmp"
	"fmt"
	"maps"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mirrord-go/mirrord/internal/budget"
)

// A Feature is something that a session wants of its agent; each costs
// capabilities. Environment and finding the target are always included.
type Feature string

// The features of an agent.
const (
	FeatureNetwork Feature = "network" // outgoing connections and names, from the target's network
	FeatureFiles   Feature = "files"   // the target's files
	FeatureWrite   Feature = "write"   // changes of the target's files
	FeatureUnix    Feature = "unix"    // unix sockets of the target's
	FeatureMirror  Feature = "mirror"  // copies of the target's traffic
	FeatureSteal   Feature = "steal"   // the target's traffic itself
	FeatureDrain   Feature = "drain"   // the end of idle connections from before
	FeatureMesh    Feature = "mesh"    // copies of each request once, where a mesh's proxy sends it on
)

// capabilities of the agent by feature, those of every agent under "", all
// others are dropped. The kernel's names are in capabilities(7). The agent gives
// up the first three as soon as it is beside its target.
var capabilities = map[Feature][]corev1.Capability{
	"": {
		"SYS_PTRACE",      // look into another user's process: /proc/PID/{root,ns}
		"SYS_ADMIN",       // setns(2) into its network namespace
		"DAC_READ_SEARCH", // /proc/PID/environ is its user's alone
	},
	FeatureNetwork: nil,
	FeatureFiles:   {"SETUID", "SETGID"},                 // use files as the target's user
	FeatureWrite:   {"DAC_OVERRIDE", "FOWNER", "CHOWN"},  // kept only as far as the target has them itself
	FeatureUnix:    {"SETUID", "SETGID", "DAC_OVERRIDE"}, // connect as the target's user; alike
	FeatureMirror:  {"NET_RAW"},
	FeatureSteal:   {"NET_ADMIN", "BPF"}, // without BPF nftables does it
	FeatureDrain:   {"NET_RAW"},
	FeatureMesh:    {"NET_ADMIN"},
}

const (
	// agentContainer is the one container of an agent's pod.
	agentContainer = "agent"
	// ttlAfterEnd is when the cluster itself removes an agent that has ended
	// and that nobody removed, in seconds: long enough to read its log.
	ttlAfterEnd = 10
	// gracePeriod is how long an agent that is told to end may take for its
	// goodbyes, in seconds. What it holds in the target's namespaces goes with
	// the process in any case.
	gracePeriod = 2
)

// Labels and annotations of an agent's Job and pod.
const (
	labelSession     = "mirrord/session"
	annotationTarget = "mirrord/target"
	annotationUser   = "mirrord/user"
)

// No mesh may put a proxy beside the agent: its pod has no traffic of its own,
// and the port-forward must reach it.
var (
	unmeshedLabels = map[string]string{
		"sidecar.istio.io/inject":   "false",
		"istio.io/dataplane-mode":   "none",
		"kuma.io/sidecar-injection": "disabled",
	}
	unmeshedAnnotations = map[string]string{
		"sidecar.istio.io/inject":             "false",
		"linkerd.io/inject":                   "disabled",
		"consul.hashicorp.com/connect-inject": "false",
	}
)

// job is the agent for target t as the cluster gets it. It holds nothing
// secret: ids, and the public key of the session.
func job(name, namespace string, o Options, t *Target, s AgentSpec) *batchv1.Job {
	labels := map[string]string{
		"app.kubernetes.io/name":       "mirrord-agent",
		"app.kubernetes.io/managed-by": "mirrord",
		labelSession:                   s.Session,
	}
	if t.Targetless {
		labels["mirrord/targetless"] = "true"
	}
	annotations := map[string]string{annotationTarget: t.Namespace + "/" + t.String()}
	if !o.Pod.Meshed {
		maps.Copy(labels, unmeshedLabels)
		maps.Copy(annotations, unmeshedAnnotations)
	}
	maps.Copy(labels, o.Pod.Labels)
	maps.Copy(annotations, o.Pod.Annotations)
	if s.User != "" {
		annotations[annotationUser] = s.User
	}
	pod := corev1.PodSpec{
		RestartPolicy:                 corev1.RestartPolicyNever,
		AutomountServiceAccountToken:  new(false),
		EnableServiceLinks:            new(false),
		TerminationGracePeriodSeconds: new(int64(gracePeriod)),
		Containers:                    []corev1.Container{process(o, t, s)},
	}
	c := &pod.Containers[0]
	c.Name, c.Resources = agentContainer, resources()
	c.SecurityContext = &corev1.SecurityContext{ReadOnlyRootFilesystem: new(true), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
	if t.Targetless {
		unprivileged(&pod)
		if o.Architecture != "" { // the scheduler knows nothing of the image
			pod.NodeSelector = map[string]string{corev1.LabelArchStable: o.Architecture, corev1.LabelOSStable: "linux"}
		}
	} else {
		beside(&pod, t, s.Features)
	}
	o.Pod.apply(&pod)
	return &batchv1.Job{
		TypeMeta:   metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: labels, Annotations: annotations},
		Spec: batchv1.JobSpec{
			BackoffLimit:            new(int32(0)),
			TTLSecondsAfterFinished: new(int32(ttlAfterEnd)),
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: maps.Clone(labels), Annotations: maps.Clone(annotations)},
				Spec:       pod,
			},
		},
	}
}

// process is what an agent's container of any kind runs.
func process(o Options, t *Target, s AgentSpec) corev1.Container {
	return corev1.Container{
		Image: o.Image, ImagePullPolicy: corev1.PullPolicy(cmp.Or(o.PullPolicy, string(corev1.PullIfNotPresent))),
		Command: []string{"/mirrord-agent"}, Args: arguments(t, s),
		Env: []corev1.EnvVar{{Name: "GOMEMLIMIT", Value: fmt.Sprintf("%dMiB", budget.AgentProcess>>20)}}, // collect before the limit kills
		// The announcement is in the log; no file of messages is kept.
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}
}

// arguments of the agent's process; cmd/mirrord-agent reads them.
func arguments(t *Target, s AgentSpec) []string {
	var features []string
	for _, f := range s.Features {
		features = append(features, string(f))
	}
	args := append([]string{"-session", s.Session, "-key", s.PublicKey, "-features=" + strings.Join(features, ",")}, s.Arguments...)
	switch {
	case t.Targetless:
		return append(args, "-self")
	case !s.InPod || t.sharesProcesses():
		args = append(args, "-container", t.ContainerID)
	default: // of the processes that it sees the target's is the first
		args = append(args, "-pid", "1")
	}
	if s.InPod {
		args = append(args, "-in-pod")
	}
	if s.InPod && t.HostNetwork {
		args = append(args, "-host-network")
	}
	return args
}

// resources: next to nothing is reserved, since the kubelet refuses a pod
// pinned to a full node. The limits are what a busy session needs; the agent
// keeps below that of memory by a budget. A second core keeps other people's requests,
// which the agent passes on while stealing, from waiting behind a bulk copy.
func resources() corev1.ResourceRequirements {
	return corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1m"), corev1.ResourceMemory: resource.MustParse("8Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: *resource.NewQuantity(budget.AgentPod, resource.BinarySI)},
	}
}

// beside makes the pod one that can enter the target: on its node, seeing its
// processes, with the capabilities that the features need.
func beside(pod *corev1.PodSpec, t *Target, features []Feature) {
	pod.NodeName = t.Node // no scheduler: a full or cordoned node takes it all the same
	pod.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	pod.HostPID = true
	pod.SecurityContext = &corev1.PodSecurityContext{
		RunAsUser: new(int64(0)), RunAsGroup: new(int64(0)), RunAsNonRoot: new(false),
		// Allows setns and bpf to whoever has the capability for them.
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	sc := pod.Containers[0].SecurityContext
	sc.AllowPrivilegeEscalation = new(true) // SYS_ADMIN implies it, and the API insists
	// The runtimes' AppArmor profile and SELinux type forbid to look into other
	// containers' processes. Where neither is in force, both are ignored.
	sc.AppArmorProfile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
	sc.SELinuxOptions = &corev1.SELinuxOptions{Type: "spc_t"}
	have := map[corev1.Capability]bool{}
	for _, f := range append([]Feature{""}, features...) {
		for _, name := range capabilities[f] {
			if !have[name] {
				have[name] = true
				sc.Capabilities.Add = append(sc.Capabilities.Add, name)
			}
		}
	}
}

// unprivileged makes the pod one that every policy allows: it is its own target.
func unprivileged(pod *corev1.PodSpec) {
	pod.SecurityContext = &corev1.PodSecurityContext{
		RunAsUser: new(int64(nobody)), RunAsGroup: new(int64(nobody)), RunAsNonRoot: new(true),
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	pod.Containers[0].SecurityContext.AllowPrivilegeEscalation = new(false)
}

// nobody is the user of a targetless agent.
const nobody = 65534

// jobName is the name of a session's Job, within the 63 bytes of a label.
func jobName(session string) string {
	const room = 63 - len("mirrord-agent-")
	return "mirrord-agent-" + strings.ToLower(session[:min(len(session), room)])
}
