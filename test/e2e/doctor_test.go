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

// examine runs "mirrord doctor" with another kubeconfig, if one is named.
func examine(t *testing.T, kubeconfig string, args ...string) (stdout string, code int) {
	t.Helper()
	if kubeconfig != "" {
		args = append([]string{"--kubeconfig", kubeconfig}, args...)
	}
	r := startCommand(t, append([]string{w.mirrord, "doctor"}, args...), nil)
	code = r.end()
	if got := r.stderr.String(); got != "" {
		t.Errorf("doctor writes to stderr: %s", got)
	}
	return r.stdout.String(), code
}

func TestDoctor(t *testing.T) {
	out, code := examine(t, "", "-n", w.namespace, "-t", "pod/app")
	if code != 0 || strings.Contains(out, "✗") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	for _, want := range []string{"✓ user namespaces", "✓ /dev/net/tun", "✓ /dev/fuse", "✓ nftables", "✓ API server", "✓ may get, create pods/portforward",
		"✓ target: pod/app/container/app on node node-", "✓ node", "✓ agent allowed", "✓ agent's image: ghcr.io/"} {
		if !strings.Contains(out, want) {
			t.Errorf("no line %q in:\n%s", want, out)
		}
	}
	out, code = examine(t, "", "-n", w.namespace, "--json")
	var report struct {
		OK     bool
		Checks []struct{ Area, Name, State string }
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != 0 || !report.OK || len(report.Checks) < 15 {
		t.Errorf("exit code %d, %v, report %+v", code, err, report)
	}
}

// member gives a kubeconfig of a user who has the permissions of docs/errors.md
// in namespace, except for what cut takes out of the role.
func member(t *testing.T, namespace string, cut func(role string) string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	text, err := os.ReadFile("../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	_, role, ok := strings.Cut(string(text), "    kind: Role\n")
	if !ok {
		t.Fatal("docs/errors.md has no role")
	}
	role, _, _ = strings.Cut(role, "\n\n")
	role = strings.ReplaceAll("kind: Role\n"+role, "\n    ", "\n")
	err = w.cluster.Apply(ctx, namespace, cut(role)+`
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: dev}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: dev}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: mirrord}
subjects: [{kind: ServiceAccount, name: dev, namespace: `+namespace+`}]
`)
	if err != nil {
		t.Fatal(err)
	}
	token, err := w.cluster.Kubectl(ctx, "create", "token", "dev", "-n", namespace)
	if err != nil {
		t.Fatal(err)
	}
	server, err := w.cluster.Kubectl(ctx, "config", "view", "--raw", "--minify", "-o", "jsonpath={.clusters[0].cluster.server} {.clusters[0].cluster.certificate-authority-data}")
	if err != nil {
		t.Fatal(err)
	}
	address, authority, _ := strings.Cut(strings.TrimSpace(server), " ")
	path := filepath.Join(t.TempDir(), "kubeconfig")
	config := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "dev", "clusters": [{"name": "c", "cluster": {"server": %q, "certificate-authority-data": %q}}],
		"users": [{"name": "dev", "user": {"token": %q}}], "contexts": [{"name": "dev", "context": {"cluster": "c", "user": "dev", "namespace": %q}}]}`,
		address, authority, strings.TrimSpace(token), namespace)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for p := path; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		if err := os.Chown(p, user, user); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// one is a namespace with one pod that can be a target.
func one(t *testing.T) string {
	t.Helper()
	namespace := w.cluster.Namespace(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := w.cluster.Apply(ctx, namespace, `
apiVersion: v1
kind: Pod
metadata: {name: app}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: app, image: "debian:1", command: [sleep, infinity]}]
`)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.cluster.WaitReady(ctx, namespace, "pod/app"); err != nil {
		t.Fatal(err)
	}
	return namespace
}

// The role in the documents is enough, and doctor and exec agree about what is
// missing from a smaller one.
func TestRoleOfTheDocuments(t *testing.T) {
	namespace := one(t)
	kubeconfig := member(t, namespace, func(role string) string { return role })
	if out, code := examine(t, kubeconfig, "-t", "pod/app"); code != 0 {
		t.Errorf("doctor with the whole role: exit code %d:\n%s", code, out)
	}
	stdout, stderr, code := at(t, namespace, "--kubeconfig", kubeconfig, "-t", "pod/app", "hostname")
	if code != 0 || stdout != "app" {
		t.Errorf("exec with the whole role: exit code %d, stdout %q, stderr:\n%s", code, stdout, stderr)
	}
	for _, c := range []struct {
		name, rule string   // taken out
		want       []string // said by both
	}{
		{"port-forward", "- {apiGroups: [\"\"], resources: [pods/portforward], verbs: [get, create]}", []string{"you may not", "create pods/portforward",
			`{apiGroups: [""], resources: ["pods/portforward"], verbs: [`, "create]}", "--subresource=portforward -n " + namespace}},
		{"log", "- {apiGroups: [\"\"], resources: [pods/log], verbs: [get]}", []string{"you may not get pods/log", `{apiGroups: [""], resources: ["pods/log"], verbs: [get]}`}},
		{"jobs", "- {apiGroups: [batch], resources: [jobs], verbs: [get, list, watch, create, delete]}", []string{"you may not create", "jobs.batch"}},
		{"pods", "- {apiGroups: [\"\"], resources: [pods], verbs: [get, list, watch]}", []string{"you may not get pods"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			kubeconfig := member(t, namespace, func(role string) string {
				smaller := strings.Replace(role, c.rule, "", 1)
				if smaller == role {
					t.Fatalf("the role has no rule %s:\n%s", c.rule, role)
				}
				return smaller
			})
			out, code := examine(t, kubeconfig, "-t", "pod/app")
			_, stderr, execCode := at(t, namespace, "--kubeconfig", kubeconfig, "-t", "pod/app", "true")
			if code != 1 || execCode != 1 {
				t.Errorf("exit codes %d and %d, want 1", code, execCode)
			}
			for _, text := range append(c.want, "(forbidden, see docs/errors.md)") {
				if !strings.Contains(out, text) {
					t.Errorf("doctor does not say %q:\n%s", text, out)
				}
				if !strings.Contains(stderr, text) {
					t.Errorf("exec does not say %q:\n%s", text, stderr)
				}
			}
		})
	}
}

// nothingIn waits until no agent is in a namespace.
func nothingIn(t *testing.T, namespace string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), removedWithin)
	defer cancel()
	for {
		out, err := w.cluster.Kubectl(ctx, "get", "jobs,pods", "-n", namespace, "-l", "app.kubernetes.io/name=mirrord-agent", "-o", "name")
		if err == nil && strings.TrimSpace(out) == "" {
			return
		}
		if ctx.Err() != nil {
			t.Errorf("there is still: %s %v", out, err)
			return
		}
	}
}

// What the cluster itself says against an agent reaches the user word by word,
// from both, within seconds.
func TestRefusedByTheCluster(t *testing.T) {
	for _, c := range []struct {
		name, policy string // of the namespace
		want         []string
	}{
		{"Pod Security", "apiVersion: v1\nkind: Namespace\nmetadata: {name: NAMESPACE, labels: {pod-security.kubernetes.io/enforce: baseline}}",
			[]string{`violates PodSecurity "baseline:latest": `, "host namespaces (hostPID=true)", "--agent-namespace NAMESPACE", "mirrord exec -e"}},
		{"quota", "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: one-pod, namespace: NAMESPACE}\nspec: {hard: {pods: \"1\"}}",
			[]string{"exceeded quota: one-pod, requested: pods=1, used: pods=1, limited: pods=1", "kubectl describe quota -n "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			namespace := one(t)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if err := w.cluster.Apply(ctx, namespace, strings.ReplaceAll(c.policy, "NAMESPACE", namespace)); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(c.policy, "Quota") { // its controller counts
				if _, err := w.cluster.Kubectl(ctx, "wait", "--for=jsonpath={.status.used.pods}=1", "resourcequota/one-pod", "-n", namespace, "--timeout=20s"); err != nil {
					t.Fatal(err)
				}
			}
			out, code := examine(t, "", "-n", namespace, "-t", "pod/app")
			begin := time.Now()
			_, stderr, execCode := at(t, namespace, "-t", "pod/app", "true")
			if took := time.Since(begin); code != 1 || execCode != 1 || took > 5*time.Second {
				t.Errorf("exit codes %d and %d, want 1; exec took %v", code, execCode, took)
			}
			for _, text := range append(c.want, "(agent-refused, see docs/errors.md)") {
				if !strings.Contains(out, text) {
					t.Errorf("doctor does not say %q:\n%s", text, out)
				}
				if !strings.Contains(stderr, text) {
					t.Errorf("exec does not say %q:\n%s", text, stderr)
				}
			}
			// A session without target needs none of that, but still a pod.
			if c.name == "Pod Security" {
				if _, stderr, code := at(t, namespace, "true"); code != 0 {
					t.Errorf("without a target: exit code %d, stderr:\n%s", code, stderr)
				}
			}
		})
	}
}
