package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// Listed is something in the cluster that can be a target.
type Listed struct {
	Path      string  // as -t takes it; a pod of several containers has one for each
	Kind      string  // "deployment"
	Available bool    // a session can begin with it now
	Ready     int     // of its pods; of a pod 0 or 1
	Wanted    int     // pods that it should have
	Ports     []int32 // TCP ports that it says to have, in order
	Since     time.Time
}

// Kinds are the kinds that Inventory knows, in its order.
func Kinds() (all []string) {
	for _, k := range kinds {
		all = append(all, k.name)
	}
	return all
}

// Inventory lists what can be a target in the namespace: things of the kinds that are
// named, or of all. What nobody runs (a replica set that was replaced, a job that
// is over) and sessions' agents are left out. Kinds that the user may not list
// come back as notes; an error comes only if nothing could be listed: kind-unknown,
// namespace-not-found, forbidden, and those of a cluster that does not answer.
func (c *Cluster) Inventory(ctx context.Context, of []string) (all []Listed, notes []string, err error) {
	wanted := slices.DeleteFunc(slices.Clone(kinds), func(k kind) bool { return len(of) > 0 && !slices.Contains(of, k.name) })
	for _, word := range of {
		if _, ok := kindOf(word); !ok || word == label {
			return nil, nil, failure.Usage("kind-unknown", fmt.Sprintf("there is no kind %q", word), "mirrord ls --type deployment", "kinds are %s", strings.Join(Kinds(), ", "))
		}
	}
	found := make([][]item, len(wanted))
	errs := make([]error, len(wanted))
	var pods []corev1.Pod
	var podsErr error
	var wait sync.WaitGroup
	wait.Go(func() { pods, podsErr = c.allPods(ctx) })
	for i, k := range wanted {
		if k.name == "pod" {
			continue
		}
		wait.Go(func() { found[i], errs[i] = c.items(ctx, k) })
	}
	wait.Wait()
	could := false
	for i, k := range wanted {
		if k.name == "pod" {
			errs[i] = podsErr
			for p := range slices.Values(pods) {
				all = append(all, ofPod(&p)...)
			}
		}
		switch err := errs[i]; {
		case err == nil:
			could = true
			for _, o := range found[i] {
				if l, ok := o.listed(k, pods); ok {
					all = append(all, l)
				}
			}
		case apierrors.IsNotFound(err) && k.name == "rollout": // nobody has installed it
		case apierrors.IsForbidden(err):
			notes = append(notes, fmt.Sprintf("you may not list %s in %s", k.rbac, c.place(c.namespace)))
		default:
			return nil, nil, c.explain(ctx, err, "list", k.rbac, c.namespace)
		}
	}
	if len(all) == 0 {
		if err := c.absentNamespace(ctx); err != nil {
			return nil, nil, err
		}
	}
	if !could {
		return nil, nil, c.explain(ctx, errors.Join(errs...), "list", wanted[len(wanted)-1].rbac, c.namespace)
	}
	slices.SortStableFunc(all, func(a, b Listed) int {
		return cmp.Or(cmp.Compare(rank(a.Kind), rank(b.Kind)), strings.Compare(a.Path, b.Path))
	})
	return all, notes, nil
}

func rank(name string) int {
	return slices.IndexFunc(kinds, func(k kind) bool { return k.name == name })
}

// An item is what Inventory reads of a workload or a service.
type item struct {
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Replicas    *int32          `json:"replicas"`
		Parallelism *int32          `json:"parallelism"` // of jobs
		Selector    json.RawMessage `json:"selector"`
		Template    struct {
			Spec itemPod `json:"spec"`
		} `json:"template"`
		Ports       []itemPort      `json:"ports"` // of services
		JobTemplate json.RawMessage `json:"jobTemplate"`
	} `json:"spec"`
	Status struct {
		ReadyReplicas     int                `json:"readyReplicas"`
		AvailableReplicas int                `json:"availableReplicas"`
		NumberReady       int                `json:"numberReady"` // of daemon sets
		NumberDesired     int                `json:"desiredNumberScheduled"`
		JobReady          int                `json:"ready"`
		Active            json.RawMessage    `json:"active"` // of a job a number, of a cron job the jobs
		Conditions        []metav1.Condition `json:"conditions"`
	} `json:"status"`
}

type itemPod struct {
	Containers []struct {
		Ports []itemPort `json:"ports"`
	} `json:"containers"`
}

type itemPort struct {
	ContainerPort int32  `json:"containerPort"`
	Port          int32  `json:"port"` // of a service
	Protocol      string `json:"protocol"`
}

// items lists objects of a kind.
func (c *Cluster) items(ctx context.Context, k kind) ([]item, error) {
	b, err := text(ctx, c.core.Get().AbsPath(k.api).Namespace(c.namespace).Resource(k.resource))
	if err != nil {
		return nil, err
	}
	var l struct {
		Items []item `json:"items"`
	}
	return l.Items, json.Unmarshal(b, &l)
}

// allPods lists the pods of the namespace, in the API server's own format: of a
// thousand pods JSON takes ten times as long to read.
func (c *Cluster) allPods(ctx context.Context) ([]corev1.Pod, error) {
	l := &corev1.PodList{}
	err := c.core.Get().Namespace(c.namespace).Resource("pods").
		SetHeader("Accept", "application/vnd.kubernetes.protobuf,application/json").Do(impatient(ctx)).Into(l)
	return l.Items, err
}

// listed is what is told of an object; ok is false for what nobody runs any
// more.
func (o *item) listed(k kind, pods []corev1.Pod) (l Listed, ok bool) {
	l = Listed{Path: k.name + "/" + o.Name, Kind: k.name, Since: o.CreationTimestamp.Time, Ready: o.Status.ReadyReplicas, Wanted: 1}
	if o.Spec.Replicas != nil {
		l.Wanted = int(*o.Spec.Replicas)
	}
	for _, container := range o.Spec.Template.Spec.Containers {
		l.Ports = append(l.Ports, tcp(container.Ports)...)
	}
	switch k.name {
	case "replicaset": // others' replica sets are named by their owners
		if metav1.GetControllerOf(&o.ObjectMeta) != nil || l.Wanted == 0 {
			return l, false
		}
	case "daemonset":
		l.Ready, l.Wanted = o.Status.NumberReady, o.Status.NumberDesired
	case "job": // other sessions' agents are no targets
		if over(o.Status.Conditions) != "" || o.Labels[labelSession] != "" {
			return l, false
		}
		l.Ready = o.Status.JobReady
		if o.Spec.Parallelism != nil {
			l.Wanted = int(*o.Spec.Parallelism)
		}
	case "cronjob":
		var active []json.RawMessage
		if len(o.Status.Active) > 0 && json.Unmarshal(o.Status.Active, &active) == nil {
			l.Ready = len(active)
		}
		l.Wanted = l.Ready
	case "service":
		var selector labels.Set
		if len(o.Spec.Selector) == 0 || json.Unmarshal(o.Spec.Selector, &selector) != nil || len(selector) == 0 {
			return l, false // somebody else says where its traffic goes
		}
		l.Ready, l.Wanted, l.Ports = 0, 0, tcp(o.Spec.Ports)
		for i := range pods {
			if !isOver(&pods[i]) && selector.AsSelector().Matches(labels.Set(pods[i].Labels)) {
				l.Wanted++
				if readyPod(&pods[i]) {
					l.Ready++
				}
			}
		}
	}
	l.Ports = distinct(l.Ports)
	l.Available = l.Ready > 0
	return l, true
}

// tcp gives the ports by TCP, a service's by its own numbers.
func tcp(ports []itemPort) (all []int32) {
	for _, p := range ports {
		if p.Protocol == "" || p.Protocol == string(corev1.ProtocolTCP) {
			all = append(all, max(p.Port, p.ContainerPort))
		}
	}
	return all
}

func distinct(ports []int32) []int32 { return slices.Compact(slices.Sorted(slices.Values(ports))) }

// ofPod gives a pod, once for each of its containers that people may mean; none
// if it is over.
func ofPod(p *corev1.Pod) (all []Listed) {
	if isOver(p) || p.Labels[labelSession] != "" {
		return nil
	}
	l := Listed{Path: "pod/" + p.Name, Kind: "pod", Wanted: 1, Available: readyPod(p), Since: p.CreationTimestamp.Time}
	if l.Available {
		l.Ready = 1
	}
	var own []Listed
	for _, c := range p.Spec.Containers {
		if slices.Contains(sidecars, c.Name) && len(p.Spec.Containers) > 1 {
			continue
		}
		one := l
		one.Path += "/container/" + c.Name
		for _, port := range c.Ports {
			if port.Protocol == "" || port.Protocol == corev1.ProtocolTCP {
				one.Ports = append(one.Ports, port.ContainerPort)
			}
		}
		one.Ports = distinct(one.Ports)
		own = append(own, one)
	}
	if len(own) == 1 {
		own[0].Path = l.Path
	}
	return own
}

// isOver reports whether a pod is over, or about to be.
func isOver(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed || p.DeletionTimestamp != nil
}

// readyPod reports whether all containers of a pod are ready. The pod's own
// condition lags behind where a node was lost for a moment.
func readyPod(p *corev1.Pod) bool {
	notReady := func(s corev1.ContainerStatus) bool { return !s.Ready }
	return !isOver(p) && p.Status.Phase == corev1.PodRunning && len(p.Status.ContainerStatuses) > 0 && !slices.ContainsFunc(p.Status.ContainerStatuses, notReady)
}

// Namespaces lists the namespaces' names; nil if the user may not.
func (c *Cluster) Namespaces(ctx context.Context) []string {
	all := list{}
	if b, err := text(ctx, c.core.Get().Resource("namespaces").SetHeader("Accept", headOfMany)); err != nil || json.Unmarshal(b, &all) != nil {
		return nil
	}
	names := all.names()
	slices.Sort(names)
	return names
}
