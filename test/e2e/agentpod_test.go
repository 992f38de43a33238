package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAgentPod: the agent's pod has in the cluster what the configuration says,
// and does its work. What the cluster itself refuses is told in its words.
func TestAgentPod(t *testing.T) {
	class := fmt.Sprintf("agents-%d", time.Now().UnixNano())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := w.cluster.Apply(ctx, w.namespace, fmt.Sprintf(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: agents}
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: %s}
value: -5
`, class))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := w.cluster.Kubectl(ctx, "-n", w.namespace, "delete", "serviceaccount/agents", "priorityclass/"+class); err != nil {
			t.Error(err)
		}
	})
	file := func(agent map[string]any) string {
		text, err := json.Marshal(map[string]any{"agent": agent})
		if err == nil {
			path := filepath.Join(ownDir(t, "agentpod"), "mirrord.json")
			if err = os.WriteFile(path, text, 0o644); err == nil {
				return path
			}
		}
		t.Fatal(err)
		return ""
	}
	const ready = "from-agent"
	r := start(t, "-t", "pod/app", "-f", file(map[string]any{
		"labels": map[string]string{"team": "shop"}, "annotations": map[string]string{"example.com/owner": "ana"},
		"service_account": "agents", "priority_class": class, "image_pull_secrets": []any{map[string]string{"name": "none-needed"}},
		"tolerations": []any{map[string]any{"key": "dedicated", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}},
		"resources":   map[string]any{"requests": map[string]any{"cpu": "2m"}, "limits": map[string]any{"cpu": 1, "memory": "256Mi"}},
		"privileged":  true, "disable_mesh_sidecar_injection": false,
	}), "sh", "-c", "echo "+ready+" $COLOR; cat")
	r.waitFor(ready + " blue")
	const fields = `{.metadata.labels.team} {.metadata.annotations.example\.com/owner} {.spec.serviceAccountName} {.spec.priority} ` +
		`{.spec.imagePullSecrets[0].name} {.spec.tolerations[0].key} {.spec.containers[0].resources.requests.cpu} {.spec.containers[0].resources.limits.memory} ` +
		`{.spec.containers[0].securityContext.privileged} {.metadata.labels.istio\.io/dataplane-mode}`
	got := kubectl(t, "get", "pods", "-l", "app.kubernetes.io/name=mirrord-agent,team=shop", "-o", "jsonpath={range .items[*]}"+fields+"{end}")
	if want := "shop ana agents -5 none-needed dedicated 2m 256Mi true"; got != want {
		t.Errorf("the agent's pod has\n%s, want\n%s", got, want)
	}
	if code := r.end(); code != 0 {
		t.Errorf("exit code %d, stderr:\n%s", code, r.stderr)
	}
	for _, c := range []struct {
		name  string
		agent map[string]any
		says  string
	}{
		{"a label that is none", map[string]any{"labels": map[string]string{"team": "not a label"}}, "not a label"},
		{"no such account", map[string]any{"service_account": "nobody-there"}, "nobody-there"},
		{"no such class", map[string]any{"priority_class": "nobody-there"}, "nobody-there"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, "-t", "pod/app", "-f", file(c.agent), "true")
			if code := r.end(); code == 0 {
				t.Error("it runs")
			}
			if !strings.Contains(r.stderr.String(), c.says) {
				t.Errorf("it does not say %q", c.says)
			}
		})
	}
}
