package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// An object is what this room reads of a workload, whatever its kind: they all
// keep the few fields that matter at the same places, Argo's as well.
type object struct {
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Selector     json.RawMessage `json:"selector"` // of a service a map, else a metav1.LabelSelector
		Replicas     *int32          `json:"replicas"`
		Suspend      bool            `json:"suspend"`      // of jobs and cron jobs
		Schedule     string          `json:"schedule"`     // of cron jobs
		Type         string          `json:"type"`         // of services
		ExternalName string          `json:"externalName"` // of services
		WorkloadRef  *struct {       // of rollouts: where template and selector are
			Kind string `json:"kind"`
			Name string `json:"name"`
		} `json:"workloadRef"`
	} `json:"spec"`
	Status struct {
		UpdateRevision string             `json:"updateRevision"` // of stateful sets: the newest one's hash
		Conditions     []metav1.Condition `json:"conditions"`
	} `json:"status"`
}

// A workload is what a target names, with the pods that are really its own.
type workload struct {
	object   *object // nil: labels alone
	selector string  // of its pods, and maybe of others'; a cron job has none
	pods     []corev1.Pod
	// revision tells how new a pod is among the workload's; nil: all are alike.
	revision func(*corev1.Pod) int64
}

// Annotations and labels by which controllers number their revisions.
const (
	deploymentRevision = "deployment.kubernetes.io/revision"
	rolloutRevision    = "rollout.argoproj.io/revision"
	revisionHash       = "controller-revision-hash"
	daemonGeneration   = "pod-template-generation" // deprecated, and still the only number on the pod
)

// workload reads what r names and finds its pods. That a pod has the labels is
// not enough where pods have owners: another workload's may have them too.
func (c *Cluster) workload(ctx context.Context, r reference) (*workload, error) {
	if r.kind.name == label {
		pods, err := c.podsOf(ctx, r.name)
		return &workload{selector: r.name, pods: pods}, err
	}
	o := &object{}
	if err := c.read(ctx, r.kind, r.name, o); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, c.notFound(ctx, r, err)
		}
		return nil, c.explain(ctx, err, "get", r.kind.rbac, c.namespace)
	}
	w := &workload{object: o}
	switch r.kind.name {
	case "service":
		return w, c.behindService(ctx, r, w)
	case "cronjob":
		return w, c.newestJob(ctx, w)
	case "deployment", "rollout":
		return w, c.throughReplicaSets(ctx, w)
	case "statefulset":
		w.revision = func(p *corev1.Pod) int64 {
			if p.Labels[revisionHash] == o.Status.UpdateRevision {
				return 1
			}
			return 0
		}
	case "daemonset":
		w.revision = func(p *corev1.Pod) int64 { return number(p.Labels[daemonGeneration]) }
	}
	return w, c.ownPods(ctx, w, o)
}

// ownPods takes the pods that owner itself controls.
func (c *Cluster) ownPods(ctx context.Context, w *workload, owner *object) error {
	selector, err := selectorOf(owner)
	if err != nil {
		return err
	}
	pods, err := c.podsOf(ctx, selector)
	if err != nil {
		return err
	}
	w.selector, w.pods = selector, controlled(pods, map[types.UID]int64{owner.UID: 0})
	return nil
}

// throughReplicaSets takes the pods of the replica sets that the workload
// controls, and knows their revisions.
func (c *Cluster) throughReplicaSets(ctx context.Context, w *workload) error {
	o := w.object
	if ref := o.Spec.WorkloadRef; ref != nil && len(o.Spec.Selector) == 0 {
		// Argo's replica sets have the selector of the workload referred to.
		k, ok := kindOf(map[string]string{"Deployment": "deployment", "ReplicaSet": "replicaset"}[ref.Kind])
		if !ok {
			return failure.New("target-not-found", fmt.Sprintf("the pods of rollout/%s cannot be told", o.Name),
				"name one of its pods: kubectl get pods -n "+c.namespace, "its workloadRef is a %s", ref.Kind)
		}
		o = &object{}
		if err := c.read(ctx, k, ref.Name, o); err != nil {
			return c.explain(ctx, err, "get", k.rbac, c.namespace)
		}
	}
	selector, err := selectorOf(o)
	if err != nil {
		return err
	}
	sets := list{}
	var pods []corev1.Pod
	var setsErr, podsErr error
	var wait sync.WaitGroup
	rs, _ := kindOf("replicaset")
	wait.Go(func() { setsErr = c.list(ctx, rs, selector, 0, true, &sets) })
	wait.Go(func() { pods, podsErr = c.podsOf(ctx, selector) })
	wait.Wait()
	if setsErr != nil {
		return c.explain(ctx, setsErr, "list", rs.rbac, c.namespace)
	}
	if podsErr != nil {
		return podsErr
	}
	revisions := map[types.UID]int64{}
	for _, s := range sets.Items {
		if owner := metav1.GetControllerOf(&s); owner != nil && owner.UID == w.object.UID {
			revisions[s.UID] = max(number(s.Annotations[deploymentRevision]), number(s.Annotations[rolloutRevision]))
		}
	}
	w.selector, w.pods = selector, controlled(pods, revisions)
	w.revision = func(p *corev1.Pod) int64 { return revisions[metav1.GetControllerOf(p).UID] }
	return nil
}

// newestJob takes the pods of the cron job's newest job that is not over.
func (c *Cluster) newestJob(ctx context.Context, w *workload) error {
	k, _ := kindOf("job")
	jobs := list{}
	if err := c.list(ctx, k, "", 0, false, &jobs); err != nil {
		return c.explain(ctx, err, "list", k.rbac, c.namespace)
	}
	var newest *object
	for _, j := range jobs.Items {
		owner := metav1.GetControllerOf(&j)
		if owner == nil || owner.UID != w.object.UID || over(j.Status.Conditions) != "" || j.DeletionTimestamp != nil {
			continue
		}
		if newest == nil || newest.CreationTimestamp.Before(&j.CreationTimestamp) ||
			newest.CreationTimestamp.Equal(&j.CreationTimestamp) && j.Name < newest.Name {
			newest = &j
		}
	}
	if newest == nil {
		return nil
	}
	return c.ownPods(ctx, w, newest)
}

// over tells by the conditions of a job how it has ended; empty: it has not.
func over(conditions []metav1.Condition) string {
	for _, c := range conditions {
		if c.Status == metav1.ConditionTrue && (c.Type == "Complete" || c.Type == "Failed") {
			return c.Type
		}
	}
	return ""
}

// behindService takes the pods that a service sends its traffic to.
func (c *Cluster) behindService(ctx context.Context, r reference, w *workload) error {
	o := w.object
	without := func(why string) error {
		return failure.New("service-without-pods", fmt.Sprintf("%s has no pods that could be a target", r),
			"name a pod or a workload: kubectl get pods,deployments -n "+c.namespace, "%s", why)
	}
	if o.Spec.Type == string(corev1.ServiceTypeExternalName) {
		return without("it is another name for " + o.Spec.ExternalName)
	}
	selector := labels.Set{}
	if len(o.Spec.Selector) > 0 {
		if err := json.Unmarshal(o.Spec.Selector, &selector); err != nil {
			return fmt.Errorf("read the selector of %s: %w", r, err)
		}
	}
	if len(selector) == 0 {
		return without("it has no selector: somebody else says where its traffic goes")
	}
	w.selector = selector.String()
	pods, err := c.podsOf(ctx, w.selector)
	w.pods = pods
	return err
}

// selectorOf is the selector of a workload as a query has it.
func selectorOf(o *object) (string, error) {
	ls := &metav1.LabelSelector{}
	if len(o.Spec.Selector) > 0 {
		if err := json.Unmarshal(o.Spec.Selector, ls); err != nil {
			return "", fmt.Errorf("read the selector of %s: %w", o.Name, err)
		}
	}
	selector, err := metav1.LabelSelectorAsSelector(ls)
	if err != nil {
		return "", fmt.Errorf("read the selector of %s: %w", o.Name, err)
	}
	return selector.String(), nil
}

// controlled are those of pods whose controller is one of owners.
func controlled(pods []corev1.Pod, owners map[types.UID]int64) []corev1.Pod {
	return slices.DeleteFunc(pods, func(p corev1.Pod) bool {
		owner := metav1.GetControllerOf(&p)
		if owner == nil {
			return true
		}
		_, ours := owners[owner.UID]
		return !ours
	})
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// A list is several objects of one kind.
type list struct {
	Items []object `json:"items"`
}

func (l *list) names() (all []string) {
	for _, o := range l.Items {
		all = append(all, o.Name)
	}
	return all
}

// Forms in which the API server sends only what every object has; who does not
// know them sends the whole.
const (
	headOfOne  = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
	headOfMany = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
)

// read gets one object of the targets' namespace.
func (c *Cluster) read(ctx context.Context, k kind, name string, into *object) error {
	b, err := text(ctx, c.core.Get().AbsPath(k.api).Namespace(c.namespace).Resource(k.resource).Name(name))
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

// list lists objects of the targets' namespace, at most limit (0: all), on
// request without spec and status.
func (c *Cluster) list(ctx context.Context, k kind, selector string, limit int64, heads bool, into *list) error {
	q := c.core.Get().AbsPath(k.api).Namespace(c.namespace).Resource(k.resource).
		VersionedParams(&metav1.ListOptions{LabelSelector: selector, Limit: limit}, c.words.parameters)
	if heads {
		q.SetHeader("Accept", headOfMany)
	}
	b, err := text(ctx, q)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

// podsOf lists the pods that selector matches.
func (c *Cluster) podsOf(ctx context.Context, selector string) ([]corev1.Pod, error) {
	l := &corev1.PodList{}
	err := c.core.Get().Namespace(c.namespace).Resource("pods").
		VersionedParams(&metav1.ListOptions{LabelSelector: selector}, c.words.parameters).Do(impatient(ctx)).Into(l)
	if err != nil {
		return nil, c.explain(ctx, err, "list", "pods", c.namespace)
	}
	return l.Items, nil
}

// text is the answer to q as it came.
func text(ctx context.Context, q *rest.Request) ([]byte, error) {
	r := q.Do(impatient(ctx))
	if err := r.Error(); err != nil { // with the API server's own words, which Raw does not have
		return nil, err
	}
	return r.Raw()
}
