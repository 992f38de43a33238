package kube

import (
	"context"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// running is a pod whose containers all run.
func running(name string, containers ...string) corev1.Pod {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", UID: "uid-of-" + "pod"}}
	p.Spec.NodeName = "node-7"
	p.Status.Phase = corev1.PodRunning
	for _, c := range containers {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: c})
	}
	slices.Sort(containers) // as the kubelet lists them
	for _, c := range containers {
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: c, Ready: true,
			ContainerID: "containerd://id-of-" + c, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}})
	}
	return p
}

func with(p corev1.Pod, change func(*corev1.Pod)) corev1.Pod {
	change(&p)
	return p
}

func TestContainerChoice(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	for _, c := range []struct {
		name      string
		pod       corev1.Pod
		named     string
		want      string
		wantNotes int
		wantCode  string
	}{
		{name: "only one", pod: running("p", "app"), want: "app"},
		{name: "first of the specification, not of the alphabet", pod: running("p", "web", "api"), want: "web", wantNotes: 1},
		{name: "named", pod: running("p", "web", "api"), named: "api", want: "api"},
		{name: "mesh's sidecar first", pod: running("p", "istio-proxy", "web"), want: "web"},
		{name: "several sidecars", pod: running("p", "linkerd-proxy", "vault-agent", "web", "queue-proxy"), want: "web"},
		{name: "nothing but sidecars", pod: running("p", "queue-proxy", "istio-proxy"), want: "queue-proxy"},
		{name: "sidecar by name", pod: running("p", "web", "istio-proxy"), named: "istio-proxy", want: "istio-proxy"},
		{name: "annotation", pod: with(running("p", "web", "api"), func(p *corev1.Pod) {
			p.Annotations = map[string]string{defaultContainer: "api"}
		}), want: "api"},
		{name: "annotation names nobody", pod: with(running("p", "web", "api"), func(p *corev1.Pod) {
			p.Annotations = map[string]string{defaultContainer: "gone"}
		}), want: "web", wantNotes: 1},
		{name: "name beats annotation", pod: with(running("p", "web", "api"), func(p *corev1.Pod) {
			p.Annotations = map[string]string{defaultContainer: "api"}
		}), named: "web", want: "web"},
		{name: "sidecar among the init containers", pod: with(running("p", "web"), func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "migrate"}, {Name: "proxy", RestartPolicy: &always}}
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "proxy", Ready: true, ContainerID: "cri-o://id-of-proxy", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		}), named: "proxy", want: "proxy"},
		{name: "init container that is over", pod: with(running("p", "web"), func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "migrate"}}
		}), named: "migrate", wantCode: "container-not-found"},
		{name: "init container that runs", pod: with(running("p", "web"), func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodPending
			p.Spec.InitContainers = []corev1.Container{{Name: "migrate"}}
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "migrate", Ready: true, ContainerID: "cri-o://id-of-migrate", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		}), named: "migrate", want: "migrate"},
		{name: "no such container", pod: running("p", "web", "api"), named: "wep", wantCode: "container-not-found"},
		{name: "telepresence is there", pod: running("p", "web", "traffic-agent"), want: "web", wantNotes: 1},
		{name: "runs but is not ready", pod: with(running("p", "web"), func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0].Ready = false
		}), want: "web", wantNotes: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := &Cluster{namespace: "shop"}
			got, err := cl.choose(&c.pod, reference{kind{name: "pod"}, "p", c.named})
			if c.wantCode != "" {
				expect(t, err, c.wantCode, "pod/p/container/web", "web")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.Container != c.want || got.ContainerID != "id-of-"+c.want {
				t.Errorf("container %q, id %q; want %q", got.Container, got.ContainerID, c.want)
			}
			if len(got.Notes) != c.wantNotes {
				t.Errorf("notes %q, want %d", got.Notes, c.wantNotes)
			}
		})
	}
}

func TestResolve(t *testing.T) {
	now := metav1.Now()
	a := &api{pods: []corev1.Pod{
		running("web-1", "app"),
		with(running("ending", "app"), func(p *corev1.Pod) { p.DeletionTimestamp = &now }),
		with(running("pending", "app"), func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodPending
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/3 nodes are available"}}
		}),
		with(running("done", "app"), func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
		with(running("crashing", "app"), func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off 5m0s"}}
		}),
		running("empty"),
	}}
	c := a.start(t, Options{})
	ctx := context.Background()

	got, err := c.Resolve(ctx, "pod/web-1")
	if err != nil {
		t.Fatal(err)
	}
	want := Target{Namespace: "shop", Pod: "web-1", UID: "uid-of-pod", Node: "node-7", Container: "app", ContainerID: "id-of-app", Runtime: "containerd"}
	if got.String() != "pod/web-1/container/app" || got.Pod != want.Pod || got.UID != want.UID || got.Node != want.Node ||
		got.ContainerID != want.ContainerID || got.Runtime != want.Runtime || got.Namespace != want.Namespace || got.Targetless || len(got.Notes) != 0 {
		t.Errorf("Resolve = %+v, want %+v", got, want)
	}

	for _, f := range []struct {
		target, code string
		texts        []string
	}{
		{"pod/wbe-1", "target-not-found", []string{`no pod "wbe-1"`, `namespace "shop" of context "test"`, "near names: web-1", "-t pod/web-1"}},
		{"pod/zzzzzz", "target-not-found", []string{"kubectl get pods -n shop"}},
		{"pod/ending", "target-ending", []string{"being deleted"}},
		{"pod/pending", "target-not-running", []string{"Pending", "Unschedulable (0/3 nodes are available)", "kubectl describe pod pending -n shop"}},
		{"pod/done", "target-not-running", []string{"Succeeded"}},
		{"pod/crashing", "container-not-running", []string{"CrashLoopBackOff (back-off 5m0s)", "kubectl logs crashing -c app -n shop --previous"}},
		{"pod/empty", "cluster-error", []string{"what answers for pod/empty is no pod", "proxy"}},
		{"pod/web-1/container/ap", "container-not-found", []string{"its containers are app", "-t pod/web-1/container/app"}},
	} {
		t.Run(f.target, func(t *testing.T) {
			_, err := c.Resolve(ctx, f.target)
			expect(t, err, f.code, f.texts...)
		})
	}

	asked := len(a.asked)
	for _, nothing := range []string{"", "targetless"} {
		if got, err := c.Resolve(ctx, nothing); err != nil || !got.Targetless || got.Namespace != "shop" || got.String() != "targetless" {
			t.Errorf("Resolve(%q) = %+v, %v", nothing, got, err)
		}
	}
	if len(a.asked) != asked {
		t.Errorf("a targetless target asked the cluster for %q", a.asked[asked:])
	}
}

func TestResolveInEmptyNamespace(t *testing.T) {
	c := (&api{}).start(t, Options{})
	_, err := c.Resolve(context.Background(), "pod/web-1")
	expect(t, err, "target-not-found", "no pods at all", "-n NAMESPACE")
}

func TestResolveForbidden(t *testing.T) {
	c := (&api{forbid: map[string]bool{"get pods": true}}).start(t, Options{})
	_, err := c.Resolve(context.Background(), "pod/web-1")
	expect(t, err, "forbidden", "you may not get pods", `User "dev" cannot get`, "kubectl auth can-i get pods -n shop")

	// Who may get but not list pods learns all the same that there is none.
	c = (&api{forbid: map[string]bool{"list pods": true}}).start(t, Options{})
	_, err = c.Resolve(context.Background(), "pod/web-1")
	expect(t, err, "target-not-found", `no pod "web-1"`)
}

func TestResolveEndsWithContext(t *testing.T) {
	a := &api{hang: map[string]bool{"get pods": true}}
	c := a.start(t, Options{})
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Resolve(ctx, "pod/web-1"); err != context.DeadlineExceeded {
		t.Errorf("error %v, want %v", err, context.DeadlineExceeded)
	}
}

// Images have /var/run -> /run, and a runtime mounts where that leads.
func TestVolumesBelowVarRun(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", VolumeMounts: []corev1.VolumeMount{
		{MountPath: "/var/run/secrets/app/"}, {MountPath: "/data"}, {MountPath: "/var/running"}}}}}}
	got := volumes(pod, "app")
	if want := []string{"/var/run/secrets/app", "/run/secrets/app", "/data", "/var/running"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
