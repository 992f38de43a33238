package kube

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestMesh(t *testing.T) {
	with := func(containers ...string) *corev1.Pod {
		p := &corev1.Pod{}
		for _, name := range containers {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: name})
		}
		return p
	}
	native := with("app")
	native.Spec.InitContainers = []corev1.Container{{Name: "istio-proxy", RestartPolicy: new(corev1.ContainerRestartPolicyAlways)}}
	redirected := with("app")
	redirected.ObjectMeta = metav1.ObjectMeta{Annotations: map[string]string{ambient: "enabled"}}
	left := with("app")
	left.ObjectMeta = metav1.ObjectMeta{Annotations: map[string]string{ambient: "disabled"}}
	for _, c := range []struct {
		name string
		pod  *corev1.Pod
		want string
	}{
		{"none", with("app", "side"), ""},
		{"not known", nil, ""},
		{"Istio", with("istio-proxy", "app"), "Istio"},
		{"Istio as an init container", native, "Istio"},
		{"Istio's ambient", redirected, "Istio (ambient)"},
		{"Istio's ambient leaves it alone", left, ""},
		{"Linkerd", with("app", "linkerd-proxy"), "Linkerd"},
		{"Kuma", with("kuma-sidecar", "app"), "Kuma"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := (&Target{pod: c.pod}).Mesh(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestCiliumIsSeen(t *testing.T) {
	network := func(reason string) *corev1.Node {
		return &corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, Reason: reason}}}}
	}
	for reason, want := range map[string]bool{"CiliumIsUp": true, "CalicoIsUp": false} {
		if got := byCilium(network(reason)); got != want {
			t.Errorf("%s: got %v, want %v", reason, got, want)
		}
	}
}

// Beside a mesh's proxy the agent does without what its mirroring takes there, if
// the cluster has it so.
func TestAgentIsRefusedInMesh(t *testing.T) {
	meshed := *target
	meshed.pod = &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "istio-proxy"}, {Name: "app"}}}}
	for _, c := range []struct {
		name     string
		refuses  string // a capability
		features []Feature
		asked    int    // how often an agent was
		lost     string // empty: nothing
		code     string // of the failure
	}{
		{"taken", "BPF", []Feature{FeatureMirror}, 1, "", ""},
		{"without", "NET_ADMIN", []Feature{FeatureMirror}, 2, `no NET_ADMIN here`, ""},
		{"not that", "NET_RAW", []Feature{FeatureMirror}, 2, "", "agent-refused"},
		{"stealing takes it", "NET_ADMIN", []Feature{FeatureMirror, FeatureSteal}, 1, "", "agent-refused"},
		{"no mirroring", "SYS_ADMIN", []Feature{FeatureNetwork}, 1, "", "agent-refused"},
	} {
		refuses := func(a *api, w http.ResponseWriter, r *http.Request, key string) bool {
			if key != "create jobs" && key != "create pods" {
				return false
			}
			b, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(b))
			if !bytes.Contains(b, []byte(`"`+c.refuses+`"`)) {
				return false
			}
			a.fail(w, 403, metav1.StatusReasonForbidden, `admission webhook "policy.example" denied the request: no `+c.refuses+` here`)
			return true
		}
		t.Run(c.name, func(t *testing.T) {
			a := &api{agent: []corev1.Pod{agentRuns()}, log: readyLog, own: refuses}
			agent, err := a.start(t, Options{}).StartAgent(t.Context(), &meshed, AgentSpec{Session: "s1", PublicKey: "KEY", Features: c.features}, nil)
			if c.code != "" {
				expect(t, err, c.code, "no "+c.refuses+" here")
			} else if err != nil {
				t.Fatal(err)
			} else if got := strings.Join(agent.Lost, ""); (got == "") != (c.lost == "") || !strings.Contains(got, c.lost) {
				t.Errorf("lost %q, want %q", got, c.lost)
			}
			if n := a.count("create jobs"); n != c.asked {
				t.Errorf("asked for an agent %d times, want %d", n, c.asked)
			}
		})
		t.Run(c.name+", rehearsed", func(t *testing.T) {
			a := &api{own: refuses}
			if err := a.start(t, Options{}).TryAgent(t.Context(), &meshed, c.features, false); (err == nil) != (c.code == "") {
				t.Errorf("a rehearsal: %v", err)
			}
		})
	}
}
