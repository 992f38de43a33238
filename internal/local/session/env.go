package session

import (
	"context"
	"fmt"
	"os"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// environment is what the command gets: the caller's and the target's.
func (s *supervisor) environment(ctx context.Context) ([]string, error) {
	env, err := s.cfg.Variables(os.ReadFile)
	if err != nil {
		return nil, err
	}
	remote, err := s.variables(ctx)
	if err != nil {
		return nil, err
	}
	return env.Merge(s.start.Env, remote), nil
}

// variables asks for the target's environment.
func (s *supervisor) variables(ctx context.Context) ([]string, error) {
	m, err := s.peer.Call(ctx, &protocol.EnvRequest{})
	if err != nil {
		return nil, fmt.Errorf("read the target's environment: %w", err)
	}
	switch m := m.(type) {
	case *protocol.Env:
		s.emit(event.Event{Level: event.Detail, Code: "environment", Flow: "env", Text: fmt.Sprintf("the target's %d variables are here", len(m.Vars))})
		return m.Vars, nil
	case *protocol.Answer:
		return nil, m.Err()
	}
	return nil, fmt.Errorf("read the target's environment: the agent answered with %T", m)
}
