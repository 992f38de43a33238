package session

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/files"
	"github.com/mirrord-go/mirrord/internal/local/fusefs"
	"github.com/mirrord-go/mirrord/internal/local/learn"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

const (
	// askTime bounds the questions to the target for the report, for which the
	// user waits at the session's end.
	askTime = time.Second
	// asking is how many of them are on their way at once: all of a report take a
	// few round trips.
	asking = 64
)

// learning is what a session with a report keeps for it. All its methods may be
// called on nil, which does nothing.
type learning struct {
	s    *supervisor
	log  *learn.Log
	file string // to write the report to; empty: none
	told sync.Once

	options learn.Options
}

func (s *supervisor) newLearning(file string) *learning {
	return &learning{s: s, log: learn.NewLog(), file: file}
}

// about notes what the report is about.
func (l *learning) about(at rules.Places, plan rules.Plan) {
	if l == nil {
		return
	}
	l.options = learn.Options{Rules: l.s.cfg.FilesRules(), Places: at, Plan: plan, View: files.View, UID: l.s.hold.First().Pod().UID, Here: here, Target: l.target}
}

// watch gives the tree to serve.
func (l *learning) watch(t fusefs.Tree) fusefs.Tree {
	if l == nil {
		return t
	}
	return learn.Watch(t, l.log, files.OfTarget)
}

// counting gives the peer that files ask.
func (l *learning) counting(p files.Peer) files.Peer {
	if l == nil {
		return p
	}
	return tripping{p}
}

// tripping counts round trips for the calls that wait for them.
type tripping struct{ files.Peer }

// Call implements files.Peer.
func (c tripping) Call(ctx context.Context, m protocol.Message) (protocol.Message, error) {
	learn.Trip(ctx)
	return c.Peer.Call(ctx, m)
}

// Open implements files.Peer.
func (c tripping) Open(ctx context.Context, lane link.Lane, m protocol.Message) (*link.Stream, error) {
	learn.Trip(ctx)
	return c.Peer.Open(ctx, lane, m)
}

// tell gives the report: to the front while there is one, and to the file. While
// processes still run it is what is known so far; the last one is given once.
func (l *learning) tell(sofar bool) {
	switch {
	case l == nil:
	case sofar:
		l.report(true)
	default:
		l.told.Do(func() { l.report(false) })
	}
}

func (l *learning) report(sofar bool) {
	failed := func(err error) {
		l.s.emit(event.Event{Level: event.Warning, Code: "no-report", Flow: "files", Text: fmt.Sprintf("there is no report of what was learned: %v", err)})
	}
	r, err := l.log.Report(l.options)
	if err != nil {
		failed(err)
		return
	}
	r.Sofar = sofar
	text, err := r.JSON()
	if err != nil {
		failed(err)
		return
	}
	_ = l.s.ctl.Send(control.Message{Learned: text})
	if l.file == "" {
		return
	}
	// The front has made it, with the user's own mask.
	if err := os.WriteFile(l.file, append(text, '\n'), 0o600); err != nil {
		failed(err)
	}
}

// here tells what this machine has at each of the paths.
func here(paths []string) []learn.Kind {
	kinds := make([]learn.Kind, len(paths))
	for i, p := range paths {
		switch fi, err := os.Lstat(p); {
		case err == nil && fi.Mode().IsRegular():
			kinds[i] = learn.File
		case err == nil:
			kinds[i] = learn.Other
		case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR):
			kinds[i] = learn.Nothing
		}
	}
	return kinds
}

// target asks what the target has at each of the paths.
func (l *learning) target(paths []string) []learn.Kind {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	kinds := make([]learn.Kind, len(paths))
	var wg sync.WaitGroup
	defer wg.Wait()
	free := make(chan struct{}, asking)
	for i, p := range paths {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return kinds
		}
		wg.Go(func() {
			defer func() { <-free }()
			kinds[i] = l.kind(ctx, p)
		})
	}
	return kinds
}

func (l *learning) kind(ctx context.Context, p string) learn.Kind {
	m, err := l.s.peer.Call(ctx, &protocol.Stat{Path: p})
	switch m := m.(type) {
	case *protocol.Attr:
		if m.Mode&syscall.S_IFMT == syscall.S_IFREG {
			return learn.File
		}
		return learn.Other
	case *protocol.Answer:
		if err == nil {
			err = m.Err()
		}
	}
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) {
		return learn.Nothing
	}
	return learn.Unknown
}
