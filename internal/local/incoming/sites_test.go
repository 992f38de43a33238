package incoming

import (
	"net/netip"
	"syscall"
	"testing"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// site makes b's agent a further pod, with an agent that is b's next.
func (b *bench) site(t *testing.T, name string, probes map[uint16][]string) (s *Site, other *bench) {
	t.Helper()
	other, end := newBench(t, protocol.ModeSteal, nowhere)
	t.Cleanup(end)
	return &Site{Name: name, Link: other, Probes: probes}, other
}

// A pod that joins is asked for what is open, and for what is opened later, with
// its own probes; each is given back with the last listener.
func TestSites(t *testing.T) {
	b := setUp(t, protocol.ModeSteal)
	first, second := freePort(t), freePort(t)
	b.listening(1, at("0.0.0.0", first))
	<-b.agent.subs
	s, other := b.site(t, "web-2", map[uint16][]string{second: {"/healthz"}})
	b.Join(s)
	one := <-other.agent.subs
	b.listening(2, at("0.0.0.0", second))
	two := <-other.agent.subs
	if one.Port != first || two.Port != second || len(one.Probes) != 0 || len(two.Probes) != 1 {
		t.Errorf("asked for port %d, probes %v, then %d, %v", one.Port, one.Probes, two.Port, two.Probes)
	}
	b.Closed(1)
	within(t, "the end of the first port there", one.ended)
	b.Leave(s)
	within(t, "the end of the second port there", two.ended)
	third := freePort(t)
	b.listening(3, at("0.0.0.0", third))
	b.Join(s)
	if again := []uint16{(<-other.agent.subs).Port, (<-other.agent.subs).Port}; again[0] != second && again[0] != third || again[0] == again[1] {
		t.Errorf("asked for %v after joining again, want %d and %d", again, second, third)
	}
	if n := len(other.agent.subs); n != 0 {
		t.Errorf("asked %d times more", n)
	}
}

// A pod that refuses keeps its traffic, which is said; what the target itself
// refuses is asked of nobody.
func TestSitesRefuse(t *testing.T) {
	b := setUp(t, protocol.ModeSteal)
	s, other := b.site(t, "web-2", nil)
	other.agent.answer = func(*protocol.Subscribe) *protocol.Answer {
		return &protocol.Answer{Errno: syscall.EADDRINUSE, Text: "held by ben"}
	}
	b.listening(1, at("0.0.0.0", freePort(t)))
	<-b.agent.subs
	b.Join(s)
	<-other.agent.subs
	if e := b.event("port-not-everywhere"); e.Facts["pod"] != "web-2" {
		t.Errorf("said: %+v", e)
	}
	b.agent.answer = other.agent.answer
	_ = b.Listening(t.Context(), Listener{ID: 2, Addr: netip.MustParseAddrPort(at("0.0.0.0", freePort(t)))})
	<-b.agent.subs
	b.Close()
	if n := len(other.agent.subs); n != 0 {
		t.Errorf("the other pod was asked %d times for what the target does not give", n)
	}
}
