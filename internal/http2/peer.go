package http2

import (
	"bytes"
	"math"
	"slices"
	"sync"

	"golang.org/x/net/http2/hpack"
)

// Peer is one of those that the hop speaks with: the client, or a server.
type Peer struct {
	hop *Hop
	to  Destination // a server's

	// What follows is Receive's.
	scan   scanner
	begun  bool // its first SETTINGS have come
	broken error
	blocks

	// What follows is guarded by the hop's mu.
	cond    sync.Cond
	streams map[uint32]*stream // that are open there, by number
	last    uint32             // the highest number: of the client's streams, of those given to a server
	reset   []uint32           // the client's streams that were reset here last: what it still says of them is no mistake

	// What it has to say about what it is told.
	settled  bool // its SETTINGS have come
	upgraded bool // it has told the client that they go on in HTTP/2
	initial  int  // the first window of its streams
	limit    int  // of its streams at once
	lists    int  // of header lists; 0: none is known
	connect  bool // it takes extended CONNECT
	credit   int  // the connection's window

	// What it may say.
	window int // bytes of DATA that may still come
	waits  int // bytes of DATA that have come and not gone on
	extra  int // memory that is taken for them beyond one window
	kept   int // of reserve

	encode  *hpack.Encoder
	encoded bytes.Buffer
	out     []byte  // frames to be written, of no stream or for its control
	ready   []*pipe // directions that have something for it
	stalled []*pipe // and those that wait for the connection's window

	own     map[*stream]bool // a server's streams, those that wait included
	waiting []*stream        // those that wait for a place
	placed  int              // those that have one

	silent  bool // nothing is said to it yet
	retired bool // a server that gets no more streams
	closing bool // nothing more is said behind what can be said now
	flooded bool // a server that does not read which streams are cancelled
	over    bool // it has ended
	cut     func()
}

func newPeer(h *Hop, server bool) *Peer {
	p := &Peer{hop: h, scan: scanner{server: server}, streams: map[uint32]*stream{}, own: map[*stream]bool{}, initial: window, limit: math.MaxInt, credit: window, window: window}
	p.cond.L = &h.mu
	p.decode = hpack.NewDecoder(maxTable, p.field)
	p.encode = hpack.NewEncoder(&p.encoded)
	p.encode.SetMaxDynamicTableSizeLimit(maxTable)
	return p
}

// To is whose server p is; nil: the original's.
func (p *Peer) To() Destination { return p.to }

// Next waits until there is something to be written to p, and appends it to buf;
// false: that was all.
func (p *Peer) Next(buf []byte) ([]byte, bool) {
	p.hop.mu.Lock()
	defer p.hop.unlock()
	for {
		if b := p.take(buf); len(b) > len(buf) {
			return b, true
		}
		if p.over || p.closing {
			return nil, false
		}
		p.cond.Wait()
	}
}

// spill appends what is queued to b, and keeps no large room for more.
func spill(b []byte, queued *[]byte) []byte {
	b = append(b, *queued...)
	if *queued = (*queued)[:0]; cap(*queued) > 4<<10 {
		*queued = nil
	}
	return b
}

// pop takes the first of a queue that is not empty.
func pop[T any](queue *[]*T) *T {
	first := (*queue)[0]
	(*queue)[0] = nil
	if *queue = (*queue)[1:]; len(*queue) == 0 {
		*queue = nil
	}
	return first
}

// take appends what can be written now, about a batch of it.
func (p *Peer) take(b []byte) []byte {
	if p.silent {
		return b
	}
	b = spill(b, &p.out)
	for len(b) < batch && len(p.ready) > 0 && !p.over {
		q := pop(&p.ready)
		q.queued = false
		if q.ready() {
			b = p.send(b, q)
			p.enqueue(q)
		}
	}
	return b
}

// send writes the first part of q, or as much as is allowed.
func (p *Peer) send(b []byte, q *pipe) []byte {
	s, first := q.s, &q.parts[0]
	switch {
	case first.reset:
		b = appendReset(b, q.goesAs(), first.code)
		if q.reply {
			p.remember(s.id)
		}
		q.pop()
	case first.fields != nil:
		if !q.reply && s.given == 0 {
			p.give(s)
		}
		p.encoded.Reset()
		for _, f := range first.fields {
			_ = p.encode.WriteField(f) // of a bytes.Buffer
		}
		b = appendBlock(b, q.goesAs(), p.encoded.Bytes(), first.end)
		if p.encoded.Cap() > maxFrame {
			p.encoded = bytes.Buffer{}
		}
		q.pop()
	default:
		n := max(0, min(len(first.data), maxFrame, q.credit, p.credit))
		if n == 0 && len(first.data) > 0 {
			q.queued = true
			p.stalled = append(p.stalled, q)
			return b
		}
		flags, end := uint8(0), first.end && n == len(first.data)
		if end {
			flags = flagEnd
		}
		b = appendFrame(b, kindData, flags, q.goesAs(), first.data[:n])
		first.data = first.data[n:]
		q.credit -= n
		p.credit -= n
		if !first.ours {
			q.consumed(n)
		}
		if len(first.data) == 0 {
			q.pop()
		}
	}
	if q.finished {
		p.hop.settle(s)
	}
	return b
}

// give gives s its number at p.
func (p *Peer) give(s *stream) {
	if p.last == 0 {
		p.last = 1
	} else {
		p.last += 2
	}
	s.given = p.last
	p.streams[s.given] = s
	s.request.credit = p.initial
	s.reply.window = window
}

// enqueue sees to it that q, which goes to p, is written.
func (p *Peer) enqueue(q *pipe) {
	if q.queued || p.over || !q.reply && !q.s.admitted || !q.ready() {
		return
	}
	q.queued = true
	p.ready = append(p.ready, q)
	p.cond.Broadcast()
}

// unqueue undoes enqueue.
func (p *Peer) unqueue(q *pipe) {
	is := func(other *pipe) bool { return other == q }
	p.ready = slices.DeleteFunc(p.ready, is)
	p.stalled = slices.DeleteFunc(p.stalled, is)
}

// tell adds a frame to what is to be written.
func (p *Peer) tell(frame []byte) {
	if p.over || p.closing {
		return
	}
	p.out = append(p.out, frame...)
	p.cond.Broadcast()
}

// close ends p behind what can be written now.
func (p *Peer) close() {
	p.closing = true
	p.cond.Broadcast()
}

// end ends p at once; what was to be said of no stream may still be written.
func (p *Peer) end() {
	p.over = true
	p.ready, p.stalled = nil, nil
	p.hop.o.Memory.Give(p.extra)
	p.extra = 0
	p.cond.Broadcast()
}

// came counts n bytes of DATA; false: they were not allowed.
func (p *Peer) came(n int) bool {
	if n > p.window {
		return false
	}
	p.window -= n
	p.waits += n
	p.reopen()
	return true
}

// consumed counts n bytes of DATA that have gone on.
func (p *Peer) consumed(n int) {
	p.waits -= n
	for p.extra > 0 && p.window+p.waits <= window+p.extra-Chunk {
		p.extra -= Chunk
		p.hop.o.Memory.Give(Chunk)
	}
	p.reopen()
}

// reopen opens the connection's window again, if there is memory for what it lets in
// besides what waits: one stream that nobody reads must not stop the others.
func (p *Peer) reopen() {
	if p.over || p.window > window/2 {
		return
	}
	room := window + p.extra - p.waits - p.window
	poor := false
	if room <= window/2 && p.extra < maxExtra {
		if poor = !p.hop.o.Memory.Take(Chunk); !poor {
			p.extra += Chunk
			room += Chunk
		}
	}
	if n := min(room, window-p.window); n > window/4 {
		poor = false
		p.window += n
		p.tell(appendWindow(nil, 0, n))
	}
	p.hop.poor = p.hop.poor || poor
}

// admit gives those that wait for p a place, as far as there is one.
func (p *Peer) admit() {
	for p.settled && !p.over && len(p.waiting) > 0 && p.placed < p.limit {
		s := p.waiting[0]
		p.waiting = p.waiting[1:]
		s.admitted = true
		p.placed++
		p.enqueue(&s.request)
	}
}

// release ends what s is to p.
func (p *Peer) release(s *stream) {
	if !p.own[s] {
		return
	}
	delete(p.own, s)
	delete(p.streams, s.given)
	if s.admitted {
		p.placed--
	} else {
		p.waiting = slices.DeleteFunc(p.waiting, func(other *stream) bool { return other == s })
	}
	p.admit()
	if p.retired && len(p.own) == 0 {
		p.close()
	}
}

// remember remembers a stream that was reset here.
func (p *Peer) remember(id uint32) {
	if len(p.reset) == maxStreams {
		p.reset = p.reset[maxStreams/2:]
	}
	p.reset = append(p.reset, id)
}
