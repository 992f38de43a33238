package session

import (
	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/link/resume"
	"github.com/mirrord-go/mirrord/internal/local/files"
	"github.com/mirrord-go/mirrord/internal/local/netstack"
	"github.com/mirrord-go/mirrord/internal/local/replicas"
)

// memory is the supervisor's budget: what each kind of use has for sure, and
// what it may have at most.
type memory struct {
	outgoing  *budget.Share // streams of the program's connections
	incoming  *budget.Share // those of others' connections
	stack     *budget.Share // both kinds of connections, in the sandbox's network
	datagrams *budget.Share // flows of datagrams there, lookups among them
	calls     *budget.Share // questions: files, names, control
	windows   *budget.Share // what streams may receive beyond their first few KiB
	buffers   *budget.Share // what connections may keep beyond their least
	relayed   *budget.Share // large buffers of connections that have much to say
	ahead     *budget.Share // files that are read ahead
	replicas  *budget.Share // links to agents beside other pods of the workload
}

const mib = 1 << 20

func newMemory() *memory {
	b := budget.New(budget.Supervisor)
	b.Reserve(link.Fixed + resume.Memory + files.Memory)
	return &memory{
		outgoing:  b.Share(2*mib, budget.All),
		incoming:  b.Share(2*mib, budget.All),
		stack:     b.Share(16*mib, budget.All),
		datagrams: b.Share(16*mib, budget.All),
		calls:     b.Share(8*mib, budget.All),
		windows:   b.Share(4*mib, 36*mib),
		buffers:   b.Share(4*mib, 32*mib),
		relayed:   b.Share(1*mib, 8*mib),
		ahead:     b.Share(4*mib, 64*mib),
		replicas:  b.Share(0, replicas.Most*replicaCost),
	}
}

func (m *memory) ofLink() link.Memory {
	return link.Memory{Interactive: m.calls, Opened: m.outgoing, Accepted: m.incoming, Windows: m.windows}
}

func (m *memory) ofStack() netstack.Memory {
	return netstack.Memory{Connections: m.stack, Datagrams: m.datagrams, Buffers: m.buffers}
}
