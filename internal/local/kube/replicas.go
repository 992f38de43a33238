package kube

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

const (
	// recountTime is how often the pods of a workload are listed without a change
	// that was seen: where they may not be watched, or its labels lead to others.
	recountTime = 30 * time.Second
	// settleTime is how long changes are gathered: a pod that starts makes several.
	settleTime = 300 * time.Millisecond
)

// Replicas tells of the containers that target names in all its pods that are
// ready, at once and whenever that may have changed, until ctx ends. It returns
// at once where target is no workload. A cluster that cannot be asked for a
// while is asked again.
func (c *Cluster) Replicas(ctx context.Context, target string, tell func([]*Target)) {
	r, err := parse(target)
	if err != nil || r.kind.name == "pod" {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	var p *pods
	defer func() {
		cancel()
		p.close()
	}()
	for ctx.Err() == nil {
		if w, err := c.workload(ctx, r); err == nil {
			p = c.sees(ctx, p, w.selector)
			tell(c.ready(w, r))
		}
		p.await(ctx)
	}
}

// ready are the containers of w's pods that are.
func (c *Cluster) ready(w *workload, r reference) (all []*Target) {
	for i := range w.pods {
		t, err := c.choose(&w.pods[i], r)
		if err == nil && containerStatus(&w.pods[i], t.Container).Ready {
			t.Workload = r.String()
			all = append(all, t)
		}
	}
	return all
}

// pods are those that a selector matches, as something that changes.
type pods struct {
	selector string
	changed  chan struct{} // has one after a change; capacity 1
	stop     context.CancelFunc
	over     chan struct{}
}

// sees gives p, or what watches selector in its place.
func (c *Cluster) sees(ctx context.Context, p *pods, selector string) *pods {
	if p != nil && p.selector == selector {
		return p
	}
	p.close()
	ctx, stop := context.WithCancel(ctx)
	p = &pods{selector: selector, changed: make(chan struct{}, 1), stop: stop, over: make(chan struct{})}
	go func() {
		defer close(p.over)
		if selector == "" {
			return
		}
		_ = c.watch(ctx, c.core, c.namespace, "pods", metav1.ListOptions{LabelSelector: selector}, func(runtime.Object) {
			select {
			case p.changed <- struct{}{}:
			default:
			}
		})
	}()
	return p
}

// await waits for the next change, and for those that come with it.
func (p *pods) await(ctx context.Context) {
	var changed <-chan struct{}
	if p != nil {
		changed = p.changed
	}
	recount := time.NewTimer(recountTime)
	defer recount.Stop()
	select {
	case <-changed:
		if pause(ctx, settleTime) == nil {
			select {
			case <-changed:
			default:
			}
		}
	case <-recount.C:
	case <-ctx.Done():
	}
}

func (p *pods) close() {
	if p != nil {
		p.stop()
		<-p.over
	}
}
