package http2

// This file is about connections whose windows stay closed for want of memory. mu is
// held wherever nothing else is said.

// Fed tells that there may be memory again, and opens the windows that it is enough
// for; if it is not, Starved is called anew.
func (h *Hop) Fed() {
	h.mu.Lock()
	defer h.unlock()
	h.poor, h.starved = false, false
	h.client.reopen()
	for p := range h.all {
		p.reopen()
	}
}

// closed reports whether the client can send no DATA, of any stream.
func (h *Hop) closed() bool { return h.client.window < window/64 }

// watch sees to it that the client's window does not stay closed for a program that
// takes nothing.
func (h *Hop) watch() {
	switch {
	case h.stalled != nil && (h.over || !h.closed()):
		h.stalled()
		h.stalled = nil
		h.stalls++ // a timer that could not be stopped is of no use any more
	case h.stalled == nil && !h.over && h.closed() && h.hog() != nil:
		turn := h.stalls
		h.stalled = h.after(stallTime, func() {
			h.mu.Lock()
			defer h.unlock()
			if turn == h.stalls {
				h.stalled = nil
				h.relieve()
			}
		})
	}
}

// relieve ends requests to the program that keeps the others' from coming, those first
// of which most waits, until half of a window is the others' again.
//
// A window is the connection's: what has been allowed its client may send to whomever
// it likes, and a server cannot take it back from one stream and give it to another.
// So no limit for each destination holds without memory for each. What is left is to
// end what is in the way, and that is never a request of the target's: its client
// would have to wait for its server without us as well. A program's developer may
// look at it for as long as he likes; the target's clients do not wait for that.
func (h *Hop) relieve() {
	for !h.over && h.client.window <= window/2 {
		var most *stream
		p := h.hog()
		if p == nil {
			return
		}
		for s := range p.own {
			if most == nil || s.request.waits > most.request.waits || s.request.waits == most.request.waits && s.id < most.id {
				most = s
			}
		}
		if p.streams[most.given] == most {
			p.tell(appendReset(nil, most.given, Cancel))
			p.flooded = p.flooded || len(p.out) > maxControl
		}
		h.lost(most, "mirrord: a developer's process takes this request too slowly, others wait for it, and there is no memory for what it leaves\n")
	}
}

// hog is the program that most waits for of what the client has sent, if for all
// programs more than half of a window waits; nil: there is none, or no request that is
// for others waits for its body.
func (h *Hop) hog() (hog *Peer) {
	held, all := map[*Peer]int{}, 0
	for _, s := range h.client.streams {
		if s.to == nil || s.to.to == nil || s.request.waits == 0 {
			continue
		}
		held[s.to] += s.request.waits
		all += s.request.waits
		if hog == nil || held[s.to] > held[hog] {
			hog = s.to
		}
	}
	if all <= window/2 {
		return nil
	}
	for _, s := range h.client.streams {
		if s.to != hog && !s.request.ended {
			return hog
		}
	}
	return nil
}
