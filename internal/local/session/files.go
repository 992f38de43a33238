package session

import (
	"fmt"
	"slices"
	"time"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/attach"
	"github.com/mirrord-go/mirrord/internal/local/files"
	"github.com/mirrord-go/mirrord/internal/local/places"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// openTree makes the view of files for spec, and plans its mounts.
func (s *supervisor) openTree(b *built, spec *handoff.Spec) error {
	at := places.Of(s.start.Argv, s.start.Env, s.start.Dir)
	at.Volumes = s.hold.First().Pod().Mounts
	if c := s.start.Container; c != nil {
		at.Own = append(append(at.Own, c.Places...), c.Sources(s.start.Dir)...)
	}
	r, err := rules.NewFiles(s.cfg.FilesRules(), at)
	if err != nil {
		return fmt.Errorf("read the rules of files: %w", err)
	}
	if s.kept != nil {
		s.kept.files = r
	}
	plan := places.Plan(r)
	for _, v := range s.hold.First().Pod().Mounts {
		if d := r.Decide(v, rules.Read); d.Where == rules.Local && s.cfg.FilesRules().Mode != rules.FilesLocal {
			s.emit(event.Event{Level: event.Detail, Code: "volume-local", Flow: "files",
				Text: "the target has a volume at " + v + "; here it is local: " + d.Why})
		}
	}
	served := places.Served(s.cfg.Files)
	if s.container != nil {
		served = s.container.serve(served)
		s.container.argv = s.start.Container.Argv(s.container.inside(r, s.hold.First().Pod().Mounts))
	}
	b.tree = files.New(files.Options{
		Peer: s.learn.counting(s.peer), Rules: r, Plan: plan, UID: s.hold.First().Pod().UID, GID: s.hold.First().Pod().GID, Emit: s.emit, Moved: s.activity.FileBytes, Window: attach.ResumeWindow(&s.cfg), LinkLost: func() time.Time { return s.hold.Now().Lost() }, Life: cacheLife(&s.cfg),
		Sockets: []string{"/run"}, Served: served, Root: s.container != nil, Ahead: s.memory.ahead,
	})
	s.learn.about(at, plan)
	spec.Binds = slices.Concat(plan.Binds, plan.Pins)
	spec.Hides = plan.Hides
	return nil
}

// cacheLife is how long the target's files are remembered.
func cacheLife(cfg *config.Config) time.Duration {
	if cfg.FilesCache != nil {
		return time.Duration(*cfg.FilesCache) * time.Second
	}
	return files.DefaultLife
}
