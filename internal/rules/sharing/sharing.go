// Package sharing decides how sessions share a port of one target.
//
// It is for the agent that has the port, which asks before it gives somebody
// requests, and orders those who have them. It is pure: it touches nothing and
// knows no connection. A refusal is for a person, and names who is in the way
// and since when.
package sharing

import (
	"cmp"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// maxHolder bounds a name, in characters.
const maxHolder = 100

// Session is what one session wants of a port.
type Session struct {
	Holder string    // who it belongs to, for people
	Began  time.Time // when, by the clock of the node
	Filter string    // the requests that are meant, as rules.Filter.Text gives them; empty: whole connections
}

// String is "ana@laptop since 14:00 UTC".
func (s Session) String() string { return s.name() + " since " + s.since() }

func (s Session) since() string { return s.Began.UTC().Format("15:04 UTC") }

// name is who the session belongs to. It comes from another machine: it is cut,
// and has no control characters.
func (s Session) name() string {
	name := []rune(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s.Holder))
	return string(name[:min(len(name), maxHolder)])
}

// Compare orders sessions by their beginning: of two that want a request, the
// lesser gets it.
func Compare(a, b Session) int {
	return cmp.Or(a.Began.Compare(b.Began), cmp.Compare(a.Holder, b.Holder))
}

// Beside reports whether two sessions can share a port that ask for these filters.
func Beside(a, b string) bool { return a != "" && b != "" && a != b }

// Taken says that by has a port now which it did not want to share.
func Taken(port uint16, by Session) string {
	return fmt.Sprintf("port %d has been taken over by %s, whose session began at %s", port, by.name(), by.since())
}

// Refuse says why s cannot have the port beside those that have it; nil: it can.
func Refuse(port uint16, s Session, others ...Session) error {
	for _, o := range others {
		switch {
		case Beside(o.Filter, s.Filter):
		case o.Filter == "":
			return fmt.Errorf("port %d is held by %v, who takes all of it", port, o)
		case s.Filter == "":
			return fmt.Errorf("port %d is held by %v, who takes some requests: it cannot be taken whole", port, o)
		default:
			return fmt.Errorf("port %d is held by %v with the same filter", port, o)
		}
	}
	return nil
}
