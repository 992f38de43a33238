package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/term"

	"github.com/mirrord-go/mirrord/internal/config"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/group"
	"github.com/mirrord-go/mirrord/internal/local/interleave"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
	"github.com/mirrord-go/mirrord/internal/shell"
)

// upOutput shows what services write, and what their sessions say.
type upOutput struct {
	a        *app
	f        *upFlags
	services *config.Services
	lines    interleave.Output
	out, err interleave.Place // of their stdout and stderr
	width    int              // of the longest name
	own      *monitor.Monitor // of up itself
	sessions []*monitor.Monitor

	mu      sync.Mutex
	running int
}

func (a *app) newUpOutput(f *upFlags, all *config.Services) *upOutput {
	o := &upOutput{a: a, f: f, services: all}
	o.out = interleave.Place{W: os.Stdout, Terminal: term.IsTerminal(int(os.Stdout.Fd())), Colour: colourful(os.Stdout), JSON: f.asJSON}
	o.err = interleave.Place{W: os.Stderr, Terminal: term.IsTerminal(int(os.Stderr.Fd())), Colour: colourful(os.Stderr)}
	if f.asJSON {
		o.err = o.out
	}
	for _, s := range all.List {
		o.width = max(o.width, len([]rune(s.Name)))
	}
	for i := range all.List {
		o.sessions = append(o.sessions, o.monitor(i))
	}
	o.own = a.monitorOn(o.lines.Whole(os.Stderr), f.quiet, f.verbose)
	return o
}

// monitor shows what the session of a service says.
func (o *upOutput) monitor(i int) *monitor.Monitor {
	if o.f.asJSON || os.Getenv("MIRRORD_PROGRESS_MODE") == "json" {
		return nil // as objects: see say
	}
	return o.a.monitorOn(o.stream(o.err, i, "mirrord"), o.f.quiet, o.f.verbose)
}

func (o *upOutput) stream(p interleave.Place, i int, what string) *interleave.Stream {
	return o.lines.Stream(p, o.services.List[i].Name, i, o.width, what)
}

// Show shows an event of up itself.
func (o *upOutput) Show(e event.Event) {
	if !o.f.asJSON {
		o.own.Show(e)
		return
	}
	o.object("", e)
}

func (o *upOutput) say(text string) {
	o.Show(event.Event{Level: event.Info, Code: "up", Text: text})
}

// run runs the services to their end.
func (o *upOutput) run() (int, error) {
	self := filepath.Base(os.Args[0])
	var members []group.Member
	for i, s := range o.services.List {
		m := group.Member{Name: s.Name, Path: "/proc/self/exe", Dir: s.Dir, Config: s.Document(),
			Argv: append([]string{self, "exec", "-f", fmt.Sprintf("/dev/fd/%d", group.ConfigFD), "--end-all", "--"}, s.Argv...),
			Env:  append(s.Environ, "PWD="+s.Dir, fmt.Sprintf("%s=%d", progressVar, group.ProgressFD))}
		if s.Container {
			m.Argv = append([]string{self, "container", "-f", fmt.Sprintf("/dev/fd/%d", group.ConfigFD), "--"}, s.Argv...)
		}
		m.Stdout = o.stream(o.out, i, "stdout").Copy
		m.Stderr = o.stream(o.err, i, "stderr").Copy
		m.Progress = func(f *os.File) error { return o.follow(i, f) }
		members = append(members, m)
	}
	return group.Run(members, o.say)
}

// follow shows what the session of a service says, to its end.
func (o *upOutput) follow(i int, f *os.File) error {
	for d := json.NewDecoder(f); ; {
		var e event.Event
		switch err := d.Decode(&e); {
		case errors.Is(err, io.EOF), errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			return err
		}
		o.event(i, e)
	}
}

// event shows one of the session of a service.
func (o *upOutput) event(i int, e event.Event) {
	name, m := o.services.List[i].Name, o.sessions[i]
	switch {
	case m == nil:
		o.object(name, e)
	case e.Level == event.Error:
		m.Fail(&failure.Error{Code: e.Code, What: e.Text, Why: e.Facts["why"], Do: e.Facts["do"]})
	default:
		m.Show(e)
	}
	if e.Code == "running" {
		o.began()
	}
}

// object writes an event of a service as a line of JSON, to stdout with -o json.
func (o *upOutput) object(service string, e event.Event) {
	to := os.Stderr
	if o.f.asJSON {
		to = os.Stdout
	}
	_ = monitor.WriteJSON(o.lines.Whole(to), struct {
		Service string `json:"service,omitempty"`
		Stream  string `json:"stream"`
		event.Event
	}{service, "mirrord", e}, "")
}

// began counts a service that runs, and says how to reach them when all do.
func (o *upOutput) began() {
	o.mu.Lock()
	o.running++
	all := o.running == len(o.services.List)
	o.mu.Unlock()
	if !all {
		return
	}
	text := "the service runs"
	if n := len(o.services.List); n > 1 {
		text = fmt.Sprintf("all %d services run", n)
	}
	facts := map[string]string{"key": o.services.Key}
	for _, s := range o.services.List {
		if s.Keyed {
			header := config.KeyHeader(o.services.Key)
			text += "; requests like this one come here: curl -H " + shell.Quote(header) + " URL"
			facts["header"] = header
			break
		}
	}
	o.Show(event.Event{Level: event.Step, Code: "up-running", Text: text, Facts: facts})
}
