package http2

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/mirrord-go/mirrord/internal/budget"
)

// This file is about copies: a Mirror hears what the client of a connection says to
// its server, which neither of them knows, and gives a second server those requests
// that are wanted.
//
//	client ──────────────► its server
//	   └─► Mirror ──► Sink ──► the second server, whose replies are dropped
//
// What the first server says is not heard. So the client is held to nothing that
// was agreed between the two (windows, streams at once), only to bounds of our own;
// and where the bytes do not fit each other the copy ends, since compression
// cannot be taken up again. Nobody is waited for: a request for which there is no
// room is lost, which is counted.
//
// A connection that is met in its middle has said header fields that are named by
// their number from then on. They are unknown, not wrong: the decoder's table begins
// full of fields without a name, as many as there can be, so that each number means
// the same field as for the server, or an unknown one. A request that names one is
// not copied: what it asks for would be guessed.

// What a Mirror holds, in bytes.
const (
	// maxWaits is how much of bodies may wait for the second server: as much as of a
	// copy of anything else.
	maxWaits = 4 << 20
	// maxSeen is the longest payload of a frame: servers may allow more than maxFrame,
	// those of Go so much.
	maxSeen = 1 << 20
)

// MirrorCost is what a Mirror costs its owner besides what MirrorOptions.Memory
// counts.
const MirrorCost = ServerCost

// MirrorOptions are those of NewMirror.
type MirrorOptions struct {
	// Middle: the connection is met in its middle, at the beginning of a frame.
	Middle bool
	// Route says whether a request is wanted: To is not nil, or the body decides. It
	// is called by Receive, with no lock held.
	Route func(q *Request) Verdict
	// Connect begins to connect s with the second server, and does not wait. Then
	// s.Ended is called, once.
	Connect func(s *Sink)
	// Lost is called for each request of which the second server does not get all, for
	// want of room. It does not wait.
	Lost func()
	// Unseen is called for each request that names fields which are unknown. It does
	// not wait.
	Unseen func()
	// Memory is for requests that are not over. nil: it has no end.
	Memory *budget.Share
}

// Mirror is what is known of one client's connection. Its owner gives it what he
// reads (Receive), and writes what its Sinks have to say. All methods but Receive
// may be called concurrently.
type Mirror struct {
	o MirrorOptions

	// What follows is Receive's.
	scan scanner
	blocks
	last   uint32 // the highest number of a stream
	broken error

	mu      sync.Mutex
	streams map[uint32]*copied // requests that are wanted, or may be, by the client's number
	sink    *Sink              // that gets new ones; nil: there is none
	all     map[*Sink]bool     // those that have not ended
	waits   int                // bytes of bodies that wait
	large   int                // memory that is taken for a long frame
	ending  bool               // the client says nothing more
	over    bool
}

// NewMirror makes the state of a connection.
func NewMirror(o MirrorOptions) *Mirror {
	m := &Mirror{o: o, scan: scanner{server: o.Middle, most: maxSeen}, streams: map[uint32]*copied{}, all: map[*Sink]bool{}}
	m.decode = hpack.NewDecoder(maxTable, m.field)
	if o.Middle {
		unknown(m.decode)
	}
	return m
}

// unknown fills the table of d with fields without a name, which no request has: as
// many as it can have (RFC 7541 §4.1). Behind them d has never less than whoever
// began with other fields.
func unknown(d *hpack.Decoder) {
	const perField = 32
	d.SetEmitEnabled(false)
	for range maxTable / perField {
		_, _ = d.Write([]byte{0x40, 0, 0}) // a literal to be indexed, its name and value empty
	}
	_ = d.Close()
	d.SetEmitEnabled(true)
}

// unseen reports whether fields has one that was said before we heard it.
func unseen(fields []hpack.HeaderField) bool {
	return slices.ContainsFunc(fields, func(f hpack.HeaderField) bool { return f.Name == "" })
}

// Receive takes what the client has said. Behind an error nothing more is
// understood, and Ended is to be called.
func (m *Mirror) Receive(b []byte) error {
	if m.broken == nil {
		m.broken = m.receive(b)
	}
	return m.broken
}

func (m *Mirror) receive(b []byte) error {
	for {
		f, rest, ok, err := m.scan.next(b)
		if err == nil && !ok {
			return m.hold(len(m.scan.part) - maxFrame)
		}
		if err == nil {
			err = m.frame(f)
		}
		if err != nil {
			return err
		}
		b = rest
	}
}

// hold takes the memory for n bytes of a long frame, of which more is to come.
func (m *Mirror) hold(n int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	more := max(0, n) - m.large
	switch {
	case m.over:
	case more <= 0:
		m.o.Memory.Give(-more)
		m.large += more
	case m.o.Memory.Take(more):
		m.large += more
	default:
		return wrong(EnhanceYourCalm, "there is no memory for a long frame")
	}
	return nil
}

// frame takes one frame.
func (m *Mirror) frame(f frame) error {
	if err := m.interrupted(f); err != nil {
		return err
	}
	switch f.kind {
	case kindHeaders, kindContinuation:
		l, whole, err := m.fragment(f)
		if err != nil || !whole {
			return err
		}
		return m.asked(l)
	case kindData:
		return m.data(f)
	case kindReset:
		return m.resets(f)
	}
	return nil // that is between the client and its server
}

// asked takes a header block.
func (m *Mirror) asked(l list) error {
	id := m.at
	if id%2 == 0 {
		return wrong(ProtocolError, "a client's streams have odd numbers")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.streams[id]; s != nil {
		m.trailers(s, l)
		return nil
	}
	if id <= m.last { // of a request that is not copied
		return nil
	}
	m.last = id
	switch {
	case l.long: // what it asks for is not known
		m.o.Lost()
		return nil
	case m.o.Middle && unseen(l.fields):
		m.o.Unseen()
		return nil
	}
	s := &copied{m: m, id: id, ended: m.ends, head: newRequest(l.fields)}
	v := m.route(s)
	switch {
	case v.To == nil && !v.Wait, m.over:
		return nil
	case len(m.streams) >= maxStreams || !m.o.Memory.Take(streamCost+l.size):
		m.o.Lost()
		return nil
	}
	m.streams[id] = s
	s.put(part{fields: nonNil(l.fields), size: l.size, end: m.ends})
	m.decide(s, v)
	return nil
}

// route asks whether s is wanted. mu is given back meanwhile.
func (m *Mirror) route(s *copied) Verdict {
	m.mu.Unlock()
	defer m.mu.Lock()
	return m.o.Route(s.head)
}

// decide does what v says of s. mu is held, but while it is asked again.
func (m *Mirror) decide(s *copied, v Verdict) {
	for v.Wait && !s.head.Asked {
		s.held, s.late = &v, time.Now().Add(v.Time)
		if !s.look() {
			return
		}
		v = m.route(s)
	}
	switch {
	case s.gone: // meanwhile
	case v.To == nil:
		m.forget(s)
	default:
		s.head = nil
		m.place(s)
	}
}

// again asks once more about s, if what it waits for has come.
func (m *Mirror) again(s *copied) {
	if s.look() {
		m.decide(s, m.route(s))
	}
}

// trailers takes what comes behind a body. mu is held, as in all that follows but
// where Receive calls it.
func (m *Mirror) trailers(s *copied, l list) {
	switch {
	case s.ended: // its server says that this is wrong
		return
	case !m.ends:
		m.cancel(s, ProtocolError)
		return
	case m.o.Middle && unseen(l.fields):
		m.o.Unseen()
		m.cancel(s, Cancel)
		return
	case l.long || !m.o.Memory.Take(l.size):
		m.lose(s)
		return
	}
	s.ended = true
	s.put(part{fields: nonNil(l.fields), size: l.size, end: true})
	m.again(s)
}

// data takes DATA.
func (m *Mirror) data(f frame) error {
	b, err := f.unpadded()
	switch {
	case f.stream == 0:
		return wrong(ProtocolError, "DATA of no stream")
	case err != nil:
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.streams[f.stream]
	if s == nil || s.ended {
		return nil
	}
	if m.waits+len(b) > maxWaits || !m.o.Memory.Take(len(b)) {
		if s.held != nil { // it may not be wanted
			s.asks(ErrTooLarge)
			m.decide(s, m.route(s))
		}
		m.lose(s)
		return nil
	}
	s.ended = f.has(flagEnd)
	if len(b) > 0 || s.ended {
		s.put(part{data: b, end: s.ended})
	}
	m.again(s)
	return nil
}

// resets takes RST_STREAM.
func (m *Mirror) resets(f frame) error {
	if len(f.payload) != 4 {
		return wrong(FrameSizeError, "RST_STREAM is not 4 bytes long")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.streams[f.stream]; s != nil {
		m.unwanted(s, Code(binary.BigEndian.Uint32(f.payload)))
	}
	return nil
}

// unwanted is when the client wants nothing more of s. What it has asked for wholly
// its server may have answered long since, while the second one was being connected:
// curl resets a stream so when a reply is as long as it was announced, and trailers
// come behind. So all of it goes on, and the reset behind it; one that finds no fault
// with the reply says nothing to a server that is slower.
func (m *Mirror) unwanted(s *copied, code Code) {
	switch {
	case !s.ended:
		m.cancel(s, code)
	case code == NoError || code == StreamClosed:
	case s.finished:
		m.cancel(s, code)
	case !s.parts[len(s.parts)-1].reset:
		s.put(part{reset: true, code: code})
	}
}

// place gives s to the second server.
func (m *Mirror) place(s *copied) {
	if s.tries++; s.tries > maxTries {
		m.forget(s)
		return
	}
	k := m.sink
	if k == nil {
		k = newSink(m)
		m.sink, m.all[k] = k, true
		m.o.Connect(k)
	}
	s.to = k
	k.own[s] = true
	k.waiting = append(k.waiting, s)
	k.admit()
}

// lose ends s for want of room.
func (m *Mirror) lose(s *copied) {
	if !s.gone {
		m.o.Lost()
		m.cancel(s, Cancel)
	}
}

// cancel ends s, of which the second server may have got something.
func (m *Mirror) cancel(s *copied, code Code) {
	if k := s.to; k != nil && k.streams[s.given] == s {
		k.tell(appendReset(nil, s.given, code))
	}
	m.forget(s)
}

// forget ends s.
func (m *Mirror) forget(s *copied) {
	if s.gone {
		return
	}
	s.gone = true
	for _, p := range s.parts {
		m.o.Memory.Give(p.size)
	}
	m.o.Memory.Give(streamCost + s.waits)
	m.waits -= s.waits
	s.parts, s.waits = nil, 0
	delete(m.streams, s.id)
	if s.to != nil {
		s.to.release(s)
	}
}

// Ended tells that nothing more is heard of the client. What it has asked for
// wholly goes on.
func (m *Mirror) Ended() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ending = true
	for _, s := range m.streams {
		if !s.ended {
			m.cancel(s, Cancel)
		}
	}
	for k := range m.all {
		k.drained()
	}
}

// Close ends everything at once.
func (m *Mirror) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = true
	for _, s := range m.streams {
		m.forget(s)
	}
	for k := range m.all {
		k.end()
	}
	m.o.Memory.Give(m.large)
	m.large = 0
}

// copied is one request. All of it is guarded by the mirror's mu.
type copied struct {
	m  *Mirror
	id uint32 // the client's

	to       *Sink  // whose it is; nil: that is not decided
	admitted bool   // there is a place for it
	queued   bool   // its turn to be written comes
	given    uint32 // its number there; 0: nothing of it has gone there
	tries    int    // sinks that it was meant for

	parts  []part // what has come and not gone on
	waits  int    // bytes of DATA among them
	credit int    // that the second server still takes
	heard  int    // of its reply, for which the window has not been opened again

	head *Request // while it is not decided
	held *Verdict // not nil: the body is waited for
	late time.Time

	ended    bool // the client has said all of it
	finished bool // all has gone on
	answered bool // its reply has ended
	gone     bool
}

// put adds a part.
func (s *copied) put(p part) {
	n := len(s.parts)
	switch {
	case p.reset:
		s.parts = append(s.parts, p)
	case p.fields == nil && n > 0 && s.parts[n-1].joins():
		last := &s.parts[n-1]
		last.data = append(last.data, p.data...)
		last.end = p.end
	case p.fields == nil:
		p.data = slices.Clone(p.data) // it is the reader's
		s.parts = append(s.parts, p)
	default:
		s.parts = append(s.parts, p)
	}
	s.waits += len(p.data)
	s.m.waits += len(p.data)
	if s.to != nil {
		s.to.enqueue(s)
	}
}

// pop removes the first part, which has gone on.
func (s *copied) pop() {
	p := s.parts[0]
	s.m.o.Memory.Give(p.size)
	s.parts[0] = part{}
	if s.parts = s.parts[1:]; len(s.parts) == 0 {
		s.parts = nil
	}
	s.finished = p.end
}

// ready reports whether the first part can go on, as far as s is concerned.
func (s *copied) ready() bool {
	return len(s.parts) > 0 && (len(s.parts[0].data) == 0 || s.credit > 0)
}

// look reports whether enough of the body has come to ask again.
func (s *copied) look() bool {
	switch {
	case s.held == nil:
		return false
	case s.waits > s.held.Size:
		s.asks(ErrTooLarge)
	case time.Now().After(s.late): // nothing waits for it, so nobody looks before
		s.asks(ErrTooSlow)
	case s.ended:
		for _, p := range s.parts {
			s.head.Body = append(s.head.Body, p.data...)
		}
		s.asks(nil)
	default:
		return false
	}
	return true
}

// asks ends waiting for the body.
func (s *copied) asks(unread error) { s.held, s.head.Asked, s.head.Unread = nil, true, unread }
