package incoming

import (
	"fmt"

	"github.com/mirrord-go/mirrord/internal/http1"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
	"github.com/mirrord-go/mirrord/internal/rules/filter"
)

const (
	// maxProbes bounds the probes of one port: a pod has three a container.
	maxProbes = 64
	// maxProbePath bounds one of their paths, in bytes.
	maxProbePath = 1 << 10
)

// rule says which requests of a port are meant.
type rule struct {
	filter *filter.Matcher // nil: whole connections
	probes rules.Probes
}

func newRule(m *protocol.Subscribe) (*rule, error) {
	r := &rule{}
	if len(m.Probes) > maxProbes {
		return nil, fmt.Errorf("a port has at most %d probes, not %d", maxProbes, len(m.Probes))
	}
	for _, p := range m.Probes {
		if len(p) > maxProbePath {
			return nil, fmt.Errorf("the path of a probe has at most %d bytes, not %d", maxProbePath, len(p))
		}
	}
	if m.Mode == protocol.ModeSteal { // a copy is in nobody's way
		r.probes = rules.NewProbes(m.Probes)
	}
	if m.Filter == "" {
		return r, nil
	}
	var err error
	r.filter, err = filter.Parse(m.Filter)
	return r, err
}

// wants reports whether q goes to local by the rule r of the port. A filter
// that cannot decide does not want it, and its developer is told.
func (h *Hub) wants(port uint16, r *rule, q *http1.Request) bool {
	if r.probes.Ask(q.Target, q.Headers()) {
		return false
	}
	if r.filter == nil {
		return true
	}
	ok, err := r.filter.Match(filter.Request{Method: q.Method, Target: q.Target, Headers: q.Headers()})
	if err != nil {
		h.notice(port, "filter-undecided", fmt.Sprintf("port %d: requests that the filter cannot decide about stay with the target: %v", port, err))
	}
	return ok
}

// passes tells that a filtered port is also used by a protocol that is not
// filtered.
func (h *Hub) passes(port uint16, first []byte) {
	switch p := http1.Protocol(first); p {
	case "HTTP/2":
		h.notice(port, "filter-passes-http2", fmt.Sprintf("port %d: connections of HTTP/2 (gRPC) stay with the target, the filter is for HTTP/1", port))
	case "TLS":
		h.notice(port, "filter-passes-tls", fmt.Sprintf("port %d: encrypted connections (TLS) stay with the target, the filter cannot look into them", port))
	}
}
