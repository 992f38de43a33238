package cli

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
	"github.com/mirrord-go/mirrord/internal/local/roster"
	"github.com/mirrord-go/mirrord/internal/local/status"
)

const (
	// lookTime is how often sessions that have begun are looked for.
	lookTime = time.Second
	// silentTime is how long a session may say nothing: it does so every
	// control.BeatTime.
	silentTime = 4 * control.BeatTime
)

// watcher shows what happens in sessions.
type watcher struct {
	only   string // the id of the one that is meant; empty: all
	filter status.Filter
	views  []view
	file   *os.File // of events; nil: none

	updates chan update
	wg      sync.WaitGroup // those who follow a session
	known   map[string]*followed
}

// view is where it is shown. Its methods are called by one goroutine.
type view interface {
	session(st *control.Status)
	event(e activity.Event)
	ended(id string)
	tick() error // often
}

// followed is a session that is watched.
type followed struct {
	pid    int
	heard  time.Time
	silent bool
	shown  bool // its beginning was
}

// update is a word of a session.
type update struct {
	id    string
	st    *control.Status
	event *activity.Event
	ended bool
}

// watchSessions shows what happens until it is interrupted, or the only session
// that is meant has ended.
func watchSessions(only string, f statusFlags, asJSON bool) error {
	w := &watcher{only: only, updates: make(chan update), known: map[string]*followed{}}
	var err error
	if w.filter, err = status.ParseFilter(f.filter); err != nil {
		return err
	}
	if asJSON && f.watch && f.events == "" { // as the others say it
		f.watch, f.events = false, "-"
	}
	if f.watch && f.events == "-" {
		return failure.Usage("usage", "--watch and --events - do not go together", "name a file: mirrord status --watch --events events.jsonl", "both write to stdout")
	}
	ctx, stop := interruptible()
	defer stop()
	ctx, quit := context.WithCancel(ctx)
	defer w.wg.Wait() // after quit
	defer quit()
	if err := w.look(ctx); err != nil {
		return err
	}
	if f.events != "" {
		out := os.Stdout
		if f.events != "-" {
			if out, err = os.OpenFile(f.events, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
				return failure.Wrap(err, "events-file", "the file of --events cannot be written", "name another one, or - for stdout: mirrord status --events -")
			}
			defer out.Close()
		}
		w.views = append(w.views, &journalView{out: out, filter: w.filter})
	}
	switch {
	case f.watch && term.IsTerminal(int(os.Stdout.Fd())):
		t, err := openTerminal(quit, w.filter)
		if err != nil {
			return err
		}
		defer t.close()
		w.views = append(w.views, t)
	case f.watch:
		w.views = append(w.views, &lineView{filter: w.filter})
	}
	return w.run(ctx)
}

// run shows what comes.
func (w *watcher) run(ctx context.Context) error {
	look := time.NewTicker(lookTime)
	defer look.Stop()
	draw := time.NewTicker(100 * time.Millisecond)
	defer draw.Stop()
	if len(w.known) == 0 {
		w.say("", "no-session", "no session is running yet")
	}
	for {
		select {
		case u := <-w.updates:
			if w.take(u); u.ended && u.id == w.only {
				return w.tick()
			}
		case <-look.C:
			if err := w.look(ctx); err != nil && w.only == "" {
				return err
			}
			w.listen()
		case <-draw.C:
			if err := w.tick(); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (w *watcher) tick() error {
	for _, v := range w.views {
		if err := v.tick(); err != nil {
			return err
		}
	}
	return nil
}

// look begins to follow the sessions that are not followed yet.
func (w *watcher) look(ctx context.Context) error {
	ids := []string{w.only}
	if w.only == "" {
		ids = roster.IDs(runningDirs())
	}
	for _, id := range ids {
		if w.known[id] != nil {
			continue
		}
		c, pid, err := reachRunning(id)
		if err != nil && w.only != "" {
			return err
		}
		if err != nil {
			continue // it has just ended
		}
		w.known[id] = &followed{pid: pid, heard: time.Now()}
		w.wg.Go(func() { w.follow(ctx, id, c) })
	}
	return nil
}

// follow owns c and passes on what a session says, until its end or that of ctx.
func (w *watcher) follow(ctx context.Context, id string, c *net.UnixConn) {
	ctl := control.On(c)
	defer ctl.CloseWithin(0)
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })()
	pass := func(u update) {
		u.id = id
		select {
		case w.updates <- u:
		case <-ctx.Done():
		}
	}
	if ctl.Send(control.Message{Watch: &control.Watch{}}) == nil {
		for ctx.Err() == nil {
			m, err := ctl.Receive()
			if err != nil {
				break
			}
			pass(update{st: m.Status, event: m.Activity})
		}
	}
	pass(update{ended: true})
}

// take shows an update.
func (w *watcher) take(u update) {
	k := w.known[u.id]
	switch {
	case k == nil:
	case u.ended:
		delete(w.known, u.id)
		w.say(u.id, "session-ended", "the session has ended")
		for _, v := range w.views {
			v.ended(u.id)
		}
	default:
		if k.silent {
			w.say(u.id, "session-back", "the session answers again")
		}
		k.heard, k.silent = time.Now(), false
		if u.st != nil && !k.shown {
			k.shown = true
			w.say(u.id, "session-watched", status.Brief(u.st, time.Now()))
		}
		if u.st != nil {
			w.session(u.st)
		}
		if u.event != nil {
			w.event(u.id, *u.event)
		}
	}
}

// listen tells of sessions that say nothing any more.
func (w *watcher) listen() {
	for id, k := range w.known {
		if !k.silent && time.Since(k.heard) > silentTime {
			k.silent = true
			w.say(id, "session-silent", fmt.Sprintf("the session does not answer: its process %d is stopped, or the machine very busy", k.pid))
			w.session(status.Silent(id, k.pid))
		}
	}
}

func (w *watcher) session(st *control.Status) {
	for _, v := range w.views {
		v.session(st)
	}
}

func (w *watcher) event(id string, e activity.Event) {
	e.Session = id
	for _, v := range w.views {
		v.event(e)
	}
}

// say tells what the watcher itself has to say of a session.
func (w *watcher) say(id, code, text string) {
	w.event(id, activity.Event{At: time.Now().UTC(), Kind: activity.Said, Level: "info", Code: code, Text: text})
}

// lineView prints lines.
type lineView struct {
	filter status.Filter
	err    error
}

func (v *lineView) session(*control.Status) {}
func (v *lineView) ended(string)            {}
func (v *lineView) tick() error             { return v.err }

func (v *lineView) event(e activity.Event) {
	if v.err == nil && v.filter.Match(e) {
		_, v.err = fmt.Fprintln(os.Stdout, status.Line(e))
	}
}

// journalView writes lines of JSON.
type journalView struct {
	out    *os.File
	filter status.Filter
	err    error
}

func (v *journalView) session(*control.Status) {}
func (v *journalView) ended(string)            {}

func (v *journalView) event(e activity.Event) {
	if v.err == nil && v.filter.Match(e) {
		v.err = monitor.WriteJSON(v.out, e, "")
	}
}

func (v *journalView) tick() error {
	if v.err == nil {
		return nil
	}
	return failure.Wrap(v.err, "events-file", "the events cannot be written", "look at the disk: df "+strings.TrimSpace(v.out.Name()))
}
