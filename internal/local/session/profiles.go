package session

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/local/profiles"
	"github.com/mirrord-go/mirrord/internal/profile"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// maxProfile is the largest profile that is taken from an agent, in bytes.
const maxProfile = 16 << 20

// serveProfiles shows what the supervisor and its agent do to whoever has the
// secret that the front has made, until done is called.
func (s *supervisor) serveProfiles(ctx context.Context) (done func(), err error) {
	if s.start.Profiles == "" {
		return func() {}, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	server, err := profiles.Serve(ctx, s.start.Profiles, map[string]profiles.Source{"supervisor": profile.Take, "agent": s.agentProfile})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("open a port for profiles: %w", err)
	}
	s.emit(event.Event{Level: event.Detail, Code: "profiles", Text: fmt.Sprintf("profiles are on port %d of this machine", server.Port()),
		Facts: map[string]string{"port": fmt.Sprint(server.Port())}})
	return func() {
		cancel()
		server.Close()
	}, nil
}

// agentProfile asks the agent for a profile of itself.
func (s *supervisor) agentProfile(ctx context.Context, kind string, d time.Duration) ([]byte, error) {
	stream, err := s.peer.Open(ctx, link.Interactive, &protocol.Profile{Name: kind, Seconds: uint16(d / time.Second)})
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	defer stop()
	m, err := stream.Receive()
	if err != nil {
		return nil, err
	}
	a, ok := m.(*protocol.Answer)
	if !ok {
		return nil, fmt.Errorf("the agent answered with %T", m)
	}
	if err := a.Err(); err != nil {
		return nil, err
	}
	taken, err := io.ReadAll(io.LimitReader(stream, maxProfile+1))
	if len(taken) > maxProfile {
		return nil, fmt.Errorf("the agent's profile is larger than %d bytes", maxProfile)
	}
	return taken, err
}
