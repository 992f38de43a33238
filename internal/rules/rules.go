// Package rules decides: which variable, path, connection or port of a program
// is the target's and which is the developer's own.
//
// Everything here is a pure function of its arguments, tested as a table. The
// rooms that act (sockets, mounts) ask before they do, and tell a person why by
// the same answer.
package rules

// Where says whose something is.
type Where uint8

// The sides.
const (
	// Local is the developer's machine.
	Local Where = iota
	// Remote is the target.
	Remote
	// NotFound is nowhere: it is hidden on purpose.
	NotFound
)

// String gives the word that a person reads.
func (w Where) String() string {
	switch w {
	case Local:
		return "local"
	case Remote:
		return "remote"
	case NotFound:
		return "not found"
	}
	return "unknown"
}

// Decision is an answer and its reason.
type Decision struct {
	Where Where
	Why   string // for a person: the rule or the default that decided
}
