package incoming

import (
	"fmt"
	"time"

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
	tee    bool            // copies, by the stealing path
	probes rules.Probes
	// Where the filter looks at a body, it is waited for so many bytes, so long.
	bodySize int
	bodyTime time.Duration
}

func newRule(m *protocol.Subscribe) (*rule, error) {
	r := &rule{tee: m.Mode == protocol.ModeTee}
	if len(m.Probes) > maxProbes {
		return nil, fmt.Errorf("a port has at most %d probes, not %d", maxProbes, len(m.Probes))
	}
	for _, p := range m.Probes {
		if len(p) > maxProbePath {
			return nil, fmt.Errorf("the path of a probe has at most %d bytes, not %d", maxProbePath, len(p))
		}
	}
	var err error
	if r.bodySize, r.bodyTime, err = bodyLimits(m); err != nil {
		return nil, err
	}
	if m.Mode == protocol.ModeSteal { // a copy is in nobody's way
		r.probes = rules.NewProbes(m.Probes)
	}
	if m.Filter == "" {
		return r, nil
	}
	r.filter, err = filter.Parse(m.Filter)
	return r, err
}

func bodyLimits(m *protocol.Subscribe) (size int, wait time.Duration, err error) {
	size, wait = rules.BodySize, rules.BodyTime
	if m.BodySize != 0 {
		size = int(m.BodySize)
	}
	if m.BodyTime != 0 {
		wait = time.Duration(m.BodyTime) * time.Millisecond
	}
	if size > rules.MaxBodySize || wait > rules.MaxBodyTime {
		return 0, 0, fmt.Errorf("of a body %d bytes and %v are waited for at most, not %d and %v", rules.MaxBodySize, rules.MaxBodyTime, size, wait)
	}
	return size, wait, nil
}

// wants reports whether q goes to whoever has subscribed by to. A filter
// that cannot decide does not want it, and its developer is told. arrive waits
// for the body, if that is looked at.
func (h *Hub) wants(port uint16, to recipient, q *http1.Request, arrive func() (*http1.Ahead, error)) bool {
	r := to.rule
	if r.probes.Ask(q.Target, q.Headers()) {
		return false
	}
	if r.filter == nil {
		return true
	}
	taken := false
	body := func() ([]byte, error) {
		a, err := arrive()
		if err != nil {
			return nil, err
		}
		h.body.Lock()
		taken = true
		return a.Content(), nil
	}
	defer func() {
		if taken {
			h.body.Unlock()
		}
	}()
	ok, err := r.filter.Match(filter.Request{Method: q.Method, Target: q.Target, Headers: q.Headers(), Body: body})
	if err != nil {
		h.tell(to.guest, port, "filter-undecided", fmt.Sprintf("port %d: requests that the filter cannot decide about stay with the target: %v", port, err))
	}
	return ok
}

// passes tells that a filtered port is also used by a protocol that is not
// filtered.
func (h *Hub) passes(k key, first []byte) {
	for _, to := range h.recipients(k) {
		switch http1.Protocol(first) {
		case "HTTP/2":
			h.tell(to.guest, k.port, "filter-passes-http2", fmt.Sprintf("port %d: connections of HTTP/2 (gRPC) stay with the target, the filter is for HTTP/1", k.port))
		case "TLS":
			h.tell(to.guest, k.port, "filter-passes-tls", fmt.Sprintf("port %d: encrypted connections (TLS) stay with the target, the filter cannot look into them", k.port))
		}
	}
}
