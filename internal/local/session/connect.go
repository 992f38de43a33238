package session

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"runtime"
	"strings"
	"sync"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/link/resume"
	"github.com/mirrord-go/mirrord/internal/link/seal"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// attachment is the session's hold on one agent: the one it starts with, or a
// later one beside what has replaced the target.
type attachment struct {
	agent Agent
	loss  *loss // of the link
	link  *link.Conn
	hello *link.Stream // the control stream
	said  *notices     // what the agent says on it
	pod   *protocol.Welcome
	ended sync.Once // detach
}

// attach starts an agent and greets it. What it gives is to be detached, also
// with an error; nil: there is nothing.
func (s *supervisor) attach(ctx context.Context, reach Reach) (*attachment, error) {
	key, err := seal.NewKey()
	if err != nil {
		return nil, fmt.Errorf("make the session's key: %w", err)
	}
	id := strings.ToLower(rand.Text())
	at := &attachment{}
	at.agent, err = reach(ctx, Request{PublicKey: seal.PublicKey(key), Session: id, User: UserName(), Arguments: agentArguments(&s.cfg), Owned: s.owned, Emit: s.emit})
	if err != nil {
		return nil, err
	}
	if err := s.understands(at.agent); err != nil {
		return at, err
	}
	agentKey, err := seal.ParsePublicKey(at.agent.Announced().Key)
	if err != nil {
		return at, fmt.Errorf("the agent's announcement: %w", err)
	}
	at.loss = newLoss(resumeWindow(&s.cfg), s.emit)
	pipe, err := resume.Dial(ctx, sealed(at.agent, key, agentKey), at.loss.options(at.agent))
	if refused, ok := errors.AsType[*resume.RefusedError](err); errors.Is(err, seal.ErrVersion) || ok && refused.Code == resume.RefusedVersion {
		return at, s.otherVersion(at.agent, "", err.Error())
	}
	if err != nil {
		return at, failure.Wrap(err, "agent-unreachable", "the agent was started but cannot be reached", "try: kubectl port-forward to any pod of the namespace; it needs the same permissions")
	}
	at.link = link.New(pipe, link.Local, link.Options{Memory: s.memory.ofLink()})
	at.loss.attach(at.link)
	if err := s.greet(ctx, at, id); err != nil {
		return at, err
	}
	s.emit(event.Event{Level: event.Step, Code: "connected", Text: "connected to " + at.pod.Hostname, Facts: map[string]string{"hostname": at.pod.Hostname, "agent": at.pod.Software}})
	return at, nil
}

// greet opens the control stream.
func (s *supervisor) greet(ctx context.Context, at *attachment, id string) error {
	stream, err := at.link.Open(ctx, link.Interactive, &protocol.Hello{
		Min: protocol.MinVersion, Max: protocol.Version, Session: id, User: UserName(),
		Software: fmt.Sprintf("mirrord %s %s/%s", s.version, runtime.GOOS, runtime.GOARCH)})
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
			return s.otherVersion(at.agent, which(!older), fmt.Sprintf("the agent (%s) wants to speak protocol %d, this mirrord speaks %v", m.Software, m.Version, protocol.Spoken()))
		}
		if err := s.makeDo(m.Features); err != nil {
			return err
		}
		at.pod, at.hello, at.said = m, stream, &notices{}
		at.said.wg.Go(func() { at.said.read(stream, s.emit, s.lost) })
		return nil
	case *protocol.Answer:
		f := &failure.Error{Code: "agent-refuses", What: "the agent refuses the session", Why: m.Text, Do: "try again", Cause: m.Err()}
		switch m.Cause {
		case protocol.CauseVersion:
			return s.otherVersion(at.agent, "", m.Text)
		case protocol.CauseTarget:
			f.Code, f.What, f.Do = "target-unreachable", "the agent cannot enter the target", "check that the target is still running: kubectl get pods"
		}
		return f
	}
	return fmt.Errorf("the agent answered the greeting with %T", m)
}

// detach says goodbye to an agent and removes what is left of it in the
// cluster.
func (s *supervisor) detach(at *attachment) { at.ended.Do(func() { s.detachOnce(at) }) }

func (s *supervisor) detachOnce(at *attachment) {
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
		limit = endTime // the API server has been away for the whole window
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := at.agent.Close(ctx); err != nil {
		s.emit(event.Event{Level: event.Warning, Code: "agent-left", Text: fmt.Sprintf("the agent could not be removed (%v); it ends by itself", err)})
	}
}

// environment is what the command gets: the caller's and the target's.
func (s *supervisor) environment(ctx context.Context) ([]string, error) {
	env, err := Env(s.cfg.EnvRules())
	if err != nil {
		return nil, err
	}
	remote, err := s.variables(ctx)
	if err != nil {
		return nil, err
	}
	return env.Merge(s.start.Env, remote), nil
}

// Env makes the rules of variables, with the file that o names.
func Env(o rules.EnvOptions) (rules.Env, error) {
	var file []string
	if o.File != "" {
		text, err := os.ReadFile(o.File)
		if err == nil {
			file, err = rules.ParseEnvFile(o.File, text)
		}
		if err != nil { // it has changed since the configuration was read
			return rules.Env{}, fmt.Errorf("read the file of variables: %w", err)
		}
	}
	return rules.NewEnv(o, file)
}

// variables asks for the target's environment.
func (s *supervisor) variables(ctx context.Context) ([]string, error) {
	m, err := s.peer.Call(ctx, &protocol.EnvRequest{})
	if err != nil {
		return nil, fmt.Errorf("read the target's environment: %w", err)
	}
	switch m := m.(type) {
	case *protocol.Env:
		return m.Vars, nil
	case *protocol.Answer:
		return nil, m.Err()
	}
	return nil, fmt.Errorf("read the target's environment: the agent answered with %T", m)
}

func (s *supervisor) owned(description json.RawMessage) {
	s.tell(control.Message{Owned: description})
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

// lost counts what could not be mirrored, and says it once.
func (s *supervisor) lost(m *protocol.Lost) {
	s.activity.Lost(activity.Loss{Packets: int64(m.Packets), Copies: int64(m.Copies)})
	s.losing.Do(func() {
		s.emit(event.Event{Level: event.Warning, Code: "mirror-lost", Flow: "incoming",
			Text:  fmt.Sprintf("more is sent to the target than can be mirrored: %d packets are lost, %d connections not copied as a whole; mirrord status goes on counting", m.Packets, m.Copies),
			Facts: map[string]string{"packets": fmt.Sprint(m.Packets), "copies": fmt.Sprint(m.Copies)}})
	})
}

func (n *notices) read(s *link.Stream, emit event.Sink, lost func(*protocol.Lost)) {
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
			lost(m)
		case *protocol.Bye:
			n.mu.Lock()
			n.bye = m
			n.mu.Unlock()
			return
		}
	}
}
