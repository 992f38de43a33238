package activity

import (
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/http1"
	"github.com/mirrord-go/mirrord/internal/relay"
)

// maxAsked bounds requests of one connection that wait for their answer: clients
// that do not wait send few ahead. Beyond it nothing more is seen.
const maxAsked = 64

// Call is a connection, or the datagrams between two sockets, from its opening to
// its end. Its methods may be called on nil.
type Call struct {
	log    *Log
	counts *traffic // nil: it is this machine's own
	began  time.Time
	of     Event // what holds for all of its events

	sent, received atomic.Int64
	ended          atomic.Bool
	deaf           atomic.Bool // nothing more is looked through
	serves         bool        // the program answers; else it asks

	reached  *atomic.Int64 // counts what has reached the program by the target's port; nil: nothing does; mu
	requests int64         // that there were; mu
	onAsked  func(method string)

	mu      sync.Mutex // what follows
	asks    *http1.Follower
	answers *http1.Follower
	waiting []asked
}

// asked is a request that waits for its answer.
type asked struct {
	method, path string
	at           time.Time
}

// Incoming tells of a connection that has reached the program. own: a program of
// this machine made it, which counts for nothing.
func (l *Log) Incoming(e Event, own bool) *Call {
	if l == nil {
		return nil
	}
	e.Flow = "incoming"
	c := l.open(e, &l.incoming, own)
	c.serves = true
	if !own {
		c.reached = l.reached(e.Mode)
		c.reached.Add(1)
	}
	return c
}

// reached counts what comes to the program by a mode.
func (l *Log) reached(mode string) *atomic.Int64 {
	if mode == mirror {
		return &l.mirrored
	}
	return &l.stolen
}

// OnRequest lets f hear of each request of HTTP/1 before it is passed on. It is
// called before Stream; f must not wait.
func (c *Call) OnRequest(f func(method string)) {
	if c != nil {
		c.onAsked = f
	}
}

// NotDelivered tells of a connection that reached nobody.
func (l *Log) NotDelivered(e Event, own bool) {
	if l == nil {
		return
	}
	e.Flow = "incoming"
	if !own && e.Mode == mirror {
		l.missed.Add(1)
	}
	l.refuse(e, &l.incoming, own)
}

// Outgoing tells of a connection that the program has made, with its network.
func (l *Log) Outgoing(e Event) *Call {
	if l == nil {
		return nil
	}
	e.Flow = "outgoing"
	return l.open(e, &l.outgoing, false)
}

// NotConnected tells of one that it could not make.
func (l *Log) NotConnected(e Event) {
	if l == nil {
		return
	}
	e.Flow = "outgoing"
	l.refuse(e, &l.outgoing, false)
}

func (l *Log) open(e Event, counts *traffic, own bool) *Call {
	e.Kind, e.Connection = Connection, l.last.Add(1)
	c := &Call{log: l, began: time.Now(), of: e}
	if !own {
		c.counts = counts
		counts.connections.Add(1)
		counts.open.Add(1)
	}
	e.What = Opened
	l.Tell(e)
	return c
}

func (l *Log) refuse(e Event, counts *traffic, own bool) {
	e.Kind, e.What = Connection, Refused
	if !own {
		counts.refused.Add(1)
	}
	l.Tell(e)
}

// Carried counts bytes: what the program has said, and what it was told.
func (c *Call) Carried(sent, received int64) {
	if c == nil {
		return
	}
	c.sent.Add(sent)
	c.received.Add(received)
	if c.counts != nil {
		c.counts.sent.Add(sent)
		c.counts.received.Add(received)
	}
}

// Close ends the call. It may be called again.
func (c *Call) Close() {
	if c == nil || c.ended.Swap(true) {
		return
	}
	if c.counts != nil {
		c.counts.open.Add(-1)
	}
	c.mu.Lock()
	c.deafen()
	c.mu.Unlock()
	e := c.of
	e.What, e.Sent, e.Received, e.Millis = Closed, c.sent.Load(), c.received.Load(), Took(c.began)
	c.log.Tell(e)
}

// Returned tells that the connection is the target's again: it has not reached the
// program after all.
func (c *Call) Returned() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reached != nil {
		c.reached.Add(-max(c.requests, 1))
		c.reached = nil
	}
}

// Stream gives near, the program's end of the connection, with what passes being
// counted, and looked through for requests and their answers. It is to be used in
// place of near, and Close called when it has ended.
func (c *Call) Stream(near relay.Conn) relay.Conn {
	if c == nil {
		return near
	}
	c.asks, c.answers = http1.NewFollower(c.log.heads), http1.NewFollower(c.log.heads)
	return &stream{near, c}
}

// stream is a connection that is counted.
type stream struct {
	relay.Conn
	c *Call
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if n > 0 {
		s.c.Carried(int64(n), 0)
		s.c.hear(p[:n], !s.c.serves)
	}
	return n, err
}

// Write looks at p before it is written: the answer to what is in it may come
// before the writing returns.
func (s *stream) Write(p []byte) (int, error) {
	s.c.hear(p, s.c.serves)
	n, err := s.Conn.Write(p)
	s.c.Carried(0, int64(n))
	return n, err
}

// Reset implements what relay.Reset asks of a connection.
func (s *stream) Reset(errno syscall.Errno) error {
	relay.Reset(s.Conn, errno)
	return nil
}

// hear looks through what one side says.
func (c *Call) hear(p []byte, asking bool) {
	if c.deaf.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.deaf.Load():
	case asking && !c.asks.Lost():
		c.asks.Requests(p, c.request)
	case !asking && !c.answers.Lost():
		c.answers.Responses(p, c.method, c.response)
	}
	if c.asks.Lost() && len(c.waiting) == 0 {
		c.answers.Close()
	}
	if c.answers.Lost() {
		c.deafen()
	}
}

// deafen is called with mu held.
func (c *Call) deafen() {
	c.deaf.Store(true)
	if c.asks != nil {
		c.asks.Close()
		c.answers.Close()
	}
	c.waiting = nil
}

// request is called with mu held, as the next two.
func (c *Call) request(q *http1.Request) {
	if len(c.waiting) == maxAsked {
		c.asks.Close()
		return
	}
	if c.counts != nil {
		c.counts.requests.Add(1)
	}
	if c.requests++; c.reached != nil && c.requests > 1 {
		c.reached.Add(1) // the first is the connection
	}
	if c.onAsked != nil {
		c.onAsked(q.Method)
	}
	c.waiting = append(c.waiting, asked{q.Method, pathOf(q.Target), time.Now()})
}

func (c *Call) method() (string, bool) {
	if len(c.waiting) == 0 {
		return "", false
	}
	return c.waiting[0].method, true
}

func (c *Call) response(r *http1.Response) {
	if r.Interim {
		return
	}
	q := c.waiting[0]
	c.waiting = c.waiting[1:]
	if c.log.Watched() {
		e := c.of
		e.Kind, e.Method, e.Path, e.Status, e.Millis = Request, q.method, q.path, r.Status, Took(q.at)
		c.log.Tell(e)
	}
}

// pathOf is the path of a request's target: without a query, where secrets stand,
// and without scheme and host.
func pathOf(target string) string {
	target, _, _ = strings.Cut(target, "?")
	if _, rest, ok := strings.Cut(target, "://"); ok && target[0] != '/' {
		if at := strings.IndexByte(rest, '/'); at >= 0 {
			return rest[at:]
		}
		return "/"
	}
	return target
}
