package kube

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// something is an object of any kind, as the API server tells it. Its UID is
// "uid-of-" and its name.
func something(name string, spec, status map[string]any, change ...func(*metav1.ObjectMeta)) map[string]any {
	meta := metav1.ObjectMeta{Name: name, Namespace: "shop", UID: types.UID("uid-of-" + name)}
	for _, c := range change {
		c(&meta)
	}
	return map[string]any{"metadata": meta, "spec": spec, "status": status}
}

func ownedBy(owner string) func(*metav1.ObjectMeta) {
	return func(m *metav1.ObjectMeta) {
		m.OwnerReferences = []metav1.OwnerReference{{UID: types.UID("uid-of-" + owner), Controller: new(true)}}
	}
}

func annotated(name, value string) func(*metav1.ObjectMeta) {
	return func(m *metav1.ObjectMeta) { m.Annotations = map[string]string{name: value} }
}

func born(minute int) func(*metav1.ObjectMeta) {
	return func(m *metav1.ObjectMeta) {
		m.CreationTimestamp = metav1.NewTime(time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC))
	}
}

// member is a ready pod with label app=LABEL, of owner, started in that minute.
func member(name, app, owner string, minute int, change ...func(*corev1.Pod)) corev1.Pod {
	p := running(name, "app")
	p.Labels = map[string]string{"app": app}
	if owner != "" {
		ownedBy(owner)(&p.ObjectMeta)
	}
	p.Status.StartTime = new(metav1.NewTime(time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC)))
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	for _, c := range change {
		c(&p)
	}
	return p
}

func unready(p *corev1.Pod) {
	p.Status.ContainerStatuses[0].Ready = false
	p.Status.Conditions[0].Status = corev1.ConditionFalse
}

func crashing(p *corev1.Pod) {
	unready(p)
	p.Status.ContainerStatuses[0].RestartCount = 4
	p.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off 5m0s"}}
}

func unschedulable(p *corev1.Pod) {
	p.Status.Phase, p.Status.ContainerStatuses = corev1.PodPending, nil
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/3 nodes are available"}}
}

func ending(p *corev1.Pod) { p.DeletionTimestamp = new(metav1.Now()) }

func labelled(name, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Labels[name] = value }
}

// app selects by the label of member.
func app(value string) map[string]any {
	return map[string]any{"matchLabels": map[string]any{"app": value}}
}

type objects = map[string]map[string]any

func TestResolveWorkload(t *testing.T) {
	spec := func(selector any) map[string]any { return map[string]any{"selector": selector} }
	sets := map[string]any{
		"web-1": something("web-1", nil, nil, ownedBy("web"), annotated(deploymentRevision, "9")),
		"web-2": something("web-2", nil, nil, ownedBy("web"), annotated(deploymentRevision, "10")),
		"other": something("other", spec(app("web")), nil, ownedBy("somebody"), annotated(deploymentRevision, "99")),
		"lone":  something("lone", spec(app("web")), nil),
	}
	deployment := objects{"deployments": {"web": something("web", spec(app("web")), nil)}, "replicasets": sets}
	rollout := func(spec map[string]any) objects {
		return objects{"rollouts": {"web": something("web", spec, nil)}, "replicasets": {
			"web-1": something("web-1", nil, nil, ownedBy("web"), annotated(rolloutRevision, "1")),
			"web-2": something("web-2", nil, nil, ownedBy("web"), annotated(rolloutRevision, "2")),
			"old":   something("old", nil, nil, ownedBy("deployed"), annotated(deploymentRevision, "7")),
		}, "deployments": {"deployed": something("deployed", map[string]any{"selector": app("web"), "replicas": 0}, nil)}}
	}
	cronjob := objects{"cronjobs": {"nightly": something("nightly", nil, nil)}, "jobs": {
		"old":     something("old", spec(app("old")), nil, ownedBy("nightly"), born(1)),
		"new":     something("new", spec(app("new")), nil, ownedBy("nightly"), born(2)),
		"over":    something("over", spec(app("over")), map[string]any{"conditions": []any{map[string]any{"type": "Complete", "status": "True"}}}, ownedBy("nightly"), born(3)),
		"foreign": something("foreign", spec(app("foreign")), nil, born(4)),
	}}
	for _, c := range []struct {
		name   string
		target string
		others objects
		pods   []corev1.Pod
		want   string // the pod
		notes  []string
	}{
		{"the only one", "deployment/web", deployment, []corev1.Pod{member("a", "web", "web-2", 1)}, "a", []string{"deployment/web has one ready pod: pod/a"}},
		{"the oldest of three", "deploy/web", deployment,
			[]corev1.Pod{member("c", "web", "web-2", 3), member("a", "web", "web-2", 2), member("b", "web", "web-2", 1)},
			"b", []string{"deployment/web has 3 ready pods: chose pod/b"}},
		{"the first by name", "deployment/web", deployment, []corev1.Pod{member("b", "web", "web-2", 1), member("a", "web", "web-2", 1)}, "a", nil},
		{"the newest revision, by number", "deployment/web", deployment, []corev1.Pod{member("a", "web", "web-1", 1), member("b", "web", "web-2", 5)}, "b", nil},
		{"an older revision that is ready", "deployment/web", deployment,
			[]corev1.Pod{member("a", "web", "web-1", 1), member("b", "web", "web-2", 5, crashing)},
			"a", []string{"deployment/web has one ready pod: pod/a; its newest revision has none that is ready"}},
		{"ready as a whole", "deployment/web", deployment,
			[]corev1.Pod{member("a", "web", "web-2", 1, func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }), member("b", "web", "web-2", 5)}, "b", nil},
		{"not another workload's pod", "deployment/web", deployment, []corev1.Pod{
			member("a", "web", "other", 1), member("b", "web", "", 1), member("c", "web", "web-2", 9)}, "c", []string{"one ready pod"}},
		{"not one that ends", "deployment/web", deployment, []corev1.Pod{member("a", "web", "web-2", 1, ending), member("b", "web", "web-2", 9)}, "b", []string{"one ready pod"}},
		{"none is ready", "deployment/web", deployment, []corev1.Pod{member("a", "web", "web-2", 1, unready), member("b", "web", "web-2", 0, crashing)}, "a",
			[]string{"deployment/web has no ready pod: chose pod/a, which runs", `container "app" runs but is not ready`}},
		{"one that has the container", "deployment/web/container/debug", deployment, []corev1.Pod{
			member("a", "web", "web-2", 1), member("b", "web", "web-2", 9, func(p *corev1.Pod) {
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "debug"})
				s := p.Status.ContainerStatuses[0]
				s.Name, s.ContainerID = "debug", "containerd://id-of-app"
				p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, s)
			})}, "b", nil},
		{"matchExpressions", "replicaset/lone", objects{"replicasets": {"lone": something("lone", spec(map[string]any{
			"matchExpressions": []any{map[string]any{"key": "app", "operator": "In", "values": []string{"x", "web"}}, map[string]any{"key": "off", "operator": "DoesNotExist"}}}), nil)}},
			[]corev1.Pod{member("a", "other", "lone", 1), member("b", "web", "lone", 2), member("c", "web", "lone", 1, labelled("off", "1"))}, "b", []string{"replicaset/lone has one"}},
		{"replica set", "replicaset/other", objects{"replicasets": sets}, []corev1.Pod{member("a", "web", "lone", 1), member("b", "web", "other", 2)}, "b", nil},
		{"stateful set's newest revision", "statefulset/db", objects{"statefulsets": {"db": something("db", spec(app("db")), map[string]any{"updateRevision": "db-2"})}},
			[]corev1.Pod{member("db-0", "db", "db", 1, labelled(revisionHash, "db-1")), member("db-1", "db", "db", 2, labelled(revisionHash, "db-2"))}, "db-1", nil},
		{"daemon set's newest generation", "daemonset/log", objects{"daemonsets": {"log": something("log", spec(app("log")), nil)}},
			[]corev1.Pod{member("log-a", "log", "log", 1, labelled(daemonGeneration, "9")), member("log-b", "log", "log", 2, labelled(daemonGeneration, "10"))}, "log-b", nil},
		{"service, whoever owns the pods", "service/web", objects{"services": {"web": something("web", spec(map[string]any{"app": "web"}), nil)}},
			[]corev1.Pod{member("a", "web", "x", 2), member("b", "web", "y", 1), member("c", "other", "y", 0)}, "b", []string{"service/web has 2 ready pods"}},
		{"job", "job/migrate", objects{"jobs": {"migrate": something("migrate", spec(app("migrate")), nil)}},
			[]corev1.Pod{member("a", "migrate", "", 1), member("b", "migrate", "migrate", 2)}, "b", nil},
		{"cron job's newest job that runs", "cronjob/nightly", cronjob, []corev1.Pod{
			member("a", "old", "old", 1), member("b", "new", "new", 2), member("c", "over", "over", 3), member("d", "foreign", "foreign", 4)}, "b", nil},
		{"rollout", "rollout/web", rollout(spec(app("web"))), []corev1.Pod{member("a", "web", "web-1", 1), member("b", "web", "web-2", 2), member("c", "web", "old", 0)}, "b",
			[]string{"rollout/web has 2 ready pods"}},
		{"rollout with workloadRef", "rollout/web", rollout(map[string]any{"workloadRef": map[string]any{"kind": "Deployment", "name": "deployed"}}),
			[]corev1.Pod{member("a", "web", "web-1", 1), member("b", "web", "old", 0)}, "a", []string{"rollout/web has one ready pod"}},
		{"labels", "label/app=web,tier=front", nil, []corev1.Pod{member("a", "web", "x", 1), member("b", "web", "", 2, labelled("tier", "front"))}, "b",
			[]string{"label/app=web,tier=front has one ready pod: pod/b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &api{pods: c.pods, others: c.others}
			got, err := a.start(t, Options{}).Resolve(context.Background(), c.target)
			if err != nil {
				t.Fatal(err)
			}
			if got.Pod != c.want {
				t.Errorf("pod %q, want %q; notes %q", got.Pod, c.want, got.Notes)
			}
			for i, n := range c.notes {
				if i >= len(got.Notes) || !strings.Contains(got.Notes[i], n) {
					t.Errorf("notes %q, want %q", got.Notes, c.notes)
				}
			}
			if want, _, _ := strings.Cut(c.target, "/container/"); got.Workload != strings.Replace(want, "deploy/", "deployment/", 1) {
				t.Errorf("workload %q, want %q", got.Workload, want)
			}
		})
	}
}

// TestChoiceIsTheSame: whatever order the pods are listed in.
func TestChoiceIsTheSame(t *testing.T) {
	pods := []corev1.Pod{member("a", "web", "", 3), member("b", "web", "", 3), member("c", "web", "", 1, unready), member("d", "web", "", 4)}
	c := &Cluster{namespace: "shop"}
	r := reference{kind: kind{name: label}, name: "app=web"}
	for range len(pods) {
		pods = append(pods[1:], pods[0])
		got, notes, err := c.pick(&workload{pods: slices.Clone(pods)}, r)
		if err != nil || got.Name != "a" {
			t.Errorf("chose %v (%q, %v), want a", got, notes, err)
		}
	}
}

func TestResolveWorkloadFails(t *testing.T) {
	spec := func(more map[string]any) map[string]any {
		s := map[string]any{"selector": app("web")}
		for k, v := range more {
			s[k] = v
		}
		return s
	}
	set := func(more map[string]any, conditions ...any) objects {
		return objects{"statefulsets": {"web": something("web", spec(more), map[string]any{"conditions": conditions})}}
	}
	for _, c := range []struct {
		name   string
		target string
		api    *api
		code   string
		texts  []string
	}{
		{"scaled to nothing", "statefulset/web", &api{others: set(map[string]any{"replicas": 0})}, "target-not-running",
			[]string{"statefulset/web has no pod that runs", "scaled to 0", "kubectl scale statefulset web --replicas=1 -n shop"}},
		{"no pods, and the reason", "statefulset/web", &api{others: set(map[string]any{"replicas": 2},
			map[string]any{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: q"})}, "target-not-running",
			[]string{"it has no pods", "exceeded quota: q", "kubectl describe statefulset web -n shop"}},
		{"pending", "statefulset/web", &api{others: set(nil), pods: []corev1.Pod{member("web-0", "web", "web", 1, unschedulable)}}, "target-not-running",
			[]string{"pod/web-0 is Pending, Unschedulable (0/3 nodes are available)", "kubectl describe pod web-0 -n shop"}},
		{"crash loop", "statefulset/web", &api{others: set(nil), pods: []corev1.Pod{member("web-0", "web", "web", 1, crashing)}}, "target-not-running",
			[]string{"app: CrashLoopBackOff (back-off 5m0s)", "kubectl logs web-0 -c app -n shop --previous"}},
		{"many", "statefulset/web", &api{others: set(nil), pods: []corev1.Pod{member("web-0", "web", "web", 1, ending), member("web-1", "web", "web", 1, unschedulable),
			member("web-2", "web", "web", 1, crashing), member("web-3", "web", "web", 1, crashing), member("web-4", "web", "web", 1, crashing)}}, "target-not-running",
			[]string{"pod/web-0 is being deleted", "pod/web-2", "and 2 more"}},
		{"no such container", "statefulset/web/container/ap", &api{others: set(nil), pods: []corev1.Pod{member("web-0", "web", "web", 1)}}, "container-not-found",
			[]string{"-t pod/web-0/container/app"}},
		{"job that is over", "job/web", &api{others: objects{"jobs": {"web": something("web", spec(nil), map[string]any{
			"conditions": []any{map[string]any{"type": "Failed", "status": "True"}}})}}}, "target-not-running", []string{"it is over: Failed"}},
		{"suspended job", "job/web", &api{others: objects{"jobs": {"web": something("web", spec(map[string]any{"suspend": true}), nil)}}}, "target-not-running",
			[]string{"it is suspended"}},
		{"cron job between two runs", "cronjob/web", &api{others: objects{"jobs": {}, "cronjobs": {"web": something("web", map[string]any{"schedule": "0 3 * * *"}, nil)}}}, "target-not-running",
			[]string{`no job of it runs now; its schedule is "0 3 * * *"`, "kubectl create job web-now --from=cronjob/web -n shop"}},
		{"service without a selector", "service/db", &api{others: objects{"services": {"db": something("db", nil, nil)}}}, "service-without-pods",
			[]string{"service/db has no pods", "no selector", "kubectl get pods,deployments -n shop"}},
		{"service that is another name", "service/db", &api{others: objects{"services": {"db": something("db", map[string]any{"type": "ExternalName", "externalName": "db.example.com"}, nil)}}},
			"service-without-pods", []string{"another name for db.example.com"}},
		{"labels of nobody", "label/app=nobody", &api{pods: []corev1.Pod{member("a", "web", "", 1)}}, "target-not-found", []string{"no pod has the labels app=nobody", "--show-labels -n shop"}},
		{"rollout of a pod template", "rollout/web", &api{others: objects{"rollouts": {"web": something("web", map[string]any{"workloadRef": map[string]any{"kind": "PodTemplate", "name": "x"}}, nil)}}},
			"target-not-found", []string{"its workloadRef is a PodTemplate"}},
		{"near name", "deployment/wbe", &api{others: objects{"deployments": {"web": something("web", spec(nil), nil)}}}, "target-not-found",
			[]string{`there is no deployment "wbe"`, "near names: web", "-t deployment/web ...", "kubectl get deployments -n shop"}},
		{"none at all", "deployment/web", &api{others: objects{"deployments": {}}}, "target-not-found", []string{"no deployments at all", "kubectl get deployments -A"}},
		{"another kind", "deployment/web", &api{others: set(nil)}, "target-not-found", []string{"but there is statefulset/web", "did you mean: mirrord exec -t statefulset/web ..."}},
		{"several other kinds", "pod/web", &api{others: objects{"statefulsets": {"web": something("web", nil, nil)}, "services": {"web": something("web", nil, nil)}}}, "target-not-found",
			[]string{"but there is statefulset/web, service/web", "-t statefulset/web"}},
		{"no Argo", "rollout/web", &api{}, "target-not-found", []string{"does not know rollouts.argoproj.io"}},
		{"no kind", "web", &api{others: set(nil)}, "target-malformed", []string{"what kind", "has statefulset/web", "did you mean: mirrord exec -t statefulset/web ..."}},
		{"no kind and unknown", "web", &api{}, "target-malformed", []string{"what kind", "-t pod/web"}},
		{"may not get", "deployment/web", &api{forbid: map[string]bool{"get deployments": true}}, "forbidden",
			[]string{"you may not get deployments.apps in namespace \"shop\"", `{apiGroups: ["apps"], resources: ["deployments"], verbs: [get]}`, "kubectl auth can-i get deployments.apps -n shop"}},
		{"may not list replica sets", "deployment/web", &api{others: objects{"deployments": {"web": something("web", spec(nil), nil)}}, forbid: map[string]bool{"list replicasets": true}}, "forbidden",
			[]string{"you may not list replicasets.apps"}},
		{"may not list jobs", "cronjob/web", &api{others: objects{"cronjobs": {"web": something("web", nil, nil)}}, forbid: map[string]bool{"list jobs": true}}, "forbidden", []string{"you may not list jobs.batch"}},
		{"may not list pods", "statefulset/web", &api{others: set(nil), forbid: map[string]bool{"list pods": true}}, "forbidden", []string{"you may not list pods"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.api.start(t, Options{}).Resolve(context.Background(), c.target)
			expect(t, err, c.code, c.texts...)
		})
	}
}

func TestResolveWithoutNamespace(t *testing.T) {
	a := &api{others: objects{"namespaces": {"shopping": something("shopping", nil, nil)}}}
	c := a.start(t, Options{Namespace: "shoppin"})
	_, err := c.Resolve(context.Background(), "pod/web-1")
	expect(t, err, "namespace-not-found", `no namespace "shoppin"`, "-n shopping")
	a.forbid = map[string]bool{"list namespaces": true}
	_, err = c.Resolve(context.Background(), "deployment/web")
	expect(t, err, "namespace-not-found", "kubectl get namespaces")
	a.forbid = map[string]bool{"get namespaces": true}
	_, err = c.Resolve(context.Background(), "pod/web-1")
	expect(t, err, "target-not-found")
}
