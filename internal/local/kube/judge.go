package kube

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// judge says what a state of the agent's pod means: whether its container has
// begun to run, so that its log can be read, or why it never will.
func (st *start) judge(p *corev1.Pod) (begun bool, err error) {
	status := containerStatus(p, st.container)
	switch w := status.State.Waiting; {
	case status.State.Running != nil, status.State.Terminated != nil:
		return true, nil
	case p.DeletionTimestamp != nil && st.ref.Pod != "":
		return false, failure.New("target-ending", fmt.Sprintf("pod %q is being deleted", p.Name), "wait for its successor: kubectl get pods -n "+p.Namespace, "the agent is part of it")
	case p.DeletionTimestamp != nil:
		return false, failure.New("agent-ended", "the agent's pod was deleted before it was ready", "try again", "somebody or something in the cluster deleted %s", p.Name)
	case p.Status.Phase == corev1.PodFailed: // the kubelet did not take it
		return false, failure.New("agent-not-started", fmt.Sprintf("node %q does not take the agent's pod", p.Spec.NodeName),
			"kubectl describe node "+p.Spec.NodeName, "%s: %s", p.Status.Reason, p.Status.Message)
	case w == nil:
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
				return false, failure.New("agent-unschedulable", "no node takes the agent's pod", "kubectl get nodes; kubectl describe nodes", "%s", c.Message)
			}
		}
		return false, nil
	default:
		return false, waiting(w, p, st.image)
	}
}

// runtimeAway is what gRPC says to a kubelet whose container runtime is just
// being restarted: it tries again by itself, some seconds later.
var runtimeAway = regexp.MustCompile(`error reading from server|transport is closing|connection is closing|dial unix |code = Unavailable`)

// waiting tells the states that pass from the ones that do not.
func waiting(w *corev1.ContainerStateWaiting, p *corev1.Pod, image string) error {
	if runtimeAway.MatchString(w.Message) {
		return nil
	}
	switch w.Reason {
	case "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError", "RegistryUnavailable":
		return &failure.Error{Code: "agent-image", What: fmt.Sprintf("node %q cannot get the agent's image %s", p.Spec.NodeName, image),
			Why: strings.TrimSuffix(w.Reason+": "+w.Message, ": "),
			Do: "a local cluster (kind, k3d, minikube …): mirrord agent image --load\n" +
				"any other: mirrord agent image --push REGISTRY/mirrord-agent:TAG, then mirrord exec --agent-image REGISTRY/mirrord-agent:TAG ...\n" +
				"by hand, on each node: mirrord agent image --output agent.tar; ctr -n k8s.io images import agent.tar"}
	case "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CreatePodSandboxError", "CrashLoopBackOff":
		return failure.New("agent-not-started", "the agent's container cannot be started", fmt.Sprintf("kubectl describe node %s", p.Spec.NodeName), "%s: %s", w.Reason, w.Message)
	}
	return nil
}

// causeTime is how long the end of an agent's log waits for the pod's state,
// which says what ended it: the node reports it a moment later.
const causeTime = 2 * time.Second

// terminated is how the agent's container ended; nil: it has not, as far as is
// known.
func terminated(p *corev1.Pod, container string) *corev1.ContainerStateTerminated {
	return containerStatus(p, container).State.Terminated
}

// notDefined is what package flag says of an option that it does not know.
const notDefined = "flag provided but not defined: "

var unknownOption = regexp.MustCompile(notDefined + `-[\w-]+`)

// olderAgent is the failure of an agent that does not understand this mirrord.
func olderAgent(image, why string) *failure.Error {
	return failure.New("agent-version", fmt.Sprintf("the agent of the image %s is older than this mirrord: update the agent's image", image),
		"mirrord agent image --push REGISTRY/mirrord-agent:NEW-TAG, then name that; or leave agent.image and MIRRORD_AGENT_IMAGE away: this mirrord has its own", "%s", why)
}

// died explains an agent that ended before it was ready, by its last words and
// by what the node says.
func (st *start) died(p *corev1.Pod, words []string) error {
	why := strings.Join(words, "\n")
	if strings.Contains(why, "exec format error") {
		return failure.New("agent-architecture", fmt.Sprintf("the agent of the image %s cannot run on node %q", st.image, p.Spec.NodeName),
			"name the image of an agent for that node: mirrord exec --agent-image IMAGE ...; see: kubectl get nodes -o wide", "%s: the node has another architecture", why)
	}
	if option := unknownOption.FindString(why); option != "" {
		return olderAgent(st.image, "it does not know the option "+strings.TrimPrefix(option, notDefined))
	}
	f := failure.New("agent-ended", fmt.Sprintf("the agent ended before it was ready (pod %s)", p.Name),
		"try again; if it stays, please report it with what the agent said", "%s", why)
	if why == "" {
		f.Why = "it said nothing"
	}
	switch t := terminated(p, st.container); {
	case t != nil && t.Reason == "OOMKilled":
		f.What = fmt.Sprintf("the agent was killed for its memory before it was ready (pod %s)", p.Name)
		f.Do = fmt.Sprintf("see whether node or namespace is short of memory: kubectl describe node %s; kubectl get limitranges -n %s", p.Spec.NodeName, st.namespace)
		f.Why += fmt.Sprintf("\nit was OOMKilled, with code %d", t.ExitCode)
	case t != nil:
		f.Why += fmt.Sprintf("\nit ended with code %d (%s)", t.ExitCode, t.Reason)
	}
	if p.Status.Reason != "" { // Evicted
		f.Why += "\n" + strings.TrimSuffix(p.Status.Reason+": "+p.Status.Message, ": ")
	}
	return f
}
