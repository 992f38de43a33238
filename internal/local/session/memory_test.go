package session

import (
	"testing"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/link/resume"
	"github.com/mirrord-go/mirrord/internal/local/files"
	"github.com/mirrord-go/mirrord/internal/local/netstack"
)

// With every kind of use at its worst, whichever came first, the sum is within
// the budget.
func TestMemoryAtItsWorst(t *testing.T) {
	shares := func(m *memory) []*budget.Share {
		return []*budget.Share{m.outgoing, m.incoming, m.stack, m.datagrams, m.calls, m.windows, m.buffers, m.relayed, m.ahead}
	}
	const piece = 16 << 10
	for first := range shares(newMemory()) {
		all := shares(newMemory())
		all = append(all[first:], all[:first]...)
		sum := link.Fixed + resume.Memory + files.Memory
		for _, s := range all {
			for s.Take(piece) {
			}
			if s.Used() < mib {
				t.Errorf("after share %d another has %d bytes", first, s.Used())
			}
			sum += s.Used()
		}
		if sum > budget.Supervisor {
			t.Errorf("from share %d on the sum is %d MiB, want at most %d", first, sum/mib, budget.Supervisor/mib)
		}
	}
}

// 2,000 connections each way at once find room while those that were there first
// have all that makes them fast.
func TestMemoryForConnections(t *testing.T) {
	const connections = 2000
	m := newMemory()
	for _, s := range []*budget.Share{m.windows, m.buffers, m.relayed} {
		for s.Take(16 << 10) {
		}
	}
	for n := range connections {
		for way, streams := range map[string]*budget.Share{"outgoing": m.outgoing, "incoming": m.incoming} {
			if !streams.Take(link.StreamCost) || !m.stack.Take(netstack.ConnCost) {
				t.Fatalf("there is room for %d %s connections, want %d", n, way, connections)
			}
		}
	}
}
