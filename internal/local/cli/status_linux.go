package cli

import (
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
	"github.com/mirrord-go/mirrord/internal/local/monitor"
	"github.com/mirrord-go/mirrord/internal/local/roster"
	"github.com/mirrord-go/mirrord/internal/local/status"
)

// statusFlags are those of status.
type statusFlags struct {
	watch  bool
	filter string
	events string // a file, - for stdout; empty: none
}

func (a *app) statusCommand() *cobra.Command {
	var f statusFlags
	var wanted func() (bool, error)
	c := &cobra.Command{
		Use:   "status [ID]",
		Short: "Show running sessions, and what goes on in them",
		Long: `status lists the running sessions of this user, of exec and of session start: target,
how long, the state of the link, mode, ports, HTTP requests that came, bytes, and
packets of mirrored traffic that were lost. With an ID it tells all of that session.

--watch shows what happens, as it happens: connections, requests (method, path,
status, time), lookups, files, and what the session says; of all sessions, or of one.
On a terminal / types a filter, space pauses, q quits; elsewhere it prints lines.
--events appends the same to a file, as lines of JSON, until it is interrupted.

A filter is words, all of which must hold: a kind (connection, request, file, lookup,
session), KEY=VALUE or KEY=VALUE,VALUE (kind, session, flow, what, where, mode,
method, path, status, port, address, client, name, type, level), or any part of the
line. ! in front says the opposite.`,
		Example: `  mirrord status
  mirrord status --watch
  mirrord status --watch k3vq7a --filter 'request path=/api status=5xx'
  mirrord status --events events.jsonl
  mirrord status -o json`,
		Args: cobra.MaximumNArgs(1),

		ValidArgsFunction: func(_ *cobra.Command, named []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(named) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return roster.IDs(runningDirs()), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			asJSON, err := wanted()
			if err != nil {
				return err
			}
			only := strings.Join(args, "")
			if f.watch || f.events != "" {
				return watchSessions(only, f, asJSON)
			}
			if f.filter != "" {
				return failure.Usage("usage", "--filter is for what happens", "mirrord status --watch --filter "+f.filter, "without --watch or --events there is nothing to filter")
			}
			if only != "" {
				return showStatus(only, asJSON)
			}
			return listStatus(asJSON)
		},
	}
	fl := c.Flags()
	fl.BoolVarP(&f.watch, "watch", "w", false, "show what happens, until q or Ctrl-C")
	fl.StringVar(&f.filter, "filter", "", "show only this of it, for example: 'request status=5xx'")
	fl.StringVar(&f.events, "events", "", "append what happens to this file, as lines of JSON; - is stdout")
	wanted = jsonWanted(c)
	return c
}

// listStatus prints all sessions.
func listStatus(asJSON bool) error {
	all := lookAtAll(roster.IDs(runningDirs()))
	if asJSON {
		return monitor.WriteJSON(os.Stdout, all, "  ")
	}
	if len(all) == 0 {
		fmt.Fprintln(os.Stderr, "mirrord: no session is running; mirrord exec and mirrord session start make one")
		return nil
	}
	return printLines(status.Table(all, time.Now()))
}

// showStatus prints one session.
func showStatus(id string, asJSON bool) error {
	st, err := lookAt(id)
	if err != nil {
		return err
	}
	if asJSON {
		return monitor.WriteJSON(os.Stdout, st, "  ")
	}
	return printLines(status.Session(st, time.Now()))
}

func printLines(lines []string) error {
	_, err := io.WriteString(os.Stdout, strings.Join(lines, "\n")+"\n")
	return err
}

// reachRunning connects to a session that runs.
func reachRunning(id string) (c *net.UnixConn, pid int, err error) {
	c, pid, err = roster.Dial(runningDirs(), id)
	if errors.Is(err, roster.ErrNone) {
		do := "mirrord exec or mirrord session start"
		if ids := roster.IDs(runningDirs()); len(ids) > 0 {
			do = "one of these: " + strings.Join(ids, ", ")
		}
		return nil, 0, &failure.Error{Code: "session-not-found", What: fmt.Sprintf("there is no session %s", id), Cause: err,
			Why: "it has ended, was killed, or is another user's", Do: do, Exit: failure.ExitUsage}
	}
	if err != nil {
		return nil, 0, failure.Wrap(err, "session-unreachable", fmt.Sprintf("the session %s cannot be reached", id), "look at all of them: mirrord status")
	}
	return c, pid, nil
}

// lookAt asks how a session is, for statusTime at most.
func lookAt(id string) (*control.Status, error) {
	c, pid, err := reachRunning(id)
	if err != nil {
		return nil, err
	}
	ctl := control.On(c)
	defer ctl.Close()
	_ = c.SetDeadline(time.Now().Add(statusTime))
	m := control.Message{}
	if err = ctl.Send(control.Message{Ask: &control.Ask{}}); err == nil {
		m, err = ctl.Receive()
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &failure.Error{Code: "session-unreachable", What: fmt.Sprintf("the session %s does not answer", id), Cause: &silentError{pid},
			Why: fmt.Sprintf("its process %d is stopped, or the machine very busy", pid), Do: fmt.Sprintf("kill -CONT %d", pid)}
	case err == nil && m.Status != nil:
		return m.Status, nil
	}
	return nil, failure.New("session-not-found", fmt.Sprintf("there is no session %s any more", id), "mirrord status", "it has just ended")
}

// lookAtAll asks sessions at the same time. One that does not answer is silent;
// one that has ended, or is another user's, is left out.
func lookAtAll(ids []string) []*control.Status {
	all := make([]*control.Status, len(ids))
	var wg sync.WaitGroup
	for i, id := range ids {
		wg.Go(func() {
			var silent *silentError
			st, err := lookAt(id)
			if errors.As(err, &silent) {
				st = status.Silent(id, silent.pid)
			}
			all[i] = st
		})
	}
	wg.Wait()
	return slices.DeleteFunc(all, func(st *control.Status) bool { return st == nil })
}

// silentError is that of a session that does not answer.
type silentError struct{ pid int }

func (e *silentError) Error() string { return fmt.Sprintf("process %d does not answer", e.pid) }
