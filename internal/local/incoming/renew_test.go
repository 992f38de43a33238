package incoming

import (
	"fmt"
	"maps"
	"slices"
	"syscall"
	"testing"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// A new agent is asked for every port once, with what its target needs; one
// that it does not give stays published, and is asked for again with the next.
func TestRenew(t *testing.T) {
	b := setUp(t, protocol.ModeSteal)
	var ports []uint16
	for id := range uint64(3) {
		port := freePort(t)
		ports = append(ports, port)
		b.listening(id+1, at("0.0.0.0", port))
		<-b.agent.subs
	}
	held := ports[1]
	b.agent.answer = func(m *protocol.Subscribe) *protocol.Answer {
		if m.Port == held {
			return &protocol.Answer{Errno: syscall.EADDRINUSE, Text: "held by ben"}
		}
		return &protocol.Answer{}
	}
	b.connect()
	b.Renew(b.near, map[uint16][]string{ports[0]: {"/healthz"}})
	want := map[uint16]string{ports[0]: "[/healthz]", ports[1]: "[]", ports[2]: "[]"}
	asked := func() map[uint16]string {
		got := map[uint16]string{}
		for len(b.agent.subs) > 0 {
			s := <-b.agent.subs
			got[s.Port] += fmt.Sprint(s.Probes)
		}
		return got
	}
	if got := asked(); !maps.Equal(got, want) {
		t.Errorf("asked for %v, want %v", got, want)
	}
	if e := b.event("port-held"); e.Facts["target"] != fmt.Sprint(held) {
		t.Errorf("port-held is said of %v, want %d", e.Facts, held)
	}
	b.agent.answer = yes
	b.Renew(b.near, nil) // the same agent once more: what it gave is not asked for again
	if got := slices.Collect(maps.Keys(asked())); !slices.Equal(got, []uint16{held}) {
		t.Errorf("asked again for %v, want %d", got, held)
	}
}

// A port that is closed while a new agent is asked for it is given back.
func TestClosedWhileRenewing(t *testing.T) {
	b := setUp(t, protocol.ModeSteal)
	port := freePort(t)
	b.listening(1, at("0.0.0.0", port))
	<-b.agent.subs
	asked, closed := make(chan struct{}), make(chan struct{})
	b.agent.answer = func(*protocol.Subscribe) *protocol.Answer {
		close(asked)
		<-closed
		return &protocol.Answer{}
	}
	b.connect()
	go func() {
		<-asked
		b.Closed(1)
		close(closed)
	}()
	b.Renew(b.near, nil)
	within(t, "the end of the subscription", (<-b.agent.subs).ended)
}
