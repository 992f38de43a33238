package kube

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// changing is a server of pods that change; each change is told to who watches.
type changing struct {
	api
	mu      sync.Mutex
	pods    []corev1.Pod
	changes chan corev1.Pod
}

func (c *changing) set(pods ...corev1.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pods = pods
}

func (c *changing) serve(a *api, w http.ResponseWriter, r *http.Request, key string) bool {
	switch key {
	case "list pods":
		c.mu.Lock()
		defer c.mu.Unlock()
		send(w, &corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: c.pods})
	case "watch pods":
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(200)
		for {
			w.(http.Flusher).Flush()
			select {
			case p := <-c.changes:
				send(w, map[string]any{"type": "MODIFIED", "object": typed(&p)})
			case <-r.Context().Done():
				return true
			case <-a.ends:
				return true
			}
		}
	default:
		return false
	}
	return true
}

// The ready pods of a workload are told at once and after every change; others
// that have its labels are none.
func TestReplicas(t *testing.T) {
	c := &changing{changes: make(chan corev1.Pod)}
	c.others = objects{"statefulsets": {"web": something("web", map[string]any{"selector": app("web")}, nil)}}
	c.own = c.serve
	first, second := member("web-0", "web", "web", 1), member("web-1", "web", "web", 2)
	c.set(first, member("stranger", "web", "other", 0))
	cluster := c.start(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan string)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(told)
		cluster.Replicas(ctx, "statefulset/web", func(all []*Target) {
			var names []string
			for _, t := range all {
				names = append(names, t.Pod+"/"+t.Workload)
			}
			told <- strings.Join(names, " ")
		})
	})
	defer wg.Wait()
	defer cancel()
	want := func(when, names string) {
		t.Helper()
		select {
		case got := <-told:
			if got != names {
				t.Errorf("%s: %q, want %q", when, got, names)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: nothing is told", when)
		}
	}
	want("at first", "web-0/statefulset/web")
	for _, change := range []struct {
		when string
		pods []corev1.Pod
		want string
	}{
		{"one more, not ready", []corev1.Pod{first, member("web-1", "web", "web", 2, unready)}, "web-0/statefulset/web"},
		{"ready", []corev1.Pod{first, second}, "web-0/statefulset/web web-1/statefulset/web"},
		{"one ends", []corev1.Pod{member("web-0", "web", "web", 1, ending), second}, "web-1/statefulset/web"},
	} {
		c.set(change.pods...)
		c.changes <- change.pods[len(change.pods)-1]
		want(change.when, change.want)
	}
	cancel()
	if _, more := <-told; more {
		t.Error("more is told after the end")
	}
}

// A pod by itself has no replicas.
func TestNoReplicas(t *testing.T) {
	c := &changing{}
	cluster := c.start(t, Options{})
	for _, target := range []string{"pod/web-0", "", "targetless"} {
		cluster.Replicas(t.Context(), target, func([]*Target) { t.Errorf("%q has replicas", target) })
	}
}
