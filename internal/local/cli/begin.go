package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/journal"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
)

// execFlags are the flags of exec.
type execFlags struct {
	settings       map[string]config.Setting // those that configure the session
	quiet, verbose bool
	learn          string // a file, or learnHere; empty: nothing is learned
	session        string // the id of one that is kept, to join; empty: a new one
	events         string // a file; empty: none
	whole          bool   // what the command leaves in the background ends with it
}

// learnHere is the value of --learn without one: the report is shown and not
// written.
const learnHere = "-"

// loudness adds the flags that say how much is shown.
func (f *execFlags) loudness(fl *pflag.FlagSet) {
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "show warnings and errors only")
	fl.BoolVarP(&f.verbose, "verbose", "v", os.Getenv("MIRRORD_VERBOSE") == "true", "show details")
}

// begun is the beginning of a session: what was asked for, and who is told.
type begun struct {
	cfg     config.Config
	dir     string // of work
	monitor *monitor.Monitor
	journal *journal.Journal // nil: somebody else keeps it
}

// begin reads flags, environment and files. done is to be called at the session's
// end.
func (a *app) begin(f *execFlags, journals bool) (*begun, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, failure.Wrap(err, "no-working-directory", "the working directory cannot be told", "cd to a directory that exists")
	}
	b := &begun{dir: dir}
	var notes []event.Event
	if b.cfg, notes, err = a.configuration(f.settings, os.Environ(), dir); err != nil {
		return nil, err
	}
	ctx, stop := interruptible()
	err = a.chooseTarget(ctx, &b.cfg)
	stop() // signals are the caller's from here
	if err != nil {
		return nil, err
	}
	b.monitor = a.monitor(f.quiet, f.verbose)
	if mode := os.Getenv("MIRRORD_PROGRESS_MODE"); !slices.Contains(progressModes, mode) {
		b.monitor.Show(event.Event{Level: event.Warning, Code: "progress-mode",
			Text: fmt.Sprintf("MIRRORD_PROGRESS_MODE is %q; it can be std, plain, json or off", mode)})
	}
	if list := os.Getenv("KUBECONFIG"); list != "" { // the supervisor works elsewhere
		os.Setenv("KUBECONFIG", absolute(list, dir))
	}
	if journals {
		b.journal = a.keepJournal(b.cfg)
	}
	for _, n := range notes {
		b.show(n)
	}
	return b, nil
}

// show tells the user, and the journal.
func (b *begun) show(e event.Event) {
	b.journal.Note(e)
	b.monitor.Show(e)
}

// done closes the journal, with why the session failed.
func (b *begun) done(err error) {
	if f := failure.From(err); f != nil {
		b.journal.Note(event.Event{Level: event.Error, Code: f.Code, Text: f.Error()})
	}
	b.journal.Close()
}

// absolute makes each path of a list as in PATH absolute.
func absolute(list, dir string) string {
	paths := filepath.SplitList(list)
	for i, p := range paths {
		if p != "" && !filepath.IsAbs(p) {
			paths[i] = filepath.Join(dir, p)
		}
	}
	return strings.Join(paths, string(filepath.ListSeparator))
}
