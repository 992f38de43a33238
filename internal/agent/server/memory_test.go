package server

import (
	"testing"

	"github.com/mirrord-go/mirrord/internal/agent/incoming"
	"github.com/mirrord-go/mirrord/internal/agent/outgoing"
	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/link/resume"
)

// With every kind of use at its worst, whichever came first, the sum is within
// the budget, and that leaves the process and its pod room for the rest.
func TestMemoryAtItsWorst(t *testing.T) {
	shares := func(m *memory) []*budget.Share {
		return []*budget.Share{m.outgoing, m.incoming, m.copies, m.calls, m.reads, m.windows, m.relayed, m.parsed}
	}
	const piece = 4 << 10
	for first := range shares(newMemory()) {
		all := shares(newMemory())
		all = append(all[first:], all[:first]...)
		sum := link.Fixed + resume.Memory
		for _, s := range all {
			for s.Take(piece) {
			}
			if s.Used() < mib {
				t.Errorf("after share %d another has %d bytes", first, s.Used())
			}
			sum += s.Used()
		}
		if sum > budget.Agent {
			t.Errorf("from share %d on the sum is %d MiB, want at most %d", first, sum/mib, budget.Agent/mib)
		}
	}
	const program, text, kernel = 4 * mib, 8 * mib, 16 * mib // of an idle agent; the kernel's with the packet ring
	if budget.Agent+program > budget.AgentProcess || budget.AgentProcess+text+kernel > budget.AgentPod {
		t.Errorf("%d MiB, of a process with %d, of a pod with %d", budget.Agent/mib, budget.AgentProcess/mib, budget.AgentPod/mib)
	}
}

// 2,000 connections each way at once find room while those that were there first
// have all that makes them fast.
func TestMemoryForConnections(t *testing.T) {
	const connections = 2000
	m := newMemory()
	for _, s := range []*budget.Share{m.windows, m.relayed} {
		for s.Take(4 << 10) {
		}
	}
	for range connections {
		if !m.outgoing.Take(link.StreamCost+outgoing.ConnCost) || !m.incoming.Take(link.StreamCost+incoming.ConnCost) {
			t.Fatalf("there is room for %d and %d bytes of connections, want %d of them each way", m.outgoing.Used(), m.incoming.Used(), connections)
		}
	}
}
