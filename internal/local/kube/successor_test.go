package kube

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mirrord-go/mirrord/internal/failure"
)

func TestRenewal(t *testing.T) {
	pod := func(owner string, restart corev1.RestartPolicy) *corev1.Pod {
		p := &corev1.Pod{Spec: corev1.PodSpec{RestartPolicy: restart}}
		if owner != "" {
			p.OwnerReferences = []metav1.OwnerReference{{Kind: owner, Name: "x", Controller: new(true)}}
		}
		return p
	}
	for _, c := range []struct {
		target               string
		pod                  *corev1.Pod
		recreated, restarted bool
	}{
		{"pod/x", pod("", corev1.RestartPolicyNever), false, false},
		{"pod/x", pod("", corev1.RestartPolicyAlways), false, true},
		{"pod/x", pod("ReplicaSet", corev1.RestartPolicyAlways), false, true},
		{"pod/x-0", pod("StatefulSet", corev1.RestartPolicyAlways), true, true},
		{"deployment/x", pod("ReplicaSet", corev1.RestartPolicyAlways), true, true},
		{"service/x", pod("", corev1.RestartPolicyAlways), true, true},
		{"job/x", pod("Job", corev1.RestartPolicyOnFailure), false, true},
		{"job/x", pod("Job", corev1.RestartPolicyNever), false, false},
	} {
		r, err := parse(c.target)
		if err != nil {
			t.Fatal(err)
		}
		if recreated, restarted := renewal(c.pod, r); recreated != c.recreated || restarted != c.restarted {
			t.Errorf("%s of %v: got %v, %v, want %v, %v", c.target, c.pod.OwnerReferences, recreated, restarted, c.recreated, c.restarted)
		}
	}
}

func TestEnds(t *testing.T) {
	target := &Target{UID: "u", Container: "app", ContainerID: "c1"}
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		want   bool
	}{
		"runs":            {func(*corev1.Pod) {}, false},
		"another pod":     {func(p *corev1.Pod) { p.UID = "v" }, true},
		"deleted":         {func(p *corev1.Pod) { p.DeletionTimestamp = new(metav1.Now()) }, true},
		"evicted":         {func(p *corev1.Pod) { p.Status.Phase, p.Status.Reason = corev1.PodFailed, "Evicted" }, true},
		"restarted":       {func(p *corev1.Pod) { p.Status.ContainerStatuses[0].ContainerID = "containerd://c2" }, true},
		"has crashed":     {func(p *corev1.Pod) { p.Status.ContainerStatuses[0].State = corev1.ContainerState{} }, true},
		"nothing is told": {func(p *corev1.Pod) { p.Status.ContainerStatuses = nil }, true},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{
			{Name: "app", ContainerID: "containerd://c1", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
			{Name: "sidecar", ContainerID: "containerd://c0"},
		}}}
		c.change(pod)
		if got := ends(pod, target); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestFinal(t *testing.T) {
	bare := &Target{Workload: "pod/x"}
	restarted := &Target{Workload: "pod/x", Restarted: true}
	stateful := &Target{Workload: "pod/x-0", Recreated: true, Restarted: true}
	deployment := &Target{Workload: "deployment/x", Recreated: true, Restarted: true}
	labelled := &Target{Workload: "label/app=x", Recreated: true, Restarted: true}
	for _, c := range []struct {
		code string
		old  *Target
		want bool
	}{
		{"target-not-found", bare, true},
		{"target-not-found", restarted, true},
		{"target-not-found", stateful, false},
		{"target-not-found", deployment, true},
		{"target-not-found", labelled, false},
		{"target-ending", restarted, true},
		{"target-ending", stateful, false},
		{"target-not-running", bare, true},
		{"target-not-running", deployment, false},
		{"container-not-running", restarted, false},
		{"container-not-running", bare, true},
		{"forbidden", deployment, true},
		{"cluster-unreachable", bare, false},
	} {
		if got := final(&failure.Error{Code: c.code}, c.old); got != c.want {
			t.Errorf("%s of %s: got %v, want %v", c.code, c.old.Workload, got, c.want)
		}
	}
	if final(errors.New("any other"), bare) {
		t.Error("an error without a code is final")
	}
}
