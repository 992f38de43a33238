package doctor

import (
	"strings"
	"testing"
)

func TestCilium(t *testing.T) {
	for _, c := range []struct {
		name     string
		settings map[string]string
		meshed   bool
		want     State
		text, do string
	}{
		{"beside kube-proxy", map[string]string{"kube-proxy-replacement": "false"}, false, Good, "no services", ""},
		{"instead of kube-proxy", map[string]string{"kube-proxy-replacement": "true"}, false, Good, "when a program connects", ""},
		{"as it was called", map[string]string{"kube-proxy-replacement": "strict"}, false, Good, "when a program connects", ""},
		{"sockets alone", map[string]string{"bpf-lb-sock": "true"}, false, Good, "when a program connects", ""},
		{"in a mesh", map[string]string{"kube-proxy-replacement": "true"}, true, Skipped, "pods instead of services", "hostNamespaceOnly"},
		{"in a mesh, of nodes only", map[string]string{"kube-proxy-replacement": "true", "bpf-lb-sock-hostns-only": "true"}, true, Good, "nodes' own sockets", ""},
		{"joined sockets", map[string]string{"sockops-enable": "true", "kube-proxy-replacement": "true"}, false, Skipped, "in no packet", "lossless"},
		{"nothing known", nil, true, Good, "no services", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := judgeCilium(Cluster, c.settings, c.meshed)
			if got.State != c.want || !strings.Contains(got.Text, c.text) || !strings.Contains(got.Do, c.do) || c.do == "" && got.Do != "" {
				t.Errorf("got %s: %q, do %q", got.State, got.Text, got.Do)
			}
		})
	}
}
