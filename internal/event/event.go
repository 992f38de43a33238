// Package event holds what happens in a session as values, and the sink they
// go to.
//
// Flows never print: they emit events, and the terminal, the JSON lines and
// the tests are readers of the same stream. Values are pure data; a sink may
// keep them.
package event

// Level says how much a person wants to see an event.
type Level string

const (
	// Step is progress: a thing done on the way to a running session.
	Step Level = "step"
	// Info is worth one line while the session runs.
	Info Level = "info"
	// Warning is something that goes otherwise than in the pod, or may hurt.
	Warning Level = "warning"
	// Error is what ended the session, or kept it from starting.
	Error Level = "error"
	// Detail is shown on request only.
	Detail Level = "detail"
)

// Event is one thing that happened.
type Event struct {
	Level Level  `json:"level"`
	Code  string `json:"code"`           // stable, lower-case words with dashes: "agent-ready"
	Text  string `json:"text"`           // one line for a person, without a full stop
	Flow  string `json:"flow,omitempty"` // env, dns, files, outgoing, incoming; empty: the session itself
	// Facts are the same in parts, for programs.
	Facts map[string]string `json:"facts,omitempty"`
}

// Sink receives events. It may be called from many goroutines at once and must
// not block its caller for long.
type Sink func(Event)

// Discard is the sink that forgets.
func Discard(Event) {}
