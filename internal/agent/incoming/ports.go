package incoming

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/relay"
	"github.com/mirrord-go/mirrord/internal/rules/sharing"
)

// This file is about which ports this agent has, and for whom.

type key struct {
	mode uint8
	port uint16
}

// steals reports whether what reaches the port is taken away from the target.
func (k key) steals() bool { return k.mode&^protocol.ModeUDP == protocol.ModeSteal }

// subscription is what a stream, of local's or of a guest's, asks for.
type subscription struct {
	stream *link.Stream
	wish   *protocol.Subscribe
	rule   *rule
}

// meant is the filter that counts beside other sessions: copies take the whole
// port.
func (s subscription) meant() string {
	if s.rule.tee {
		return ""
	}
	return s.wish.Filter
}

// recipient is who may get requests of a port.
type recipient struct {
	guest *guest // nil: this agent's own session
	rule  *rule
}

// Subscribe answers m on s, which it owns, and keeps the subscription until s
// or ctx ends.
func (h *Hub) Subscribe(ctx context.Context, s *link.Stream, m *protocol.Subscribe) {
	defer s.Close()
	k := key{m.Mode, m.Port}
	if m.Mode == protocol.ModeTee { // of the same source
		k.mode = protocol.ModeSteal
	}
	r, a := h.add(k, s, m)
	if a.Err() != nil {
		_ = s.Send(a)
		return
	}
	defer h.unwish(r)
	defer h.remove(k, s)
	// ESHUTDOWN: not this port but the whole session ends.
	stop := context.AfterFunc(ctx, func() { _ = s.Reset(syscall.ESHUTDOWN) })
	defer stop()
	_, _ = io.Copy(io.Discard, s)
}

// add enters a subscription, and says yes itself: what is told of it later comes
// behind that. Its rule is to be forgotten with it.
func (h *Hub) add(k key, s *link.Stream, m *protocol.Subscribe) (*rule, *protocol.Answer) {
	if a := h.unable(k, m); a != nil {
		return nil, a
	}
	r, err := h.wish(m)
	switch {
	case errors.Is(err, errWishes):
		return nil, refusal(err)
	case err != nil:
		return nil, &protocol.Answer{Errno: syscall.EINVAL, Text: err.Error()}
	}
	h.change.Lock()
	defer h.change.Unlock()
	if err := h.place(k, subscription{s, m, r}); err != nil {
		h.unwish(r)
		return nil, refusal(err)
	}
	yes := &protocol.Answer{}
	_ = s.Send(yes)
	return r, yes
}

// unable says why this agent can do nothing for m; nil: it can.
func (h *Hub) unable(k key, m *protocol.Subscribe) *protocol.Answer {
	src := h.o.Sources[k.mode]
	switch why := h.o.Missing[k.mode]; {
	case src == nil && why != "":
		return &protocol.Answer{Errno: syscall.EOPNOTSUPP, Cause: protocol.CauseDenied, Text: why}
	case src == nil:
		return &protocol.Answer{Errno: syscall.EINVAL, Cause: protocol.CauseUnsupported,
			Text: fmt.Sprintf("mode %d is not known to this agent", k.mode)}
	case k.port == 0:
		return &protocol.Answer{Errno: syscall.EINVAL, Text: "port 0 cannot be subscribed to"}
	case k.mode&protocol.ModeUDP != 0 && (m.Filter != "" || len(m.Probes) > 0):
		return &protocol.Answer{Errno: syscall.EINVAL, Text: "datagrams have no filter"}
	case m.Mode == protocol.ModeTee && (h.o.Original == nil || h.o.Copy == nil):
		return &protocol.Answer{Errno: syscall.EOPNOTSUPP, Cause: protocol.CauseUnsupported, Text: "this agent cannot copy what it passes on"}
	case k.mode == protocol.ModeSteal && h.o.Original == nil && (m.Filter != "" || m.TLS != "" || len(m.Probes) > 0):
		return &protocol.Answer{Errno: syscall.EOPNOTSUPP, Cause: protocol.CauseUnsupported, Text: "this agent cannot filter stolen ports"}
	}
	return nil
}

// place enters sub, and sees to it that this agent has the port, or another one
// that gives us what we ask for. change is held.
func (h *Hub) place(k key, sub subscription) error {
	// It is said now, once.
	sub.wish.Override = sub.wish.Override && sub.wish.Mode == protocol.ModeSteal
	defer func() { sub.wish.Override = false }()
	var gone []*link.Stream
	h.mu.Lock()
	if sub.wish.Override && h.owned[k] {
		gone = h.evict(k, nil, sub.meant())
	}
	err := h.beside(k, sub)
	if err == nil {
		h.ports[k] = append(h.ports[k], sub) // before the first connection comes
	}
	j := h.joined[k]
	h.mu.Unlock()
	tellTaken(gone, k.port, h.self())
	switch {
	case err != nil:
		return err
	case j != nil:
		if err = j.subscribe(sub); errors.Is(err, errGone) { // maybe for us
			h.part(j)
			err = h.settle(k)
		}
	default:
		err = h.settle(k)
	}
	if err != nil {
		h.drop(k, sub.stream)
	}
	return err
}

// beside reports why sub cannot stand beside the guests of a port. mu is held.
func (h *Hub) beside(k key, sub subscription) error {
	var others []sharing.Session
	for _, g := range h.guestsOf(k) {
		others = append(others, wanted(g.session, g.subs)...)
	}
	return held(sharing.Refuse(k.port, sharing.Session{Filter: sub.meant()}, others...))
}

// heldError is a refusal for the sake of another session. It wraps EADDRINUSE.
type heldError struct{ error }

func (heldError) Unwrap() error { return syscall.EADDRINUSE }

func held(err error) error {
	if err == nil {
		return nil
	}
	return heldError{err}
}

// drop forgets a subscription; false: it was lost already.
func (h *Hub) drop(k key, s *link.Stream) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := slices.DeleteFunc(h.ports[k], func(sub subscription) bool { return sub.stream == s })
	dropped := len(list) < len(h.ports[k])
	h.ports[k] = list
	if len(list) == 0 {
		delete(h.ports, k)
	}
	return dropped
}

func (h *Hub) remove(k key, s *link.Stream) {
	h.change.Lock()
	defer h.change.Unlock()
	if !h.drop(k, s) {
		return
	}
	h.mu.Lock()
	j := h.joined[k]
	h.mu.Unlock()
	if j != nil {
		j.unsubscribe(s)
	}
	_ = h.settle(k)
}

// settle makes true what is wished of a port: it is had while somebody
// subscribes to it who can answer, a guest or the session itself. Its error is
// that it cannot be had. change is held.
func (h *Hub) settle(k key) error {
	h.mu.Lock()
	subs, j, own := slices.Clone(h.ports[k]), h.joined[k], h.owned[k]
	wants := len(subs) > 0 && !h.over && !(k.steals() && (h.suspended && !copies(subs) || h.crowded))
	hosts := len(h.guestsOf(k)) > 0 && !h.over && !h.crowded
	h.mu.Unlock()
	switch {
	case own && !wants && !hosts:
		h.release(k)
	case j != nil && !wants:
		h.part(j)
	case wants && !own && j == nil:
		return h.acquire(k, subs)
	}
	return nil
}

// release gives a port back that this agent has. change is held.
func (h *Hub) release(k key) {
	if h.o.Existing != nil && k.mode == protocol.ModeSteal {
		h.o.Existing.Forget(k.port)
	}
	_ = h.o.Sources[k.mode].Remove(k.port)
	h.disown(k)
}

// copies reports whether a port is passed on and copied, as the newest of subs says:
// while the link is lost copies wait for it, and nobody else does.
func copies(subs []subscription) bool { return len(subs) > 0 && subs[len(subs)-1].rule.tee }

// disown ends a port's sharing: the guests see for themselves, now that nobody
// holds it. change is held.
func (h *Hub) disown(k key) {
	h.mu.Lock()
	delete(h.owned, k)
	var streams []*link.Stream
	for _, g := range h.guestsOf(k) {
		for _, sub := range g.subs {
			streams = append(streams, sub.stream)
		}
		g.subs = nil
	}
	if k.mode == protocol.ModeSteal {
		delete(h.guests, k.port)
	}
	h.mu.Unlock()
	for _, s := range streams {
		_ = s.Reset(syscall.ESHUTDOWN)
	}
}

// maxTries bounds how often a port is asked for whose holder goes just then.
const maxTries = 3

// acquire takes a port, or joins whoever has it. change is held.
func (h *Hub) acquire(k key, subs []subscription) error {
	ctx, cancel := context.WithTimeout(h.life, acquireTime)
	defer cancel()
	tries := maxTries
	if subs[len(subs)-1].wish.Override {
		tries = maxTakes
	}
	for try := 1; ; try++ {
		h.mu.Lock()
		h.owned[k] = true // guests may come before Add returns
		h.mu.Unlock()
		begin := h.before(k, subs)
		err := h.o.Sources[k.mode].Add(k.port)
		if err == nil {
			begin()
			return nil
		}
		h.disown(k)
		if k.mode != protocol.ModeSteal || copies(subs) || h.o.Join == nil || !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
		j, jerr := h.join(ctx, k, subs)
		switch {
		case jerr == nil:
			h.mu.Lock()
			h.joined[k] = j
			h.mu.Unlock()
			return nil
		case !errors.Is(jerr, errGone):
			return jerr
		case try == tries || ctx.Err() != nil:
			return err
		}
	}
}

// before looks what connections there are with a port that is about to be stolen;
// begin is what becomes of them, as the newest of subs says.
func (h *Hub) before(k key, subs []subscription) (begin func()) {
	existing := subs[len(subs)-1].wish.Existing
	if h.o.Existing == nil || k.mode != protocol.ModeSteal || existing == protocol.ExistingStay {
		return func() {}
	}
	return h.o.Existing.Before(k.port, existing == protocol.ExistingAll)
}

// Suspend gives the target its stolen ports back, or takes them again, without
// an end of the subscriptions. A port that guests share stays for them, and one
// that another session has taken meanwhile is shared, or ends with EADDRINUSE.
func (h *Hub) Suspend(yes bool) {
	h.change.Lock()
	defer h.change.Unlock()
	h.lend(func() { h.suspended = yes })
}

// crowd is Suspend for want of memory, which is told once, and guests are not
// spared. It gives how many there are.
func (h *Hub) crowd() int {
	h.change.Lock()
	h.mu.Lock()
	n := h.stolen
	h.mu.Unlock()
	h.lend(func() { h.crowded = true })
	h.change.Unlock()
	h.notice(0, "port-crowded", fmt.Sprintf("%d connections are open, and there is memory for no more: until there are fewer the target serves new ones itself", n))
	return n
}

// relieve is the end of crowd.
func (h *Hub) relieve() {
	h.change.Lock()
	defer h.change.Unlock()
	h.lend(func() { h.crowded = false })
}

// GiveBack ends the stealing and mirroring: when it returns the target has its
// ports again, or whoever shared them takes them.
func (h *Hub) GiveBack() {
	h.change.Lock()
	defer h.change.Unlock()
	h.lend(func() { h.over = true })
}

// lend settles all ports after set, which is called with mu held, has changed
// whether they are lent to the target. change is held.
func (h *Hub) lend(set func()) {
	h.mu.Lock()
	set()
	all := map[key]bool{}
	for k := range h.ports {
		all[k] = true
	}
	for k := range h.owned {
		all[k] = true
	}
	h.mu.Unlock()
	for k := range all {
		if err := h.settle(k); err != nil {
			h.lose(k, err)
		}
	}
}

// lose ends the subscriptions of a port. change is held.
func (h *Hub) lose(k key, err error) {
	h.mu.Lock()
	list := h.ports[k]
	delete(h.ports, k)
	h.mu.Unlock()
	h.notice(k.port, "port-taken", fmt.Sprintf("port %d cannot be had any more: %v", k.port, err))
	for _, sub := range list {
		_ = sub.stream.Reset(relay.Errno(err))
	}
}

// refusal says why a port is not to be had.
func refusal(err error) *protocol.Answer {
	a := &protocol.Answer{Errno: syscall.EIO, Text: err.Error()}
	if errors.As(err, &a.Errno) {
		switch a.Errno {
		case syscall.EADDRINUSE:
			a.Cause = protocol.CauseHeld
		case syscall.EPERM, syscall.EACCES:
			a.Cause = protocol.CauseDenied
		}
	}
	return a
}

// recipients are those who may get requests of a port now, in the order in which
// they are asked. There are none where nobody can answer for the time being; in a
// crowd those who are there stay.
func (h *Hub) recipients(k key) []recipient {
	h.mu.Lock()
	defer h.mu.Unlock()
	var own *rule
	if n := len(h.ports[k]); n > 0 && !(h.suspended && k.steals() && !copies(h.ports[k])) && h.joined[k] == nil {
		own = h.ports[k][n-1].rule
	}
	guests := h.guestsOf(k)
	all := make([]recipient, 0, 1+len(guests))
	for _, g := range guests {
		if own != nil && sharing.Compare(h.self(), g.session) <= 0 {
			all = append(all, recipient{nil, own})
			own = nil
		}
		all = append(all, recipient{g, g.subs[len(g.subs)-1].rule})
	}
	if own != nil {
		all = append(all, recipient{nil, own})
	}
	return all
}

// rule is that of the first who may get requests of a port; nil: nobody may.
func (h *Hub) rule(k key) *rule {
	if all := h.recipients(k); len(all) > 0 {
		return all[0].rule
	}
	return nil
}

// self is this agent's own session.
func (h *Hub) self() sharing.Session {
	if h.o.Session == nil {
		return sharing.Session{}
	}
	return h.o.Session()
}
