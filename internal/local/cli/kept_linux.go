package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/front"
	"github.com/mirrord-go/mirrord/internal/local/roster"
)

const (
	// statusTime is how long a session may take to say how it is: it is asked on
	// this machine, and only one that is stopped takes longer.
	statusTime = 2 * time.Second
	// stopTime is the same for its end: processes get 2 s to end themselves, and
	// the cluster must be told.
	stopTime = time.Minute
)

func sessionDirs() []string { return roster.Dirs(os.Getenv, roster.Kept) }

// reachSession opens the door of a session; the caller closes both.
func reachSession(id string) (*front.Door, roster.Greeting, error) {
	c, pid, err := roster.Dial(sessionDirs(), id)
	if errors.Is(err, roster.ErrNone) {
		do := "mirrord session start"
		if ids := roster.IDs(sessionDirs()); len(ids) > 0 {
			do = "one of these: " + strings.Join(ids, ", ")
		}
		return nil, roster.Greeting{}, &failure.Error{Code: "session-not-found", What: fmt.Sprintf("there is no session %s", id), Cause: err,
			Why: "it has ended, was killed, or is another user's", Do: do, Exit: failure.ExitUsage}
	}
	if err != nil {
		return nil, roster.Greeting{}, failure.Wrap(err, "session-unreachable", fmt.Sprintf("the session %s cannot be reached", id), "look at its process: mirrord session ls")
	}
	g, inside, err := roster.Greeted(c)
	if err != nil {
		c.Close()
		return nil, g, failure.Wrap(err, "session-unreachable", fmt.Sprintf("the session %s does not answer", id),
			fmt.Sprintf("its process %d is stopped, or the machine very busy: kill -CONT %d", pid, pid))
	}
	return &front.Door{Conn: c, Inside: inside, Own: g.Own, Supervisor: pid}, g, nil
}

// request sends a session one word, for which it needs nothing of ours.
func request(id string, m control.Message, do func(*net.UnixConn, *control.Conn) error) error {
	door, _, err := reachSession(id)
	if err != nil {
		return err
	}
	door.Inside.Close()
	if err := roster.Send(door.Conn, []byte{0}, nil); err != nil {
		door.Conn.Close()
		return err
	}
	ctl := control.On(door.Conn)
	defer ctl.Close()
	if err := ctl.Send(m); err != nil {
		return err
	}
	return do(door.Conn, ctl)
}

func askStatus(id string) (st *control.Status, err error) {
	err = request(id, control.Message{Ask: &control.Ask{}}, func(c *net.UnixConn, ctl *control.Conn) error {
		_ = c.SetReadDeadline(time.Now().Add(statusTime))
		m, err := ctl.Receive()
		if err == nil && m.Status == nil {
			err = io.ErrUnexpectedEOF
		}
		st = m.Status
		return err
	})
	return st, err
}

// askAll asks sessions at the same time. One that does not answer has no PID, one
// that was killed is left out.
func askAll(ids []string) []*control.Status {
	all := make([]*control.Status, len(ids))
	var wg sync.WaitGroup
	for i, id := range ids {
		wg.Go(func() {
			st, err := askStatus(id)
			if err != nil && !errors.Is(err, roster.ErrNone) {
				st = &control.Status{ID: id, Commands: []control.Command{}, Events: []control.Happened{}}
			}
			all[i] = st
		})
	}
	wg.Wait()
	return slices.DeleteFunc(all, func(st *control.Status) bool { return st == nil })
}

// stopSession returns when the session has ended.
func stopSession(id string) error {
	if !slices.Contains(roster.IDs(sessionDirs()), id) && slices.Contains(roster.IDs(runningDirs()), id) {
		return stopRunning(id)
	}
	return request(id, control.Message{Stop: &control.Stop{}}, func(c *net.UnixConn, ctl *control.Conn) error { return untilStopped(id, c, ctl) })
}

// stopRunning is stopSession for one that is not kept.
func stopRunning(id string) error {
	st, err := lookAt(id)
	if err != nil {
		return err
	}
	if st.Kind == "" {
		do := "end the command"
		if len(st.Commands) == 1 {
			do += fmt.Sprintf(": kill %d", st.Commands[0].PID)
		}
		return failure.Usage("session-of-command", fmt.Sprintf("session %s is that of one command", id), do, "it ends with its command")
	}
	c, _, err := reachRunning(id)
	if err != nil {
		return err
	}
	ctl := control.On(c)
	defer ctl.Close()
	if err := ctl.Send(control.Message{Stop: &control.Stop{}}); err != nil {
		return err
	}
	return untilStopped(id, c, ctl)
}

// untilStopped waits for the end of a session that was asked for it.
func untilStopped(id string, c *net.UnixConn, ctl *control.Conn) error {
	_ = c.SetReadDeadline(time.Now().Add(stopTime))
	for {
		switch _, err := ctl.Receive(); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return failure.Wrap(err, "session-unreachable", fmt.Sprintf("the session %s does not end", id), "look at it: mirrord session ls")
		}
	}
}

// bareSessions are those without a sandbox: they end when they are asked to, like
// those that are kept.
func bareSessions() []*control.Status {
	return slices.DeleteFunc(lookAtAll(roster.IDs(runningDirs())), func(st *control.Status) bool { return st.Kind == "" })
}

// join runs a command in a session that is kept.
func (a *app) join(f *execFlags, id string, changed []string, argv []string) (int, error) {
	if err := rulesOf(id, changed); err != nil {
		return 0, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return 0, failure.Wrap(err, "no-working-directory", "the working directory cannot be told", "cd to a directory that exists")
	}
	door, g, err := reachSession(id)
	if err != nil {
		return 0, err
	}
	if g.Version != a.version {
		door.Conn.Close()
		door.Inside.Close()
		return 0, failure.New("session-version", fmt.Sprintf("session %s is that of another version of mirrord", id),
			fmt.Sprintf("start it again: mirrord session stop %s && mirrord session start", id), "it was started by mirrord %s, this is %s", g.Version, a.version)
	}
	m := a.monitor(f.quiet, f.verbose)
	tellOutside(m.Show, argv)
	env := os.Environ() // the command's: as it is
	return front.Join(front.Options{Argv: argv, Env: env, Dir: dir, Show: m.Show, CleanUp: func(ctx context.Context, owned json.RawMessage) error {
		os.Setenv("KUBECONFIG", g.Kubeconfig) // empty is as good as none
		return cleanUp(ctx, owned)
	}}, *door)
}

// sessionIDs completes with the sessions that run and are not named yet.
func sessionIDs(_ *cobra.Command, named []string, _ string) ([]string, cobra.ShellCompDirective) {
	ids := slices.DeleteFunc(roster.IDs(sessionDirs()), func(id string) bool { return slices.Contains(named, id) })
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// stoppableIDs are sessionIDs, and those of sessions without a sandbox.
func stoppableIDs(c *cobra.Command, named []string, begun string) ([]string, cobra.ShellCompDirective) {
	ids, directive := sessionIDs(c, named, begun)
	for _, st := range bareSessions() {
		if !slices.Contains(named, st.ID) {
			ids = append(ids, st.ID)
		}
	}
	return ids, directive
}

// oneSessionID is sessionIDs where one is wanted.
func oneSessionID(c *cobra.Command, named []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(named) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return sessionIDs(c, named, begun)
}
