package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// The agent as an ephemeral container of the target's own pod, for clusters
// that let nobody see a node's processes. It shares the pod's network, and sees
// the target's processes (targetContainerName). Being the same user it may look
// into them, without any capability, if they have none that it has not (ptrace
// access mode in ptrace(2)).

// ids of a user.
type ids struct {
	UID    int64   `json:"uid"`
	GID    *int64  `json:"gid"` // nil: not known
	Groups []int64 `json:"groups,omitempty"`
}

// A security is one way to run the agent in the target's pod.
type security struct {
	context *corev1.SecurityContext
	// lost says what a session has not that runs in this way; empty: nothing.
	lost []Feature
}

// inPodCapabilities are what the features need in the target's own pod beyond
// what the target itself has: there nothing is entered, and files are used as
// the target's user.
func inPodCapabilities(features []Feature) (add []corev1.Capability) {
	for _, f := range features {
		if f != FeatureMirror && f != FeatureSteal && f != FeatureDrain {
			continue
		}
		for _, c := range capabilities[f] {
			if !slices.Contains(add, c) {
				add = append(add, c)
			}
		}
	}
	return add
}

// securities are the ways to run the agent beside t, best first; a cluster's
// policies may refuse the first ones. as is who the target's process has turned
// out to be, nil: that is not known. A later way never asks for more than an
// earlier one.
//
// Capabilities that a container is given reach only a process that starts as
// root (a known limit: KEP-2763), so who needs one starts as root and becomes
// the target's user by itself.
func securities(t *Target, features []Feature, as *ids) (all []security) {
	user, nonRoot, own := t.user()
	if as != nil {
		user = as
	}
	add := inPodCapabilities(features)
	steals, mirrors := slices.Contains(features, FeatureSteal), slices.Contains(features, FeatureMirror)
	if len(add) > 0 {
		all = append(all, security{context: asRoot(own, user, add)})
	}
	var lost []Feature
	if steals {
		lost = append(lost, FeatureSteal)
	}
	// Most runtimes give NET_RAW to whoever starts as root, and the baseline
	// standard lets them, but nobody ask for it.
	if mirrors || user == nil && !nonRoot || user != nil && user.UID == 0 {
		all = append(all, security{context: asRoot(own, user, nil), lost: lost})
	}
	if mirrors {
		lost = append(lost, FeatureMirror)
	}
	if user == nil || user.UID != 0 {
		all = append(all, security{context: asUser(user), lost: lost})
	}
	return all
}

// user is who the target's process is, as far as the pod says: nil if that is
// the image's matter. nonRoot: the cluster has made sure that it is not root.
// own are the capabilities that the target's specification names.
func (t *Target) user() (user *ids, nonRoot bool, own *corev1.Capabilities) {
	if t.pod == nil {
		return nil, false, nil
	}
	var uid, gid *int64
	if sc := t.pod.Spec.SecurityContext; sc != nil {
		uid, gid, nonRoot = sc.RunAsUser, sc.RunAsGroup, sc.RunAsNonRoot != nil && *sc.RunAsNonRoot
	}
	for _, c := range slices.Concat(t.pod.Spec.Containers, t.pod.Spec.InitContainers) {
		if sc := c.SecurityContext; c.Name == t.Container && sc != nil {
			own = sc.Capabilities
			if sc.RunAsUser != nil {
				uid = sc.RunAsUser
			}
			if sc.RunAsGroup != nil {
				gid = sc.RunAsGroup
			}
			if sc.RunAsNonRoot != nil {
				nonRoot = *sc.RunAsNonRoot
			}
		}
	}
	// What the node says it did is surer than what was asked for.
	if u := containerStatus(t.pod, t.Container).User; u != nil && u.Linux != nil {
		uid, gid = &u.Linux.UID, &u.Linux.GID
	}
	if uid == nil {
		return nil, nonRoot, own
	}
	return &ids{UID: *uid, GID: gid}, nonRoot, own
}

// readable is what all ways have in common.
func readable() *corev1.SecurityContext {
	return &corev1.SecurityContext{ReadOnlyRootFilesystem: new(true), AllowPrivilegeEscalation: new(false),
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
}

// asUser runs the agent as the target's user, with no capability: what the
// restricted standard of Pod Security takes. For an unknown user it is nobody,
// and finds out.
func asUser(user *ids) *corev1.SecurityContext {
	sc := readable()
	if user == nil {
		user = &ids{UID: nobody}
	}
	sc.RunAsUser, sc.RunAsGroup, sc.RunAsNonRoot = new(user.UID), user.GID, new(true)
	sc.Capabilities = &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}
	return sc
}

// asRoot starts the agent as root with add. For a target that is root, or may
// be, it has what the target has as well, since who looks in may not have less;
// for another all that it needs is to become that user.
func asRoot(own *corev1.Capabilities, user *ids, add []corev1.Capability) *corev1.SecurityContext {
	sc := readable()
	sc.RunAsUser, sc.RunAsGroup, sc.RunAsNonRoot = new(int64(0)), new(int64(0)), new(false)
	c := &corev1.Capabilities{Add: add}
	switch {
	case user != nil && user.UID != 0 && len(add) > 0:
		c.Drop, c.Add = []corev1.Capability{"ALL"}, append([]corev1.Capability{"SETUID", "SETGID"}, add...)
	case user != nil && user.UID != 0: // for what the runtime gives, of which it keeps NET_RAW
	case own != nil:
		c.Drop = slices.DeleteFunc(slices.Clone(own.Drop), func(d corev1.Capability) bool { return slices.Contains(add, d) })
		c.Add = slices.Compact(slices.Sorted(slices.Values(slices.Concat(own.Add, add))))
	}
	if len(c.Add)+len(c.Drop) > 0 {
		sc.Capabilities = c
	}
	return sc
}

// ephemeral is the agent as a container of t's pod. It holds nothing secret.
func ephemeral(name string, o Options, t *Target, s AgentSpec, sc *corev1.SecurityContext) corev1.EphemeralContainer {
	c := process(o, t, s)
	return corev1.EphemeralContainer{TargetContainerName: t.Container, EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		Name: name, Image: c.Image, ImagePullPolicy: c.ImagePullPolicy, Command: c.Command, Args: c.Args, Env: c.Env,
		SecurityContext: sc, TerminationMessagePolicy: c.TerminationMessagePolicy,
	}}
}

// sharesProcesses reports whether containers of t's pod see more than one
// container's processes.
func (t *Target) sharesProcesses() bool {
	return t.pod != nil && (t.pod.Spec.HostPID || t.pod.Spec.ShareProcessNamespace != nil && *t.pod.Spec.ShareProcessNamespace)
}

// startInPod starts the agent in t's pod. What the cluster's policies refuse is
// tried with less, and said; what the user asked for by name is not left out.
func (c *Cluster) startInPod(ctx context.Context, t *Target, s AgentSpec, progress func(string)) (*Agent, error) {
	name := jobName(s.Session)
	a, err := c.tryInPod(ctx, t, s, name, securities(t, s.Features, nil), progress)
	var other *otherUser
	if !errors.As(err, &other) {
		return a, err
	}
	// The image's user. It takes another container: this one has ended.
	progress(fmt.Sprintf("the target runs as user %d: the agent begins again as the same", other.UID))
	a, err = c.tryInPod(ctx, t, s, name+"-2", securities(t, s.Features, &other.ids), progress)
	if errors.As(err, &other) {
		return nil, failure.New("target-unreachable", "the agent cannot look into the target",
			"try again, or without agent.ephemeral where the cluster allows that", "%v now, and did not a moment ago", other)
	}
	return a, err
}

// otherUser is the answer of an agent that must be another user.
type otherUser struct{ ids }

func (o *otherUser) Error() string { return fmt.Sprintf("the target runs as user %d", o.UID) }

// tryInPod orders the agent in the first of ways that the cluster takes, and
// waits until it has announced itself.
func (c *Cluster) tryInPod(ctx context.Context, t *Target, s AgentSpec, name string, ways []security, progress func(string)) (*Agent, error) {
	ref := Ref{Namespace: t.Namespace, Pod: t.Pod, Container: name}
	st := c.newStart(ref, s.Session, name, progress)
	var way security
	running, cancel := context.WithTimeoutCause(ctx, st.limit, errStartTimeout)
	a, err := st.run(running, fmt.Sprintf("agent %s ordered in pod %s, image %s", name, t.Pod, st.image), func(ctx context.Context) created {
		uid, w, err := c.order(ctx, t, s, name, ways, nil)
		way = w
		return created{uid: uid, err: err}
	})
	cancel()
	st.wait.Wait()
	if err != nil {
		return nil, err
	}
	if len(way.lost) > 0 {
		a.Lost = append(a.Lost, fmt.Sprintf("the cluster refuses what mirroring takes (%s): no traffic of the target is copied to this session; "+
			"in a namespace that allows it: kubectl label namespace %s --overwrite pod-security.kubernetes.io/enforce=privileged",
			commas(inPodCapabilities(way.lost)), t.Namespace))
	}
	return a, nil
}

// order asks for the agent in one way after the other, until one is not refused
// by a policy. Stealing is never left out: a program that serves nobody is not
// what was asked for.
func (c *Cluster) order(ctx context.Context, t *Target, s AgentSpec, name string, ways []security, dryRun []string) (uid string, way security, err error) {
	var refusal error
	for _, way = range ways {
		if slices.Contains(way.lost, FeatureSteal) {
			break
		}
		pod := &corev1.Pod{}
		patch, err := json.Marshal(map[string]any{"spec": map[string]any{"ephemeralContainers": []corev1.EphemeralContainer{ephemeral(name, c.options, t, s, way.context)}}})
		if err != nil {
			return "", way, err
		}
		err = c.core.Patch(types.StrategicMergePatchType).Namespace(t.Namespace).Resource("pods").Name(t.Pod).SubResource("ephemeralcontainers").
			VersionedParams(&metav1.PatchOptions{DryRun: dryRun}, c.words.parameters).Body(patch).Do(ctx).Into(pod)
		switch {
		case err == nil && t.UID != "" && string(pod.UID) != t.UID:
			return "", way, failure.New("target-not-found", fmt.Sprintf("pod %q is another one now", t.Pod), "start the command again", "it was replaced a moment ago")
		case err == nil:
			return string(pod.UID), way, nil
		case ctx.Err() != nil:
			return "", way, context.Cause(ctx)
		case !apierrors.IsForbidden(err) || strings.Contains(message(err), " cannot patch "):
			return "", way, c.notOrdered(ctx, err, t)
		}
		if refusal == nil || !slices.Contains(s.Features, FeatureSteal) {
			refusal = err // of the one way that steals, else of what asks least
		}
	}
	return "", way, c.refusedInPod(refusal, t, s.Features)
}

// tryOrder is TryAgent for an agent in t's pod. A way that lacks something is
// good enough.
func (c *Cluster) tryOrder(ctx context.Context, t *Target, features []Feature) error {
	spec := AgentSpec{Session: "doctor", PublicKey: "-", Features: features, InPod: true}
	_, _, err := c.order(impatient(ctx), t, spec, jobName(spec.Session), securities(t, features, nil), []string{metav1.DryRunAll})
	return err
}

// notOrdered explains why the API server did not take an ephemeral container,
// for other reasons than a policy.
func (c *Cluster) notOrdered(ctx context.Context, err error, t *Target) error {
	switch {
	case unknownKind(err), apierrors.IsMethodNotSupported(err):
		return &failure.Error{Code: "ephemeral-unknown", What: "this cluster knows no ephemeral containers", Why: message(err), Cause: err,
			Do: "leave agent.ephemeral (-e) away; they came with Kubernetes 1.23: kubectl version"}
	case apierrors.IsNotFound(err):
		return failure.New("target-not-found", fmt.Sprintf("pod %q is not there any more", t.Pod), "start the command again", "%s", message(err))
	}
	return c.explain(ctx, err, "patch", "pods/ephemeralcontainers", t.Namespace)
}

// refusedInPod explains that policies refuse the agent in every way that would
// do, and what would be allowed.
func (c *Cluster) refusedInPod(cause error, t *Target, features []Feature) error {
	f := &failure.Error{Code: "agent-refused", What: fmt.Sprintf("the cluster refuses the agent in pod %s of %s", t.Pod, c.place(t.Namespace)),
		Why: message(cause), Cause: cause, Do: "ask whoever runs the cluster"}
	label := fmt.Sprintf("kubectl label namespace %s --overwrite pod-security.kubernetes.io/enforce=privileged", t.Namespace)
	switch {
	case slices.Contains(features, FeatureSteal):
		drains := slices.Contains(features, FeatureDrain)
		with := []Feature{FeatureSteal}
		if drains {
			with = append(with, FeatureDrain)
		}
		f.Why = fmt.Sprintf("stealing takes the capabilities %s: %s", commas(inPodCapabilities(with)), f.Why)
		f.Do = "leave --steal away: environment, files, names and outgoing connections need none of them; or allow them: " + label
		if drains && !strings.Contains(message(cause), "NET_ADMIN") { // as far as it says what it refuses, it is not that
			f.Do = `if it is NET_RAW alone, leave connections from before with the target: {"agent": {"flush_connections": false}}; else ` + f.Do
		}
	case strings.Contains(f.Why, "violates PodSecurity"):
		f.Do = "let the target run as another user than root, which needs no capability; or allow more: " + label
	}
	return f
}

func commas(all []corev1.Capability) string {
	var names []string
	for _, c := range all {
		names = append(names, string(c))
	}
	return strings.Join(names, ", ")
}
