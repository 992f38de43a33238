package incoming

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/relay"
)

// This file is about a port that another session's agent has stolen, and that
// this one shares: it subscribes there as local does here, and passes on to local
// what it gets.

// errGone: the holder of a port has just given it up, or shares it with nobody.
var errGone = errors.New("its holder is gone, or shares it with nobody")

// joined is a port that is shared.
type joined struct {
	hub  *Hub
	key  key
	link *link.Conn
	wg   sync.WaitGroup // of follow

	mu     sync.Mutex
	begun  bool                          // asked are followed
	asked  map[*link.Stream]*link.Stream // there, by the stream of local's subscription
	relays int                           // connections under way
	leaves bool                          // nothing more is subscribed to
	done   chan struct{}                 // closed when it leaves and the last connection has ended
}

// join asks whoever holds a port for what subs say. An error that wraps errGone
// means that the port may be free; any other is the holder's refusal.
func (h *Hub) join(ctx context.Context, k key, subs []subscription) (*joined, error) {
	c, err := h.o.Join(k.port)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errGone, err)
	}
	if !h.o.Memory.Sharing.Take(link.Fixed) {
		c.Close()
		return nil, fmt.Errorf("share port %d: %w", k.port, syscall.ENOMEM)
	}
	j := &joined{hub: h, key: k, link: link.New(c, link.Local, link.Options{Memory: h.o.Memory.Link}), asked: map[*link.Stream]*link.Stream{}, done: make(chan struct{})}
	control, err := j.greet(ctx)
	for i := 0; err == nil && i < len(subs); i++ {
		err = j.subscribe(subs[i])
	}
	h.mu.Lock()
	if h.over && err == nil {
		err = fmt.Errorf("share port %d: %w", k.port, syscall.ESHUTDOWN)
	}
	if err == nil {
		j.begin()
		h.sharing.Go(func() { j.serve(control) })
	}
	h.mu.Unlock()
	if err != nil {
		j.leave()
		_ = j.link.Close("")
		j.wg.Wait()
		h.o.Memory.Sharing.Give(link.Fixed)
	}
	return j, err
}

// greet says who we are.
func (j *joined) greet(ctx context.Context) (*link.Stream, error) {
	self := j.hub.self()
	return j.ask(ctx, &protocol.Join{Port: j.key.port, Holder: self.Holder, Began: uint64(self.Began.UnixNano())})
}

// ask opens a stream with m and waits for the answer.
func (j *joined) ask(ctx context.Context, m protocol.Message) (*link.Stream, error) {
	s, err := j.link.Open(ctx, link.Interactive, m)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errGone, err)
	}
	_ = s.SetReadDeadline(time.Now().Add(askTime))
	said, err := s.Receive()
	a, ok := said.(*protocol.Answer)
	switch {
	case err != nil || !ok:
		err = fmt.Errorf("%w: %w", errGone, errors.Join(err, syscall.EPROTO))
	case a.Errno == syscall.EAGAIN:
		err = fmt.Errorf("%w: %w", errGone, a.Err())
	default:
		err = a.Err()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	_ = s.SetReadDeadline(time.Time{})
	return s, nil
}

// subscribe asks for what sub says.
func (j *joined) subscribe(sub subscription) error {
	ctx, cancel := context.WithTimeout(j.hub.life, askTime)
	defer cancel()
	s, err := j.ask(ctx, sub.wish)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.leaves {
		s.Close()
		return fmt.Errorf("share port %d: %w", j.key.port, errGone)
	}
	j.asked[sub.stream] = s
	if j.begun {
		j.wg.Go(func() { j.follow(sub.stream, s) })
	}
	return nil
}

// begin follows what has been subscribed to, all of which was given.
func (j *joined) begin() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.begun = true
	for of, s := range j.asked {
		j.wg.Go(func() { j.follow(of, s) })
	}
}

// unsubscribe ends what subscribe began for the same stream of local's.
func (j *joined) unsubscribe(of *link.Stream) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if s := j.asked[of]; s != nil {
		delete(j.asked, of)
		s.Close()
	}
}

// follow waits for the end of a subscription. If it was not us who ended it the
// holder has given the port up, or to another session what we had of it.
func (j *joined) follow(of, s *link.Stream) {
	taken := lastWord(s)
	j.mu.Lock()
	lost := j.asked[of] == s
	if lost && taken != nil {
		delete(j.asked, of)
		s.Close()
	}
	j.mu.Unlock()
	switch {
	case !lost:
	case taken != nil:
		j.hub.cede(j, of, taken)
	default:
		j.hub.inherit(j)
	}
}

// inherit takes a port that whoever shared it with us has given up.
func (h *Hub) inherit(j *joined) {
	h.change.Lock()
	defer h.change.Unlock()
	h.mu.Lock()
	mine := h.joined[j.key] == j
	h.mu.Unlock()
	if !mine {
		return
	}
	h.part(j)
	if err := h.settle(j.key); err != nil {
		h.lose(j.key, err)
	}
}

// part ends the sharing of j's port. change is held.
func (h *Hub) part(j *joined) {
	h.mu.Lock()
	delete(h.joined, j.key)
	h.mu.Unlock()
	j.leave()
}

// leave ends the subscriptions. Connections under way go on.
func (j *joined) leave() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.leaves {
		return
	}
	for of, s := range j.asked {
		delete(j.asked, of)
		s.Close()
	}
	j.leaves = true
	j.ended()
}

// ended closes done when nothing is left. mu is held.
func (j *joined) ended() {
	if j.leaves && j.relays == 0 {
		close(j.done)
	}
}

// serve passes on what comes until it has left, or the holder is gone.
func (j *joined) serve(control *link.Stream) {
	defer j.hub.o.Memory.Sharing.Give(link.Fixed)
	var wg sync.WaitGroup
	wg.Go(func() { j.listen(control) })
	wg.Go(func() { newPulse().watch(j.link, j.hub.beat, func() { j.hub.silentHolder(j) }) })
	wg.Go(func() {
		for {
			s, m, err := j.link.Accept(context.WithoutCancel(j.hub.life)) // until the link ends
			if err != nil {
				return
			}
			in, ok := m.(*protocol.Incoming)
			if !ok || in.Port != j.key.port || in.Mode != j.key.mode || !j.enter() {
				_ = s.Reset(syscall.ECONNREFUSED)
				continue
			}
			wg.Go(func() {
				j.carry(s, in)
				j.exit()
			})
		}
	})
	select {
	case <-j.done: // every stream that was accepted has ended: the goodbye hands the others back
	case <-j.link.Done():
	}
	_ = j.link.Close("")
	wg.Wait()
	j.wg.Wait()
}

// listen passes notices on to local.
func (j *joined) listen(control *link.Stream) {
	defer control.Close()
	for {
		m, err := control.Receive()
		if err != nil {
			return
		}
		if n, ok := m.(*protocol.Notice); ok {
			j.hub.notice(j.key.port, n.Code, n.Text)
		}
	}
}

// enter counts a connection; false: it is too late for one.
func (j *joined) enter() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.leaves {
		return false
	}
	j.relays++
	return true
}

func (j *joined) exit() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.relays--
	j.ended()
}

// carry offers a connection to local. What local refuses the holder hears as our
// refusal.
func (j *joined) carry(s *link.Stream, m *protocol.Incoming) {
	h := j.hub
	room := h.o.Memory.Connections[m.Mode]
	if !room.Take(ConnCost) {
		_ = s.Reset(syscall.EAGAIN)
		return
	}
	defer room.Give(ConnCost)
	to, err := h.o.Link.Open(h.life, link.Bulk, m)
	if err != nil {
		_ = s.Reset(syscall.ECONNREFUSED)
		return
	}
	defer h.hold(passedOn{s})()
	ctx, cancel := outlast(h.life, always)
	defer cancel()
	_, _ = relay.Join(ctx, h.o.Memory.Relayed, s, answering{to})
}

// answering is local's side of a connection that another agent offers: errors
// that mean a refusal become one that tells that agent so.
type answering struct{ *link.Stream }

func told(err error) error {
	if err != nil && refused(err) {
		return syscall.ECONNREFUSED
	}
	return err
}

func (a answering) Read(p []byte) (int, error) {
	n, err := a.Stream.Read(p)
	return n, told(err)
}

func (a answering) Write(p []byte) (int, error) {
	n, err := a.Stream.Write(p)
	return n, told(err)
}

func (a answering) CloseWrite() error { return told(a.Stream.CloseWrite()) }

// passedOn is a connection of another agent's whose client may wait for local.
type passedOn struct{ *link.Stream }

// abandon implements waiting: the other agent answers.
func (p passedOn) abandon() { _ = p.Reset(syscall.ECONNRESET) }
