package incoming

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules/sharing"
)

// This file is about a session that takes over what another one has of a port
// (protocol.Subscribe.Override). Who had it is told, and asks no more: a wish that
// were said again would take it back, for ever. What was given to it already it
// finishes.

// maxTakes bounds how often a port is asked for that is taken over: each time
// another newcomer may be first.
const maxTakes = 16

// evict ends what cannot stand beside a filter that a guest wants or, nil, this
// agent's own session, and gives the streams of those whose it was. mu is held.
func (h *Hub) evict(k key, by *guest, filter string) (gone []*link.Stream) {
	left := func(subs []subscription) (stay []subscription) {
		for _, sub := range subs {
			if sharing.Beside(filter, sub.meant()) {
				stay = append(stay, sub)
			} else {
				gone = append(gone, sub.stream)
			}
		}
		return stay
	}
	if by != nil {
		if h.ports[k] = left(h.ports[k]); len(h.ports[k]) == 0 {
			delete(h.ports, k)
		}
	}
	var guests []*guest // another slice: those who look at the old one hold no lock
	for _, g := range h.guestsOf(k) {
		if g != by {
			g.subs = left(g.subs)
		}
		if len(g.subs) > 0 {
			guests = append(guests, g)
		}
	}
	h.guests[k.port] = guests
	return gone
}

// tellTaken tells those whose subscriptions have ended.
func tellTaken(gone []*link.Stream, port uint16, by sharing.Session) {
	for _, s := range gone {
		say(s, &protocol.Answer{Errno: syscall.EADDRINUSE, Cause: protocol.CauseTaken, Text: sharing.Taken(port, by)})
	}
}

// say is the last word on the stream of a subscription.
func say(s *link.Stream, a *protocol.Answer) {
	_ = s.Send(a)
	_ = s.CloseWrite()
}

// yield gives a guest what sub says, whoever has it. The whole port is given up: the
// guest takes it, and in between new connections are the target's.
func (h *Hub) yield(g *guest, sub subscription) *protocol.Answer {
	k := key{protocol.ModeSteal, g.port}
	h.change.Lock()
	defer h.change.Unlock()
	h.mu.Lock()
	had := h.owned[k] && !h.over
	var gone []*link.Stream
	if had {
		gone = h.evict(k, g, sub.wish.Filter)
	}
	a := &protocol.Answer{Errno: syscall.EAGAIN, Text: fmt.Sprintf("port %d is given up", g.port)}
	if sub.wish.Filter != "" {
		a = h.seat(g, sub)
	}
	h.mu.Unlock()
	tellTaken(gone, g.port, g.session)
	if had && sub.wish.Filter == "" {
		h.release(k)
	}
	return a
}

// cede ends a subscription of ours that the holder of j's port has given to another
// session, as it says.
func (h *Hub) cede(j *joined, of *link.Stream, a *protocol.Answer) {
	h.change.Lock()
	defer h.change.Unlock()
	if h.drop(j.key, of) {
		say(of, a)
	}
	_ = h.settle(j.key) // which has nothing to acquire
}

// lastWord waits for the end of a subscription; nil: nothing was said of another
// session.
func lastWord(s *link.Stream) *protocol.Answer {
	for {
		m, err := s.Receive()
		var unknown *protocol.UnknownKindError
		if err != nil && !errors.As(err, &unknown) {
			return nil
		}
		if a, ok := m.(*protocol.Answer); ok && a.Cause == protocol.CauseTaken {
			return a
		}
	}
}
