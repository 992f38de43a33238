package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/front"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
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

func (a *app) sessionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "session",
		Aliases: []string{"sessions"},
		Short:   "Keep a session for several commands",
		Long: `session keeps a session: the agent in the cluster, and the sandbox here, without a
command. Commands join it in a moment, several at once, one after another:

  mirrord session start -t deployment/shop     prints the session's id
  mirrord exec --session ID -- COMMAND         again and again
  mirrord session stop ID

It ends when it is stopped, after an hour without a command (--agent-ttl), and where
a session of exec ends: when the target or the way to it is lost for good.`,
		Example: `  mirrord session ls
  id=$(mirrord session start -t pod/shop-7d4b9) && mirrord exec --session $id -- npm test
  mirrord session stop --all`,
	}
	c.AddCommand(a.sessionStart(), a.sessionList(), a.sessionShow(), a.sessionStop())
	return c
}

func (a *app) sessionStart() *cobra.Command {
	f := &execFlags{}
	var asJSON bool
	c := &cobra.Command{
		Use:   "start [flags]",
		Short: "Start a session and print its id",
		Long: `start starts a session with the configuration and the flags of exec, shows the
progress on stderr, prints the session's id on stdout when commands can join, and
returns. The session shows the places of this machine that it was started with: the
working directory and its repository, the home directory, the toolchains in PATH.`,
		Example: `  mirrord session start -t deployment/shop --steal
  mirrord session start -t pod/shop-7d4b9 --json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			o, done, err := a.frontOptions(f, false)
			if err != nil {
				return err
			}
			var id string
			id, a.code, err = front.Start(o)
			done(err)
			if err != nil || id == "" {
				return err
			}
			if !asJSON {
				fmt.Println(id)
				return nil
			}
			st, err := askStatus(id)
			if err != nil {
				return err
			}
			return monitor.WriteJSON(os.Stdout, st, "  ")
		},
	}
	f.settings = sessionFlags(c.Flags())
	f.loudness(c.Flags())
	c.Flags().BoolVar(&asJSON, "json", false, "print the session as one JSON object, as session show does")
	return c
}

func (a *app) sessionList() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the sessions that are kept",
		Example: "  mirrord session ls -o json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			asJSON, err := wantsJSON(output)
			if err != nil {
				return err
			}
			all := []*control.Status{}
			for _, id := range roster.IDs(sessionDirs()) {
				st, err := askStatus(id)
				switch {
				case errors.Is(err, roster.ErrNone): // it was killed
					continue
				case err != nil:
					st = &control.Status{ID: id, Commands: []control.Command{}, Events: []control.Happened{}}
				}
				all = append(all, st)
			}
			if asJSON {
				return monitor.WriteJSON(os.Stdout, all, "  ")
			}
			if len(all) == 0 {
				fmt.Fprintln(os.Stderr, "mirrord: there are no sessions; mirrord session start makes one")
				return nil
			}
			return listSessions(os.Stdout, all, time.Now())
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "json: as one JSON array")
	return c
}

func (a *app) sessionShow() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:     "show ID",
		Short:   "Show a session: its commands and what it said last",
		Example: "  mirrord session show k3vq7a",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			asJSON, err := wantsJSON(output)
			if err != nil {
				return err
			}
			st, err := askStatus(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return monitor.WriteJSON(os.Stdout, st, "  ")
			}
			return showSession(os.Stdout, st, time.Now())
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "json: as one JSON object")
	return c
}

func (a *app) sessionStop() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "stop ID... | --all",
		Short: "End sessions, and what runs in them",
		Long: `stop ends sessions: what runs in them is asked to end (SIGTERM, after two seconds
SIGKILL), the target gets its ports back, the agent is removed. It returns when all of
that is done.`,
		Example: "  mirrord session stop k3vq7a",
		Args: func(_ *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return fmt.Errorf("name the sessions to stop, or use --all; mirrord session ls shows them")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if all {
				args = roster.IDs(sessionDirs())
			}
			var failed error
			for _, id := range args {
				if err := stopSession(id); err != nil && !(all && errors.Is(err, roster.ErrNone)) {
					failed = errors.Join(failed, err)
				}
			}
			return failed
		},
	}
	c.Flags().BoolVar(&all, "all", false, "all sessions of this user")
	return c
}

func wantsJSON(output string) (bool, error) {
	if output != "" && output != "json" {
		return false, failure.Usage("usage", fmt.Sprintf("there is no output format %q", output), "leave -o away, or use: -o json", "json is the only one")
	}
	return output == "json", nil
}

func sessionDirs() []string { return roster.Dirs(os.Getenv) }

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

// stopSession returns when the session has ended.
func stopSession(id string) error {
	return request(id, control.Message{Stop: &control.Stop{}}, func(c *net.UnixConn, ctl *control.Conn) error {
		_ = c.SetReadDeadline(time.Now().Add(stopTime))
		for {
			switch _, err := ctl.Receive(); {
			case errors.Is(err, io.EOF):
				return nil
			case err != nil:
				return failure.Wrap(err, "session-unreachable", fmt.Sprintf("the session %s does not end", id), "look at it: mirrord session ls")
			}
		}
	})
}

// join runs a command in a session that is kept.
func (a *app) join(f *execFlags, id string, changed []string, argv []string) (int, error) {
	if len(changed) > 0 {
		return 0, failure.Usage("session-rules", fmt.Sprintf("--%s has no effect on a session that is there already", strings.Join(changed, ", --")),
			"give it to: mirrord session start", "target, rules and agent of session %s are those that it was started with", id)
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
	return front.Join(front.Options{Argv: argv, Env: os.Environ(), Dir: dir, Show: m.Show, CleanUp: cleanUp}, *door)
}

// state is one word, and more for a person.
func state(st *control.Status, now time.Time) string {
	switch {
	case st.PID == 0:
		return "does not answer"
	case st.Lost != nil:
		return fmt.Sprintf("link lost for %s", age(now.Sub(*st.Lost)))
	case len(st.Commands) > 0:
		return "in use"
	case st.Until != nil:
		return fmt.Sprintf("idle, ends in %s", age(st.Until.Sub(now)))
	}
	return "idle"
}

// age is a duration as a person says it.
func age(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

func targetOf(st *control.Status) string {
	target := st.Target
	if target == "" {
		target = "no target"
	}
	if st.Namespace != "" {
		target += " in " + st.Namespace
	}
	return target
}

func listSessions(out io.Writer, all []*control.Status, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tTARGET\tSTATE\tCOMMANDS\tAGE")
	for _, st := range all {
		if st.PID == 0 {
			fmt.Fprintf(w, "%s\t\t%s\t\t\n", monitor.Clean(st.ID), state(st, now))
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", monitor.Clean(st.ID), monitor.Clean(targetOf(st)), state(st, now), len(st.Commands), age(now.Sub(st.Since)))
	}
	return w.Flush()
}

func showSession(out io.Writer, st *control.Status, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, text string) { fmt.Fprintf(w, "%s\t%s\n", name, monitor.Clean(text)) }
	line("session", st.ID)
	line("target", targetOf(st))
	line("hostname", st.Hostname)
	line("state", state(st, now))
	line("since", st.Since.Local().Format(time.DateTime))
	line("supervisor", fmt.Sprint(st.PID))
	for _, c := range st.Commands {
		text := strings.Join(c.Argv, " ")
		if c.Background {
			text += " (has ended; processes of it run on)"
		}
		line("command", fmt.Sprintf("%s, process %d, for %s", text, c.PID, age(now.Sub(c.Since))))
	}
	for _, e := range st.Events {
		line(e.At.Local().Format(time.TimeOnly), e.Text)
	}
	return w.Flush()
}

// changedSettings names the flags of c that say something about a session.
func changedSettings(c *cobra.Command) (names []string) {
	known := map[string]bool{"learn": true}
	for _, f := range config.Flags() {
		known[f.Name] = true
	}
	c.Flags().Visit(func(f *pflag.Flag) {
		if known[f.Name] {
			names = append(names, f.Name)
		}
	})
	slices.Sort(names)
	return names
}
