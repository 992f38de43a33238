package rules

import (
	"maps"
	"testing"
)

func TestProbes(t *testing.T) {
	p := NewProbes([]string{"/healthz", "ready?full=1", ""})
	for _, c := range []struct {
		target, agent string
		want          bool
	}{
		{"/healthz", "kube-probe/1.36", true},
		{"/ready?full=1", "kube-probe/1.36", true},
		{"/", "kube-probe/1.36", true},
		{"/healthz", "curl/8 kube-probe/1.36", false},
		{"/healthz?x", "kube-probe/1.36", false},
		{"/ready", "kube-probe/1.36", false},
	} {
		if got := p.Ask(c.target, maps.All(map[string]string{"user-agent": c.agent})); got != c.want {
			t.Errorf("%s by %s: got %v, want %v", c.target, c.agent, got, c.want)
		}
	}
	if p.Ask("/healthz", maps.All(map[string]string(nil))) || Probes(nil).Ask("/", maps.All(map[string]string{"User-Agent": "kube-probe/1"})) {
		t.Error("a request of nobody's, or of no probe, is one")
	}
}
