package cli

import (
	"context"
	"errors"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/local/attach"
	"github.com/mirrord-go/mirrord/internal/local/image"
	"github.com/mirrord-go/mirrord/internal/local/process"
)

// processAgent is an agent beside a process of this machine.
type processAgent struct{ *process.Agent }

// Image implements attach.Agent: there is none.
func (a processAgent) Image() string { return "" }

// Place implements attach.Agent: it is in no cluster.
func (a processAgent) Place() (namespace, context string) { return "", "" }

// Probes are those of nobody: no node asks a process of this machine.
func (a processAgent) Probes() map[uint16][]string { return nil }

// Follow implements attach.Agent: a process that has ended has no successor.
func (a processAgent) Follow(context.Context, bool, attach.Request) (attach.Agent, error) {
	return nil, attach.ErrNotReplaced
}

// Gone implements attach.Agent: the socket that the agent inherited is closed.
func (a processAgent) Gone(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// reachProcess is the way to an agent beside the process that text names.
func reachProcess(text string) attach.Reach {
	return func(ctx context.Context, r attach.Request) (attach.Agent, error) {
		return startProcessAgent(ctx, text, r)
	}
}

func startProcessAgent(ctx context.Context, text string, r attach.Request) (attach.Agent, error) {
	pid, err := processID(text)
	if err != nil {
		return nil, err
	}
	program, err := image.Agent()
	if err != nil {
		return nil, err
	}
	a, err := process.Start(ctx, pid, process.Spec{Agent: program, PublicKey: r.PublicKey, SessionID: r.Session, Arguments: r.Arguments}, steps(r))
	if err != nil {
		return nil, err
	}
	return processAgent{a}, nil
}

// processMounts is where a process of this machine has volumes.
func processMounts(pid int) ([]string, error) { return process.Mounts(pid) }
