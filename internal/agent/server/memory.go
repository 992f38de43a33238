package server

import (
	"github.com/mirrord-go/mirrord/internal/agent/files"
	"github.com/mirrord-go/mirrord/internal/agent/incoming"
	"github.com/mirrord-go/mirrord/internal/agent/outgoing"
	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/link/resume"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// memory is the agent's budget: what each kind of use has for sure, and what it
// may have at most. What is not counted, the program itself and the kernel's
// part, has its room between budget.Agent and budget.AgentPod.
type memory struct {
	outgoing *budget.Share // connections of the program's, and their streams
	incoming *budget.Share // those of others to stolen ports, and their streams
	copies   *budget.Share // those that are mirrored, and what waits of them
	calls    *budget.Share // questions (files, names, control), and their answers
	reads    *budget.Share // answers with much content
	windows  *budget.Share // what streams may send beyond their first few KiB
	relayed  *budget.Share // large buffers of connections that have much to say
	parsed   *budget.Share // those of connections under a filter
	kept     *budget.Share // what clients have said, while local may refuse them
	sharing  *budget.Share // links with agents of other sessions
	wishes   *budget.Share // filters, of the session's and theirs
}

const mib = 1 << 20

func newMemory() *memory {
	b := budget.New(budget.Agent)
	b.Reserve(link.Fixed + resume.Memory)
	return &memory{
		outgoing: b.Share(2*mib, budget.All),
		incoming: b.Share(2*mib, budget.All),
		copies:   b.Share(1*mib, 48*mib),
		calls:    b.Share(4*mib, 48*mib),
		reads:    b.Share(1*mib, 16*mib),
		windows:  b.Share(1*mib, 12*mib),
		relayed:  b.Share(1*mib, 4*mib),
		parsed:   b.Share(1*mib, 16*mib),
		kept:     b.Share(1*mib, 8*mib),
		sharing:  b.Share(0, 9*link.Fixed),
		wishes:   b.Share(mib/4, 16*mib),
	}
}

func (m *memory) ofLink() link.Memory {
	return link.Memory{Interactive: m.calls, Opened: m.incoming, Accepted: m.outgoing, Windows: m.windows}
}

func (m *memory) ofFiles() files.Memory { return files.Memory{Questions: m.calls, Reads: m.reads} }

func (m *memory) ofIncoming() incoming.Memory {
	between := link.Memory{Interactive: m.calls, Opened: m.incoming, Accepted: m.incoming, Windows: m.windows}
	return incoming.Memory{Relayed: m.relayed, Parsed: m.parsed, Kept: m.kept, Wishes: m.wishes, Sharing: m.sharing, Link: between,
		Connections: map[uint8]*budget.Share{protocol.ModeSteal: m.incoming, protocol.ModeMirror: m.copies,
			protocol.ModeSteal | protocol.ModeUDP: m.incoming, protocol.ModeMirror | protocol.ModeUDP: m.copies}}
}

func (m *memory) ofOutgoing(dial outgoing.Dialer) *outgoing.Server {
	return &outgoing.Server{Dial: dial, Connections: m.outgoing, Relayed: m.relayed}
}
