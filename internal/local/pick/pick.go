// Package pick is a list on a terminal from which a person chooses: what is
// typed narrows it, arrows move in it.
//
// The command line feeds it keys and shows its lines. It is pure: it touches no
// terminal.
package pick

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mirrord-go/mirrord/internal/local/monitor"
)

// Item is something that can be chosen.
type Item struct {
	Name string
	Note string // what helps to choose, shown beside the name; typing finds it too
}

// Result is what a key has led to.
type Result int

// Results of Key.
const (
	Goes Result = iota // the person has not decided
	Chosen
	Cancelled
)

// List is one choice. It must not be used concurrently.
type List struct {
	title string
	all   []Item
	typed []rune
	found []int // those of all that fit what was typed
	at    int   // of found: the one that is marked
	top   int   // of found: the first that is shown
}

// New makes a list; items keep their order.
func New(title string, items []Item) *List {
	l := &List{title: title, all: items}
	l.find()
	return l
}

// Selected is what is marked; ok is false if nothing fits what was typed.
func (l *List) Selected() (name string, ok bool) {
	if len(l.found) == 0 {
		return "", false
	}
	return l.all[l.found[l.at]].Name, true
}

// find looks for all words that were typed, anywhere, in any order and case.
func (l *List) find() {
	words := strings.Fields(strings.ToLower(string(l.typed)))
	l.found, l.at, l.top = l.found[:0], 0, 0
	for i, item := range l.all {
		text := strings.ToLower(item.Name + " " + item.Note)
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) }) {
			l.found = append(l.found, i)
		}
	}
}

// Keys that Key understands beside characters, as a terminal sends them
// (ECMA-48, xterm): control characters and escape sequences.
const (
	keyUp, keyDown     = "\x1b[A", "\x1b[B"
	keyUpApp, keyDnApp = "\x1bOA", "\x1bOB" // the same in application mode
	keyPageUp, keyPgDn = "\x1b[5~", "\x1b[6~"
	pageLines          = 10
)

// Keys cuts what a terminal has sent at once into keys. An escape that nothing
// follows is the key itself.
func Keys(sent []byte) (keys []string) {
	for rest := []rune(string(sent)); len(rest) > 0; {
		n := 1
		if rest[0] == '\x1b' && len(rest) > 2 && (rest[1] == '[' || rest[1] == 'O') {
			for n = 3; n < len(rest) && (rest[n-1] < '@' || rest[n-1] > '~'); n++ {
			}
		}
		keys = append(keys, string(rest[:n]))
		rest = rest[n:]
	}
	return keys
}

// Key follows one of Keys.
func (l *List) Key(key string) Result {
	switch key {
	case "\r", "\n":
		if len(l.found) > 0 {
			return Chosen
		}
	case "\x1b", "\x03", "\x04": // escape, Ctrl-C, Ctrl-D
		return Cancelled
	case keyUp, keyUpApp, "\x10": // Ctrl-P
		l.move(-1)
	case keyDown, keyDnApp, "\x0e", "\t": // Ctrl-N
		l.move(1)
	case keyPageUp:
		l.move(-pageLines)
	case keyPgDn:
		l.move(pageLines)
	case "\x08", "\x7f": // backspace
		if len(l.typed) > 0 {
			l.typed = l.typed[:len(l.typed)-1]
			l.find()
		}
	case "\x15", "\x17": // Ctrl-U, Ctrl-W
		l.typed = nil
		l.find()
	default:
		if r := []rune(key); len(r) == 1 && r[0] >= ' ' && len(l.typed) < 200 {
			l.typed = append(l.typed, r[0])
			l.find()
		}
	}
	return Goes
}

func (l *List) move(by int) { l.at = max(0, min(len(l.found)-1, l.at+by)) }

// Lines is what a terminal of that size shows, in so many lines at most; what
// is not known to be harmless in names is escaped.
func (l *List) Lines(width, height int, colours bool) []string {
	const around = 3 // title, what was typed, help
	room := max(1, height-around)
	l.top = max(min(l.top, l.at), l.at-room+1)
	wide := 0
	for _, item := range l.all {
		wide = max(wide, len([]rune(monitor.Clean(item.Name))))
	}
	lines := []string{cut(l.title, width), cut("> "+string(l.typed), width)}
	for i := l.top; i < min(len(l.found), l.top+room); i++ {
		item := l.all[l.found[i]]
		mark := "  "
		if i == l.at {
			mark = "* "
		}
		line := cut(fmt.Sprintf("%s%-*s  %s", mark, wide, monitor.Clean(item.Name), monitor.Clean(item.Note)), width)
		if colours && i == l.at {
			line = "\x1b[7m" + line + "\x1b[0m"
		}
		lines = append(lines, line)
	}
	help := fmt.Sprintf("%d of %d; type to narrow, arrows, Enter; Esc cancels", len(l.found), len(l.all))
	return append(lines, cut(help, width))
}

// cut shortens a line to what a terminal has room for.
func cut(line string, width int) string {
	if r := []rune(line); len(r) > width {
		return string(r[:max(0, width)])
	}
	return line
}
