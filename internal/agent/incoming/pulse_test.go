package incoming

import (
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// gated is an agent's end of a link with another one, which can be stopped.
type gated struct {
	net.Conn
	gate *sync.RWMutex // held by who stops it
}

func (g gated) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	g.gate.RLock()
	defer g.gate.RUnlock()
	return n, err
}

func (g gated) Write(p []byte) (int, error) {
	g.gate.RLock()
	defer g.gate.RUnlock()
	return g.Conn.Write(p)
}

// hasty are sessions ana and bob that share port 80 with others; a silence is seen
// soon.
func hasty(t *testing.T, bobs func(net.Conn)) (n *node, ana, bob *colleague) {
	t.Helper()
	n = newNode(t)
	ana, bob = n.session("ana", 0, nil), n.session("bob", 1, bobs)
	for _, c := range []*colleague{ana, bob} {
		c.hub.beat = 20 * time.Millisecond
	}
	ana.subscribed(below("/a"))
	bob.subscribed(below("/b"))
	return n, ana, bob
}

// silence checks what c is told.
func (c *colleague) silence(want string) {
	c.t.Helper()
	if got := within(c.t, "word for "+c.name, c.notices); !strings.HasPrefix(got, "sharing-silent: port 80: ") || !strings.Contains(got, want) {
		c.t.Errorf("%s is told %q, want %q", c.name, got, want)
	}
}

// The requests of a guest whose agent is stopped go to the next session, or to the
// target, and to it again when it goes on.
func TestGuestStopped(t *testing.T) {
	n, ana, bob := hasty(t, nil)
	eve := n.session("eve", 2, nil)
	eve.subscribed(below("/b/e"))
	v := visit(ana)
	v.gets("/b/e", "200 bob")
	within(t, "word that bob gets it", eve.notices)
	bob.gate.Lock()
	ana.silence("bob since 00:01 UTC")
	v.gets("/b/e", "200 eve")
	v.gets("/b", "200 original")
	v.gets("/a", "200 ana")
	bob.gate.Unlock()
	ana.shares(3)
	v.gets("/b", "200 bob")
	if len(ana.notices) > 0 {
		t.Errorf("ana is told %q as well", <-ana.notices)
	}
}

// While it is in doubt whether a guest runs its requests wait.
func TestGuestInDoubt(t *testing.T) {
	p := newPulse()
	answers := make(chan bool)
	for _, vain := range []int{0, silentBeats} {
		p.set(lateBeats)
		go func() { answers <- p.runs(t.Context()) }()
		select {
		case got := <-answers:
			t.Errorf("got %v while it is in doubt", got)
		case <-time.After(10 * time.Millisecond):
		}
		p.set(vain)
		if got := within(t, "an answer", answers); got != (vain == 0) {
			t.Errorf("after %d beats in vain: got %v", vain, got)
		}
	}
}

// A request that a guest has when its agent is stopped is not left without an
// answer.
func TestGuestStoppedUnderWay(t *testing.T) {
	came, goOn := make(chan struct{}), make(chan struct{})
	_, ana, bob := hasty(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4<<10))
		close(came)
		<-goOn
	})
	v := visit(ana)
	ask(t, v.c, "GET /b HTTP/1.1\r\nHost: a\r\n\r\n")
	within(t, "the request", came)
	bob.gate.Lock()
	if got := answer(t, v.r, "GET"); !strings.HasPrefix(got, "502 ") {
		t.Errorf("got %q, want 502", got)
	}
	bob.gate.Unlock()
	close(goOn)
}

// Who gets requests from a holder that is stopped is told, once.
func TestHolderStopped(t *testing.T) {
	n := newNode(t)
	ana, bob := n.session("ana", 0, nil), n.session("bob", 1, nil)
	ana.hub.beat, bob.hub.beat = time.Hour, 20*time.Millisecond // who is stopped does not count
	ana.subscribed(below("/a"))
	bob.subscribed(below("/b"))
	ana.gate.Lock()
	bob.silence("which has the port")
	ana.gate.Unlock()
	ana.shares(2)
	visit(ana).gets("/b", "200 bob")
	if len(bob.notices) > 0 {
		t.Errorf("bob is told %q as well", <-bob.notices)
	}
}
