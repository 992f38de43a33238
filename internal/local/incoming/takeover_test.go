package incoming

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

const takenText = "port 80 has been taken over by bob@desk, whose session began at 14:02 UTC"

// isTaken is what an agent does when another session takes a port over.
func (s *sub) isTaken() {
	_ = s.s.Send(&protocol.Answer{Errno: syscall.EADDRINUSE, Cause: protocol.CauseTaken, Text: takenText})
	_ = s.s.CloseWrite()
}

// comes waits until done says so.
func comes(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// has reports whether an event with a code has come.
func (b *bench) has(code string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.events {
		if e.Code == code {
			return true
		}
	}
	return false
}

// A port is taken from another session once: when the program listens, and in each
// other pod when that is asked for the first time.
func TestOverrideIsSaidOnce(t *testing.T) {
	b := setUpWith(t, rules.IncomingOptions{Mode: rules.IncomingSteal, Held: rules.HeldOverride})
	port := freePort(t)
	b.listening(1, at("0.0.0.0", port))
	asked := func(what string, of *bench, want bool) {
		t.Helper()
		if s := within(t, what, of.agent.subs); s.Override != want {
			t.Errorf("%s: it overrides: %v, want %v", what, s.Override, want)
		}
	}
	asked("listen", b, true)
	s, other := b.site(t, "web-2", nil)
	b.Join(s)
	asked("a pod", other, true)
	b.Leave(s)
	s, other = b.site(t, "web-2", nil)
	b.Join(s)
	asked("the same pod, by another agent", other, false)
	b.connect()
	b.Renew(b.near, nil)
	asked("another agent", b, false)
	b.Closed(1)
	b.listening(2, at("0.0.0.0", port))
	asked("listen once more", b, true)
}

// Nothing is taken from anybody unless that was asked for, and never by copies.
func TestNoOverride(t *testing.T) {
	for name, o := range map[string]rules.IncomingOptions{
		"abort":           {Mode: rules.IncomingSteal},
		"continue":        {Mode: rules.IncomingSteal, Held: rules.HeldContinue},
		"copies":          {Held: rules.HeldOverride},
		"lossless copies": {Held: rules.HeldOverride, Lossless: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := setUpWith(t, o)
			b.listening(1, at("0.0.0.0", freePort(t)))
			if s := within(t, "a subscription", b.agent.subs); s.Override {
				t.Error("it overrides")
			}
		})
	}
}

// When another session has taken a port over the program goes on without it: nobody
// asks for it any more, nowhere, until the program listens anew.
func TestTakenOver(t *testing.T) {
	b := setUpWith(t, rules.IncomingOptions{Mode: rules.IncomingSteal})
	port := freePort(t)
	b.listening(1, at("0.0.0.0", port))
	one := within(t, "a subscription", b.agent.subs)
	s, other := b.site(t, "web-2", nil)
	b.Join(s)
	two := within(t, "a subscription there", other.agent.subs)
	one.isTaken()
	if err := within(t, "the end there, too", two.ended); !errors.Is(err, io.EOF) {
		t.Errorf("it ended there with %v", err)
	}
	within(t, "the end", one.ended)
	comes(t, "word of it", func() bool { return b.has("port-taken") })
	e := b.event("port-taken")
	for _, want := range []string{takenText, fmt.Sprintf("port %d is open on this machine only", port), "restart the server", "on_concurrent_steal override", "--header 'NAME: VALUE'"} {
		if !strings.Contains(e.Text, want) {
			t.Errorf("it is said: %q, want %q in it", e.Text, want)
		}
	}
	if e.Facts["port"] != fmt.Sprint(port) || e.Facts["target"] != fmt.Sprint(port) {
		t.Errorf("with %v", e.Facts)
	}
	if !reachable(t, port) {
		t.Error("the program's port is not open here any more")
	}
	if got := b.Ports.Ports(); len(got) != 1 || got[0].Target != 0 || got[0].Published == "" {
		t.Errorf("it is shown as %+v", got)
	}
	third, there := b.site(t, "web-3", nil)
	b.Join(third)
	b.connect()
	b.Renew(b.near, nil)
	if n := len(b.agent.subs) + len(there.agent.subs); n != 0 {
		t.Errorf("it was asked for %d times more", n)
	}
	b.Closed(1)
	b.listening(2, at("0.0.0.0", port))
	within(t, "a subscription anew", b.agent.subs)
	if b.has("port-lost") {
		t.Error("it is said to be lost as well")
	}
}

// In another pod that is told, and the rest stays; a new agent there is not asked.
func TestTakenOverElsewhere(t *testing.T) {
	b := setUpWith(t, rules.IncomingOptions{Mode: rules.IncomingSteal})
	port := freePort(t)
	b.listening(1, at("0.0.0.0", port))
	one := within(t, "a subscription", b.agent.subs)
	s, other := b.site(t, "web-2", nil)
	b.Join(s)
	two := within(t, "a subscription there", other.agent.subs)
	two.isTaken()
	within(t, "the end there", two.ended)
	comes(t, "word of it", func() bool { return b.has("port-taken") })
	if e := b.event("port-taken"); e.Facts["pod"] != "web-2" || !strings.Contains(e.Text, "pod web-2") || !strings.Contains(e.Text, takenText) {
		t.Errorf("it is said: %+v", e)
	}
	b.Leave(s)
	s, other = b.site(t, "web-2", nil)
	b.Join(s)
	if len(other.agent.subs) != 0 || len(one.ended) != 0 {
		t.Errorf("asked there %d times more, and %d ends", len(other.agent.subs), len(one.ended))
	}
}

// Where it cannot be taken over that is said.
func TestOverrideRefused(t *testing.T) {
	b := setUpWith(t, rules.IncomingOptions{Mode: rules.IncomingSteal, Held: rules.HeldOverride})
	b.agent.answer = func(*protocol.Subscribe) *protocol.Answer {
		return &protocol.Answer{Errno: syscall.EADDRINUSE, Cause: protocol.CauseHeld, Text: "port 80 is held by bob@desk since 14:00 UTC, who takes all of it"}
	}
	if err := b.Listening(t.Context(), Listener{ID: 1, Addr: netip.MustParseAddrPort(at("0.0.0.0", freePort(t)))}); err != syscall.EADDRINUSE {
		t.Errorf("got %v, want EADDRINUSE", err)
	}
	if e := b.event("port-held"); !strings.Contains(e.Text, "cannot be taken over") || !strings.Contains(e.Text, "held by bob@desk") {
		t.Errorf("it is said: %q", e.Text)
	}
}
