// Package failure holds the one shape of an error that is meant for a person:
// what happened, why, and what to do about it.
//
// Every room may return one; it travels as an ordinary error until a command
// shows it, once. It touches nothing and cannot fail. Each code is a section
// of docs/errors.md, which a test here keeps true.
package failure

import (
	"errors"
	"fmt"
	"strings"
)

// Exit codes of mirrord's own failures. A command's own code passes through,
// so these say something only together with the message on stderr.
const (
	// ExitFailure is used where nothing else is said.
	ExitFailure = 1
	// ExitUsage is for a wrong command line or configuration: nothing was
	// started, and trying again without a change is of no use.
	ExitUsage = 2
)

// CodeUnexpected is the code of an error that no room foresaw.
const CodeUnexpected = "unexpected"

// Error says what happened, why, and what to do about it. All text is in lower
// case without a final full stop; What is one line, Why and Do may have more.
// An Error is never changed after it was made. It survives JSON except for
// Cause, whose text Why already holds.
type Error struct {
	Code string `json:"code"`           // stable, lower-case words with dashes; a section of docs/errors.md
	What string `json:"what"`           // in the user's words: "pod/web-1 is not there"
	Why  string `json:"why,omitempty"`  // the cause, with names and numbers
	Do   string `json:"do,omitempty"`   // a command to type or a key to set
	Exit int    `json:"exit,omitempty"` // of mirrord; 0 stands for ExitFailure
	// Cause is what the failure was made from, for errors.Is and errors.As.
	Cause error `json:"-"`
}

// Error is What and Why on one line.
func (e *Error) Error() string {
	if e.Why == "" {
		return e.What
	}
	return e.What + ": " + strings.ReplaceAll(e.Why, "\n", "; ")
}

// Unwrap gives Cause.
func (e *Error) Unwrap() error { return e.Cause }

// ExitCode is Exit, or ExitFailure where none is given.
func (e *Error) ExitCode() int {
	if e.Exit == 0 {
		return ExitFailure
	}
	return e.Exit
}

// New makes a failure with no cause below it; why is formatted with args.
func New(code, what, do, why string, args ...any) *Error {
	return &Error{Code: code, What: what, Why: fmt.Sprintf(why, args...), Do: do}
}

// Wrap makes a failure from err, which must not be nil: err's text becomes the
// why. Where err already is or holds a failure, that one is returned as it is,
// since it was made nearer to the cause.
func Wrap(err error, code, what, do string) *Error {
	if f, ok := errors.AsType[*Error](err); ok {
		return f
	}
	return &Error{Code: code, What: what, Why: err.Error(), Do: do, Cause: err}
}

// Usage makes a failure of the command line or the configuration.
func Usage(code, what, do, why string, args ...any) *Error {
	f := New(code, what, do, why, args...)
	f.Exit = ExitUsage
	return f
}

// From gives the failure that err is or holds; another error becomes one with
// CodeUnexpected. It returns nil for nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	return Wrap(err, CodeUnexpected, "something went wrong that mirrord did not foresee",
		"try again; if it stays, please report it with: mirrord diagnose")
}
