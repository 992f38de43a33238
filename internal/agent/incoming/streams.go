package incoming

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/http1"
	"github.com/mirrord-go/mirrord/internal/http2"
	"github.com/mirrord-go/mirrord/internal/relay"
)

// This file is about connections of HTTP/2: they are divided by streams, which are
// requests that do not wait for each other.
//
//	client ──► run ────┬─► original ──► serve ──┐
//	   ▲               └─► local ─────► serve ──┤
//	   └────────────────────────────────────────┘
//
// Package http2 has the state of it, this file the sockets. The original is
// connected at once, and the client is told nothing before that or a local has
// shown that it speaks HTTP/2. If the original does not, the connection is its and
// the client's as if nobody were there: it is connected once more, and gets
// what the client has said.

const (
	// readSize is how much is read at a time, in bytes: a frame of the usual length
	// and what stands in front of it.
	readSize = 16<<10 + 256
	// mostKept is the largest buffer that a writer keeps: a batch with room to grow.
	mostKept = 64 << 10
	// streamsCost is what a divided connection is counted as besides what
	// newSplit's is, in bytes, and serverCost each server after the first: their
	// state, stacks and what is read.
	streamsCost = http2.Cost + 2*(readSize+8<<10)
	serverCost  = http2.ServerCost + readSize + 8<<10
)

// streams is one connection of HTTP/2 to a filtered port.
type streams struct {
	hub *Hub
	ctx context.Context // of the session
	s   *split
	hop *http2.Hop

	mu   sync.Mutex     // guards over
	over bool           // no more servers are connected
	wg   sync.WaitGroup // of serve and feed

	carried context.Context // until run ends
	cancel  context.CancelFunc
}

// taker is a session that takes streams: a guest's, or this agent's own. The
// original is no taker but nil.
type taker struct{ guest *guest }

func own(d http2.Destination) bool { return d == taker{} }

func newStreams(ctx context.Context, s *split) *streams {
	m := &streams{hub: s.hub, ctx: ctx, s: s}
	m.carried, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	m.hop = http2.New(http2.Options{Route: m.route, Connect: m.connect, Memory: s.hub.o.Memory.Parsed, Starved: m.starved})
	return m
}

// connect begins to connect a server.
func (m *streams) connect(p *http2.Peer) { m.begin(func() { m.serve(p) }) }

// starved begins to wait for memory.
func (m *streams) starved() { m.begin(m.feed) }

func (m *streams) begin(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.over {
		m.wg.Go(f)
	}
}

// feed waits for memory, in turn with other connections, and has windows opened. What
// it has waited for is free then for whoever is first: if that is somebody else it
// begins anew.
func (m *streams) feed() {
	room := m.hub.o.Memory.Parsed
	if room.Wait(m.carried, http2.Chunk) == nil {
		room.Give(http2.Chunk)
		m.hop.Fed()
	}
}

// end ends what connect and starved have begun, and the hop.
func (m *streams) end() {
	m.mu.Lock()
	m.over = true
	m.mu.Unlock()
	m.hop.Close()
	m.cancel()
	m.wg.Wait()
	m.hop.Wait()
}

// preface reports whether the client begins as one of HTTP/2, whose preface is
// waited for; gone: it has ended, and that has been dealt with.
func (s *split) preface(ctx context.Context) (is, gone bool) {
	for {
		b := s.in.Buffered()
		n := min(len(b), len(http2.Preface))
		switch {
		case string(b[:n]) != http2.Preface[:n]:
			return false, false
		case n == len(http2.Preface):
			return true, false
		case !s.fill(ctx):
			return false, true
		}
	}
}

// divide carries a connection of HTTP/2 to its end; false: it has become somebody's
// meanwhile.
func (s *split) divide(ctx context.Context) bool {
	room := s.hub.o.Memory.Connections[s.conn.key.mode]
	if !room.Take(streamsCost) { // there is none to look for streams
		s.give(ctx)
		return true
	}
	defer room.Give(streamsCost)
	m := newStreams(ctx, s)
	defer m.cancel()
	s.mu.Lock()
	if s.over || s.bound != nil {
		s.mu.Unlock()
		return false
	}
	s.streams = m
	if x := s.sides[toOriginal]; x != nil { // it has waited with us for the first word
		x.unused = true
		s.sides[toOriginal] = nil
		x.Close()
	}
	ending := s.ending
	s.mu.Unlock()
	if ending { // leave has not seen m
		m.leave()
	}
	m.hop.Original()
	if m.run() {
		return true
	}
	s.mu.Lock()
	s.streams = nil
	s.mu.Unlock()
	s.give(ctx)
	return true
}

// run carries the connection to its end; false: it is the original's, and the
// client's first word is still buffered.
func (m *streams) run() bool {
	defer m.end()
	client := m.hop.Client()
	var writing sync.WaitGroup
	writing.Go(m.answer)
	wrong := false // the client has broken the rules
	seen, err := m.first()
	if m.hop.Passes() {
		writing.Wait()
		_ = m.s.client.SetReadDeadline(time.Time{}) // that of answer
		return false
	}
	hears := func(b []byte) {
		if client.Receive(b) != nil && !wrong { // behind a mistake it takes nothing
			wrong = true
			_ = m.s.client.SetWriteDeadline(time.Now().Add(lingerTime))
		}
	}
	hears(m.s.in.Buffered()[seen:])
	m.s.in.Close()
	buf := make([]byte, readSize)
	for err == nil {
		var n int
		n, err = m.s.client.Read(buf)
		hears(buf[:n])
	}
	m.hop.ClientEnded(err)
	patience := time.AfterFunc(m.hub.closedTime, func() { // with a client that has ended its direction
		m.hop.Close()
		_ = m.s.client.SetWriteDeadline(time.Now())
	})
	defer patience.Stop()
	writing.Wait()
	return true
}

// first takes what the client says until it is known whether the client is spoken
// with, and keeps it: seen is how much of what is buffered the hop has got. err
// is what reading ended with.
func (m *streams) first() (seen int, err error) {
	for err == nil && !m.settled() {
		b := m.s.in.Buffered()
		if seen == len(b) {
			err = m.s.in.Fill()
			continue
		}
		if m.hop.Client().Receive(b[seen:]) != nil {
			m.hop.Pass() // the original says what is wrong
		}
		seen = len(b)
	}
	switch {
	case errors.Is(err, http1.ErrTooLong):
		<-m.hop.Settled()
		err = nil
	case errors.Is(err, io.EOF):
		patience := time.AfterFunc(m.hub.closedTime, m.hop.Close) // the servers may be silent
		<-m.hop.Settled()
		patience.Stop()
	case timeout(err): // answer's
		err = nil
	}
	return seen, err
}

func (m *streams) settled() bool {
	select {
	case <-m.hop.Settled():
		return true
	default:
		return false
	}
}

// answer writes what the client is told, and ends the connection.
func (m *streams) answer() {
	<-m.hop.Settled()
	client := m.s.client
	if m.hop.Passes() {
		_ = client.SetReadDeadline(time.Unix(1, 0)) // first waits no longer
		return
	}
	if !write(client, m.hop.Client()) {
		m.hop.Close()
	}
	_ = m.s.conn.CloseWrite()
	_ = client.SetReadDeadline(time.Now().Add(lingerTime))
}

// far is who is at the other end of a connection of HTTP/2.
type far interface {
	Next(buf []byte) ([]byte, bool)
	Receive(b []byte) error
}

// write writes to c what p is told; false: it could not.
func write(c io.Writer, p far) bool {
	var buf []byte
	for {
		b, more := p.Next(buf[:0])
		if !more {
			return true
		}
		if _, err := c.Write(b); err != nil {
			return false
		}
		if buf = b; cap(b) > mostKept {
			buf = nil
		}
	}
}

// serve carries a server's connection to its end.
func (m *streams) serve(p *http2.Peer) {
	local := p.To() != nil
	room := m.hub.o.Memory.Connections[m.s.conn.key.mode]
	if local && !room.Take(serverCost) {
		m.refused(p, http2.End{Refused: true})
		return
	}
	if local {
		defer room.Give(serverCost)
	}
	c, err := m.dial(p.To())
	switch {
	case err != nil && local: // not a byte has gone anywhere
		m.refused(p, http2.End{Refused: true})
		return
	case err != nil:
		m.hop.Commit() // others may answer
		p.Ended(http2.End{})
		return
	}
	m.converse(p, c, nil)
}

// converse carries c, p's connection, which it owns, to its end. err is what has come of
// what p has said already.
func (m *streams) converse(p *http2.Peer, c server, err error) {
	local := p.To() != nil
	defer c.Close()
	stop := context.AfterFunc(m.carried, func() { c.Close() })
	defer stop()
	p.WhenCut(func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() {
		if write(c, p) {
			_ = c.CloseWrite()
			_ = c.SetReadDeadline(time.Now().Add(lingerTime))
		}
	})
	if err == nil {
		err = hear(c, p)
	}
	m.refused(p, http2.End{Refused: local && refused(err), Text: owed(local, err)})
	_ = c.SetWriteDeadline(time.Now().Add(lingerTime))
}

// refused tells that p has ended, and counts what becomes the original's.
func (m *streams) refused(p *http2.Peer, e http2.End) { m.hub.returned.Add(uint64(p.Ended(e))) }

// hear takes what p says until it says nothing more.
func hear(c io.Reader, p far) error {
	buf := make([]byte, readSize)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			if wrong := p.Receive(buf[:n]); wrong != nil {
				return wrong
			}
		}
		if err != nil {
			return err
		}
	}
}

// server is a connection to one.
type server interface {
	relay.Conn
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// dial connects to a server.
func (m *streams) dial(d http2.Destination) (server, error) {
	if to, ok := d.(taker); ok {
		s, err := m.hub.open(m.ctx, m.s.conn, to.guest)
		if err != nil {
			return nil, err
		}
		return s, nil
	}
	c, err := m.hub.original(m.ctx, m.s.conn)
	if err != nil {
		return nil, err
	}
	return c.(server), nil // it is a net.Conn
}

// owed is what a client is told whose reply is owed by a server that has ended with
// err.
func owed(local bool, err error) string {
	why := "it closed the connection without an answer"
	var wrong *http2.ConnError
	switch {
	case errors.Is(err, http2.ErrNotHTTP2), errors.As(err, &wrong):
		why = err.Error()
	case !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed):
		why = relay.Errno(err).Error()
	}
	if local {
		return gatewayText(why)
	}
	return "mirrord: the target's own server did not answer this request: " + why + "\n"
}

// leave is the end of the session: what local owes is lost, but what it has said
// before the link's end; what others have may be finished, and the client opens no
// more streams.
func (m *streams) leave() {
	lost := own
	if m.hub.o.Link.Err() != nil { // serve hears what there is
		lost = func(http2.Destination) bool { return false }
	}
	m.hub.returned.Add(uint64(m.hop.Leave(lost, gatewayText("the session has ended"))))
}

// abandon is when the link is lost.
func (m *streams) abandon() {
	m.hub.returned.Add(uint64(m.hop.Desert(own, gatewayText(errLost.Error()))))
}

// route says whose a request is. While the link is lost it is the original's.
func (m *streams) route(q *http2.Request) http2.Verdict {
	if m.ctx.Err() == nil && q.Understood {
		if v, ok := m.find(q); ok {
			return v
		}
	}
	m.hub.passed.Add(1)
	return http2.Verdict{}
}

// find gives the first session that wants q, or says how long the body is waited for:
// as long as any needs that may want it.
func (m *streams) find(q *http2.Request) (http2.Verdict, bool) {
	k := m.s.conn.key
	all := m.hub.among(m.s.conn)
	var wait http2.Verdict
	for i, to := range all {
		head := m.s.conn.request(q.Method, q.Target, q.Headers())
		waits := false
		arrive := func() (content, error) {
			waits = !q.Asked
			return bodyOf(q, to.rule)
		}
		switch {
		case m.hub.wants(k.port, to, head, arrive):
			if wait.Wait { // one before may want it
				return wait, true
			}
			if !to.surely() { // other streams do not wait for it
				continue
			}
			m.hub.overlap(k.port, to, all[i+1:], head)
			return http2.Verdict{To: taker{to.guest}}, true
		case waits:
			wait = http2.Verdict{Wait: true, Size: max(wait.Size, to.rule.bodySize), Time: max(wait.Time, to.rule.bodyTime)}
		}
	}
	return wait, wait.Wait
}

// text is a body.
type text []byte

// Content is for filters.
func (t text) Content() []byte { return t }

// bodyOf gives the body of q, or says why it cannot be looked at.
func bodyOf(q *http2.Request, r *rule) (content, error) {
	switch {
	case !q.Asked:
		return nil, errLater
	case errors.Is(q.Unread, http2.ErrTooLarge), len(q.Body) > r.bodySize:
		return nil, r.tooLarge()
	case errors.Is(q.Unread, http2.ErrTooSlow):
		return nil, r.tooSlow()
	}
	return text(q.Body), nil
}
