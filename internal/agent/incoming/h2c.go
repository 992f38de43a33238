package incoming

import (
	"bytes"
	"context"
	"time"

	"github.com/mirrord-go/mirrord/internal/http1"
	"github.com/mirrord-go/mirrord/internal/http2"
)

// This file is about connections that begin in HTTP/1 and go on in HTTP/2 (RFC 7540
// §3.2): the client offers that with a request, and the original may take the offer.
// Then the request is stream 1, which the filter has decided about, and those that
// follow are divided as those of other connections are.
//
// Only the original may. Whoever takes the offer answers in HTTP/2 from then on, and
// so must everybody whom further streams are for. A developer's program that cannot
// gets its clients an answer that says so; a target that cannot would have its own
// clients' streams refused. And whether it can is not known before it has been
// asked. So a request that is local's goes there without the offer, which any server
// is free not to take (RFC 9110 §7.8): the connection stays one of HTTP/1, where each
// request is divided. Nor is it made where there is no memory for streams, nor in copies.
//
// The settings that come with an offer are those of who speaks HTTP/2 with the
// server. That is us, so they are ours: the client's own might allow a server what
// the hop does not take (a larger table of header fields, pushes). They are of one
// hop, as the fields that a header block of HTTP/2 does not have, and nothing else of
// the request is changed.

// upgrade is what is known of an offer that the original may take.
type upgrade struct {
	settings []byte // of the client
	by       *side  // who has taken it, and streamsCost is taken; nil: nobody, or nobody yet
	ready    bool   // the client has been told
	said     []byte // what by has said behind its 101
}

// offered has q say to x what that may take of an offer to go on in HTTP/2, and reports
// whether it is to be said in other words than the client's. last: nothing behind q is
// divided.
func (s *split) offered(x *side, q *http1.Request, last bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unoffered() // that of a request which came to nothing
	if !q.Offers || last && x.role == toOriginal {
		return false
	}
	settings, ok := q.Settings()
	room := s.hub.o.Memory.Connections[s.conn.key.mode]
	if x.role == toLocal || !ok || !http2.Acceptable(settings) || room != nil && room.Free() < streamsCost {
		q.Decline()
		return true
	}
	q.Adopt(http2.Offer())
	s.upgrade = &upgrade{settings: settings}
	return true
}

// unoffered forgets an offer, which has not been taken or whose connection has ended.
// mu is held.
func (s *split) unoffered() {
	if s.upgraded() {
		s.hub.o.Memory.Connections[s.conn.key.mode].Give(streamsCost)
	}
	s.upgrade = nil
}

// upgraded reports whether an offer has been taken. mu is held.
func (s *split) upgraded() bool { return s.upgrade != nil && s.upgrade.by != nil }

// changed is upgraded, when the client has been told. mu is held.
func (s *split) changed() bool { return s.upgrade != nil && s.upgrade.ready }

// agrees passes on r, with which x takes the client's offer, and gives the connection
// to read; false: there was none that it may take, or there is no room for streams.
func (s *split) agrees(x *side, r *http1.Response) bool {
	if !s.accept(x) {
		return false
	}
	err := x.in.Forward(s.client, &r.Message)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failLocked(err)
		return true
	}
	s.upgrade.ready, s.upgrade.said = true, bytes.Clone(x.in.Buffered())
	if s.waits { // for the client, which may say nothing for long
		_ = s.client.SetReadDeadline(time.Unix(1, 0))
	}
	s.cond.Broadcast()
	return true
}

// accept makes x the one who has taken the client's offer: from now on the connection
// goes on in HTTP/2 or not at all. false: there is none that it may take now.
func (s *split) accept(x *side) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.upgrade == nil, s.busy != x, s.bound != nil, s.over, s.deaf:
		return false
	case s.expects && !s.continued && !s.sent: // is what comes the body, or HTTP/2?
		return false
	case !s.hub.o.Memory.Connections[s.conn.key.mode].Take(streamsCost):
		return false
	}
	s.upgrade.by, x.speaks = x, true
	return true
}

// goOn carries the connection on in HTTP/2, to its end.
func (s *split) goOn(ctx context.Context) {
	m := newStreams(ctx, s)
	defer m.cancel()
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return
	}
	u := s.upgrade
	s.streams, s.busy = m, nil
	original := u.by.server()
	for i, x := range s.sides {
		if x != nil && x != u.by {
			x.unused = true
			x.Close()
		}
		s.sides[i] = nil
	}
	method, ending := s.method, s.ending
	s.mu.Unlock()
	p := m.hop.Upgraded(u.settings, method == "HEAD")
	err := p.Receive(u.said)
	m.hop.Commit()
	m.begin(func() { m.converse(p, original, err) })
	if ending { // leave has not seen m
		m.leave()
	}
	m.run()
}

// server is the connection of x, an original.
func (x *side) server() server {
	if o, ok := x.Conn.(*offer); ok { // local has refused
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.to.(server)
	}
	return x.Conn.(server)
}
