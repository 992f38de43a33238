package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// What a session needs of the cluster, asked without making anything.

// A Permission is something that a user may do.
type Permission struct {
	Verb      string // "get"
	Resource  string // as roles and kubectl name it: "pods/log", "jobs.batch"
	Namespace string // empty: the whole cluster
	// Need says what cannot be done without it; empty: no session.
	Need string
}

// parts gives the API group of p's resource, the resource and the subresource.
func (p Permission) parts() (group, resource, sub string) {
	resource, sub, _ = strings.Cut(p.Resource, "/")
	resource, group, _ = strings.Cut(resource, ".")
	return group, resource, sub
}

// Uses says what a session is like, as far as its permissions go.
type Uses struct {
	Target    string // as written; empty or "targetless": none
	Namespace string // of the target
	// AgentNamespace is where the agent runs; empty: with the target.
	AgentNamespace string
	InPod          bool // the agent is an ephemeral container of the target's pod
}

// Needs lists the permissions of a session: all that this room asks of the
// cluster, but for what makes the message about a wrong target better. A target
// that cannot be parsed needs those of a pod.
func (u Uses) Needs() []Permission {
	agents := cmp.Or(u.AgentNamespace, u.Namespace)
	if u.InPod {
		agents = u.Namespace
	}
	var all []Permission
	add := func(namespace, resource, need string, verbs ...string) {
		for _, v := range verbs {
			p := Permission{v, resource, namespace, need}
			if !slices.ContainsFunc(all, func(q Permission) bool { return q.Verb == v && q.Resource == resource && q.Namespace == namespace }) {
				all = append(all, p)
			}
		}
	}
	r, err := parse(u.Target)
	switch {
	case u.Target == "" || u.Target == "targetless":
	case err != nil || r.kind.name == "pod":
		add(u.Namespace, "pods", "", "get")
		add(u.Namespace, "pods", "near names are not shown", "list")
	case r.kind.name == label:
		add(u.Namespace, "pods", "", "list")
	default:
		add(u.Namespace, r.kind.rbac, "", "get")
		switch r.kind.name {
		case "deployment", "rollout":
			add(u.Namespace, "replicasets.apps", "", "list")
		case "cronjob":
			add(u.Namespace, "jobs.batch", "", "list")
		}
		add(u.Namespace, "pods", "", "list")
	}
	if r.kind.name == "rollout" {
		add(u.Namespace, "deployments.apps", "a rollout that refers to a deployment cannot be a target", "get")
	}
	add("", "nodes", "a node that is not ready or of another architecture is known late", "get")
	if u.InPod {
		add(agents, "pods/ephemeralcontainers", "", "patch")
	} else {
		add(agents, "jobs.batch", "", "create")
		add(agents, "jobs.batch", "an agent is removed by the cluster, some seconds after it has ended by itself", "delete")
		add(agents, "jobs.batch", "the agent of a session that was killed while it began may stay for a minute", "watch")
	}
	add(agents, "pods", "", "watch")
	add(agents, "pods/log", "", "get")
	add(agents, "pods/portforward", "", "get", "create") // over SPDY the second alone would do
	if !u.InPod {
		add(agents, "events", "why a policy or a quota refuses the agent is known late", "watch")
	}
	add(agents, "events", "why an agent does not get ready is told in fewer words", "list")
	if r.kind.name != "" && r.kind.name != "pod" { // elsewhere it is there for the agent already
		add(u.Namespace, "pods", "pods that a workload gets later take part after half a minute", "watch")
	}
	return all
}

// Needs lists the permissions of a session of this user's with target, which
// has its agent in the target's pod or not.
func (c *Cluster) Needs(target string, inPod bool) []Permission {
	return Uses{Target: target, Namespace: c.namespace, AgentNamespace: c.options.AgentNamespace, InPod: inPod}.Needs()
}

// May asks whether the user has permission p.
func (c *Cluster) May(ctx context.Context, p Permission) (bool, error) {
	type attributes struct {
		Namespace   string `json:"namespace,omitempty"`
		Verb        string `json:"verb"`
		Group       string `json:"group"`
		Resource    string `json:"resource"`
		Subresource string `json:"subresource,omitempty"`
	}
	var review struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Spec       struct {
			ResourceAttributes attributes `json:"resourceAttributes"`
		} `json:"spec"`
		Status struct {
			Allowed bool `json:"allowed"`
		} `json:"status"`
	}
	group, resource, sub := p.parts()
	review.APIVersion, review.Kind = "authorization.k8s.io/v1", "SelfSubjectAccessReview"
	review.Spec.ResourceAttributes = attributes{p.Namespace, p.Verb, group, resource, sub}
	body, err := json.Marshal(review)
	if err != nil {
		return false, err
	}
	answer, err := text(ctx, c.core.Post().AbsPath("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews").
		SetHeader("Content-Type", "application/json").Body(body))
	if err != nil {
		return false, c.explain(ctx, err, "create", "selfsubjectaccessreviews.authorization.k8s.io", "")
	}
	if err := json.Unmarshal(answer, &review); err != nil {
		return false, fmt.Errorf("read what the cluster says about permissions: %w", err)
	}
	return review.Status.Allowed, nil
}

// Version is the version of the API server. Anybody may ask for it, so it says
// nothing of the login.
func (c *Cluster) Version(ctx context.Context) (string, error) {
	var v struct {
		GitVersion string `json:"gitVersion"`
	}
	b, err := text(ctx, c.core.Get().AbsPath("/version"))
	if err != nil {
		return "", c.explain(ctx, err, "get", "/version", "")
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return "", &failure.Error{Code: "cluster-error", What: fmt.Sprintf("%s does not answer like an API server", c.Server()), Why: err.Error(), Cause: err,
			Do: "check server in the kubeconfig: kubectl config view --minify"}
	}
	return v.GitVersion, nil
}

// ErrUntried is returned by TryAgent where the user may not make pods: the
// controller that makes them from Jobs may, so nothing speaks against the
// agent.
var ErrUntried = errors.New("you may not create pods, so the cluster cannot be asked whether it takes the agent's")

// TryAgent has the cluster judge the agent of a session with t as if it were
// started: its quotas, its policies, its webhooks. Nothing is made. Codes as
// those of StartAgent before the agent's pod has a node; ErrUntried if nothing
// could be found out about the pod.
func (c *Cluster) TryAgent(ctx context.Context, t *Target, features []Feature, inPod bool) error {
	if inPod {
		return c.tryOrder(ctx, t, features)
	}
	more := t.features(features)
	err := c.tryJob(ctx, t, more)
	if refusedOfMesh(err, features, more) != "" { // StartAgent does without, too
		return c.tryJob(ctx, t, features)
	}
	return err
}

// tryJob is TryAgent for an agent in a pod of its own.
func (c *Cluster) tryJob(ctx context.Context, t *Target, features []Feature) error {
	namespace := c.agentNamespace(t)
	j := job(jobName("doctor"), namespace, c.options, t, AgentSpec{Session: "doctor", PublicKey: "-", Features: features})
	rehearsal := &metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	err := c.batch.Post().Namespace(namespace).Resource("jobs").VersionedParams(rehearsal, c.words.parameters).Body(j).
		Do(impatient(ctx)).Into(&batchv1.Job{})
	if err != nil {
		return c.explain(ctx, err, "create", "jobs.batch", namespace)
	}
	pod := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: j.Spec.Template.ObjectMeta, Spec: j.Spec.Template.Spec}
	pod.Name, pod.Namespace = j.Name, namespace
	err = c.core.Post().Namespace(namespace).Resource("pods").VersionedParams(rehearsal, c.words.parameters).Body(pod).
		Do(impatient(ctx)).Into(&corev1.Pod{})
	switch {
	case err == nil:
		return nil
	case apierrors.IsForbidden(err) && strings.Contains(message(err), " cannot create resource "):
		return c.byLabel(ctx, t, namespace)
	}
	return c.explain(ctx, err, "create", "pods", namespace)
}

// byLabel judges an agent by the namespace's Pod Security label, which is what
// most clusters refuse it for.
func (c *Cluster) byLabel(ctx context.Context, t *Target, namespace string) error {
	o := &object{}
	b, err := text(ctx, c.core.Get().Resource("namespaces").Name(namespace).SetHeader("Accept", headOfOne))
	if err != nil || json.Unmarshal(b, o) != nil {
		return ErrUntried
	}
	switch level := o.Labels["pod-security.kubernetes.io/enforce"]; {
	case t.Targetless, level == "privileged":
		return nil
	case level == "":
		return ErrUntried
	default:
		return c.refused(fmt.Sprintf("namespace %q violates PodSecurity for agents: it enforces the level %q, an agent needs \"privileged\"", namespace, level), nil, namespace)
	}
}
