package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestLs: what is listed as available can be a target, by the path that is
// listed; completion offers the same.
func TestLs(t *testing.T) {
	out, err := asUser(t, w.mirrord, "ls", "-n", w.namespace, "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		Targets []struct {
			Path, Kind string
			Available  bool
			Ports      []int
		} `json:"targets"`
		Namespace  string   `json:"current_namespace"`
		Namespaces []string `json:"namespaces"`
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatal(err)
	}
	if all.Namespace != w.namespace || !slices.Contains(all.Namespaces, w.namespace) {
		t.Errorf("the namespace is %q of %q", all.Namespace, all.Namespaces)
	}
	names, err := asUser(t, w.mirrord, "ls", "-n", w.namespace, "-o", "name")
	if err != nil {
		t.Fatal(err)
	}
	listed := strings.Fields(names)
	for _, want := range []string{"pod/app/container/app", "pod/app/container/side", "pod/echo", "service/echo"} {
		if !slices.Contains(listed, want) {
			t.Errorf("%s is not listed:\n%s", want, names)
		}
		if got := in(t, want, "echo", "runs"); got != "runs" {
			t.Errorf("%s: got %q", want, got)
		}
	}
	some, err := asUser(t, w.mirrord, "ls", "-n", w.namespace, "-t", "service", "-o", "name")
	if err != nil || strings.Contains(some, "pod/") || !strings.Contains(some, "service/echo") {
		t.Errorf("%v: services are\n%s", err, some)
	}
	offered, err := asUser(t, w.mirrord, "__complete", "exec", "-n", w.namespace, "-t", "service/e")
	if err != nil || !strings.HasPrefix(offered, "service/echo\t1/1 ready\n") {
		t.Errorf("%v: completion offers\n%s", err, offered)
	}
	offered, err = asUser(t, w.mirrord, "__complete", "exec", "-n", w.namespace[:len(w.namespace)-1])
	if err != nil || !strings.Contains(offered, w.namespace+"\n") {
		t.Errorf("%v: completion of the namespace offers\n%s", err, offered)
	}
}

// TestLsOfMany: all of a thousand pods are listed, each once.
func TestLsOfMany(t *testing.T) {
	const many = 1000
	namespace, file := w.namespace+"-many", filepath.Join(t.TempDir(), "pods.json")
	var pods []string
	for i := range many { // which no scheduler places, so that they cost nothing
		pods = append(pods, fmt.Sprintf(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "many-%04d"},
			"spec": {"schedulerName": "nobody", "containers": [{"name": "app", "image": "debian:1"}]}}`, i))
	}
	if err := os.WriteFile(file, []byte(`{"apiVersion": "v1", "kind": "List", "items": [`+strings.Join(pods, ",")+"]}"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), runTime)
	defer cancel()
	if _, err := w.cluster.Kubectl(ctx, "create", "namespace", namespace); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := w.cluster.Kubectl(ctx, "delete", "namespace", namespace, "--wait=false"); err != nil {
			t.Error(err)
		}
	})
	if _, err := w.cluster.Kubectl(ctx, "create", "-n", namespace, "-f", file); err != nil {
		t.Fatal(err)
	}
	out, err := asUser(t, w.mirrord, "ls", "-n", namespace, "--all", "-o", "name")
	if err != nil {
		t.Fatal(err)
	}
	listed := strings.Fields(out)
	if n := len(slices.Compact(slices.Sorted(slices.Values(listed)))); n != many || len(listed) != many {
		t.Errorf("%d lines name %d pods, want %d", len(listed), n, many)
	}
}
