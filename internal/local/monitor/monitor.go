// Package monitor shows the events of a session to a person or a program.
//
// All that a person sees of a session passes through here, on stderr, so that
// stdout stays the command's own. Lines begin with "mirrord: ", are plain
// unless stderr is a terminal, and hold no control characters that a stranger
// could have put there.
package monitor

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
)

// Mode is how events are shown.
type Mode uint8

const (
	// Plain is a line an event.
	Plain Mode = iota
	// Colour is Plain with colours, for terminals.
	Colour
	// JSON is a line of JSON an event.
	JSON
	// Quiet shows warnings only.
	Quiet
)

const (
	dim    = "\x1b[2m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	reset  = "\x1b[0m"
)

// Monitor shows events as they come. Its methods may be called concurrently.
type Monitor struct {
	mode    Mode
	details bool

	mu  sync.Mutex
	out io.Writer // writes whole lines
}

// New makes a monitor that writes to out. With details, events of the lowest
// level are shown as well.
func New(out io.Writer, mode Mode, details bool) *Monitor {
	return &Monitor{mode: mode, details: details, out: out}
}

// Show shows one event.
func (m *Monitor) Show(e event.Event) {
	switch {
	case m.mode == JSON:
		m.json(e)
		return
	case m.mode == Quiet && e.Level != event.Warning, e.Level == event.Detail && !m.details:
		return
	}
	text := "mirrord: " + Clean(e.Text)
	switch {
	case e.Level == event.Warning:
		text = "mirrord: warning: " + Clean(e.Text)
		m.paint(yellow, text)
	default:
		m.paint(dim, text)
	}
}

// Report shows the lines of a report below its head; in mode JSON, where programs
// read, the report itself. It was asked for: no mode leaves it out.
func (m *Monitor) Report(code, head string, lines []string, report any) {
	if m.mode == JSON {
		m.json(struct {
			event.Event
			Report any `json:"report"`
		}{event.Event{Level: event.Info, Code: code, Text: head}, report})
		return
	}
	m.paint(dim, "mirrord: "+Clean(head))
	for _, l := range lines {
		m.paint(dim, "  "+Clean(l))
	}
}

// Fail shows what ended the session or kept it from starting.
func (m *Monitor) Fail(f *failure.Error) {
	if m.mode == JSON {
		m.json(event.Event{Level: event.Error, Code: f.Code, Text: f.What, Facts: map[string]string{"why": f.Why, "do": f.Do}})
		return
	}
	m.paint(red, "mirrord: "+Clean(f.What))
	if f.Why != "" {
		m.paint("", indent(f.Why))
	}
	if f.Do != "" {
		m.paint("", indent(f.Do))
	}
	if f.Code != "" {
		m.paint(dim, fmt.Sprintf("  (%s, see docs/errors.md)", Clean(f.Code)))
	}
}

// indent puts two spaces in front of each line and cleans it.
func indent(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i, l := range lines {
		lines[i] = "  " + Clean(l)
	}
	return strings.Join(lines, "\n")
}

func (m *Monitor) paint(colour, text string) {
	if m.mode == Colour && colour != "" {
		text = colour + text + reset
	}
	m.line(text)
}

func (m *Monitor) line(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _ = io.WriteString(m.out, text+"\n")
}

func (m *Monitor) json(e any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_ = WriteJSON(m.out, e, "")
}
