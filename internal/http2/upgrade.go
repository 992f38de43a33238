package http2

// This file is about connections that begin in HTTP/1: the client offers to go on in
// HTTP/2, and the original takes the offer (RFC 7540 §3.2). What the client has asked
// with it is stream 1, of which nothing more comes from the client.

// Offer is the payload of the settings with which the original is offered to go on in
// HTTP/2: what a hop, and not its client, allows a server.
func Offer() []byte { return appendSettings(nil, ours()...)[headSize:] }

// Acceptable reports whether the payload of SETTINGS is one that Upgraded takes.
func Acceptable(settings []byte) bool { return New(Options{}).client.apply(settings) == nil }

// Upgraded begins with an offer that the original has taken, and gives the original:
// settings are those of the client's offer, which are Acceptable, isHead says that it
// has asked for a head alone. It is the first call. What the original has said behind
// its 101 is for Receive of what Upgraded gives; then Commit must be called, since the
// client has been told 101 already.
func (h *Hop) Upgraded(settings []byte, isHead bool) (original *Peer) {
	h.mu.Lock()
	defer h.unlock()
	c, p := h.client, h.newServer(nil)
	p.upgraded = true
	_ = c.apply(settings)
	s := &stream{hop: h, id: 1, to: p, admitted: true, tries: 1, isHead: isHead}
	if h.o.Memory.Take(streamCost) { // it is there, whether or not
		s.cost = streamCost
	}
	s.request = pipe{s: s, ended: true, finished: true, dropped: true}
	s.reply = pipe{s: s, reply: true, credit: c.initial}
	c.last, c.streams[1] = 1, s
	p.own[s], p.placed = true, 1
	p.give(s)
	return p
}
