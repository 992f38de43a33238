package kube

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		target                string
		kind, name, container string
		do                    string // of the failure
	}{
		{target: "pod/web-1", kind: "pod", name: "web-1"},
		{target: "pod/web-1/container/app", kind: "pod", name: "web-1", container: "app"},
		{target: "deployment/web", kind: "deployment", name: "web"},
		{target: "deploy/web/container/app", kind: "deployment", name: "web", container: "app"},
		{target: "replicaset/web-7d4", kind: "replicaset", name: "web-7d4"},
		{target: "statefulset/db", kind: "statefulset", name: "db"},
		{target: "daemonset/log", kind: "daemonset", name: "log"},
		{target: "service/web", kind: "service", name: "web"},
		{target: "job/migrate", kind: "job", name: "migrate"},
		{target: "cronjob/web/container/x", kind: "cronjob", name: "web", container: "x"},
		{target: "rollout/web", kind: "rollout", name: "web"},
		{target: "rollout/container/container/container", kind: "rollout", name: "container", container: "container"},
		{target: "label/app=x", kind: "label", name: "app=x"},
		{target: "label/app=x,tier=front/container/c", kind: "label", name: "app=x,tier=front", container: "c"},
		{target: "label/app.kubernetes.io/name=x", kind: "label", name: "app.kubernetes.io/name=x"},
		{target: "label/a=b,example.com/container=x/container/c", kind: "label", name: "a=b,example.com/container=x", container: "c"},
		{target: "label/container/x=1", kind: "label", name: "container/x=1"},
		{target: "web-1", do: "-t pod/web-1 ..."},
		{target: "pod", do: "-t pod/NAME"},
		{target: "deploy", do: "-t deploy/NAME"},
		{target: "pod/"},
		{target: "/web"},
		{target: "Pod/web"},
		{target: "node/x"},
		{target: "pod/.."},
		{target: "pod/a%2fb"},
		{target: "pod/web/app", do: "-t pod/web/container/app ..."},
		{target: "pod/web/containers/app"},
		{target: "pod/web/container/app/x"},
		{target: "pod/web/container/"},
		{target: "label"},
		{target: "label/", do: "--show-labels"},
		{target: "label/app", do: "-t label/app=web"},
		{target: "label/app="},
		{target: "label/app=x,"},
		{target: "label/app=x/container/"},
		{target: "label/app=x y"},
		{target: "label/a/b/c=x"},
	} {
		got, err := parse(c.target)
		if c.kind != "" {
			if err != nil || got.kind.name != c.kind || got.name != c.name || got.container != c.container {
				t.Errorf("parse(%q) = %+v, %v; want %s, %s, %s", c.target, got, err, c.kind, c.name, c.container)
			}
			continue
		}
		if f := expect(t, err, "target-malformed", c.do); f.ExitCode() != 2 {
			t.Errorf("parse(%q): exit code %d, want 2", c.target, f.ExitCode())
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"pod/a", "pod/a/container/b", "deploy/x", "a", "", "////", "label/a=b,c/d=e/container/f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		r, err := parse(target)
		if err != nil {
			return
		}
		if k, ok := kindOf(r.kind.name); !ok || k != r.kind || r.name == "" || strings.Contains(r.container, "/") ||
			r.kind.name != label && strings.Contains(r.name, "/") {
			t.Errorf("parse(%q) = %+v", target, r)
		}
	})
}
