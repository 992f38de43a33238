package attach

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// Peer is the agent, whichever the session has now. Its methods may be called
// concurrently.
type Peer struct {
	mu    sync.Mutex
	link  *link.Conn
	ready chan struct{} // not nil: link is over, and this is closed when there is another or none will come
}

// Open starts a stream towards the agent; see link.Conn.
func (p *Peer) Open(ctx context.Context, lane link.Lane, m protocol.Message) (*link.Stream, error) {
	l, err := p.now(ctx)
	if err != nil {
		return nil, err
	}
	return l.Open(ctx, lane, m)
}

// Call asks the agent one question; see link.Conn.
func (p *Peer) Call(ctx context.Context, m protocol.Message) (protocol.Message, error) {
	l, err := p.now(ctx)
	if err != nil {
		return nil, err
	}
	return l.Call(ctx, m)
}

// now waits for a link while the target is being replaced, as long as for one
// that is lost.
func (p *Peer) now(ctx context.Context) (*link.Conn, error) {
	p.mu.Lock()
	l, ready := p.link, p.ready
	p.mu.Unlock()
	if ready == nil {
		return l, nil
	}
	timer := time.NewTimer(link.BeginTime)
	defer timer.Stop()
	select {
	case <-ready:
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.link, nil
	case <-timer.C:
		return nil, fmt.Errorf("the target has ended and its successor does not run yet: %w", syscall.EHOSTUNREACH)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Replacing reports whether new work waits for another link.
func (p *Peer) Replacing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ready != nil
}

// hold lets new work wait for set.
func (p *Peer) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = make(chan struct{})
}

// set gives new work a link; nil: the one that is over, so that it fails.
func (p *Peer) set(l *link.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l != nil {
		p.link = l
	}
	if p.ready != nil {
		close(p.ready)
		p.ready = nil
	}
}

// follow looks for the successor of a target whose agent is gone. The session
// goes on meanwhile: what is local works, new work waits for a moment.
func (h *Hold) follow(ctx context.Context, old *Attachment) (*Attachment, error) {
	h.peer.hold()
	lost := old.lost()
	if lost.Code != "agent-lost" && lost.Code != "target-ended" {
		h.peer.set(nil)
		return nil, lost // the cluster cannot be asked either
	}
	h.detach(old)
	at, err := h.attach(ctx, func(ctx context.Context, r Request) (Agent, error) {
		return old.agent.Follow(ctx, lost.Code == "target-ended", r)
	})
	if err != nil {
		if at != nil {
			h.detach(at)
		}
		h.peer.set(nil)
		return nil, unfollowed(lost, err)
	}
	h.current.Store(at)
	h.peer.set(at.link)
	text := "the session goes on in " + at.pod.Hostname
	if h.o.Stays != "" {
		text += "; " + h.o.Stays
	}
	h.o.Emit(event.Event{Level: event.Info, Code: "target-followed", Text: text, Facts: map[string]string{"hostname": at.pod.Hostname}})
	return at, nil
}

// lost says why the agent is gone.
func (at *Attachment) lost() *failure.Error {
	at.said.wg.Wait() // its last word has been read
	err := at.link.Err()
	if f := linkGone(err, at.loss.window); f != nil {
		return f
	}
	f := &failure.Error{Code: "agent-lost", What: "the session has ended: the agent is gone", Cause: err,
		Why: "its pod was deleted, or it was killed", Do: StartAgain}
	switch bye := at.said.goodbye(); {
	case bye != nil && bye.Code == "target-ended":
		f.Code, f.What, f.Why = "target-ended", "the session has ended: the target has ended", "its container ended or was restarted"
	case bye != nil:
		f.Why = fmt.Sprintf("it said %q", bye.Text)
	case err != nil:
		f.Why += fmt.Sprintf(" (%q)", err.Error())
	}
	return f
}

// TargetEnded reports whether err, of Keep, says that the target has.
func TargetEnded(err error) bool {
	f, ok := errors.AsType[*failure.Error](err)
	return ok && f.Code == "target-ended"
}

// unfollowed is lost with the reason why nothing took over.
func unfollowed(lost *failure.Error, err error) error {
	if errors.Is(err, ErrNotReplaced) {
		return lost
	}
	f := *lost
	f.Code, f.What = "target-ended", "the session has ended: the target has ended, and nothing has taken its place"
	why := failure.From(err)
	f.Why, f.Do, f.Cause = why.What, why.Do, err
	if why.Why != "" {
		f.Why += ": " + why.Why
	}
	return &f
}
