package cli

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/journal"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
	"github.com/mirrord-go/mirrord/internal/local/profiles"
	"github.com/mirrord-go/mirrord/internal/local/timings"
	"github.com/mirrord-go/mirrord/internal/profile"
)

// execFlags are the flags of exec.
type execFlags struct {
	settings       map[string]config.Setting // those that configure the session
	quiet, verbose bool
	learn          string // a file, or learnHere; empty: nothing is learned
	session        string // the id of one that is kept, to join; empty: a new one
	events         string // a file; empty: none
	whole          bool   // what the command leaves in the background ends with it
	timings        bool   // how long start and end take is shown
	profiles       bool   // those of supervisor and agent can be had
}

// learnHere is the value of --learn without one: the report is shown and not
// written.
const learnHere = "-"

// loudness adds the flags that say how much is shown.
func (f *execFlags) loudness(fl *pflag.FlagSet) {
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "show warnings and errors only")
	fl.BoolVarP(&f.verbose, "verbose", "v", os.Getenv("MIRRORD_VERBOSE") == "true", "show details")
}

// lookFlags add the flags for those who look at mirrord itself.
func (f *execFlags) lookFlags(fl *pflag.FlagSet) {
	fl.BoolVar(&f.timings, "timings", false, "show how long each step of the start took, and the end")
	fl.BoolVar(&f.profiles, "pprof", false, "show where go tool pprof finds profiles of mirrord and its agent while the session runs")
}

// begun is the beginning of a session: what was asked for, and who is told.
type begun struct {
	cfg     config.Config
	dir     string // of work
	monitor *monitor.Monitor
	journal *journal.Journal // nil: somebody else keeps it
	trace   *timings.Trace   // nil: nobody asked
	secret  string           // of profiles; empty: nobody asked
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
	if f.timings {
		b.trace = timings.New(a.began)
	}
	if f.profiles {
		b.secret = strings.ToLower(rand.Text())
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
	if port, err := strconv.Atoi(e.Facts["port"]); err == nil && e.Code == "profiles" && b.secret != "" {
		b.showProfiles(port)
	}
	if start := b.trace.Note(e, time.Now()); start != nil {
		b.monitor.Report("timings", "how long the start took, in milliseconds", timings.Lines(start), start)
	}
}

// showProfiles tells where profiles are: here alone, since the secret stands in it.
func (b *begun) showProfiles(port int) {
	at := map[string]string{}
	var lines []string
	for _, process := range []string{"supervisor", "agent"} {
		at[process] = profiles.URL(port, b.secret, process, "")
		lines = append(lines, "go tool pprof "+at[process]+profile.CPU)
	}
	b.monitor.Report("pprof", "profiles of mirrord on this machine, and of its agent, while the session runs ("+strings.Join(profile.Kinds(), ", ")+")", lines, at)
}

// done closes the journal, with why the session failed.
func (b *begun) done(err error) {
	if ms, ok := b.trace.End(time.Now()); ok {
		b.monitor.Report("timings-end", fmt.Sprintf("mirrord ended %.1f milliseconds behind its command", ms), nil, map[string]float64{"took_ms": ms})
	}
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
