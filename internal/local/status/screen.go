package status

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/local/control"
	"github.com/mirrord-go/mirrord/internal/local/monitor"
)

// maxKept is how many events a Screen remembers, so that another filter finds
// what has passed: more than a terminal shows.
const maxKept = 2000

// Screen is what a live view shows, and how it follows keys. It must not be used
// concurrently.
type Screen struct {
	sessions []*control.Status // sorted by id
	events   []activity.Event  // the last ones, oldest first
	filter   Filter
	typing   []rune // a filter; nil: none is being typed
	wrong    string // why what was typed is none
	frozen   []activity.Event
	paused   bool // frozen is shown, whatever comes
}

// NewScreen makes an empty one.
func NewScreen(f Filter) *Screen { return &Screen{filter: f} }

// Session shows how a session is.
func (s *Screen) Session(st *control.Status) {
	at, there := slices.BinarySearchFunc(s.sessions, st.ID, func(a *control.Status, id string) int { return strings.Compare(a.ID, id) })
	if there {
		s.sessions[at] = st
		return
	}
	s.sessions = slices.Insert(s.sessions, at, st)
}

// Ended forgets a session.
func (s *Screen) Ended(id string) {
	s.sessions = slices.DeleteFunc(s.sessions, func(st *control.Status) bool { return st.ID == id })
}

// Event shows what happened.
func (s *Screen) Event(e activity.Event) {
	if len(s.events) == maxKept {
		s.events = slices.Delete(s.events, 0, maxKept/4) // seldom, since it copies
	}
	s.events = append(s.events, e)
}

// Keys.
const (
	keyInterrupt = 0x03
	keyEnd       = 0x04
	keyBack      = 0x08
	keyReturn    = '\r'
	keyClear     = 0x15 // Ctrl-U
	keyEscape    = 0x1b
	keyDelete    = 0x7f
)

// Keys gives the keys that a terminal has sent at once, without those that have no
// character: arrows and the like, which begin with an escape (ECMA-48, 5.4).
func Keys(sent []byte) (keys []rune) {
	for rest := []rune(string(sent)); len(rest) > 0; {
		if rest[0] != keyEscape || len(rest) < 2 || rest[1] != '[' && rest[1] != 'O' {
			keys = append(keys, rest[0])
			rest = rest[1:]
			continue
		}
		end := 2
		for end < len(rest) && (rest[end] < '@' || rest[end] > '~') {
			end++
		}
		rest = rest[min(len(rest), end+1):]
	}
	return keys
}

// Key follows a key; quit says that the view is to end.
func (s *Screen) Key(r rune) (quit bool) {
	if r == keyInterrupt {
		return true
	}
	if s.typing != nil {
		s.typed(r)
		return false
	}
	switch r {
	case 'q', 'Q', keyEnd:
		return true
	case '/':
		s.typing = append([]rune{}, []rune(s.filter.Text)...)
	case keyEscape:
		s.filter = Filter{}
	case 'c':
		s.events, s.frozen = nil, nil
	case ' ', 'p':
		if s.paused = !s.paused; s.paused {
			s.frozen = slices.Clone(s.events)
		} else {
			s.frozen = nil
		}
	}
	return false
}

// typed is a key while a filter is being written.
func (s *Screen) typed(r rune) {
	s.wrong = ""
	switch r {
	case keyReturn, '\n':
		f, err := ParseFilter(string(s.typing))
		if err != nil {
			s.wrong = err.Error()
			return
		}
		s.filter, s.typing = f, nil
	case keyEscape:
		s.typing = nil
	case keyClear:
		s.typing = s.typing[:0]
	case keyBack, keyDelete:
		s.typing = s.typing[:max(0, len(s.typing)-1)]
	default:
		if r >= ' ' {
			s.typing = append(s.typing, r)
		}
	}
}

// Lines gives the screen: at most height lines of at most width characters, and
// colours if they are wanted.
func (s *Screen) Lines(width, height int, now time.Time, colours bool) []string {
	paint := func(c, text string) string {
		if text = cut(text, width); colours && c != "" {
			return c + text + plain
		}
		return text
	}
	bottom := s.bottom()
	var all []string
	for i, l := range Table(s.sessions, now) {
		switch {
		case i == 0:
			all = append(all, paint(bold, l))
		case i <= max(1, height/3): // the rest is for events
			all = append(all, paint("", l))
		}
	}
	if rest := len(s.sessions) - (len(all) - 1); rest > 0 {
		all = append(all, paint(dim, fmt.Sprintf("and %d more", rest)))
	}
	all = append(all, "")
	room := max(0, height-len(all)-1)
	for _, e := range s.shown(room) {
		c := ""
		if colours {
			c = colour(e)
		}
		all = append(all, paint(c, Line(e)))
	}
	for len(all) < height-1 {
		all = append(all, "")
	}
	return append(all[:max(0, min(len(all), height-1))], paint(dim, bottom))
}

// shown are the last n events that the filter means.
func (s *Screen) shown(n int) (all []activity.Event) {
	events := s.events
	if s.paused {
		events = s.frozen
	}
	for i := len(events) - 1; i >= 0 && len(all) < n; i-- {
		if s.filter.Match(events[i]) {
			all = append(all, events[i])
		}
	}
	slices.Reverse(all)
	return all
}

// bottom is the last line: what can be typed, or is being.
func (s *Screen) bottom() string {
	switch {
	case s.wrong != "":
		return monitor.Clean(s.wrong)
	case s.typing != nil:
		return monitor.Clean("filter: " + string(s.typing) + "▏  (Enter, Esc)")
	}
	text := "q quit   / filter   space pause   c clear"
	if s.filter.Text != "" {
		text += monitor.Clean("   [filter: " + s.filter.Text + "   Esc: all]")
	}
	if s.paused {
		text += "   [paused]"
	}
	return text
}
