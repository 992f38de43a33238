package http2

import "golang.org/x/net/http2/hpack"

// This file is about one stream, and its two directions. All of it is guarded by
// the hop's mu.

// stream is one request of the client's, and its reply.
type stream struct {
	hop *Hop
	id  uint32 // of the client's

	to       *Peer  // whose it is; nil: that is not known yet
	admitted bool   // to has a place for it
	given    uint32 // its number there; 0: nothing of it has gone there
	tries    int    // servers that it was meant for

	request, reply pipe

	head *Request // while it is not known whose it is
	held *Verdict // not nil: its body is waited for
	stop func()   // its timer's

	begun   bool  // the head of the reply has come, not an interim one
	invited bool  // the client has been told by ourselves to send the body
	cost    int   // memory that it is counted as
	spent   int   // of spare
	length  int64 // of a program's reply: what it still owes of what it has announced; -1: it has not
	isHead  bool
	calls   bool // it is gRPC's
	gone    bool // the client knows of its end, or said it
}

// pipe is one direction of a stream: what has come and not gone on.
//
// Its sender may send so much as is opened for him, which is opened again when
// something has gone on.
type pipe struct {
	s     *stream
	reply bool

	parts  []part
	blocks int // header blocks among them
	waits  int // bytes of DATA among them

	window int // bytes of DATA that may still come
	owed   int // and that the window has not been opened for again
	ahead  int // for which it has been opened before they have gone on
	credit int // that the receiver still takes

	ended    bool // nothing more comes
	finished bool // all has gone on
	dropped  bool // the receiver wants nothing
	cut      bool // its end was a reset
	queued   bool // the receiver's turn to write it comes
}

// part is a piece of a direction.
type part struct {
	fields []hpack.HeaderField // a header block
	size   int                 // of its list: memory that is taken
	kept   int                 // and what of its sender's reserve
	data   []byte              // no header block
	ours   bool                // it has not been received
	end    bool                // END_STREAM
	reset  bool                // RST_STREAM with code
	code   Code
}

func (q *pipe) from() *Peer {
	if q.reply {
		return q.s.to
	}
	return q.s.hop.client
}

func (q *pipe) to() *Peer {
	if q.reply {
		return q.s.hop.client
	}
	return q.s.to
}

// sentAs and goesAs are the stream's numbers at both ends of a direction.
func (q *pipe) sentAs() uint32 {
	if q.reply {
		return q.s.given
	}
	return q.s.id
}

func (q *pipe) goesAs() uint32 {
	if q.reply {
		return q.s.id
	}
	return q.s.given
}

// put adds a part.
func (q *pipe) put(p part) {
	n := len(q.parts)
	switch {
	case q.dropped:
		q.give(p)
		if len(p.data) > 0 {
			q.from().consumed(len(p.data))
		}
		return
	case p.fields == nil && !p.reset && n > 0 && q.parts[n-1].joins():
		last := &q.parts[n-1]
		last.data = append(last.data, p.data...)
		last.end = p.end
	case p.fields == nil && !p.reset && !p.ours:
		p.data = append([]byte(nil), p.data...) // it is the reader's
		q.parts = append(q.parts, p)
	default:
		q.parts = append(q.parts, p)
	}
	if !p.ours {
		q.waits += len(p.data)
	}
	if p.fields != nil {
		q.blocks++
	}
	if to := q.to(); to != nil {
		to.enqueue(q)
	}
}

// joins reports whether more DATA can be part of p.
func (p *part) joins() bool { return p.fields == nil && !p.reset && !p.end }

// pop removes the first part, which has gone on.
func (q *pipe) pop() {
	p := q.parts[0]
	if p.fields != nil {
		q.blocks--
		q.give(p)
	}
	q.parts[0] = part{}
	if q.parts = q.parts[1:]; len(q.parts) == 0 {
		q.parts = nil
	}
	if p.end || p.reset {
		q.finished, q.cut = true, p.reset
	}
}

// drop forgets what waits, and what comes.
func (q *pipe) drop() {
	q.clear()
	q.dropped, q.finished = true, true
	if q.queued {
		q.queued = false
		q.to().unqueue(q)
	}
}

// clear forgets what waits.
func (q *pipe) clear() {
	for _, p := range q.parts {
		q.give(p)
	}
	n := q.waits
	q.parts, q.waits, q.blocks = nil, 0, 0
	if n > 0 {
		q.from().consumed(n)
	}
}

// consumed opens the windows again for n bytes that have gone on.
func (q *pipe) consumed(n int) {
	q.waits -= n
	q.from().consumed(n)
	ahead := min(n, q.ahead)
	q.ahead -= ahead
	q.open(n - ahead)
}

// open opens the stream's window by n.
func (q *pipe) open(n int) {
	q.owed += n
	if q.owed < window/2 || q.ended || q.dropped {
		return
	}
	q.from().tell(appendWindow(nil, q.sentAs(), q.owed))
	q.window += q.owed
	q.owed = 0
}

// ready reports whether the first part can go on, as far as the stream is
// concerned.
func (q *pipe) ready() bool {
	return len(q.parts) > 0 && (len(q.parts[0].data) == 0 || q.credit > 0)
}

// body is all DATA that waits.
func (q *pipe) body() []byte {
	var all []byte
	for _, p := range q.parts {
		all = append(all, p.data...)
	}
	return all
}

// block makes a part of a header list behind the request's head, with the memory for
// it; false: there is none.
func (q *pipe) block(l list, end bool) (part, bool) {
	s, p := q.s, part{fields: nonNil(l.fields), end: end}
	switch from := q.from(); {
	case s.hop.o.Memory.Take(l.size):
		p.size = l.size
	case s.spent+l.size <= spare:
		s.spent += l.size
	case q.reply && from.kept+l.size <= reserve:
		p.kept = l.size
		from.kept += l.size
	default:
		return part{}, false
	}
	return p, true
}

// give gives back what p has taken.
func (q *pipe) give(p part) {
	q.s.hop.o.Memory.Give(p.size)
	if p.kept > 0 {
		q.from().kept -= p.kept
	}
}

// hold waits for the body; true: it need not be waited for.
func (s *stream) hold(v Verdict) bool {
	s.held = &v
	if s.look() {
		return true
	}
	s.stop = s.hop.after(v.Time, s.late)
	if s.head.expects && s.request.waits == 0 {
		s.invited = true
		s.reply.put(part{fields: []hpack.HeaderField{{Name: ":status", Value: "100"}}})
	}
	return false
}

// look reports whether enough of the body has come to ask again whose the stream
// is.
func (s *stream) look() bool {
	switch {
	case s.held == nil:
		return false
	case s.request.waits > s.held.Size:
		s.head.Unread = ErrTooLarge
	case s.request.ended:
		s.head.Body = s.request.body()
	default:
		return false
	}
	s.unhold()
	return true
}

func (s *stream) unhold() {
	s.held, s.head.Asked = nil, true
	if s.stop != nil {
		s.stop()
	}
}

// late is when the body has taken too long.
func (s *stream) late() {
	h := s.hop
	h.mu.Lock()
	late := s.held != nil && !s.gone
	if late {
		s.unhold()
		s.head.Unread = ErrTooSlow
	}
	h.unlock()
	if late {
		h.decide(s)
	}
}
