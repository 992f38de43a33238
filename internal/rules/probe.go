package rules

import (
	"iter"
	"net/url"
	"strings"
)

// probeAgent begins the User-Agent of the kubelet's HTTP probes (kubernetes,
// pkg/probe/http: "kube-probe/MAJOR.MINOR").
const probeAgent = "kube-probe/"

// Probes are the HTTP probes of a port, by the target that the kubelet's
// requests for them have. Those of a stolen port are always the original's.
// Make them with NewProbes; nil are none.
type Probes map[string]bool

// NewProbes takes the paths of probes, with their queries.
func NewProbes(paths []string) Probes {
	p := Probes{}
	for _, path := range paths {
		p[probeTarget(path)] = true
	}
	return p
}

// Ask reports whether a request with this target and these headers is one of
// the kubelet's for a probe.
func (p Probes) Ask(target string, headers iter.Seq2[string, string]) bool {
	if !p[target] {
		return false
	}
	for name, value := range headers {
		if strings.EqualFold(name, "User-Agent") {
			return strings.HasPrefix(value, probeAgent)
		}
	}
	return false
}

// probeTarget is what the kubelet sends for a probe's path (kubernetes,
// pkg/probe/http, formatURL).
func probeTarget(path string) string {
	u, err := url.Parse(path)
	if err != nil {
		u = &url.URL{Path: path}
	}
	u.Scheme, u.Host, u.User = "http", "pod", nil
	target := u.RequestURI()
	if !strings.HasPrefix(target, "/") {
		target = "/" + target
	}
	return target
}
