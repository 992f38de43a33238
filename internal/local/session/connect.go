package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"runtime"
	"sync"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/link/resume"
	"github.com/mirrord-go/mirrord/internal/link/seal"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// connect starts the agent and greets it.
func (s *supervisor) connect(ctx context.Context) error {
	key, err := seal.NewKey()
	if err != nil {
		return fmt.Errorf("make the session's key: %w", err)
	}
	s.agent, err = s.reach(ctx, Request{PublicKey: seal.PublicKey(key), Session: s.id, User: UserName(), Owned: s.owned, Emit: s.emit})
	if err != nil {
		return err
	}
	if err := s.understands(s.agent.Announced()); err != nil {
		return err
	}
	agentKey, err := seal.ParsePublicKey(s.agent.Announced().Key)
	if err != nil {
		return fmt.Errorf("the agent's announcement: %w", err)
	}
	pipe, err := resume.Dial(ctx, func(ctx context.Context) (io.ReadWriteCloser, error) {
		raw, err := s.agent.Dial(ctx)
		if err != nil {
			return nil, err
		}
		sealed, err := seal.Client(ctx, raw, key, agentKey)
		if err != nil {
			raw.Close()
			return nil, err
		}
		return sealed, nil
	}, resume.Options{Fatal: func(err error) bool {
		return errors.Is(err, seal.ErrRefused) || errors.Is(err, seal.ErrWrongKey) || errors.Is(err, seal.ErrVersion) || s.agent.Gone(err)
	}})
	if refused, ok := errors.AsType[*resume.RefusedError](err); errors.Is(err, seal.ErrVersion) || ok && refused.Code == resume.RefusedVersion {
		return s.otherVersion("", err.Error())
	}
	if err != nil {
		return failure.Wrap(err, "agent-unreachable", "the agent was started but cannot be reached", "try: kubectl port-forward to any pod of the namespace; it needs the same permissions")
	}
	s.link = link.New(pipe, link.Local, link.Options{})
	if err := s.greet(ctx); err != nil {
		s.disconnect()
		return err
	}
	s.emit(event.Event{Level: event.Step, Code: "connected", Text: "connected to " + s.pod.Hostname, Facts: map[string]string{"hostname": s.pod.Hostname, "agent": s.pod.Software}})
	return nil
}

// greet opens the control stream.
func (s *supervisor) greet(ctx context.Context) error {
	stream, err := s.link.Open(ctx, link.Interactive, &protocol.Hello{
		Min: protocol.MinVersion, Max: protocol.Version, Session: s.id, User: UserName(),
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
			return s.otherVersion(which(!older), fmt.Sprintf("the agent (%s) wants to speak protocol %d, this mirrord speaks %v", m.Software, m.Version, protocol.Spoken()))
		}
		if err := s.makeDo(m.Features); err != nil {
			return err
		}
		s.pod, s.hello, s.said = m, stream, &notices{}
		s.said.wg.Go(func() { s.said.read(stream, s.emit) })
		return nil
	case *protocol.Answer:
		f := &failure.Error{Code: "agent-refuses", What: "the agent refuses the session", Why: m.Text, Do: "try again", Cause: m.Err()}
		switch m.Cause {
		case protocol.CauseVersion:
			return s.otherVersion("", m.Text)
		case protocol.CauseTarget:
			f.Code, f.What, f.Do = "target-unreachable", "the agent cannot enter the target", "check that the target is still running: kubectl get pods"
		}
		return f
	}
	return fmt.Errorf("the agent answered the greeting with %T", m)
}

// disconnect says goodbye.
func (s *supervisor) disconnect() {
	if s.hello != nil {
		_ = s.hello.Send(&protocol.Bye{Code: "done"})
		s.hello.Close()
	}
	_ = s.link.Close("the session has ended")
	if s.said != nil {
		s.said.wg.Wait()
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
	m, err := s.link.Call(ctx, &protocol.EnvRequest{})
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
	_ = s.ctl.Send(control.Message{Owned: description})
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

func (n *notices) read(s *link.Stream, emit event.Sink) {
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
		case *protocol.Bye:
			n.mu.Lock()
			n.bye = m
			n.mu.Unlock()
			return
		}
	}
}
