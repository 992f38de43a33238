package incoming

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules/filter"
	"github.com/mirrord-go/mirrord/internal/rules/sharing"
)

// This file is about other sessions on a port that this agent has stolen. Their
// agents are to this one what local is: they subscribe, and get connections,
// over a link of their own.

const (
	// maxGuests bounds how many agents are connected: each may let every request
	// of a port wait for a search of its filter.
	maxGuests = 8
	// maxWishes bounds the subscriptions of one: a session has one for each of
	// its listeners on the port.
	maxWishes = 32
	// askTime bounds each question between agents, and acquireTime all that are
	// asked for one port: the other end is a process of this node.
	askTime     = 2 * time.Second
	acquireTime = 5 * time.Second
)

// guest is another session that gets requests of a port.
type guest struct {
	port    uint16
	link    *link.Conn
	control *link.Stream
	pulse   *pulse
	session sharing.Session // without its filter
	telling sync.WaitGroup  // of notices, which end with the link

	// of the hub's mu
	subs []subscription  // the newest is last, and counts; not empty while it is among the port's guests
	told map[string]bool // by code: notices
}

// wanted is what a session asks for by each of subs.
func wanted(s sharing.Session, subs []subscription) (all []sharing.Session) {
	for _, sub := range subs {
		s.Filter = sub.meant()
		all = append(all, s)
	}
	return all
}

// guestsOf are a port's, in the order of their sessions' beginnings. mu is held.
func (h *Hub) guestsOf(k key) []*guest {
	if k.mode != protocol.ModeSteal {
		return nil
	}
	return h.guests[k.port]
}

// Host lets the agent at the other end of c, which it owns, share a port that is
// stolen here. It does not wait.
func (h *Hub) Host(port uint16, c net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over || h.hosted == maxGuests || !h.o.Memory.Sharing.Take(link.Fixed) {
		c.Close()
		return
	}
	h.hosted++
	h.sharing.Go(func() {
		h.host(port, c)
		h.o.Memory.Sharing.Give(link.Fixed)
		h.mu.Lock()
		h.hosted--
		h.mu.Unlock()
	})
}

func (h *Hub) host(port uint16, c net.Conn) {
	l := link.New(c, link.Agent, link.Options{Memory: h.o.Memory.Link})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.Close("")
	first, cancel := context.WithTimeout(h.carried, askTime)
	defer cancel()
	control, m, err := l.Accept(first)
	if err != nil {
		return
	}
	defer control.Close()
	join, ok := m.(*protocol.Join)
	if !ok || join.Port != port || control.Send(&protocol.Answer{}) != nil {
		return
	}
	g := &guest{port: port, link: l, control: control, pulse: newPulse(), session: sharing.Session{Holder: join.Holder, Began: time.Unix(0, int64(join.Began))}, told: map[string]bool{}}
	defer g.telling.Wait()
	defer l.Close("")
	wg.Go(func() {
		g.pulse.watch(l, h.beat, func() {
			h.silentGuest(g)
			c.Close() // so that the link ends at once, and what waits for an answer gets one
		})
	})
	for {
		s, m, err := l.Accept(h.carried)
		if err != nil {
			return
		}
		wish, ok := m.(*protocol.Subscribe)
		if !ok {
			_ = s.Reset(syscall.EPROTO)
			continue
		}
		wg.Go(func() { h.serveGuest(g, s, wish) })
	}
}

// serveGuest answers m on s, which it owns, and keeps the subscription until s
// ends.
func (h *Hub) serveGuest(g *guest, s *link.Stream, m *protocol.Subscribe) {
	defer s.Close()
	r, a := h.admit(g, s, m)
	if a.Err() != nil {
		_ = s.Send(a)
		return
	}
	defer h.unwish(r)
	defer h.expel(g, s)
	_, _ = io.Copy(io.Discard, s)
}

// admit enters a subscription of a guest's, and says yes itself, as add does. Its
// rule is to be forgotten with it.
func (h *Hub) admit(g *guest, s *link.Stream, m *protocol.Subscribe) (*rule, *protocol.Answer) {
	if m.Port != g.port || m.Mode != protocol.ModeSteal {
		return nil, &protocol.Answer{Errno: syscall.EINVAL, Text: fmt.Sprintf("what is asked of port %d cannot be shared", g.port)}
	}
	r, err := h.wish(m)
	if err != nil {
		return nil, &protocol.Answer{Errno: syscall.EINVAL, Text: fmt.Sprintf("what is asked of port %d cannot be shared: %v", g.port, err)}
	}
	sub := subscription{s, m, r}
	enter := h.enlist
	if m.Override {
		enter = h.yield
	}
	a := enter(g, sub)
	if a.Err() != nil {
		h.unwish(r)
	}
	return r, a
}

// enlist is seat for who does not hold mu.
func (h *Hub) enlist(g *guest, sub subscription) *protocol.Answer {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seat(g, sub)
}

// seat gives a guest what sub says, beside those who have the port. mu is held.
func (h *Hub) seat(g *guest, sub subscription) *protocol.Answer {
	k, filter := key{protocol.ModeSteal, g.port}, sub.wish.Filter
	if !h.owned[k] || h.over || len(g.subs) == maxWishes {
		return &protocol.Answer{Errno: syscall.EAGAIN, Text: fmt.Sprintf("port %d is being given back", g.port)}
	}
	others := wanted(h.self(), h.ports[k])
	for _, other := range h.guests[g.port] {
		if other != g {
			others = append(others, wanted(other.session, other.subs)...)
		}
	}
	err := sharing.Refuse(g.port, sharing.Session{Filter: filter}, others...)
	if err == nil && filter == "" { // it has some requests already, through us who have no wish
		err = fmt.Errorf("port %d is held by %v, who gives requests only: it cannot be taken whole", g.port, h.self())
	}
	if err != nil {
		return refusal(held(err))
	}
	if g.subs = append(g.subs, sub); len(g.subs) == 1 {
		// Another slice: those who look at the old one hold no lock.
		all := append(slices.Clone(h.guests[g.port]), g)
		slices.SortStableFunc(all, func(a, b *guest) int { return sharing.Compare(a.session, b.session) })
		h.guests[g.port] = all
	}
	yes := &protocol.Answer{}
	_ = sub.stream.Send(yes)
	return yes
}

// expel ends a subscription of a guest's: with the last, the guest is none any
// more.
func (h *Hub) expel(g *guest, s *link.Stream) {
	k := key{protocol.ModeSteal, g.port}
	h.mu.Lock()
	g.subs = slices.DeleteFunc(g.subs, func(sub subscription) bool { return sub.stream == s })
	if len(g.subs) == 0 {
		h.guests[g.port] = slices.DeleteFunc(slices.Clone(h.guests[g.port]), func(other *guest) bool { return other == g })
	}
	h.mu.Unlock()
	h.change.Lock()
	defer h.change.Unlock()
	_ = h.settle(k)
}

// overlap tells those of rest whose filter matches q as well, which to gets, once.
// A filter that looks at bodies is not asked.
func (h *Hub) overlap(port uint16, to recipient, rest []recipient, q filter.Request) {
	for _, r := range rest {
		if h.said(r.guest, port, overlapCode) {
			continue
		}
		q.Body = func() ([]byte, error) { return nil, errCut } // it is not looked at
		if ok, err := r.rule.filter.Match(q); !ok || err != nil {
			continue
		}
		winner := h.self()
		if to.guest != nil {
			winner = to.guest.session
		}
		h.tell(r.guest, port, overlapCode, fmt.Sprintf("port %d: some requests that your filter matches go to another session, %v, which began first and whose filter matches them as well", port, winner))
	}
}

// overlapCode is that of the notice of overlap.
const overlapCode = "filter-overlaps"

// said reports whether tell has been called for these.
func (h *Hub) said(g *guest, port uint16, code string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g != nil {
		return g.told[code]
	}
	return h.noticed[noticeID(code, port)]
}

// tell is notice for the developer of a guest, or for ours.
func (h *Hub) tell(g *guest, port uint16, code, text string) {
	if g == nil {
		h.notice(port, code, text)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !g.told[code] && len(g.subs) > 0 { // else host may be waiting for the last already
		g.told[code] = true
		g.telling.Go(func() { _ = g.control.Send(&protocol.Notice{Code: code, Text: text}) })
	}
}
