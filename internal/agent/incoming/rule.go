package incoming

import (
	"errors"
	"fmt"
	"iter"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/tlsport"
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
	// Of copies: the program's replies can be heard.
	replies bool
	probes  rules.Probes
	// Where the filter looks at a body, it is waited for so many bytes, so long.
	bodySize int
	bodyTime time.Duration
	// How TLS is taken off; tls is files as text. Empty, with keys nil: it is not.
	tls    string
	files  rules.TLS
	keys   *tlsport.Keys // which others with the same files have, too
	always bool          // of whole connections, too
	cost   int           // in bytes, of Memory.Wishes
}

// ruleCost is what a rule without a filter is counted as, in bytes, and what it
// belongs to.
const ruleCost = 1 << 10

func newRule(m *protocol.Subscribe) (*rule, error) {
	r := &rule{tee: m.Mode == protocol.ModeTee, replies: m.Replies, cost: ruleCost + len(m.Filter)}
	if len(m.Probes) > maxProbes {
		return nil, fmt.Errorf("a port has at most %d probes, not %d", maxProbes, len(m.Probes))
	}
	for _, p := range m.Probes {
		if len(p) > maxProbePath {
			return nil, fmt.Errorf("the path of a probe has at most %d bytes, not %d", maxProbePath, len(p))
		}
		r.cost += len(p)
	}
	var err error
	if r.bodySize, r.bodyTime, err = bodyLimits(m); err != nil {
		return nil, err
	}
	if m.TLS != "" {
		if m.Mode != protocol.ModeSteal {
			return nil, errors.New("TLS is taken off stolen connections only")
		}
		if r.files, err = rules.ParseTLS(m.TLS); err != nil {
			return nil, err
		}
		r.always, r.files.Always = r.files.Always, false
		if r.tls, err = r.files.Text(); err != nil {
			return nil, err
		}
		r.cost += len(m.TLS)
	}
	if m.Mode == protocol.ModeSteal { // a copy is in nobody's way
		r.probes = rules.NewProbes(m.Probes)
	}
	if m.Filter == "" {
		return r, nil
	}
	if r.filter, err = filter.Parse(m.Filter); err != nil {
		return nil, err
	}
	r.cost += r.filter.Bytes()
	return r, nil
}

// errWishes is the refusal of a subscription for which there is no memory.
var errWishes = fmt.Errorf("there is no memory for another filter: %w", syscall.ENOMEM)

// wish is newRule, with its cost taken; the caller gives it back.
func (h *Hub) wish(m *protocol.Subscribe) (*rule, error) {
	r, err := newRule(m)
	switch {
	case err != nil:
		return nil, err
	case r.tls != "" && h.o.ReadFile == nil:
		return nil, errors.New("the agent may not read the target's files, so it cannot take TLS off connections")
	case !h.o.Memory.Wishes.Take(r.cost):
		return nil, errWishes
	case r.tls != "" && !h.takeKeys(r):
		h.o.Memory.Wishes.Give(r.cost)
		return nil, errWishes
	}
	return r, nil
}

// unwish forgets a rule.
func (h *Hub) unwish(r *rule) {
	h.o.Memory.Wishes.Give(r.cost)
	h.giveKeys(r)
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

// content is a body that can be looked at.
type content interface{ Content() []byte }

// errLater: a body is not looked at yet.
var errLater = errors.New("the body has not come")

// whole reports whether all of c is meant, whatever it carries. decided false: that
// takes a look at its requests.
func (r *rule) whole(c *conn) (meant, decided bool) {
	if r.filter == nil {
		return true, true
	}
	return r.filter.Whole(c.peer.Addr(), c.serverName())
}

// asksServerName reports whether it matters whom a client of TLS asks for.
func (r *rule) asksServerName() bool { return r.filter != nil && r.filter.AsksServerName() }

// asked is what a filter sees of a request that has come on c.
func (c *conn) asked(q *http1.Request) filter.Request {
	return c.request(q.Method, q.Target, q.Headers())
}

func (c *conn) request(method, target string, headers iter.Seq2[string, string]) filter.Request {
	q := filter.Request{Client: c.peer.Addr(), Method: method, Target: target, Headers: headers}
	if name := c.serverName(); name != nil {
		q.ServerName = *name
	}
	return q
}

// wants reports whether q goes to whoever has subscribed by to. A filter
// that cannot decide does not want it, and its developer is told. arrive waits
// for the body, if that is looked at, or says errLater.
func (h *Hub) wants(port uint16, to recipient, q filter.Request, arrive func() (content, error)) bool {
	r := to.rule
	if r.probes.Ask(q.Target, q.Headers) {
		return false
	}
	if r.filter == nil {
		return true
	}
	taken := false
	q.Body = func() ([]byte, error) {
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
	ok, err := r.filter.Match(q)
	if err != nil && !errors.Is(err, errLater) {
		h.tell(to.guest, port, "filter-undecided", fmt.Sprintf("port %d: requests that the filter cannot decide about stay with the target: %v", port, err))
	}
	return ok
}

// passes tells that a filtered port is also used by a protocol that is not
// filtered.
func (h *Hub) passes(k key, first []byte) {
	if http1.Protocol(first) != "TLS" {
		return
	}
	for _, to := range h.recipients(k) {
		text := fmt.Sprintf("port %d: encrypted connections (TLS) stay with the target, the filter cannot look into them", k.port)
		if k.steals() && to.rule.keys == nil {
			text += "; to have them decrypted name the target's certificate: feature.network.incoming.tls.certificate"
		}
		h.tell(to.guest, k.port, "filter-passes-tls", text)
	}
}
