package http2

import (
	"slices"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
)

// Destination names a server. It can be compared; nil is the original, which the
// client meant to speak with.
type Destination any

// Verdict says whose a stream is.
type Verdict struct {
	To Destination
	// Wait: the body decides. It is waited for, so many bytes, so long.
	Wait bool
	Size int
	Time time.Duration
}

// Options of New. The functions may be called concurrently, and not with a
// lock held.
type Options struct {
	// Route says whose a request is. It is asked once more, and last, when the body
	// that it waits for has come or will not be looked at.
	Route func(q *Request) Verdict
	// Connect begins to connect p with its server, and does not wait. It is called
	// when there is a stream for it. Then p.Ended is called, once.
	Connect func(p *Peer)
	// Memory is for what waits to go on beyond Cost. nil: it has no end.
	Memory *budget.Share
	// Starved is called when a window stays closed for want of memory: when there is
	// a Chunk of it, Fed is to be called. It does not wait. nil: the window is opened
	// when more has gone on.
	Starved func()
}

// Hop is the state of one client's connection.
type Hop struct {
	o       Options
	client  *Peer
	settled chan struct{} // closed when committed or passes is set, and by Close

	mu        sync.Mutex
	servers   map[Destination]*Peer // those that get new streams
	all       map[*Peer]bool        // those that have not ended
	fresh     []*Peer               // those to be connected
	allowed   []setting             // what the client has been told that it may do
	committed bool                  // the client is spoken with
	passes    bool                  // the original does not speak HTTP/2, and the client was told nothing
	leaving   bool                  // the client has been asked to open no more streams
	shutting  bool                  // what it opens behind told is not looked at
	told      uint32
	over      bool
	poor      bool           // a window stays closed for want of memory
	starved   bool           // and its owner has been told so
	stalled   func()         // stops the timer of relieve; nil: it does not run
	stalls    int            // timers that were stopped
	timers    sync.WaitGroup // that have not been stopped
}

// New makes the state of a connection. The client is told nothing before one of
// the servers has shown that it speaks HTTP/2, or Commit is called.
func New(o Options) *Hop {
	h := &Hop{o: o, settled: make(chan struct{}), servers: map[Destination]*Peer{}, all: map[*Peer]bool{}}
	h.client = newPeer(h, false)
	h.client.silent = true
	return h
}

// Client is the client.
func (h *Hop) Client() *Peer { return h.client }

// Settled is closed when it is known whether the client is spoken with, or after
// Close.
func (h *Hop) Settled() <-chan struct{} { return h.settled }

// Passes reports whether the original does not speak HTTP/2 and the client has been
// told nothing: the connection is theirs.
func (h *Hop) Passes() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.passes
}

// Pass makes the connection the original's and the client's; false: the client has
// been told something.
func (h *Hop) Pass() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.committed && !h.over {
		h.pass()
	}
	return h.passes
}

func (h *Hop) pass() {
	if !h.passes {
		h.passes = true
		close(h.settled)
	}
}

// unlock gives mu back, and then has new servers connected, those cut that must be,
// and memory looked for.
func (h *Hop) unlock() {
	cuts := h.floods()
	h.watch()
	fresh := h.fresh
	h.fresh = nil
	starved := h.poor && !h.starved && !h.over && h.o.Starved != nil
	h.starved = h.starved || starved
	h.mu.Unlock()
	if starved {
		h.o.Starved()
	}
	for _, p := range fresh {
		h.o.Connect(p)
	}
	for _, cut := range cuts {
		cut()
	}
}

// after has f called in d, unless it is stopped before. mu is held, and the hop is
// not over.
func (h *Hop) after(d time.Duration, f func()) (stop func()) {
	h.timers.Add(1)
	t := time.AfterFunc(d, func() {
		defer h.timers.Done()
		f()
	})
	return func() {
		if t.Stop() {
			h.timers.Done()
		}
	}
}

// Wait waits, behind Close, until nothing calls the functions of Options any more by
// itself.
func (h *Hop) Wait() { h.timers.Wait() }

// Original begins to connect the original, though no stream is for it yet: whether
// it speaks HTTP/2, and what it allows, the client is to know.
func (h *Hop) Original() {
	h.mu.Lock()
	defer h.unlock()
	h.server(nil)
}

// Commit begins to speak with the client, whatever the original does.
func (h *Hop) Commit() {
	h.mu.Lock()
	defer h.unlock()
	h.commit()
}

func (h *Hop) commit() {
	if h.committed || h.passes || h.over {
		return
	}
	h.committed = true
	all := h.allows()
	h.allowed = all
	c := h.client
	c.out = append(appendSettings(nil, all...), c.out...)
	c.silent = false
	close(h.settled)
	c.cond.Broadcast()
}

// allows is what the client is told that it may do: as far as that is known, what the
// original allows.
func (h *Hop) allows() []setting {
	all := []setting{{settingStreams, maxStreams}, {settingList, maxList}}
	if p := h.servers[nil]; p != nil && p.settled {
		all[0].value = uint32(min(maxStreams, p.limit))
		if p.lists > 0 {
			all[1].value = uint32(p.lists)
		}
		if p.connect {
			all = append(all, setting{settingConnect, 1})
		}
	}
	return all
}

// allowsNow tells the client what of that has changed, if it reads what it is told.
func (h *Hop) allowsNow() {
	if h.shutting || len(h.client.out) > maxControl/2 {
		return
	}
	now := h.allows()
	changed := slices.DeleteFunc(slices.Clone(now), func(s setting) bool { return slices.Contains(h.allowed, s) })
	if h.allowed = now; len(changed) > 0 {
		h.client.tell(appendSettings(nil, changed...))
	}
}

// server gives the one that gets new streams for d.
func (h *Hop) server(d Destination) *Peer {
	p := h.servers[d]
	if p == nil {
		p = h.newServer(d)
		h.fresh = append(h.fresh, p)
	}
	return p
}

// ours are the settings that a server is told.
func ours() []setting { return []setting{{settingPush, 0}, {settingList, maxList}} }

func (h *Hop) newServer(d Destination) *Peer {
	p := newPeer(h, true)
	p.to = d
	p.tell(appendSettings([]byte(Preface), ours()...))
	h.servers[d], h.all[p] = p, true
	return p
}

// asked takes a header block of the client's.
func (h *Hop) asked(id uint32, ends bool, l list) error {
	h.mu.Lock()
	s, err := h.begun(id, ends, l)
	h.unlock()
	if s != nil {
		h.decide(s)
	}
	return err
}

// begun gives the stream that begins with l, if one does.
func (h *Hop) begun(id uint32, ends bool, l list) (*stream, error) {
	c := h.client
	if s := c.streams[id]; s != nil {
		return h.trailers(s, ends, l)
	}
	switch {
	case h.over: // nobody would end it
		return nil, nil
	case id%2 == 0:
		return nil, wrong(ProtocolError, "a client's streams have odd numbers")
	case id <= c.last: // it may not know yet of a reset, and not all are remembered
		return nil, nil
	}
	if c.last = id; h.shutting { // the client has been told that it is not looked at
		c.remember(id)
		return nil, nil
	}
	size := l.size
	if l.long {
		size = 0
	}
	if len(c.streams) >= maxStreams || !h.o.Memory.Take(streamCost+size) {
		return nil, c.streamFailed(id, RefusedStream)
	}
	s := &stream{hop: h, id: id, cost: streamCost}
	s.request = pipe{s: s, window: window, ended: ends}
	s.reply = pipe{s: s, reply: true, credit: c.initial}
	c.streams[id] = s
	if s.isHead = l.isHead; l.long {
		h.answer(s, "431", "mirrord: the request's header is too long\n")
		return nil, nil
	}
	s.head = newRequest(l.fields)
	s.calls = s.head.calls
	s.request.put(part{fields: nonNil(l.fields), size: l.size, end: ends})
	return s, nil
}

// trailers takes what the client says behind a body. It gives s if that was waited
// for.
func (h *Hop) trailers(s *stream, ends bool, l list) (*stream, error) {
	switch {
	case s.request.ended:
		return nil, h.client.streamFailed(s.id, StreamClosed)
	case !ends:
		return nil, h.client.streamFailed(s.id, ProtocolError)
	case l.long:
		return nil, h.client.streamFailed(s.id, EnhanceYourCalm)
	}
	block, ok := s.request.block(l, true)
	if !ok {
		return nil, h.client.streamFailed(s.id, EnhanceYourCalm)
	}
	s.request.ended = true
	s.request.put(block)
	h.settle(s)
	if s.look() {
		return s, nil
	}
	return nil, nil
}

// decide asks whose s is.
func (h *Hop) decide(s *stream) {
	for {
		v := h.o.Route(s.head)
		h.mu.Lock()
		asked := v.Wait && !s.head.Asked && !s.gone && s.hold(v)
		if s.held == nil && !asked && !s.gone {
			s.head = nil
			h.place(s, v.To)
		}
		h.unlock()
		if !asked {
			return
		}
	}
}

// place gives s to a server.
func (h *Hop) place(s *stream, d Destination) {
	if s.tries++; s.tries > maxTries {
		h.refuse(s)
		return
	}
	p := h.server(d)
	s.to = p
	p.own[s] = true
	p.waiting = append(p.waiting, s)
	p.admit()
}
