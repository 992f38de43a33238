// Package doctor looks whether this machine and a cluster have what a session
// needs, without starting one, and says what to do where they have not.
//
// The command line calls it. Each check is independent of the others as far as
// the thing itself is: where one needs another that failed, it is skipped and
// says so. The checks are the very code of a session (the sandbox's own init,
// the kubeconfig's reading, the Job that an agent would be), so both tell a
// failure with the same words and the same code. It makes namespaces of its own
// for a moment, and asks the API server; nothing is left behind anywhere. Only
// Mend changes something, and says each command before it runs.
package doctor

import (
	"context"
	"fmt"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/host"
	"github.com/mirrord-go/mirrord/internal/local/kube"
)

// State is what came out of a check.
type State string

// States of a Check.
const (
	Good    State = "good"
	Bad     State = "bad"     // a session needs it
	Skipped State = "skipped" // it could not be looked at, or a session does without
)

// Areas of checks, in their order.
const (
	Machine   = "this machine"
	Debuggers = "debuggers" // that were found here
	Cluster   = "cluster"
)

// A Check is one thing looked at.
type Check struct {
	Area  string `json:"area"`
	Name  string `json:"name"` // "user namespaces"
	State State  `json:"state"`
	// Text is what was found, for Good and Skipped.
	Text string `json:"text,omitempty"`
	// Do is how to have what a session does without, for Skipped.
	Do string `json:"do,omitempty"`
	// Failure is why it is Bad, as a session would tell it.
	Failure *failure.Error `json:"failure,omitempty"`
	// Cure mends it, as far as that can be done on this machine.
	Cure host.Cure `json:"cure,omitzero"`
}

// Options of Run.
type Options struct {
	Kube     kube.Options
	Target   string // as for exec; empty: none
	Local    bool   // the target is on this machine: no cluster is needed
	Features []kube.Feature
	InPod    bool // the agent is to be a container of the target's pod
	// Show gets each check when it is done, in order.
	Show func(Check)
}

// Run makes all checks and reports whether a session has all that it needs. An
// error says that ctx has ended.
func Run(ctx context.Context, o Options) (ok bool, err error) {
	d := &doctor{o: o, ok: true}
	d.here(ctx)
	if ctx.Err() == nil && !o.Local {
		d.cluster(ctx)
	}
	return d.ok, ctx.Err()
}

// doctor is one Run.
type doctor struct {
	o    Options
	area string
	ok   bool
}

func (d *doctor) good(name, text string, args ...any) {
	d.o.Show(Check{Area: d.area, Name: name, State: Good, Text: fmt.Sprintf(text, args...)})
}

func (d *doctor) skipped(name, text string, args ...any) {
	d.o.Show(Check{Area: d.area, Name: name, State: Skipped, Text: fmt.Sprintf(text, args...)})
}

func (d *doctor) bad(name string, err error) { d.lacks(name, err, host.Cure{}) }

func (d *doctor) lacks(name string, err error, cure host.Cure) {
	d.ok = false
	d.o.Show(Check{Area: d.area, Name: name, State: Bad, Failure: failure.From(err), Cure: cure})
}
