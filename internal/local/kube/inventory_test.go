package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// raw is an object as the API server would send it.
func raw(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func podNamed(name string, ready bool, change func(*corev1.Pod)) corev1.Pod {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "web"}}}
	p.Spec.Containers = []corev1.Container{{Name: "app", Ports: []corev1.ContainerPort{{ContainerPort: 8080}, {ContainerPort: 53, Protocol: corev1.ProtocolUDP}}}}
	p.Status.Phase = corev1.PodRunning
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", Ready: ready}}
	if change != nil {
		change(&p)
	}
	return p
}

func TestInventory(t *testing.T) {
	a := &api{
		pods: []corev1.Pod{
			podNamed("web-1", true, nil),
			podNamed("web-2", false, nil),
			podNamed("two", true, func(p *corev1.Pod) {
				p.Labels = nil
				p.Spec.Containers = []corev1.Container{{Name: "b"}, {Name: "istio-proxy"}, {Name: "a"}}
			}),
			podNamed("meshed", true, func(p *corev1.Pod) {
				p.Labels = nil
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "istio-proxy"})
			}),
			podNamed("done", false, func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
			podNamed("ending", true, func(p *corev1.Pod) { p.DeletionTimestamp = new(metav1.Now()) }),
			podNamed("mirrord-agent-x", true, func(p *corev1.Pod) { p.Labels = map[string]string{labelSession: "s"} }),
		},
		others: map[string]map[string]any{
			"deployments": {"web": raw(t, `{"metadata": {"name": "web"}, "spec": {"replicas": 3, "template": {"spec": {"containers": [
				{"ports": [{"containerPort": 8080}, {"containerPort": 80, "protocol": "TCP"}]}, {"ports": [{"containerPort": 80}]}]}}}, "status": {"readyReplicas": 2}}`),
				"asleep": raw(t, `{"metadata": {"name": "asleep"}, "spec": {"replicas": 0}}`)},
			"statefulsets": {"db": raw(t, `{"metadata": {"name": "db"}, "spec": {"replicas": 1}, "status": {"readyReplicas": 1}}`)},
			"daemonsets":   {"log": raw(t, `{"metadata": {"name": "log"}, "status": {"numberReady": 4, "desiredNumberScheduled": 5}}`)},
			"replicasets": {"web-7d4": raw(t, `{"metadata": {"name": "web-7d4", "ownerReferences": [{"uid": "u", "controller": true}]}, "spec": {"replicas": 3}}`),
				"own": raw(t, `{"metadata": {"name": "own"}, "spec": {"replicas": 1}, "status": {"readyReplicas": 1}}`)},
			"jobs": {"over": raw(t, `{"metadata": {"name": "over"}, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}`),
				"mirrord-agent-y": raw(t, `{"metadata": {"name": "mirrord-agent-y", "labels": {"mirrord/session": "s"}}, "status": {"ready": 1}}`),
				"run":             raw(t, `{"metadata": {"name": "run"}, "spec": {"parallelism": 2}, "status": {"ready": 1, "active": 2}}`)},
			"cronjobs": {"nightly": raw(t, `{"metadata": {"name": "nightly"}, "status": {"active": [{"name": "nightly-1"}]}}`)},
			"services": {"front": raw(t, `{"metadata": {"name": "front"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}}`),
				"elsewhere": raw(t, `{"metadata": {"name": "elsewhere"}, "spec": {"ports": [{"port": 80}]}}`)},
		},
	}
	c := a.start(t, Options{})
	all, notes, err := c.Inventory(t.Context(), nil)
	if err != nil || len(notes) > 0 {
		t.Fatal(notes, err)
	}
	var got []string
	for _, l := range all {
		got = append(got, fmt.Sprintf("%s %d/%d %v %v", l.Path, l.Ready, l.Wanted, l.Available, l.Ports))
	}
	want := []string{
		"deployment/asleep 0/0 false []", "deployment/web 2/3 true [80 8080]", "statefulset/db 1/1 true []", "daemonset/log 4/5 true []",
		"cronjob/nightly 1/1 true []", "job/run 1/2 true []", "service/front 1/2 true [80]", "replicaset/own 1/1 true []",
		"pod/meshed 1/1 true [8080]", "pod/two/container/a 1/1 true []", "pod/two/container/b 1/1 true []", "pod/web-1 1/1 true [8080]", "pod/web-2 0/1 false [8080]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Each path that is listed as available can be a target.
func TestInventoryOfSome(t *testing.T) {
	a := &api{pods: []corev1.Pod{podNamed("web-1", true, nil)}, forbid: map[string]bool{"list deployments": true, "list statefulsets": true},
		others: map[string]map[string]any{"deployments": {}, "statefulsets": {}}}
	c := a.start(t, Options{})
	all, notes, err := c.Inventory(t.Context(), []string{"deployment", "pod"})
	if err != nil || len(all) != 1 || all[0].Path != "pod/web-1" || len(notes) != 1 || !strings.Contains(notes[0], "deployments.apps") {
		t.Errorf("%v, %q, %v", all, notes, err)
	}
	for name, of := range map[string][]string{"kind-unknown": {"deploiment"}, "forbidden": {"deployment", "statefulset"}} {
		_, _, err := c.Inventory(t.Context(), of)
		if f, ok := errors.AsType[*failure.Error](err); !ok || f.Code != name {
			t.Errorf("%v: %v, want the code %s", of, err, name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := c.Inventory(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

// A namespace of a thousand pods, each as large as they are in real clusters, is
// listed by one request a kind, and read in less than a second of the CPU's time;
// the terminal waits for it.
func TestInventoryOfAThousand(t *testing.T) {
	var pods corev1.PodList
	for i := range 1000 {
		pods.Items = append(pods.Items, podNamed(fmt.Sprintf("web-%03d", i), i%2 == 0, func(p *corev1.Pod) {
			p.Labels["app"] = fmt.Sprintf("web%d", i/10)
			p.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubelet", FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:status":{` + strings.Repeat(`"f:conditions":{},`, 100) + `"f:x":{}}}`)}}}
			for v := range 20 {
				name := fmt.Sprintf("VARIABLE_%d", v)
				p.Spec.Containers[0].Env = append(p.Spec.Containers[0].Env, corev1.EnvVar{Name: name, Value: strings.ToLower(name)})
			}
		}))
	}
	content, err := pods.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := (&runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Raw: content}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	answer := append([]byte("k8s\x00"), envelope...)
	services := map[string]any{}
	for i := range 100 {
		services[fmt.Sprintf("web%d", i)] = raw(t, fmt.Sprintf(`{"metadata": {"name": "web%d"}, "spec": {"selector": {"app": "web%d"}, "ports": [{"port": 80}]}}`, i, i))
	}
	a := &api{others: map[string]map[string]any{"services": services}, own: func(_ *api, w http.ResponseWriter, r *http.Request, key string) bool {
		if key != "list pods" || !strings.Contains(r.Header.Get("Accept"), "protobuf") {
			return false
		}
		w.Header().Set("Content-Type", "application/vnd.kubernetes.protobuf")
		w.Write(answer)
		return true
	}}
	for _, k := range kinds {
		if a.others[k.resource] == nil {
			a.others[k.resource] = map[string]any{}
		}
	}
	c := a.start(t, Options{})
	before := cpuTime(t)
	all, notes, err := c.Inventory(t.Context(), nil)
	took := cpuTime(t) - before
	if err != nil || len(notes) > 0 {
		t.Fatal(notes, err)
	}
	t.Logf("%d targets of %d bytes in %v of the CPU, server included", len(all), len(answer), took)
	if took > time.Second {
		t.Errorf("it took %v of the CPU, want less than a second", took)
	}
	ready := 0
	for _, l := range all {
		if l.Kind == "service" && (l.Ready != 5 || l.Wanted != 10) {
			t.Errorf("%s: %d/%d ready, want 5/10", l.Path, l.Ready, l.Wanted)
		}
		if l.Kind == "pod" && l.Available {
			ready++
		}
	}
	if len(all) != 1100 || ready != 500 {
		t.Errorf("%d targets with %d ready pods, want 1100 and 500", len(all), ready)
	}
	asked := map[string]int{}
	for _, key := range a.asked {
		if asked[key]++; asked[key] > 1 {
			t.Errorf("%s was asked for %d times", key, asked[key])
		}
	}
	if len(a.asked) != len(kinds) {
		t.Errorf("asked for %q, want one list a kind", a.asked)
	}
}

// cpuTime is what this process has used.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func TestInventoryOfNowhere(t *testing.T) {
	a := &api{others: map[string]map[string]any{"namespaces": {"shop2": raw(t, `{"metadata": {"name": "shop2"}}`)}, "deployments": {}}}
	_, _, err := a.start(t, Options{Namespace: "shpo"}).Inventory(t.Context(), []string{"deployment"})
	if f, ok := errors.AsType[*failure.Error](err); !ok || f.Code != "namespace-not-found" || !strings.Contains(f.Do, "shop") {
		t.Errorf("%v", err)
	}
}

func TestNamespaces(t *testing.T) {
	if got := (&api{}).start(t, Options{}).Namespaces(t.Context()); !slices.Equal(got, []string{"shop"}) {
		t.Errorf("namespaces: %v", got)
	}
}
