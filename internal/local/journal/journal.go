// Package journal keeps what the last sessions said in small files, so that
// what went wrong can be looked at afterwards.
//
// The front writes one file for each session, which only its user may read;
// mirrord diagnose packs them. Nothing leaves the machine. A file holds the
// session's events and its failure, as lines of JSON: names of targets, paths
// and hosts are in it, values of variables and contents are not, since no event
// has any. It is a comfort: where the directory cannot be written there is no
// journal, and the session goes on.
package journal

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
)

const (
	// keep is how many sessions are kept, the current one included: what a
	// person remembers and may ask about.
	keep = 5
	// maxBytes bounds the file of one session: some 2,000 lines.
	maxBytes = 256 << 10
	// maxDetails bounds what details, a line for each connection, take of that:
	// a warning late in a long session still finds room.
	maxDetails = maxBytes / 2

	suffix = ".jsonl"
)

// Dir is where journals are, by the environment that lookup reads: below
// $XDG_STATE_HOME, else ~/.local/state (XDG Base Directory Specification). It is
// empty if there is no home either.
func Dir(lookup func(string) string) string {
	state := lookup("XDG_STATE_HOME")
	if !filepath.IsAbs(state) { // "should consider the path invalid and ignore it"
		home := lookup("HOME")
		if !filepath.IsAbs(home) {
			return ""
		}
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "mirrord", "sessions")
}

// Journal is the file of one session. Its methods may be called concurrently,
// and on nil, which keeps nothing.
type Journal struct {
	hide func(string) string

	mu   sync.Mutex
	file *os.File // nil: closed, or the disk refuses
	size int
	full bool // and said so
}

// line is an event and its time.
type line struct {
	At time.Time `json:"at"`
	event.Event
}

// Open begins the file of a session in dir, which it makes, and removes those
// of old sessions. hide takes the secrets out of texts.
func Open(dir string, hide func(string) string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("keep a journal: %w", err)
	}
	name := fmt.Sprintf("%s-%d%s", time.Now().UTC().Format("20060102T150405.000"), os.Getpid(), suffix)
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("keep a journal: %w", err)
	}
	if all, err := Files(dir); err == nil {
		for _, old := range all[:max(0, len(all)-keep)] {
			_ = os.Remove(old) // another session may have been faster
		}
	}
	return &Journal{hide: hide, file: f}, nil
}

// Note writes e down.
func (j *Journal) Note(e event.Event) {
	if j == nil {
		return
	}
	e.Text = j.hide(e.Text)
	if len(e.Facts) > 0 {
		facts := map[string]string{}
		for k, v := range e.Facts {
			facts[k] = j.hide(v)
		}
		e.Facts = facts
	}
	b, err := json.Marshal(line{time.Now().UTC(), e})
	if err != nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	switch limit := maxBytes; {
	case j.file == nil:
		return
	case e.Level == event.Detail && j.size+len(b) >= maxDetails:
		if j.full {
			return
		}
		j.full = true
		b, _ = json.Marshal(line{time.Now().UTC(), event.Event{Level: event.Info, Code: "journal-full", Text: "details are left out from here on"}})
	case j.size+len(b) >= limit:
		return
	}
	if _, err := j.file.Write(append(b, '\n')); err != nil {
		j.file.Close()
		j.file = nil
		return
	}
	j.size += len(b) + 1
}

// Close ends the file.
func (j *Journal) Close() {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file != nil {
		j.file.Close()
		j.file = nil
	}
}

// Files names the journals in dir, the oldest first.
func Files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted by name, and so by time
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		if e.Type().IsRegular() && strings.HasSuffix(e.Name(), suffix) {
			all = append(all, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(all)
	return all, nil
}
