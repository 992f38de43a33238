package kube

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// A candidate is a pod that could stand for its workload.
type candidate struct {
	pod      *corev1.Pod
	ready    bool // its container
	whole    bool // the pod as a whole is ready
	revision int64
	start    time.Time
}

// pick chooses the pod that stands for w: one whose container is ready before
// one whose container merely runs; then of the newest revision; then one that
// is ready as a whole; then the one that has run longest, which other people's
// choice is least likely to fall on again and which is warm; then the first by
// name. A note says which it was.
func (c *Cluster) pick(w *workload, r reference) (*corev1.Pod, []string, error) {
	var found []candidate
	newest, missing := int64(0), error(nil)
	for i := range w.pods {
		p := &w.pods[i]
		k := candidate{pod: p}
		if w.revision != nil {
			k.revision = w.revision(p)
			newest = max(newest, k.revision)
		}
		name, _, err := container(p, r.container)
		if err != nil {
			missing = err
			continue
		}
		status := containerStatus(p, name)
		if p.DeletionTimestamp != nil || status.State.Running == nil || p.Status.Phase != corev1.PodRunning && !initializing(p, name) {
			continue
		}
		k.ready = status.Ready
		k.whole = slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		})
		if p.Status.StartTime != nil {
			k.start = p.Status.StartTime.Time
		}
		found = append(found, k)
	}
	if len(found) == 0 {
		if missing != nil {
			return nil, nil, missing
		}
		return nil, nil, c.idle(w, r)
	}
	slices.SortFunc(found, func(a, b candidate) int {
		return cmp.Or(first(a.ready, b.ready), cmp.Compare(b.revision, a.revision), first(a.whole, b.whole),
			a.start.Compare(b.start), strings.Compare(a.pod.Name, b.pod.Name))
	})
	return found[0].pod, []string{chosen(found, r, newest)}, nil
}

// first orders those that have a quality before those that have not.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// chosen says which of the candidates was chosen, the first.
func chosen(found []candidate, r reference, newest int64) string {
	ready := 0
	for _, k := range found {
		if k.ready {
			ready++
		}
	}
	pod := "pod/" + found[0].pod.Name
	var text string
	switch {
	case ready > 1:
		text = fmt.Sprintf("%s has %d ready pods: chose %s", r, ready, pod)
	case ready == 1:
		text = fmt.Sprintf("%s has one ready pod: %s", r, pod)
	case len(found) > 1:
		text = fmt.Sprintf("%s has no ready pod: chose %s of %d that run", r, pod, len(found))
	default:
		text = fmt.Sprintf("%s has no ready pod: chose %s, which runs", r, pod)
	}
	if found[0].revision < newest {
		text += "; its newest revision has none that is ready"
	}
	return text
}

// maxExplained is how many pods that do not run are explained: the others
// mostly have the same reason.
const maxExplained = 3

// idle says why no pod of w runs.
func (c *Cluster) idle(w *workload, r reference) error {
	f := &failure.Error{Code: "target-not-running", What: fmt.Sprintf("%s has no pod that runs", r)}
	describe := fmt.Sprintf("kubectl describe %s %s -n %s", r.kind.name, r.name, c.namespace)
	var why []string
	for _, p := range w.pods[:min(len(w.pods), maxExplained)] {
		state := "is " + string(p.Status.Phase)
		describe = fmt.Sprintf("kubectl describe pod %s -n %s", p.Name, c.namespace)
		if p.DeletionTimestamp != nil {
			state = "is being deleted"
		} else if status := containerStatus(&p, firstContainer(&p)); status.RestartCount > 0 {
			describe = fmt.Sprintf("kubectl logs %s -c %s -n %s --previous", p.Name, status.Name, c.namespace)
		}
		why = append(why, "pod/"+p.Name+" "+strings.Join(append([]string{state}, reasons(&p)...), ", "))
	}
	if more := len(w.pods) - maxExplained; more > 0 {
		why = append(why, fmt.Sprintf("and %d more", more))
	}
	f.Do = describe
	o := w.object
	switch {
	case r.kind.name == label && len(w.pods) == 0:
		f.Code, f.What = "target-not-found", fmt.Sprintf("no pod has the labels %s", r.name)
		why = []string{"looked in " + c.place(c.namespace)}
		f.Do = "see what labels there are: kubectl get pods --show-labels -n " + c.namespace
	case o == nil:
	case r.kind.name == "cronjob":
		if len(w.pods) == 0 {
			why = []string{fmt.Sprintf("no job of it runs now; its schedule is %q", o.Spec.Schedule)}
		}
		if o.Spec.Suspend {
			why = append(why, "it is suspended")
		}
		f.Do = fmt.Sprintf("start one: kubectl create job %s-now --from=cronjob/%s -n %s", o.Name, o.Name, c.namespace)
	case over(o.Status.Conditions) != "":
		why = append(why, "it is over: "+over(o.Status.Conditions))
		f.Do = describe
	case o.Spec.Suspend:
		why = append(why, "it is suspended")
	case o.Spec.Replicas != nil && *o.Spec.Replicas == 0:
		why = append(why, "it is scaled to 0 replicas")
		f.Do = fmt.Sprintf("kubectl scale %s %s --replicas=1 -n %s", r.kind.name, o.Name, c.namespace)
	case len(w.pods) == 0:
		why = append(why, "it has no pods")
		for _, k := range o.Status.Conditions { // "exceeded quota", for instance
			if strings.HasSuffix(k.Type, "Failure") && k.Status == "True" {
				why = append(why, k.Message)
			}
		}
	}
	f.Why = strings.Join(why, "\n")
	return f
}

// firstContainer is the container that would be chosen.
func firstContainer(p *corev1.Pod) string {
	name, _, err := container(p, "")
	if err != nil {
		return ""
	}
	return name
}
