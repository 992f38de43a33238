package session

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

// peer is the agent, whichever the session has now. Its methods may be called
// concurrently.
type peer struct {
	mu    sync.Mutex
	link  *link.Conn
	ready chan struct{} // not nil: link is over, and this is closed when there is another or none will come
}

// Open starts a stream towards the agent; see link.Conn.
func (p *peer) Open(ctx context.Context, lane link.Lane, m protocol.Message) (*link.Stream, error) {
	l, err := p.now(ctx)
	if err != nil {
		return nil, err
	}
	return l.Open(ctx, lane, m)
}

// Call asks the agent one question; see link.Conn.
func (p *peer) Call(ctx context.Context, m protocol.Message) (protocol.Message, error) {
	l, err := p.now(ctx)
	if err != nil {
		return nil, err
	}
	return l.Call(ctx, m)
}

// now waits for a link while the target is being replaced, as long as for one
// that is lost.
func (p *peer) now(ctx context.Context) (*link.Conn, error) {
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

// replacing reports whether new work waits for another link.
func (p *peer) replacing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ready != nil
}

// hold lets new work wait for set.
func (p *peer) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = make(chan struct{})
}

// set gives new work a link; nil: the one that is over, so that it fails.
func (p *peer) set(l *link.Conn) {
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

// successor is what took over from an agent, or why nothing did.
type successor struct {
	at  *attachment
	err error
}

// follow looks for the successor of a target whose agent is gone. The session
// goes on meanwhile: what is local works, new work waits for a moment. It ends
// with ctx, and the channel gets one word in any case.
func (s *supervisor) follow(ctx context.Context, old *attachment) <-chan successor {
	found := make(chan successor, 1)
	s.peer.hold()
	go func() {
		lost := old.lost()
		if lost.Code != "agent-lost" && lost.Code != "target-ended" {
			s.peer.set(nil)
			found <- successor{err: lost} // the cluster cannot be asked either
			return
		}
		s.detach(old)
		at, err := s.attach(ctx, func(ctx context.Context, r Request) (Agent, error) {
			return old.agent.Follow(ctx, lost.Code == "target-ended", r)
		})
		if err != nil {
			if at != nil {
				s.detach(at)
			}
			s.peer.set(nil)
			found <- successor{err: unfollowed(lost, err)}
			return
		}
		s.current.Store(at)
		s.peer.set(at.link)
		s.emit(event.Event{Level: event.Info, Code: "target-followed",
			Text:  fmt.Sprintf("the session goes on in %s; environment, hostname and addresses stay those of the start", at.pod.Hostname),
			Facts: map[string]string{"hostname": at.pod.Hostname}})
		found <- successor{at: at}
	}()
	return found
}

// lost says why the agent is gone.
func (at *attachment) lost() *failure.Error {
	at.said.wg.Wait() // its last word has been read
	err := at.link.Err()
	if f := linkGone(err, at.loss.window); f != nil {
		return f
	}
	f := &failure.Error{Code: "agent-lost", What: "the session has ended: the agent is gone", Cause: err,
		Why: "its pod was deleted, or it was killed", Do: startAgain}
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
