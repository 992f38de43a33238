package session

import (
	"context"
	"os"
	"time"

	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/look"
	"github.com/mirrord-go/mirrord/internal/local/places"
	"github.com/mirrord-go/mirrord/internal/local/roster"
)

// show lets this user's other programs see what goes on, until done, by id.
func (s *supervisor) show(ctx context.Context, b *built, id string) (done func()) {
	dirs := roster.Dirs(func(name string) string { return places.Variable(s.start.Env, name) }, roster.Running)
	status := func(id string) *control.Status { return s.alone(b, id) }
	if s.kept != nil {
		status = func(string) *control.Status { return s.kept.status(b) }
	}
	_, done = look.Show(ctx, dirs, id, look.Session{Status: status, Activity: s.activity, Emit: s.emit})
	return done
}

// alone is how a session of one command is now.
func (s *supervisor) alone(b *built, id string) *control.Status {
	st := s.status(b)
	st.ID = id
	st.Commands = []control.Command{{Argv: s.start.Argv, PID: s.start.Front, Since: st.Since}}
	st.Events = []control.Happened{}
	return st
}

// status is what there is to say of any session.
func (s *supervisor) status(b *built) *control.Status {
	st := &control.Status{Version: s.version, PID: os.Getpid(), Target: s.cfg.Target, Key: s.cfg.Key,
		Since: s.began.UTC().Truncate(time.Second), Mode: incomingWord(&s.cfg), Ports: []control.Port{}, Counts: s.activity.Counts()}
	st.Namespace, st.Context = s.hold.Place()
	st.Hostname, st.Lost, st.Replacing = s.hold.Status()
	st.Replicas = b.fleet.Pods()
	for _, p := range b.ports.Ports() {
		st.Ports = append(st.Ports, control.Port(p))
	}
	return st
}
