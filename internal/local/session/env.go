package session

import (
	"context"
	"fmt"
	"os"

	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

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
