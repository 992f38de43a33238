package kube

import (
	"context"
	"errors"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestNeeds(t *testing.T) {
	c := (&api{}).start(t, Options{AgentNamespace: "agents"})
	agent := []string{"create jobs.batch agents", "watch pods agents", "get pods/log agents",
		"get pods/portforward agents", "create pods/portforward agents"}
	for target, want := range map[string][]string{
		"":               nil,
		"pod/x":          {"get pods shop"},
		"label/a=b":      {"list pods shop"},
		"service/x":      {"get services shop", "list pods shop"},
		"statefulset/x":  {"get statefulsets.apps shop", "list pods shop"},
		"deploy/x":       {"get deployments.apps shop", "list replicasets.apps shop", "list pods shop"},
		"rollout/x":      {"get rollouts.argoproj.io shop", "list replicasets.apps shop", "list pods shop"},
		"cronjob/x":      {"get cronjobs.batch shop", "list jobs.batch shop", "list pods shop"},
		"no/such target": {"get pods shop"},
	} {
		var got []string
		for _, p := range c.Needs(target, false) {
			if p.Need == "" {
				got = append(got, p.Verb+" "+p.Resource+" "+p.Namespace)
			}
		}
		if !slices.Equal(got, slices.Concat(want, agent)) {
			t.Errorf("Needs(%q) = %q, want %q", target, got, slices.Concat(want, agent))
		}
	}
}

// Where a workload's pods are not those of agents, watching them is a comfort.
func TestNeedsOfReplicas(t *testing.T) {
	for target, want := range map[string]bool{"deploy/x": true, "label/a=b": true, "pod/x": false, "": false} {
		all := Uses{Target: target, Namespace: "shop", AgentNamespace: "agents"}.Needs()
		got := slices.ContainsFunc(all, func(p Permission) bool {
			return p.Verb == "watch" && p.Resource == "pods" && p.Namespace == "shop" && p.Need != ""
		})
		if got != want {
			t.Errorf("%q: watching pods is asked for: %v, want %v", target, got, want)
		}
	}
}

func TestMay(t *testing.T) {
	a := &api{denied: map[string]bool{"get pods/log shop": true, "create jobs.batch shop": true, "get nodes": true}}
	c := a.start(t, Options{})
	for _, want := range []struct {
		p   Permission
		may bool
	}{
		{Permission{Verb: "get", Resource: "pods", Namespace: "shop"}, true},
		{Permission{Verb: "get", Resource: "pods/log", Namespace: "shop"}, false},
		{Permission{Verb: "create", Resource: "jobs.batch", Namespace: "shop"}, false},
		{Permission{Verb: "create", Resource: "jobs.batch", Namespace: "other"}, true},
		{Permission{Verb: "get", Resource: "nodes"}, false},
	} {
		if got, err := c.May(context.Background(), want.p); err != nil || got != want.may {
			t.Errorf("May(%+v) = %v, %v; want %v", want.p, got, err, want.may)
		}
	}
	a.refuse = map[string]*metav1.Status{"create selfsubjectaccessreviews": status(401, metav1.StatusReasonUnauthorized, "Unauthorized")}
	_, err := c.May(context.Background(), Permission{Verb: "get", Resource: "pods"})
	expect(t, err, "cluster-login", "Unauthorized")
}

func TestVersion(t *testing.T) {
	c := (&api{}).start(t, Options{})
	if got, err := c.Version(context.Background()); err != nil || got != "v1.99.0" {
		t.Errorf("Version = %q, %v", got, err)
	}
}

func TestTryAgent(t *testing.T) {
	psa := map[string]*metav1.Status{"create pods": status(403, metav1.StatusReasonForbidden,
		`pods "mirrord-agent-doctor" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostPID=true)`)}
	noPods := map[string]*metav1.Status{"create pods": status(403, metav1.StatusReasonForbidden,
		`pods is forbidden: User "dev" cannot create resource "pods" in API group "" in the namespace "shop"`)}
	enforce := func(level string) map[string]string {
		return map[string]string{"pod-security.kubernetes.io/enforce": level}
	}
	for _, c := range []struct {
		name     string
		api      *api
		target   *Target
		code     string // of the failure
		untried  bool
		contains string
	}{
		{name: "taken", api: &api{}},
		{name: "may not create jobs", api: &api{forbid: map[string]bool{"create jobs": true}}, code: "forbidden"},
		{name: "pod security", api: &api{refuse: psa}, code: "agent-refused", contains: `violates PodSecurity "baseline:latest": host namespaces (hostPID=true)`},
		{name: "by label: no", api: &api{refuse: noPods, labels: enforce("baseline")}, code: "agent-refused", contains: `enforces the level "baseline"`},
		{name: "by label: yes", api: &api{refuse: noPods, labels: enforce("privileged")}},
		{name: "by label: targetless", api: &api{refuse: noPods, labels: enforce("restricted")}, target: &Target{Targetless: true, Namespace: "shop"}},
		{name: "no label", api: &api{refuse: noPods}, untried: true},
		{name: "label unknown", api: &api{refuse: noPods, forbid: map[string]bool{"get namespaces": true}}, untried: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := c.api.start(t, Options{})
			if c.target == nil {
				c.target = target
			}
			err := cl.TryAgent(context.Background(), c.target, []Feature{FeatureNetwork}, false)
			switch {
			case c.code != "":
				expect(t, err, c.code, c.contains)
			case errors.Is(err, ErrUntried) != c.untried, err != nil && !c.untried:
				t.Errorf("error %v, want untried: %v", err, c.untried)
			}
			if c.api.job != nil {
				t.Error("a Job was made")
			}
		})
	}
}

func TestNodes(t *testing.T) {
	c := (&api{others: objects{"nodes": {"node-8": nodeNamed("node-8", nil)}}}).start(t, Options{})
	all, err := c.Nodes(context.Background())
	if err != nil || len(all) != 2 || all[0].Architecture != "amd64" || all[0].Trouble != "" {
		t.Errorf("Nodes = %+v, %v; want two", all, err)
	}
}
