package incoming

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// over is m as a session asks that takes over.
func over(m *protocol.Subscribe) *protocol.Subscribe {
	o := *m
	o.Override = true
	return &o
}

// taken waits for the word that another session has taken what of stands for.
func taken(t *testing.T, of *link.Stream, want string) {
	t.Helper()
	_ = of.SetReadDeadline(time.Now().Add(3 * time.Second))
	m, err := of.Receive()
	if err != nil {
		t.Fatalf("waited for the word of the take-over: %v", err)
	}
	a, ok := m.(*protocol.Answer)
	if !ok || a.Cause != protocol.CauseTaken || a.Errno != syscall.EADDRINUSE || a.Text != want {
		t.Errorf("the last word is %+v, want %q", m, want)
	}
	if _, err := of.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("and then %v, want the end", err)
	}
	of.Close()
}

// has checks that a subscription stands.
func has(t *testing.T, of *link.Stream) {
	t.Helper()
	_ = of.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if m, err := of.Receive(); !timeout(err) {
		t.Errorf("got %+v, %v, want nothing", m, err)
	}
	_ = of.SetReadDeadline(time.Time{})
}

const takenByBob = "port 80 has been taken over by bob, whose session began at 00:01 UTC"

func TestTakeOver(t *testing.T) {
	whole := &wholePort
	for name, c := range map[string]struct {
		had, asks *protocol.Subscribe
		taken     bool              // what was had
		holds     string            // the port, then
		gets      map[string]string // who gets a request
	}{
		"whole from whole":         {whole, whole, true, "bob", map[string]string{"/a": "bob", "/x": "bob"}},
		"whole from a filter":      {below("/a"), whole, true, "bob", map[string]string{"/a": "bob", "/x": "bob"}},
		"a filter from whole":      {whole, below("/a"), true, "ana", map[string]string{"/a": "bob", "/x": "original"}},
		"the same filter":          {below("/a"), below("/a"), true, "ana", map[string]string{"/a": "bob", "/x": "original"}},
		"another filter, as usual": {below("/a"), below("/b"), false, "ana", map[string]string{"/a": "ana", "/b": "bob", "/x": "original"}},
		"a filter from lossless copies": {&protocol.Subscribe{Port: 80, Mode: protocol.ModeTee}, below("/a"), true, "ana",
			map[string]string{"/a": "bob", "/x": "original"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			ana, bob := n.session("ana", 0, nil), n.session("bob", 1, nil)
			of := ana.subscribed(c.had)
			got := bob.subscribed(over(c.asks))
			if c.taken {
				taken(t, of, takenByBob)
			} else {
				has(t, of)
			}
			has(t, got)
			n.mu.Lock()
			holder := n.holders[80]
			n.mu.Unlock()
			if holder == nil || holder.name != c.holds {
				t.Fatalf("%+v holds the port, want %s", holder, c.holds)
			}
			for path, who := range c.gets {
				visit(holder).gets(path, "200 "+who)
			}
			// It does not come back by itself.
			got.Close()
			if c.taken {
				comes(t, "the target's port", func() bool {
					n.mu.Lock()
					defer n.mu.Unlock()
					return n.holders[80] == nil
				})
			}
		})
	}
}

// Copies are in nobody's way, and take nothing from anybody.
func TestCopiesTakeNothing(t *testing.T) {
	n := newNode(t)
	ana, bob := n.session("ana", 0, nil), n.session("bob", 1, nil)
	of := ana.subscribed(&wholePort)
	bob.subscribed(&protocol.Subscribe{Port: 80, Mode: protocol.ModeMirror, Override: true})
	_, a := subscribe(t, bob.near, &protocol.Subscribe{Port: 80, Mode: protocol.ModeTee, Override: true})
	if a.Cause != protocol.CauseHeld {
		t.Errorf("lossless copies: got %+v, want that the port is held", a)
	}
	has(t, of)
}

// Of several sessions that share a port only those lose something who are in the way,
// whoever has the port.
func TestTakeOverAmongGuests(t *testing.T) {
	n := newNode(t)
	ana, bob, eve := n.session("ana", 0, nil), n.session("bob", 1, nil), n.session("eve", 2, nil)
	ofAna, ofBob := ana.subscribed(below("/a")), bob.subscribed(below("/b"))
	ofEve := eve.subscribed(over(below("/b")))
	taken(t, ofBob, "port 80 has been taken over by eve, whose session began at 00:02 UTC")
	v := visit(ana)
	v.gets("/a", "200 ana")
	v.gets("/b", "200 eve")

	again := bob.subscribed(over(below("/b"))) // which bob asks for anew
	taken(t, ofEve, takenByBob)
	v.gets("/b", "200 bob")

	second := ana.subscribed(over(below("/b"))) // whose agent has the port
	taken(t, again, "port 80 has been taken over by ana, whose session began at 00:00 UTC")
	v.gets("/b", "200 ana")
	has(t, ofAna)

	bob.subscribed(below("/c"))
	eve.subscribed(over(&wholePort))
	for _, of := range []*link.Stream{ofAna, second} {
		taken(t, of, "port 80 has been taken over by eve, whose session began at 00:02 UTC")
	}
	eve.holds()
	visit(eve).gets("/c", "200 eve")
	v.gets("/a", "200 original") // a connection from before
}

// A holder without a wish of its own gives the whole port up, too, also to a guest.
func TestTakeOverFromGiver(t *testing.T) {
	n := newNode(t)
	ana, bob, eve := n.session("ana", 0, nil), n.session("bob", 1, nil), n.session("eve", 2, nil)
	of := ana.subscribed(below("/a"))
	bob.subscribed(below("/b"))
	ofEve := eve.subscribed(below("/e"))
	of.Close()
	ana.shares(2)
	bob.subscribed(over(&wholePort))
	taken(t, ofEve, takenByBob)
	bob.holds()
	visit(bob).gets("/e", "200 bob")
}

// What was taken over is not asked for again, and what took it over does not take it
// again: not when a link comes back, and not when the holder ends.
func TestTakeOverIsSaidOnce(t *testing.T) {
	n := newNode(t)
	ana, bob := n.session("ana", 0, nil), n.session("bob", 1, nil)
	of := ana.subscribed(&wholePort)
	got := bob.subscribed(over(&wholePort))
	taken(t, of, takenByBob)
	bob.holds()
	ana.hub.Suspend(true)
	ana.hub.Suspend(false)
	has(t, got)

	bob.hub.Suspend(true)
	of = ana.subscribed(&wholePort) // the port is free
	bob.hub.Suspend(false)
	_ = got.SetReadDeadline(time.Now().Add(3 * time.Second))
	if _, err := got.Receive(); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("bob, whose port has gone meanwhile, gets %v", err)
	}
	has(t, of)
	if said := within(t, "word for bob", bob.notices); !strings.HasPrefix(said, "port-taken: port 80 cannot be had any more: ") || !strings.Contains(said, "held by ana") {
		t.Errorf("bob is told %q", said)
	}
}

// Of several who take over at once one has the port, and all others are told.
func TestTakeOverAtOnce(t *testing.T) {
	n := newNode(t)
	ana := n.session("ana", 0, nil)
	of := []*link.Stream{ana.subscribed(&wholePort)}
	var others []*colleague
	for i, name := range []string{"bob", "eve", "dan"} {
		others = append(others, n.session(name, i+1, nil))
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, c := range others {
		wg.Go(func() {
			s, err := c.near.Open(t.Context(), link.Interactive, over(&wholePort))
			if err != nil {
				t.Error(err)
				return
			}
			_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
			m, err := s.Receive()
			if a, ok := m.(*protocol.Answer); err != nil || !ok || a.Err() != nil {
				t.Errorf("%s: got %+v, %v", c.name, m, err)
			}
			mu.Lock()
			defer mu.Unlock()
			of = append(of, s)
		})
	}
	wg.Wait()
	told := 0
	for _, s := range of {
		_ = s.SetReadDeadline(time.Now().Add(time.Second / 2))
		m, err := s.Receive()
		if a, ok := m.(*protocol.Answer); ok && a.Cause == protocol.CauseTaken {
			told++
		} else if !timeout(err) {
			t.Errorf("got %+v, %v", m, err)
		}
	}
	if told != len(others) {
		t.Errorf("%d sessions are told, want all but one, %d", told, len(others))
	}
	n.mu.Lock()
	holder := n.holders[80]
	n.mu.Unlock()
	if holder == nil {
		t.Fatal("nobody has the port")
	}
	visit(holder).gets("/x", "200 "+holder.name)
	for _, s := range of {
		s.Close()
	}
}

// A request that the former holder's program has is answered by it.
func TestTakenUnderWay(t *testing.T) {
	for name, m := range map[string]*protocol.Subscribe{"whole": &wholePort, "filtered": below("/a")} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			goOn, came := make(chan struct{}), make(chan struct{})
			slow := func(c net.Conn) {
				_, _ = c.Read(make([]byte, 4<<10))
				close(came)
				<-goOn
				_, _ = io.WriteString(c, okReply)
			}
			ana, bob := n.session("ana", 0, slow), n.session("bob", 1, nil)
			of := ana.subscribed(m)
			v := visit(ana)
			ask(t, v.c, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
			within(t, "the request", came)
			bob.subscribed(over(&wholePort))
			taken(t, of, takenByBob)
			bob.holds()
			close(goOn)
			if got := answer(t, v.r, "GET"); got != "200 hi" {
				t.Errorf("got %q", got)
			}
			visit(bob).gets("/a", "200 bob")
		})
	}
}
