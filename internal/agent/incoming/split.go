package incoming

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/http1"
	"github.com/mirrord-go/mirrord/internal/relay"
)

const (
	// headTime is how long a head may take to arrive. After that it is the
	// original's to lose patience, so it gets what has come.
	headTime = 60 * time.Second
	// lingerTime is how long a client that still sends is listened to after the
	// last word it was told: a connection that is closed before resets, and the
	// reset can overtake that word (RFC 9112 §9.6). net/http waits as long.
	lingerTime = 500 * time.Millisecond
	// closedTime is how long an idle client may keep a connection that its
	// server has closed: servers cut those as well (Linux: tcp_fin_timeout).
	closedTime = 60 * time.Second
	// graceTime is how long the original may take with what is under way when
	// the session ends: the agent must be gone within 10 s.
	graceTime = 3 * time.Second
)

// split is one connection to a filtered port, divided by requests between the
// original and local.
//
//	client ──► read ──┬─► original ──► hear ──┐
//	   ▲              └─► local ─────► hear ──┤
//	   └──────────────────────────────────────┘
//
// One request is under way at a time: read forwards it and waits for the end of
// its reply before it forwards the next, so replies keep their order and
// requests theirs, whoever gets them. Everything else ends in one state: the
// connection is bound to one side, and is a plain connection between that side
// and the client from then on. So it is when a message cannot be divided
// safely, or is not HTTP; when the protocol was switched, but to HTTP/2 (h2c.go);
// with the last request or reply; when the client has ended its direction; and when
// the original speaks, or closes, unasked. Local is bound only by what the client
// wants of it. Where its own reply leaves no other way, its words are the
// client's, but the client's are not its: those could be another request, which
// the filter has not seen (seal).
type split struct {
	hub    *Hub
	conn   *conn
	client net.Conn // conn's: it can be spliced
	in     *http1.Reader
	wg     sync.WaitGroup // of hear

	mu    sync.Mutex
	cond  sync.Cond // of mu: something below has changed
	sides [2]*side  // connected ones, by role
	busy  *side     // has a request under way; nil: none
	// of that request
	method                                       string
	expects, upgrades, continued, sent, answered bool
	invited                                      bool // its body was asked for by ourselves, with 100 Continue

	last   *side // which answered last
	bound  *side // whose connection it is from now on
	sealed bool  // bound, a local, gets nothing behind the request under way
	over   bool  // nothing is forwarded any more
	deaf   bool  // what the client says goes nowhere
	ending bool  // the session has ended
	idle   bool  // read waits between two requests
	waits  bool  // read waits for the client
	grace  *time.Timer

	upgrade *upgrade // the client's offer to go on in HTTP/2; nil: there is none
	streams *streams // what it is of HTTP/2; nil: nothing

	counted int // of what the connection has brought, that is the original's
}

func newSplit(h *Hub, c *conn) *split {
	s := &split{hub: h, conn: c, client: c.Conn, in: http1.NewReader(c.Conn, h.o.Memory.Parsed)}
	s.cond.L = &s.mu
	return s
}

// run carries the connection to its end.
func (s *split) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, s.leave)
	defer stop()
	s.read(ctx)
	s.mu.Lock()
	if s.upgraded() { // nobody who waits for a further request is bound, or let go
		s.closeLocked()
	}
	s.mu.Unlock()
	s.wg.Wait()
	s.in.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grace != nil {
		s.grace.Stop()
	}
	s.closeLocked()
	s.unoffered()
}

// read forwards what the client says until there is nothing more, or nobody
// who hears it.
func (s *split) read(ctx context.Context) {
	if !s.first(ctx) {
		return
	}
	hurried := false // there is a deadline for the rest of a head
	relax := func() {
		if hurried {
			_ = s.client.SetReadDeadline(time.Time{})
			hurried = false
		}
	}
	between := false // a request has been forwarded, the next has not begun
	for {
		// Something has arrived. Whose it is shows with the end of the last reply.
		to, upgraded, over := s.turn()
		switch {
		case over:
			s.discard()
			return
		case upgraded:
			s.goOn(ctx)
			return
		case to != nil:
			relax()
			s.rest(to)
			return
		}
		q, err := s.in.Request()
		if errors.Is(err, http1.ErrIncomplete) {
			// An empty line behind a body begins nothing (RFC 9112 §2.2).
			if between && strings.HasPrefix("\r\n", string(s.in.Buffered())) {
				if !s.await(ctx) {
					return
				}
				continue
			}
			if !hurried {
				_ = s.client.SetReadDeadline(time.Now().Add(s.hub.headTime))
				hurried = true
			}
			if !s.fill(ctx) {
				return
			}
			continue
		}
		relax()
		if err != nil {
			is, gone := false, false
			if !between {
				is, gone = s.preface(ctx)
			}
			switch {
			case gone, is && s.divide(ctx):
				return
			case is: // it is somebody's
				continue
			}
			s.hub.passes(s.conn.key, s.in.Buffered())
			s.give(ctx)
			return
		}
		x, whole := s.choose(ctx, q)
		if x == nil {
			return
		}
		last := whole || q.Last
		edited := s.offered(x, q, last)
		if !s.begin(x, q, last) {
			continue
		}
		s.listen(x)
		if last {
			if !edited || s.forward(x, q) {
				s.rest(x)
			}
			return
		}
		if !s.forward(x, q) || len(s.in.Buffered()) == 0 && !s.await(ctx) {
			return
		}
		between = true
	}
}

// first waits for the client's first bytes; when it is silent, the original is
// connected as well, and whoever speaks first decides.
func (s *split) first(ctx context.Context) bool {
	_ = s.client.SetReadDeadline(time.Now().Add(silence))
	err := s.in.Fill()
	_ = s.client.SetReadDeadline(time.Time{})
	if !timeout(err) {
		return err == nil || s.hangUp(ctx, err)
	}
	x := s.connect(ctx, toOriginal, nil)
	if x == nil {
		return false
	}
	s.listen(x)
	return s.fill(ctx)
}

// fill waits for more of the client's bytes; false: there are none, and that
// has been dealt with.
func (s *split) fill(ctx context.Context) bool { return s.wait(ctx, false) }

// await is fill between two requests: there the end of the session is the end
// of the connection, as soon as the last reply is given.
func (s *split) await(ctx context.Context) bool { return s.wait(ctx, true) }

func (s *split) wait(ctx context.Context, idle bool) bool {
	s.mu.Lock()
	if s.changed() {
		s.mu.Unlock()
		return true
	}
	s.idle, s.waits = idle, true
	s.part()
	s.expire()
	s.mu.Unlock()
	err := s.in.Fill()
	s.mu.Lock()
	s.idle, s.waits = false, false
	if s.changed() { // whatever the client has said, or not
		_ = s.client.SetReadDeadline(time.Time{})
		s.mu.Unlock()
		return true
	}
	if err == nil && s.bound != nil && s.bound.ended && !s.over { // it goes on to half a connection
		_ = s.client.SetReadDeadline(time.Time{})
	}
	s.mu.Unlock()
	return err == nil || s.hangUp(ctx, err)
}

// expire bounds how long the client may say nothing when it has been told that
// there will be no more replies. mu is held.
func (s *split) expire() {
	if s.waits && s.bound != nil && s.bound.ended && !s.over {
		_ = s.client.SetReadDeadline(time.Now().Add(s.hub.closedTime))
	}
}

// part closes the connection if it is idle and the session has ended. mu is
// held.
func (s *split) part() {
	if s.ending && s.idle && s.busy == nil && s.bound == nil && !s.over {
		s.closeLocked()
	}
}

// hangUp deals with the end of what the client says. It returns false.
func (s *split) hangUp(ctx context.Context, err error) bool {
	s.mu.Lock()
	over, bound := s.over, s.bound
	to := bound
	for _, x := range []*side{s.busy, s.last, s.sides[toOriginal]} {
		if to == nil {
			to = x
		}
	}
	s.mu.Unlock()
	switch {
	case over:
	case bound == nil && len(s.in.Buffered()) > 0 && (errors.Is(err, io.EOF) || timeout(err)):
		_ = s.client.SetReadDeadline(time.Time{}) // that of the head
		s.give(ctx)                               // half a head
	case !errors.Is(err, io.EOF):
		s.fail(err)
	case to != nil && s.bind(to):
		_ = to.CloseWrite()
	}
	return false
}

// turn waits until nothing is under way, or an offer to go on in HTTP/2 has been taken.
// to is whose the connection is, nil if it is to be divided further.
func (s *split) turn() (to *side, upgraded, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.busy != nil && s.bound == nil && !s.over && !s.changed() {
		s.cond.Wait()
	}
	return s.bound, s.changed(), s.over
}

// forward sends q to x; false: the client has been dealt with.
func (s *split) forward(x *side, q *http1.Request) bool {
	err := s.in.Forward(x, &q.Message)
	var we *http1.WriteError
	switch {
	case err == nil:
		s.mu.Lock()
		s.sent = true
		s.settle()
		s.mu.Unlock()
		return true
	case errors.As(err, &we):
		s.muffle(x)
	case errors.Is(err, http1.ErrAmbiguous):
		if s.bind(x) {
			s.rest(x)
		}
	case errors.Is(err, io.ErrUnexpectedEOF):
		if s.bind(x) {
			_ = x.CloseWrite()
		}
	default:
		s.mu.Lock()
		over := s.over
		s.mu.Unlock()
		if !over {
			s.fail(err)
		}
	}
	return false
}

// passed counts one more that is the original's. mu is held.
func (s *split) passed() {
	s.counted++
	s.hub.passed.Add(1)
}

// settle looks whether the request under way is done. mu is held.
func (s *split) settle() {
	if s.busy == nil || !s.sent || !s.answered {
		return
	}
	s.busy = nil
	s.unoffered()
	s.cond.Broadcast()
	s.part()
}

// closeLocked ends an idle connection. mu is held.
func (s *split) closeLocked() {
	s.over = true
	s.client.Close()
	for _, x := range s.sides {
		if x != nil {
			x.Close()
		}
	}
	s.cond.Broadcast()
}

// fail resets everything.
func (s *split) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failLocked(err)
}

func (s *split) failLocked(err error) {
	s.over = true
	relay.Reset(s.conn, err)
	for _, x := range s.sides {
		if x != nil {
			relay.Reset(x.Conn, err)
		}
	}
	s.cond.Broadcast()
}

// leave ends the connection with the session: at once if it is idle or local
// has it and does not refuse it. What the original or a guest has it may finish,
// and so may a client that has begun to speak, or not yet: it knows of no session.
func (s *split) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = true
	at := s.bound
	if at == nil {
		at = s.busy
	}
	switch {
	case s.over:
	case s.streams != nil:
		m := s.streams
		m.leave()
		s.grace = time.AfterFunc(graceTime, func() {
			m.hop.Close()
			s.fail(syscall.ECONNRESET)
		})
	case at != nil && at.role == toLocal && at.guest == nil && !at.Conn.(*offer).leave():
		s.failLocked(syscall.ECONNRESET)
	default:
		s.grace = time.AfterFunc(graceTime, func() { s.fail(syscall.ECONNRESET) })
		s.part()
	}
}
