package http2

import (
	"errors"
	"io"
	"slices"
)

// This file is about ends: of streams, of servers, of the connection. mu is held
// wherever nothing else is said.

// settle looks which ends of s are done.
func (h *Hop) settle(s *stream) {
	if s.to != nil && s.given != 0 && s.request.finished && s.reply.ended {
		s.to.release(s)
	}
	if s.reply.cut || s.reply.finished && s.request.ended {
		h.forget(s)
	}
}

// forget ends what s is to the client.
func (h *Hop) forget(s *stream) {
	if s.gone {
		return
	}
	s.gone = true
	if s.stop != nil {
		s.stop()
	}
	delete(h.client.streams, s.id)
	h.o.Memory.Give(s.cost)
	h.drained()
}

// cancel ends s for the client's sake.
func (h *Hop) cancel(s *stream, code Code) {
	if p := s.to; p != nil {
		if p.streams[s.given] == s {
			p.tell(appendReset(nil, s.given, code))
			p.flooded = p.flooded || len(p.out) > maxControl
		}
	}
	s.request.ended, s.reply.ended = true, true
	s.request.drop()
	s.reply.drop()
	if s.to != nil {
		s.to.release(s)
	}
	h.forget(s)
}

// refuse tells the client that nobody has looked at s.
func (h *Hop) refuse(s *stream) {
	h.client.tell(appendReset(nil, s.id, RefusedStream))
	h.client.remember(s.id)
	h.cancel(s, Cancel)
}

// leave ends what s is to its server, which has ended it.
func (h *Hop) leave(s *stream) {
	s.request.drop()
	if s.to != nil {
		s.to.release(s)
	}
}

// resetBy is when its server has reset s: the client hears it behind what it was
// told before.
func (h *Hop) resetBy(s *stream, code Code) {
	h.leave(s)
	if whole := s.reply.ended; !whole || !s.request.ended {
		s.reply.ended = true
		s.reply.put(part{reset: true, code: code})
	}
	h.settle(s)
}

// lost is when the server of s has gone, and owes a reply.
func (h *Hop) lost(s *stream, why string) {
	h.leave(s)
	switch {
	case s.reply.ended && s.request.ended: // it is whole
	case s.reply.ended:
		s.reply.put(part{reset: true, code: NoError})
	case s.begun && s.calls: // a call has an end that says so
		s.reply.ended = true
		s.reply.put(part{end: true, fields: callEnd(why)})
		s.upload()
	case s.begun:
		s.reply.ended = true
		s.reply.put(part{reset: true, code: InternalError})
	default:
		s.reply.clear() // interim replies
		h.answer(s, "502", why)
	}
	h.settle(s)
}

// goesAway is when a server takes no more streams (RFC 9113 §6.8).
func (h *Hop) goesAway(p *Peer, last uint32, code Code, debug []byte) {
	original := p.to == nil
	if last == maxID && code == NoError {
		if original && !h.leaving { // it says so in time; its client is to hear it as well
			h.leaving = true
			h.client.tell(appendGoAway(nil, maxID, code, debug))
		}
		return
	}
	h.retire(p)
	if original {
		h.shut(code, debug)
	}
	for _, s := range p.mine() {
		switch {
		case s.given > last:
			h.refuse(s)
		case s.given == 0 && !p.over:
			h.replace(p, s, p.to)
		}
	}
	if len(p.own) == 0 {
		p.close()
	}
}

// retire has p get no more streams.
func (h *Hop) retire(p *Peer) {
	p.retired = true
	if h.servers[p.to] == p {
		delete(h.servers, p.to)
	}
}

// mine are the streams of p in their order.
func (p *Peer) mine() (all []*stream) {
	for s := range p.own {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *stream) int { return int(a.id) - int(b.id) })
	return all
}

// shut tells the client which streams are the last.
func (h *Hop) shut(code Code, debug []byte) {
	if h.shutting {
		return
	}
	h.shutting, h.leaving, h.told = true, true, h.client.last
	h.client.tell(appendGoAway(nil, h.told, code, debug))
	h.drained()
}

// drained ends the connection when its last stream has.
func (h *Hop) drained() {
	if h.shutting && len(h.client.streams) == 0 {
		h.client.close()
	}
}

// abandonAll ends all streams for a client that is gone.
func (h *Hop) abandonAll() {
	for _, s := range h.client.streams {
		h.cancel(s, Cancel)
	}
}

// leavingPing is asked behind the notice that no more streams are to be opened: when
// it is answered all that were opened before are known.
const leavingPing = "mirrord\x00"

// Leave asks the client to open no more streams, and ends the connection when the
// last one has. Streams for what servers has are ended now: those that nobody has
// got become the original's, which is how many Leave gives. A client that has been
// told nothing yet hears it behind the first word.
func (h *Hop) Leave(mine func(d Destination) bool, why string) (returned int) {
	h.mu.Lock()
	defer h.unlock()
	returned = h.desert(mine, why)
	if h.leaving {
		return returned
	}
	h.leaving = true
	h.client.tell(appendGoAway(nil, maxID, NoError, nil))
	h.client.tell(appendFrame(nil, kindPing, 0, 0, []byte(leavingPing)))
	return returned
}

// Desert ends what servers owe that are gone for the time being, as Leave does.
func (h *Hop) Desert(gone func(d Destination) bool, why string) (returned int) {
	h.mu.Lock()
	defer h.unlock()
	return h.desert(gone, why)
}

func (h *Hop) desert(gone func(d Destination) bool, why string) (returned int) {
	for p := range h.all {
		if p.to == nil || !gone(p.to) {
			continue
		}
		returned += h.ended(p, End{Refused: true, Text: why})
		p.out = nil
	}
	return returned
}

// End is how a server's connection ended.
type End struct {
	// Refused: no program has got it.
	Refused bool
	// Text is what clients are told that wait for a reply.
	Text string
}

// Ended tells that nothing more is heard of p, a server. What it has refused becomes
// the original's, which is how many streams Ended gives.
func (p *Peer) Ended(e End) (returned int) {
	h := p.hop
	h.mu.Lock()
	defer h.unlock()
	return h.ended(p, e)
}

// ClientEnded tells that nothing more is heard of the client, after err. Behind io.EOF
// it may still hear what it has asked for wholly.
func (h *Hop) ClientEnded(err error) {
	h.mu.Lock()
	defer h.unlock()
	if !errors.Is(err, io.EOF) {
		h.close()
		return
	}
	for _, s := range h.client.streams {
		if !s.request.ended {
			h.cancel(s, Cancel)
		}
	}
	h.shut(NoError, nil)
}

// floods ends servers that do not read which streams are cancelled: that is not the
// client's fault, or not its alone to bear. It gives what is to be called then.
func (h *Hop) floods() (cuts []func()) {
	for p := range h.all {
		if !p.flooded {
			continue
		}
		h.ended(p, End{Text: "mirrord: the server does not read which requests are cancelled\n"})
		p.out = nil
		if p.cut != nil {
			cuts = append(cuts, p.cut)
		}
	}
	return cuts
}

// WhenCut says what ends the connection of p, a server, where the hop wants that: p
// has ended then, and reads nothing. f must not wait.
func (p *Peer) WhenCut(f func()) {
	p.hop.mu.Lock()
	defer p.hop.mu.Unlock()
	p.cut = f
}

func (h *Hop) ended(p *Peer, e End) (returned int) {
	if p.over {
		return 0
	}
	settled, retired := p.settled, p.retired
	h.retire(p)
	p.end()
	delete(h.all, p)
	if p.to == nil && !settled && !h.committed {
		if !h.over {
			h.pass()
		}
		return 0
	}
	for _, s := range p.mine() {
		switch {
		case s.given != 0 && p.to == nil && !s.begun && !s.calls: // nothing is said in its name
			s.reply.clear()
			h.resetBy(s, InternalError)
		case s.given != 0:
			h.lost(s, e.Text)
		case p.to != nil && e.Refused:
			h.replace(p, s, nil)
			returned++
		case settled:
			h.replace(p, s, p.to)
		case p.to == nil:
			h.leave(s)
			h.refuse(s)
		default:
			h.lost(s, e.Text)
		}
	}
	if p.to == nil && (settled || p.upgraded) && !retired {
		h.shut(NoError, nil)
	}
	return returned
}

// replace gives s, which p has not got, to another server.
func (h *Hop) replace(p *Peer, s *stream, d Destination) {
	p.release(s)
	s.admitted = false
	if s.request.queued {
		s.request.queued = false
		p.unqueue(&s.request)
	}
	h.place(s, d)
}

// Close ends everything at once.
func (h *Hop) Close() {
	h.mu.Lock()
	defer h.unlock()
	h.close()
}

func (h *Hop) close() {
	if h.over {
		return
	}
	h.over = true
	h.abandonAll()
	if !h.committed && !h.passes {
		close(h.settled)
	}
	for p := range h.all {
		for _, s := range p.mine() {
			s.request.drop()
			s.reply.drop()
		}
		p.close()
		p.end()
	}
	h.client.close()
	h.client.end()
	h.fresh = nil
}
