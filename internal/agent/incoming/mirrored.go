package incoming

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/http1"
	"github.com/mirrord-go/mirrord/internal/http2"
)

// This file is about copies of connections of HTTP/2, whose requests are decided
// about one by one. Local gets those that are meant on connections of ours: what the
// client says in the name of its connection (windows, settings, compression) is meant for the
// original. Package http2 has the state of it, this file the sockets.

// mirrorCost is what a copy of HTTP/2 is counted as besides what any copy is, in
// bytes.
const mirrorCost = http2.MirrorCost + 2*(readSize+8<<10)

// Begins reports whether a segment that a client sends begins something from which
// on a connection may be copied whose beginning nobody here has seen.
func Begins(b []byte) bool { return http1.Begins(b) || http2.Begins(b) }

// beginsHTTP2 reports whether a copy that was met in its middle begins, by Begins,
// with HTTP/2: methods have no such letter, and frames are shorter than 64 KiB.
func beginsHTTP2(first byte) bool { return first == 0 }

// mirroring is the copying of one connection's requests of HTTP/2.
type mirroring struct {
	hub   *Hub
	ctx   context.Context
	c     *conn
	state *http2.Mirror
	wg    sync.WaitGroup // of serve
}

// meant is the only destination of a copy.
type meant struct{}

// copyStreams gives local those requests of c, a copy of a connection of HTTP/2, that
// the port's rule means. said is what has been read of it.
func (h *Hub) copyStreams(ctx context.Context, c *conn, said []byte) {
	switch r := h.rule(c.key); {
	case r == nil:
		return
	case !r.replies:
		h.notice(c.key.port, "filter-passes-http2", fmt.Sprintf("port %d: connections of HTTP/2 (gRPC) are not copied request by request: mirrord is older than its agent; update mirrord", c.key.port))
		c.ignore()
		return
	}
	c.replies = true
	room := h.o.Memory.Connections[c.key.mode]
	if !room.Take(mirrorCost) {
		h.missed.Add(1)
		return
	}
	defer room.Give(mirrorCost)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := &mirroring{hub: h, ctx: ctx, c: c}
	m.state = http2.NewMirror(http2.MirrorOptions{
		Middle: c.middle && beginsHTTP2(said[0]), Route: m.route, Connect: m.connect, Memory: h.o.Memory.Parsed,
		Lost: func() { h.missed.Add(1) }, Unseen: m.unseen,
	})
	defer m.state.Close()
	stop := context.AfterFunc(ctx, func() {
		c.Close()
		m.state.Close()
	})
	defer stop()
	m.read(said)
	m.state.Ended()
	patience := time.AfterFunc(h.closedTime, cancel) // with a local that still answers
	defer patience.Stop()
	m.wg.Wait()
}

// read takes what the client says until that ends, or is not understood.
func (m *mirroring) read(said []byte) {
	wrong := m.state.Receive(said)
	buf := make([]byte, readSize)
	var err error
	for wrong == nil && err == nil {
		var n int
		n, err = m.c.Read(buf)
		wrong = m.state.Receive(buf[:n])
	}
	if wrong != nil {
		m.hub.missed.Add(1)
		m.c.ignore()
	}
	m.c.Close()
}

// connect begins to connect local.
func (m *mirroring) connect(k *http2.Sink) { m.wg.Go(func() { m.serve(k) }) }

// serve carries a connection to local to its end.
func (m *mirroring) serve(k *http2.Sink) {
	defer k.Ended()
	s, err := m.hub.open(m.ctx, m.c, nil)
	if err != nil {
		return
	}
	defer s.Close()
	k.WhenCut(func() { _ = s.SetReadDeadline(time.Unix(1, 0)) })
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() {
		if write(s, k) {
			_ = s.CloseWrite()
			_ = s.SetReadDeadline(time.Now().Add(lingerTime))
		}
	})
	_ = hear(s, k)
	k.Ended()
	_ = s.SetWriteDeadline(time.Now().Add(lingerTime))
}

// route says whether q is meant.
func (m *mirroring) route(q *http2.Request) http2.Verdict {
	r := m.hub.rule(m.c.key)
	if r == nil || !q.Understood {
		return http2.Verdict{}
	}
	waits := false
	arrive := func() (content, error) {
		waits = !q.Asked
		return bodyOf(q, r)
	}
	head := m.c.request(q.Method, q.Target, q.Headers())
	switch {
	case r.filter == nil, m.hub.wants(m.c.key.port, recipient{rule: r}, head, arrive):
		return http2.Verdict{To: meant{}}
	case waits:
		return http2.Verdict{Wait: true, Size: r.bodySize, Time: r.bodyTime}
	}
	return http2.Verdict{}
}

// unseen is about a request of which not all can be known.
func (m *mirroring) unseen() {
	m.hub.missed.Add(1)
	port := m.c.key.port
	m.hub.notice(port, "copies-from-before", fmt.Sprintf("port %d: requests on a connection of HTTP/2 (gRPC) that a client has kept since before the session are not copied where they name header fields that it said then; restart that client, or have it connect anew", port))
}
