package kube

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/mirrord-go/mirrord/internal/failure"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestJob(t *testing.T) {
	target := &Target{Namespace: "shop", Pod: "web-1", UID: "u", Node: "node-7", Container: "app", ContainerID: "0123abcd", Runtime: "containerd"}
	for _, c := range []struct {
		golden string
		target *Target
		pod    Pod
		spec   AgentSpec
	}{
		{"job", target, Pod{}, AgentSpec{Session: "s1", PublicKey: "KEY+/=", User: "ana@laptop", Features: []Feature{FeatureNetwork, FeatureFiles, FeatureMirror}}},
		{"job-targetless", &Target{Targetless: true, Namespace: "shop"}, Pod{NodeSelector: map[string]string{"pool": "tools"}}, AgentSpec{Session: "s1", PublicKey: "KEY+/="}},
		{"job-pod", target, Pod{
			Labels: map[string]string{"team": "shop"}, Annotations: map[string]string{"linkerd.io/inject": "enabled"}, ServiceAccount: "agents", PriorityClass: "low",
			PullSecrets: []string{"a", "b"}, Tolerations: `[{"key": "dedicated", "operator": "Equal", "value": "db", "effect": "NoExecute", "tolerationSeconds": 60}]`,
			Requests: map[string]string{"cpu": "50m"}, Limits: map[string]string{}, AppArmor: "Localhost/agents", Seccomp: "Unconfined", Privileged: true, Meshed: true,
		}, AgentSpec{Session: "s1", PublicKey: "KEY+/="}},
	} {
		t.Run(c.golden, func(t *testing.T) {
			got, err := json.MarshalIndent(job(jobName(c.spec.Session), "agents", Options{Image: "registry.example/agent:1", Pod: c.pod}, c.target, c.spec), "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			file := "testdata/" + c.golden + ".json"
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("the job is not that of %s (see what changed with -update):\n%s", file, got)
			}
		})
	}
}

// What a Pod says wrongly is told before the cluster is asked.
func TestPodCheck(t *testing.T) {
	for _, p := range []Pod{{Tolerations: `[{"effect": 1}]`}, {Tolerations: "["}, {Requests: map[string]string{"cpu": "much"}}, {Limits: map[string]string{"memory": "1 Gi"}}} {
		_, err := Connect(Options{Pod: p})
		if f, ok := errors.AsType[*failure.Error](err); !ok || f.Code != "agent-pod" {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

func TestCapabilities(t *testing.T) {
	meshed := &corev1.Pod{Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "linkerd-proxy"}}, Containers: []corev1.Container{{Name: "app"}}}}
	for _, c := range []struct {
		name     string
		features []Feature
		want     []corev1.Capability
	}{
		{"environment only", nil, []corev1.Capability{"SYS_PTRACE", "SYS_ADMIN", "DAC_READ_SEARCH"}},
		{"network", []Feature{FeatureNetwork}, []corev1.Capability{"SYS_PTRACE", "SYS_ADMIN", "DAC_READ_SEARCH"}},
		{"files", []Feature{FeatureFiles}, []corev1.Capability{"SYS_PTRACE", "SYS_ADMIN", "DAC_READ_SEARCH", "SETUID", "SETGID"}},
		{"files to write", []Feature{FeatureFiles, FeatureWrite}, []corev1.Capability{"SYS_PTRACE", "SYS_ADMIN", "DAC_READ_SEARCH", "SETUID", "SETGID", "DAC_OVERRIDE", "FOWNER", "CHOWN"}},
		{"network and unix sockets", []Feature{FeatureNetwork, FeatureUnix}, []corev1.Capability{"SYS_PTRACE", "SYS_ADMIN", "DAC_READ_SEARCH", "SETUID", "SETGID", "DAC_OVERRIDE"}},
		{"network and mirror", []Feature{FeatureNetwork, FeatureMirror}, []corev1.Capability{"SYS_PTRACE", "SYS_ADMIN", "DAC_READ_SEARCH", "NET_RAW"}},
		{"steal", []Feature{FeatureSteal}, []corev1.Capability{"SYS_PTRACE", "SYS_ADMIN", "DAC_READ_SEARCH", "NET_ADMIN", "BPF"}},
		{"mirror in a mesh", (&Target{pod: meshed}).features([]Feature{FeatureMirror}), []corev1.Capability{"SYS_PTRACE", "SYS_ADMIN", "DAC_READ_SEARCH", "NET_RAW", "NET_ADMIN"}},
		{"network in a mesh", (&Target{pod: meshed}).features([]Feature{FeatureNetwork}), []corev1.Capability{"SYS_PTRACE", "SYS_ADMIN", "DAC_READ_SEARCH"}},
	} {
		j := job("j", "n", Options{Image: "i"}, &Target{}, AgentSpec{Features: c.features})
		sc := j.Spec.Template.Spec.Containers[0].SecurityContext
		if got := sc.Capabilities.Add; !slices.Equal(got, c.want) {
			t.Errorf("%s: adds %v, want %v", c.name, got, c.want)
		}
		if got := sc.Capabilities.Drop; !slices.Equal(got, []corev1.Capability{"ALL"}) {
			t.Errorf("%s: drops %v, want ALL", c.name, got)
		}
	}
}

// TestTargetlessIsUnprivileged: the restricted standard of Pod Security takes
// it, whatever features the session wants.
func TestTargetlessIsUnprivileged(t *testing.T) {
	j := job("j", "n", Options{Image: "i"}, &Target{Targetless: true}, AgentSpec{Features: []Feature{FeatureNetwork, FeatureFiles, FeatureSteal}})
	p := j.Spec.Template.Spec
	sc := p.Containers[0].SecurityContext
	switch {
	case p.HostPID, p.HostNetwork, p.NodeName != "", len(p.Tolerations) > 0, len(p.Volumes) > 0:
		t.Errorf("pod reaches beyond itself: %+v", p)
	case len(sc.Capabilities.Add) > 0, *sc.AllowPrivilegeEscalation, sc.SELinuxOptions != nil, sc.AppArmorProfile != nil, !*p.SecurityContext.RunAsNonRoot:
		t.Errorf("container is privileged: %+v", sc)
	}
}

// TestNothingSecret: what the cluster gets can be read by many.
func TestNothingSecret(t *testing.T) {
	j := job("j", "n", Options{Image: "i"}, &Target{ContainerID: "0123"}, AgentSpec{Session: "s1", PublicKey: "PUBLIC", Features: []Feature{FeatureNetwork, FeatureSteal}})
	c := j.Spec.Template.Spec.Containers[0]
	if got, want := strings.Join(c.Args, " "), "-session s1 -key PUBLIC -features=network,steal -container 0123"; got != want {
		t.Errorf("arguments %q, want %q", got, want)
	}
	if len(c.Env) != 1 || c.Env[0].Name != "GOMEMLIMIT" {
		t.Errorf("environment %+v, want GOMEMLIMIT only", c.Env)
	}
}

func TestJobName(t *testing.T) {
	for session, want := range map[string]string{"a1b2": "mirrord-agent-a1b2", "A1": "mirrord-agent-a1", strings.Repeat("x", 100): "mirrord-agent-" + strings.Repeat("x", 49)} {
		if got := jobName(session); got != want {
			t.Errorf("jobName(%q) = %q, want %q", session, got, want)
		}
	}
}
