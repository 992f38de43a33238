package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// Needs lists the permissions of a session with target, as written. A target
// that cannot be parsed needs those of a pod. docs/errors.md, forbidden, has
// the list for the people who run clusters.
func (c *Cluster) Needs(target string) []Permission {
	const events = "why a policy or a quota refuses the agent is known late"
	ns := c.namespace
	agents := c.agentNamespace(&Target{Namespace: ns})
	var all []Permission
	add := func(namespace, resource, need string, verbs ...string) {
		for _, v := range verbs {
			all = append(all, Permission{v, resource, namespace, need})
		}
	}
	r, err := parse(target)
	switch {
	case err != nil || r.kind.name == "pod":
		if target != "" {
			add(ns, "pods", "", "get")
			add(ns, "pods", "near names are not shown", "list")
		}
	case r.kind.name == label:
		add(ns, "pods", "", "list")
	default:
		add(ns, r.kind.rbac, "", "get")
		switch r.kind.name {
		case "deployment", "rollout":
			add(ns, "replicasets.apps", "", "list")
		case "cronjob":
			add(ns, "jobs.batch", "", "list")
		}
		add(ns, "pods", "", "list")
	}
	add("", "nodes", "a node that is not ready or of another architecture is known late", "get")
	add(agents, "jobs.batch", "", "create")
	add(agents, "jobs.batch", "an agent is removed by the cluster, some seconds after it has ended by itself", "delete")
	add(agents, "jobs.batch", "the agent of a session that was killed while it began may stay for a minute", "watch")
	add(agents, "pods", "", "watch")
	add(agents, "pods/log", "", "get")
	add(agents, "pods/portforward", "", "get", "create")
	add(agents, "events", events, "watch")
	return all
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
		return "", &failure.Error{Code: "cluster-error", What: fmt.Sprintf("%s does not answer like an API server", c.config.Host), Why: err.Error(), Cause: err,
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
func (c *Cluster) TryAgent(ctx context.Context, t *Target, features []Feature) error {
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
