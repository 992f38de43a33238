package session

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/local/container"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// containerVariables is where an engine in the sandbox finds the variables of its
// container: a file that is served, and stands on no disk.
const containerVariables = "/.mirrord-variables"

// contained is a session whose command is an engine of containers.
type contained struct {
	vars   []byte   // for the file
	passed []string // names of variables in env that the container gets
	argv   []string // of the engine; set when the view of files is known
	env    []string // of the engine
}

// contained makes what the engine and its container need of the target's
// variables. The engine itself works with the caller's own: it is a tool of this
// machine. The container has none of them, as without mirrord.
func (s *supervisor) contained(ctx context.Context) (*contained, error) {
	env, err := s.cfg.Variables(os.ReadFile)
	if err != nil {
		return nil, err
	}
	remote, err := s.variables(ctx)
	if err != nil {
		return nil, err
	}
	file, passed, lost := container.Variables(env.Merge(nil, remote))
	if len(lost) > 0 {
		s.emit(event.Event{Level: event.Warning, Code: "container-variables", Flow: "env", Text: fmt.Sprintf("the container does not get %s: a value of several lines "+
			"would have to be the engine's own, which it would change", strings.Join(lost, ", "))})
	}
	c := &contained{vars: file}
	c.env = append(slices.Clone(s.start.Env), passed...)
	for _, kv := range passed {
		name, _, _ := strings.Cut(kv, "=")
		c.passed = append(c.passed, name)
	}
	if s.start.Container.Rootless && s.start.UID != 0 {
		// What podman says to itself when it has entered its user namespace
		// (rootless_linux.c): the sandbox is that namespace already.
		c.env = append(c.env, "_CONTAINERS_USERNS_CONFIGURED=done",
			fmt.Sprintf("_CONTAINERS_ROOTLESS_UID=%d", s.start.UID), fmt.Sprintf("_CONTAINERS_ROOTLESS_GID=%d", s.start.GID))
	}
	return c, nil
}

// serve adds the file of variables to those of the session's own.
func (c *contained) serve(files map[string][]byte) map[string][]byte {
	if len(c.vars) == 0 {
		return files
	}
	all := maps.Clone(files)
	if all == nil {
		all = map[string][]byte{}
	}
	all[containerVariables] = c.vars
	return all
}

// inside is what the container finds: of files the target's volumes that are the
// target's by rule.
func (c *contained) inside(r *rules.Files, volumes []string) container.Inside {
	in := container.Inside{Passed: c.passed}
	if len(c.vars) > 0 {
		in.EnvFile = containerVariables
	}
	for _, v := range volumes {
		if r.Decide(v, rules.Read).Where != rules.Remote || !container.Mountable(v) {
			continue
		}
		in.Mounts = append(in.Mounts, container.Mount{Path: v, Writable: r.Decide(v, rules.Write).Where == rules.Remote})
	}
	return in
}
