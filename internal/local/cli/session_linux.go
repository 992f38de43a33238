package cli

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/front"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
	"github.com/mirrord-go/mirrord/internal/local/roster"
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
	list := a.sessionList()
	c.Args, c.RunE = cobra.NoArgs, list.RunE // alone it lists, as mirrord's does
	c.Flags().AddFlagSet(list.Flags())
	c.AddCommand(a.sessionStart(), list, a.sessionShow(), a.sessionStop())
	return c
}

func (a *app) sessionStart() *cobra.Command {
	f := &execFlags{}
	var wanted func() (bool, error)
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
			asJSON, err := wanted()
			if err != nil {
				return err
			}
			o, done, err := a.frontOptions(f, false, nil)
			if err != nil {
				return err
			}
			if o.Events, err = f.eventsFile(); err != nil {
				done(err)
				return err
			}
			if o.Events != nil {
				defer o.Events.Close()
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
	f.eventsFlag(c.Flags())
	f.lookFlags(c.Flags())
	f.loudness(c.Flags())
	wanted = jsonWanted(c)
	c.Flags().Lookup("json").Usage = "print the session as one JSON object, as session show does"
	return c
}

func (a *app) sessionList() *cobra.Command {
	var wanted func() (bool, error)
	var key, namespace string
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the sessions that are kept, and those of port-forward",
		Example: "  mirrord session ls -o json\n  mirrord session ls --key ana",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			asJSON, err := wanted()
			if err != nil {
				return err
			}
			all := slices.DeleteFunc(endable(), func(st *control.Status) bool {
				return key != "" && st.Key != key || namespace != "" && st.Namespace != namespace
			})
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
	wanted = jsonWanted(c)
	fl := c.Flags()
	fl.StringVarP(&key, "key", "k", "", "only those that were started with this --key")
	fl.StringVarP(&namespace, "namespace", "n", "", "only those with a target in this namespace, where one was named")
	addIdle(fl, "all-namespaces", "A", "without -n they are those of all namespaces", true)
	addIdle(fl, "config-file", "f", "sessions are those of this user on this machine", false)
	return c
}

// killCommand is sessionStop as mirrord also calls it.
func (a *app) killCommand() *cobra.Command {
	c := a.sessionStop()
	c.Use, c.Aliases, c.Hidden = "kill ID... | --key KEY | --all", nil, true
	return c
}

// endable are the sessions that end when they are asked to.
func endable() []*control.Status {
	return append(askAll(roster.IDs(sessionDirs())), bareSessions()...)
}

func (a *app) sessionShow() *cobra.Command {
	var wanted func() (bool, error)
	c := &cobra.Command{
		Use:     "show ID",
		Short:   "Show a session: its commands and what it said last",
		Example: "  mirrord session show k3vq7a",
		Args:    cobra.ExactArgs(1),

		ValidArgsFunction: oneSessionID,
		RunE: func(_ *cobra.Command, args []string) error {
			asJSON, err := wanted()
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
	wanted = jsonWanted(c)
	return c
}

func (a *app) sessionStop() *cobra.Command {
	var all bool
	var key string
	c := &cobra.Command{
		Use:     "stop ID... | --key KEY | --all",
		Aliases: []string{"delete", "kill"}, // as mirrord calls it
		Short:   "End sessions, and what runs in them",
		Long: `stop ends sessions: what runs in them is asked to end (SIGTERM, after two seconds
SIGKILL), the target gets its ports back, the agent is removed. It returns when all of
that is done. It ends port-forward in the same way.`,
		Example: "  mirrord session stop k3vq7a\n  mirrord session stop --key ana",

		ValidArgsFunction: stoppableIDs,
		Args: func(_ *cobra.Command, args []string) error {
			ways := 0
			for _, given := range []bool{all, key != "", len(args) > 0} {
				if given {
					ways++
				}
			}
			if ways != 1 {
				return fmt.Errorf("name the sessions to stop, or use --key or --all; mirrord session ls shows them")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if all || key != "" {
				for _, st := range endable() {
					if all || st.Key == key {
						args = append(args, st.ID)
					}
				}
			}
			var failed error
			for _, id := range args {
				if err := stopSession(id); err != nil && !((all || key != "") && errors.Is(err, roster.ErrNone)) {
					failed = errors.Join(failed, err)
				}
			}
			return failed
		},
	}
	c.Flags().BoolVar(&all, "all", false, "all sessions of this user")
	c.Flags().StringVarP(&key, "key", "k", "", "those that were started with this --key")
	return c
}
