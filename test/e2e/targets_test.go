package e2e

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// targets puts one of each kind of target into a namespace of the test's own.
func targets(t *testing.T) (namespace string) {
	t.Helper()
	namespace = w.cluster.Namespace(t)
	applied(t, namespace, "targets.yaml")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	kube := func(args ...string) string {
		t.Helper()
		out, err := w.cluster.Kubectl(ctx, append([]string{"-n", namespace}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	rollouts(t, ctx, namespace, kube)
	kube("create", "job", "nightly-1", "--from=cronjob/nightly")
	for _, w := range []string{"deployment/web", "statefulset/db", "daemonset/log"} {
		kube("rollout", "status", w, "--timeout=110s")
	}
	for _, selector := range []string{"app=web", "app=lone", "app=rolled", "job-name=migrate", "job-name=nightly-1"} {
		kube("wait", "--for=condition=Ready", "pod", "-l", selector, "--timeout=110s")
	}
	kube("wait", "--for=condition=Ready", "pod/probed", "--timeout=110s")
	return namespace
}

// rolloutKind is as much of Argo's custom resource as a cluster needs to keep
// them. Its controller is played by the test.
const rolloutKind = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: rollouts.argoproj.io}
spec:
  group: argoproj.io
  scope: Namespaced
  names: {plural: rollouts, singular: rollout, kind: Rollout, listKind: RolloutList}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

// rollouts makes two rollouts with one replica set: "rolled" has a selector,
// "referring" the one of a deployment.
func rollouts(t *testing.T, ctx context.Context, namespace string, kube func(...string) string) {
	t.Helper()
	if _, err := w.cluster.Kubectl(ctx, "get", "crd", "rollouts.argoproj.io"); err != nil {
		if err := w.cluster.Apply(ctx, namespace, rolloutKind); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			if _, err := w.cluster.Kubectl(ctx, "delete", "crd", "rollouts.argoproj.io", "--wait=false"); err != nil {
				t.Error(err)
			}
		})
		kube("wait", "--for=condition=Established", "crd/rollouts.argoproj.io", "--timeout=30s")
	}
	for name, spec := range map[string]string{
		"rolled":    `selector: {matchLabels: {app: rolled}}`,
		"referring": `workloadRef: {apiVersion: apps/v1, kind: Deployment, name: idle}`,
	} {
		err := w.cluster.Apply(ctx, namespace, fmt.Sprintf("apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: %s}\nspec: {%s}\n", name, spec))
		if err != nil {
			t.Fatal(err)
		}
		app := map[string]string{"rolled": "rolled", "referring": "idle"}[name]
		uid := kube("get", "rollouts.argoproj.io", name, "-o", "jsonpath={.metadata.uid}")
		err = w.cluster.Apply(ctx, namespace, fmt.Sprintf(`
apiVersion: apps/v1
kind: ReplicaSet
metadata:
  name: %[1]s-1
  labels: {app: %[2]s}
  annotations: {rollout.argoproj.io/revision: "1"}
  ownerReferences: [{apiVersion: argoproj.io/v1alpha1, kind: Rollout, name: %[1]s, uid: %[3]s, controller: true}]
spec:
  selector: {matchLabels: {app: %[2]s, set: %[1]s}}
  template:
    metadata: {labels: {app: %[2]s, set: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: app, image: "debian:1", command: [sleep, infinity]}]
`, name, app, uid))
		if err != nil {
			t.Fatal(err)
		}
		kube("wait", "--for=jsonpath={.status.readyReplicas}=1", "replicaset/"+name+"-1", "--timeout=110s")
	}
}

// at runs "mirrord exec" in a namespace and gives what it printed, when its
// agent is gone.
func at(t *testing.T, namespace string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	r := startCommand(t, append([]string{w.mirrord, "exec", "-n", namespace}, args...), nil)
	code = r.end()
	nothingIn(t, namespace)
	return strings.TrimSpace(r.stdout.String()), r.stderr.String(), code
}

func TestTargets(t *testing.T) {
	namespace := targets(t)
	for _, c := range []struct {
		target string
		pod    string // what hostname must print, as a pattern
		said   string // on stderr
	}{
		{"deployment/web", `web-[a-z0-9]+-[a-z0-9]+`, "deployment/web has 2 ready pods: chose pod/web-"},
		{"deploy/web", `web-[a-z0-9]+-[a-z0-9]+`, "deployment/web has 2 ready pods"},
		{"replicaset/lone", `lone-[a-z0-9]+`, "replicaset/lone has one ready pod: pod/lone-"},
		{"statefulset/db", `db-0`, "statefulset/db has one ready pod: pod/db-0"},
		{"daemonset/log", `log-[a-z0-9]+`, "daemonset/log has 2 ready pods"},
		{"service/back", `db-0`, "service/back has one ready pod: pod/db-0"},
		{"job/migrate", `migrate-[a-z0-9]+`, "job/migrate has one ready pod"},
		{"cronjob/nightly", `nightly-1-[a-z0-9]+`, "cronjob/nightly has one ready pod"},
		{"rollout/rolled", `rolled-1-[a-z0-9]+`, "rollout/rolled has one ready pod"},
		{"rollout/referring", `referring-1-[a-z0-9]+`, "rollout/referring has one ready pod"},
		{"label/tier=back,app=db", `db-0`, "label/tier=back,app=db has one ready pod"},
		{"label/app=web", `a-stray|web-.*`, "label/app=web has 3 ready pods"},
		{"pod/a-stray", `a-stray`, ""},
	} {
		t.Run(strings.ReplaceAll(c.target, "/", " "), func(t *testing.T) {
			stdout, stderr, code := at(t, namespace, "-t", c.target, "hostname")
			if code != 0 || !regexp.MustCompile("^("+c.pod+")$").MatchString(stdout) || !strings.Contains(stderr, c.said) {
				t.Errorf("exit code %d, stdout %q, want %s; stderr, want %q:\n%s", code, stdout, c.pod, c.said, stderr)
			}
		})
	}
	t.Run("containers", func(t *testing.T) {
		for target, want := range map[string]string{"deployment/web": "app", "deployment/web/container/second": "second", "deployment/web/container/istio-proxy": "sidecar"} {
			stdout, stderr, code := at(t, namespace, "-t", target, "sh", "-c", "echo $ROLE")
			if code != 0 || stdout != want {
				t.Errorf("%s: exit code %d, stdout %q, want %q; stderr:\n%s", target, code, stdout, want, stderr)
			}
			if ambiguous := strings.Contains(stderr, `pod has 2 containers (app, second): chose "app"`); ambiguous != (want == "app") {
				t.Errorf("%s: the choice was told: %v; stderr:\n%s", target, ambiguous, stderr)
			}
		}
	})
	t.Run("gRPC probe", func(t *testing.T) {
		for steal, want := range map[string]bool{"--steal": true, "-q": false} {
			_, stderr, code := at(t, namespace, "-t", "pod/probed", steal, "true")
			if code != 0 || strings.Contains(stderr, "gRPC probes on port 9000") != want {
				t.Errorf("%s: exit code %d, stderr, want a warning %v:\n%s", steal, code, want, stderr)
			}
		}
	})
}

// Nothing is started for a target that cannot be, and it is said at once why.
func TestTargetsThatCannotBe(t *testing.T) {
	namespace := w.cluster.Namespace(t)
	applied(t, namespace, "targets.yaml")
	for _, c := range []struct {
		target string
		want   []string
	}{
		{"deployment/wbe", []string{"target-not-found", "near names: web", "-t deployment/web"}},
		{"deployment/db", []string{"target-not-found", "but there is statefulset/db", "-t statefulset/db"}},
		{"deployment/idle", []string{"target-not-running", "scaled to 0 replicas", "kubectl scale deployment idle --replicas=1 -n " + namespace}},
		{"cronjob/nightly", []string{"target-not-running", "no job of it runs now", "kubectl create job nightly-now --from=cronjob/nightly"}},
		{"service/elsewhere", []string{"service-without-pods", "another name for db.example.com"}},
		{"label/app=nobody", []string{"target-not-found", "no pod has the labels"}},
	} {
		t.Run(strings.ReplaceAll(c.target, "/", " "), func(t *testing.T) {
			begin := time.Now()
			_, stderr, code := at(t, namespace, "-t", c.target, "true")
			if took := time.Since(begin); code != 1 || took > 5*time.Second {
				t.Errorf("exit code %d after %v", code, took)
			}
			for _, text := range c.want {
				if !strings.Contains(stderr, text) {
					t.Errorf("stderr does not say %q:\n%s", text, stderr)
				}
			}
		})
	}
	_, stderr, code := at(t, namespace+"-not", "-t", "deployment/web", "true")
	if code != 1 || !strings.Contains(stderr, "namespace-not-found") || !strings.Contains(stderr, "-n "+namespace) {
		t.Errorf("in a namespace that is not there: exit code %d, stderr:\n%s", code, stderr)
	}
}
