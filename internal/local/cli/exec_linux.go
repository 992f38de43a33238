package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/container"
	"github.com/mirrord-go/mirrord/internal/local/front"
	"github.com/mirrord-go/mirrord/internal/local/learn"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
)

func (a *app) execCommand() *cobra.Command {
	var f execFlags
	c := &cobra.Command{
		Use:   "exec [flags] [--] COMMAND [ARGS...]",
		Short: "Run a command in the context of a pod",
		Long: `exec runs a command of this machine in the context of a target.

Flags of mirrord end at the command; everything after it belongs to the command.
The command's exit code is passed on; where mirrord itself fails it is 1, for a
wrong command line 2.

Targets: KIND/NAME or KIND/NAME/container/C, where KIND is pod, deployment, deploy,
replicaset, statefulset, daemonset, service, job, cronjob or rollout; label/KEY=VALUE,...;
process/PID (a process on this machine). Of several pods one is chosen.
Without a target the command gets the cluster's network and names only.`,
		Example: `  mirrord exec -t pod/shop-7d4b9 python main.py
  mirrord exec -t pod/shop-7d4b9/container/api -n staging --steal -- node server.js
  mirrord exec --learn -t pod/shop-7d4b9 python main.py
  mirrord exec --session k3vq7a -- npm test
  mirrord exec psql postgresql://dbmaster:5432/mydb`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("exec needs a command to run, for example: mirrord exec -t pod/NAME python main.py")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if f.session != "" {
				a.code, err = a.join(&f, f.session, changedSettings(cmd), args)
			} else {
				a.code, err = a.exec(&f, args)
			}
			return err
		},
	}
	fl := c.Flags()
	fl.SetInterspersed(false) // flags end at the first positional
	f.settings = sessionFlags(fl)
	fl.StringVar(&f.session, "session", "", "join this session, of mirrord session start, which takes a moment; its rules hold")
	_ = c.RegisterFlagCompletionFunc("session", func(c *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return sessionIDs(c, nil, begun)
	})
	fl.StringVar(&f.learn, "learn", "", "show at the end which files were remote, missing, slow or refused, and what would change it; --learn=FILE writes it as JSON too")
	fl.Lookup("learn").NoOptDefVal = learnHere
	fl.BoolVar(&f.whole, "end-all", false, "when the command ends, end what it has left in the background, too")
	f.eventsFlag(fl)
	f.lookFlags(fl)
	f.loudness(fl)
	return c
}

// eventsFlag adds the flag for a file of events.
func (f *execFlags) eventsFlag(fl *pflag.FlagSet) {
	fl.StringVar(&f.events, "events", "", "append what happens in the session to this file, as lines of JSON, as mirrord status --events does")
}

// eventsFile opens it; nil: none is wanted.
func (f *execFlags) eventsFile() (*os.File, error) {
	switch f.events {
	case "":
		return nil, nil
	case "-":
		return nil, failure.Usage("usage", "--events - is for mirrord status", "name a file: mirrord exec --events events.jsonl COMMAND", "stdout is the command's")
	}
	file, err := os.OpenFile(f.events, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		e := failure.Wrap(err, "events-file", "the file of --events cannot be written", "name another one: mirrord exec --events FILE COMMAND")
		e.Exit = failure.ExitUsage
		return nil, e
	}
	return file, nil
}

// exec is the front of a session.
func (a *app) exec(f *execFlags, argv []string) (int, error) {
	o, done, err := a.frontOptions(f, true, nil)
	if err != nil {
		return 0, err
	}
	if o.LearnFile, err = f.learnFile(o.Dir); err != nil {
		done(err)
		return 0, err
	}
	if o.Events, err = f.eventsFile(); err != nil {
		done(err)
		return 0, err
	}
	if o.Events != nil {
		defer o.Events.Close()
	}
	tellOutside(o.Show, argv)
	o.Argv, o.Learn, o.Whole = argv, f.learn != "", f.whole
	code, err := front.Run(o)
	done(err)
	return code, err
}

// tellOutside warns of a command that starts a container, which is not in the
// session.
func tellOutside(show func(event.Event), argv []string) {
	if why := container.Outside(argv); why != "" {
		show(event.Event{Level: event.Warning, Code: "container-outside", Text: why})
	}
}

// frontOptions are what flags, environment and files say of a session, and what
// adapt makes of that, if it is not nil. done is to be called at the front's end.
// The front keeps the session's journal, or not.
func (a *app) frontOptions(f *execFlags, journals bool, adapt func(*config.Config)) (o front.Options, done func(error), err error) {
	b, err := a.begin(f, journals)
	if err != nil {
		return o, nil, err
	}
	if adapt != nil {
		adapt(&b.cfg)
	}
	options, err := json.Marshal(b.cfg)
	if err != nil {
		b.done(err)
		return o, nil, err
	}
	o = front.Options{
		Env: os.Environ(), // the command's: as it is
		Dir: b.dir, Config: options, SupervisorName: supervisorName, Show: b.show, CleanUp: cleanUp,
		Profiles: b.secret,
		Learned:  func(text json.RawMessage) { showLearned(b.monitor, text) },
	}
	return o, b.done, nil
}

// learnFile makes the file that the report is to be written to, now: that it
// cannot be made should not be known at the end only. Empty: there is none.
func (f *execFlags) learnFile(dir string) (string, error) {
	if f.learn == "" || f.learn == learnHere {
		return "", nil
	}
	name := f.learn
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		e := failure.Wrap(err, "learn-file", "the file of --learn cannot be written", "name another file, or none: mirrord exec --learn COMMAND")
		e.Exit = failure.ExitUsage
		return "", e
	}
	return name, file.Close()
}

// showLearned shows the report of files.
func showLearned(m *monitor.Monitor, text json.RawMessage) {
	var r learn.Report
	if err := json.Unmarshal(text, &r); err != nil {
		m.Show(event.Event{Level: event.Warning, Code: "no-report", Flow: "files", Text: fmt.Sprintf("the report of what was learned cannot be read: %v", err)})
		return
	}
	m.Report("learned", r.Head(), r.Lines(), &r)
}
