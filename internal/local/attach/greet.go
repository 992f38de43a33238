package attach

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/user"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/link/resume"
	"github.com/mirrord-go/mirrord/internal/link/seal"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// Attachment is the hold on one agent: the one that the session starts with, or a
// later one beside what has replaced the target.
type Attachment struct {
	agent Agent
	loss  *loss // of the link
	link  *link.Conn
	hello *link.Stream // the control stream
	said  *notices     // what the agent says on it
	pod   *protocol.Welcome
	ended sync.Once // detach

	counts *activity.Agent // what it has counted
}

// attach starts an agent and greets it. What it gives is to be detached, also
// with an error; nil: there is nothing.
func (h *Hold) attach(ctx context.Context, reach Reach) (*Attachment, error) {
	key, err := seal.NewKey()
	if err != nil {
		return nil, fmt.Errorf("make the session's key: %w", err)
	}
	id := strings.ToLower(rand.Text())
	at := &Attachment{counts: h.o.Activity.Agent()}
	at.agent, err = reach(ctx, Request{PublicKey: seal.PublicKey(key), Session: id, User: UserName(), Arguments: agentArguments(h.o.Config), Owned: h.o.Owned, Emit: h.o.Emit})
	if err != nil {
		return nil, err
	}
	if err := h.understands(at.agent); err != nil {
		return at, err
	}
	agentKey, err := seal.ParsePublicKey(at.agent.Announced().Key)
	if err != nil {
		return at, fmt.Errorf("the agent's announcement: %w", err)
	}
	at.loss = newLoss(ResumeWindow(h.o.Config), h.o.Emit)
	pipe, err := resume.Dial(ctx, sealed(at.agent, key, agentKey), at.loss.options(at.agent))
	if refused, ok := errors.AsType[*resume.RefusedError](err); errors.Is(err, seal.ErrVersion) || ok && refused.Code == resume.RefusedVersion {
		return at, h.otherVersion(at.agent, "", err.Error())
	}
	if err != nil {
		return at, failure.Wrap(err, "agent-unreachable", "the agent was started but cannot be reached", "try: kubectl port-forward to any pod of the namespace; it needs the same permissions")
	}
	at.link = link.New(pipe, link.Local, link.Options{Memory: h.o.Memory})
	at.loss.attach(at.link)
	if err := h.greet(ctx, at, id); err != nil {
		return at, err
	}
	h.o.Emit(event.Event{Level: event.Step, Code: "connected", Text: "connected to " + at.pod.Hostname, Facts: map[string]string{"hostname": at.pod.Hostname, "agent": at.pod.Software}})
	return at, nil
}

// greet opens the control stream.
func (h *Hold) greet(ctx context.Context, at *Attachment, id string) error {
	stream, err := at.link.Open(ctx, link.Interactive, &protocol.Hello{
		Min: protocol.MinVersion, Max: protocol.Version, Session: id, User: UserName(),
		Software: fmt.Sprintf("mirrord %s %s/%s", h.o.Version, runtime.GOOS, runtime.GOARCH)})
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	defer stop()
	m, err := stream.Receive()
	if err != nil {
		return fmt.Errorf("greet the agent: %w", err)
	}
	switch m := m.(type) {
	case *protocol.Welcome:
		if version, older := protocol.Spoken().Common(protocol.Versions{Min: m.Version, Max: m.Version}); version == 0 {
			return h.otherVersion(at.agent, which(!older), fmt.Sprintf("the agent (%s) wants to speak protocol %d, this mirrord speaks %v", m.Software, m.Version, protocol.Spoken()))
		}
		if err := h.makeDo(m.Features); err != nil {
			return err
		}
		at.pod, at.hello, at.said = m, stream, &notices{}
		at.said.wg.Go(func() { at.said.read(stream, h.o.Emit, h, at) })
		return nil
	case *protocol.Answer:
		f := &failure.Error{Code: "agent-refuses", What: "the agent refuses the session", Why: m.Text, Do: "try again", Cause: m.Err()}
		switch m.Cause {
		case protocol.CauseVersion:
			return h.otherVersion(at.agent, "", m.Text)
		case protocol.CauseTarget:
			f.Code, f.What, f.Do = "target-unreachable", "the agent cannot enter the target", "check that the target is still running: kubectl get pods"
		}
		return f
	}
	return fmt.Errorf("the agent answered the greeting with %T", m)
}

// detach says goodbye to an agent and removes what is left of it in the
// cluster.
func (h *Hold) detach(at *Attachment) { at.ended.Do(func() { h.detachOnce(at) }) }

func (h *Hold) detachOnce(at *Attachment) {
	if at.hello != nil {
		_ = at.hello.Send(&protocol.Bye{Code: "done"})
		at.hello.Close()
	}
	if at.link != nil {
		_ = at.link.Close("the session has ended")
	}
	if at.loss != nil {
		at.loss.close()
	}
	if at.said != nil {
		at.said.wg.Wait()
	}
	limit := removeTime
	if at.link != nil && errors.Is(at.link.Err(), resume.ErrGone) {
		limit = goneTime
	}
	if t := h.o.RemoveTime; t > 0 {
		limit = min(limit, t)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := at.agent.Close(ctx); err != nil {
		h.o.Emit(event.Event{Level: event.Warning, Code: "agent-left", Text: fmt.Sprintf("the agent could not be removed (%v); it ends by itself", err)})
	}
}

// UserName tells others on the same target who is there: "ana@laptop".
func UserName() string {
	host, _ := os.Hostname()
	name := "uid " + fmt.Sprint(os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return name + "@" + host
}

// Agent is the one attached to.
func (at *Attachment) Agent() Agent { return at.agent }

// Pod is what the agent says of the target. The caller must not change it.
func (at *Attachment) Pod() *protocol.Welcome { return at.pod }

// Link is the link to it; for new work there is Peer.
func (at *Attachment) Link() *link.Conn { return at.link }

// Incoming gives each connection of the target's to take, which must not wait, until
// the link ends, or ctx.
func (at *Attachment) Incoming(ctx context.Context, take func(*link.Stream, *protocol.Incoming)) {
	for {
		stream, m, err := at.link.Accept(ctx)
		if err != nil {
			return
		}
		in, ok := m.(*protocol.Incoming)
		if !ok {
			stream.Close() // a newer agent's request
			continue
		}
		take(stream, in)
	}
}

// Lost is since when there is no link; zero: there is one.
func (at *Attachment) Lost() time.Time { return at.loss.since() }

// LostSince reports whether the link was lost at any time since t.
func (at *Attachment) LostSince(t time.Time) bool { return at.loss.lostSince(t) }

// notices reads what the agent says on the control stream until it ends, and
// keeps its goodbye.
type notices struct {
	wg  sync.WaitGroup // the reader, which ends with the stream
	mu  sync.Mutex
	bye *protocol.Bye
}

// goodbye is how the agent took its leave; nil if it did not.
func (n *notices) goodbye() *protocol.Bye {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.bye
}

func (n *notices) read(s *link.Stream, emit event.Sink, h *Hold, at *Attachment) {
	for {
		m, err := s.Receive()
		var unknown *protocol.UnknownKindError
		switch {
		case errors.As(err, &unknown):
			continue
		case err != nil:
			return
		}
		switch m := m.(type) {
		case *protocol.Notice:
			emit(event.Event{Level: event.Info, Code: m.Code, Text: m.Text})
		case *protocol.Lost:
			h.lost(at, m)
		case *protocol.Counts:
			h.counted(at, m)
		case *protocol.Bye:
			n.mu.Lock()
			n.bye = m
			n.mu.Unlock()
			return
		}
	}
}
