package incoming

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/tlsport"
	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules/sharing"
)

// node is a target, on which sessions hold ports, and its server.
type node struct {
	t     *testing.T
	orig  net.Listener
	files tlsport.ReadFile

	mu      sync.Mutex
	holders map[uint16]*colleague
}

// colleague is a bench of a session among others, whose local is a server of HTTP
// with the session's name.
type colleague struct {
	*bench
	name    string
	node    *node
	notices chan string
	gate    sync.RWMutex // of its ends of links with other agents

	mu    sync.Mutex
	links []net.Conn // with other agents
	dead  bool
}

func newNode(t *testing.T) *node {
	t.Helper()
	leak.Check(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, orig: ln, holders: map[uint16]*colleague{}}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: answerer("original"), Protocols: &protocols}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return n
}

// session begins one, so many minutes after the first. local may be nil.
func (n *node) session(name string, minute int, local func(net.Conn)) *colleague {
	n.t.Helper()
	c := &colleague{name: name, node: n, notices: make(chan string, 16)}
	src := newSource()
	src.holds = c.hold
	c.bench = setUpAmong(n.t, Options{
		Original: func(ctx context.Context, _, _ netip.AddrPort) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", n.orig.Addr().String())
		},
		Notice:   func(code, text string) { c.notices <- code + ": " + text },
		ReadFile: n.files,
		Session:  func() sharing.Session { return sharing.Session{Holder: name, Began: time.Unix(int64(60*minute), 0)} },
		Join:     c.join,
	}, src)
	if local == nil {
		local = serveHTTP(answerer(name))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		newActor(name).run(ctx, local, func() (net.Conn, error) {
			s, m, err := c.near.Accept(ctx)
			if err == nil && (m.(*protocol.Incoming).Peer != netip.MustParseAddrPort("192.0.2.7:50000") || m.(*protocol.Incoming).Local != netip.MustParseAddrPort("10.1.2.3:80")) {
				n.t.Errorf("%s gets %+v", name, m)
			}
			return s, err
		})
	}()
	n.t.Cleanup(func() { cancel(); within(n.t, "the end of "+name, done) })
	return c
}

// hold takes a port, or gives it up.
func (c *colleague) hold(port uint16, yes bool) error {
	c.node.mu.Lock()
	defer c.node.mu.Unlock()
	holder := c.node.holders[port]
	switch {
	case yes && holder != nil:
		return fmt.Errorf("port %d is held by %s: %w", port, holder.name, syscall.EADDRINUSE)
	case yes:
		c.node.holders[port] = c
	case holder == c:
		delete(c.node.holders, port)
	}
	return nil
}

// join connects to the holder of a port.
func (c *colleague) join(port uint16) (net.Conn, error) {
	c.node.mu.Lock()
	holder := c.node.holders[port]
	c.node.mu.Unlock()
	if holder == nil {
		return nil, syscall.ECONNREFUSED
	}
	near, far := net.Pipe()
	for _, of := range []*colleague{c, holder} {
		of.mu.Lock()
		of.links = append(of.links, far)
		dead := of.dead
		of.mu.Unlock()
		if dead {
			return nil, syscall.ECONNREFUSED
		}
	}
	holder.hub.Host(port, gated{far, &holder.gate})
	return gated{near, &c.gate}, nil
}

// dies ends the session as the kernel would end its agent: nothing is said.
func (c *colleague) dies() {
	_ = c.hold(80, false)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
	for _, l := range c.links {
		l.Close()
	}
}

func below(path string) *protocol.Subscribe {
	return &protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal, Filter: fmt.Sprintf(`{"path":{"text":"^%s"}}`, path)}
}

// visitor is a client's connection, stolen by holder.
type visitor struct {
	t *testing.T
	c net.Conn
	r *bufio.Reader
}

func visit(holder *colleague) *visitor {
	s, c := newStolen(holder.t)
	holder.steal.conns <- s
	return &visitor{holder.t, c, bufio.NewReader(c)}
}

// gets asks for path on the connection and checks who answers.
func (v *visitor) gets(path, want string) {
	v.t.Helper()
	ask(v.t, v.c, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
	if got := answer(v.t, v.r, "GET"); !strings.HasPrefix(got, want) {
		v.t.Errorf("%s: got %q, want %q", path, got, want)
	}
}

// holds waits until c holds port 80.
func (c *colleague) holds() {
	c.t.Helper()
	within(c.t, c.name+" to hold the port", c.steal.did)
	c.node.mu.Lock()
	defer c.node.mu.Unlock()
	if c.node.holders[80] != c {
		c.t.Errorf("%s does not hold the port", c.name)
	}
}

// comes waits until done says so.
func comes(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// shares waits until so many sessions may get requests from c.
func (c *colleague) shares(n int) {
	c.t.Helper()
	comes(c.t, fmt.Sprintf("%d sessions at %s", n, c.name), func() bool { return len(c.hub.recipients(key{protocol.ModeSteal, 80})) == n })
}

func TestShare(t *testing.T) {
	n := newNode(t)
	ana, bob := n.session("ana", 0, nil), n.session("bob", 1, nil)
	ana.subscribed(below("/a"))
	of := bob.subscribed(below("/b"))
	v := visit(ana)
	for range 2 {
		v.gets("/a/1", "200 ana GET /a/1")
		v.gets("/b/1", "200 bob GET /b/1")
		v.gets("/b/2", "200 bob GET /b/2")
		v.gets("/c", "200 original GET /c")
	}
	other := bob.subscribed(below("/second")) // of another listener of bob's: the newest counts
	v.gets("/second", "200 bob")
	v.gets("/b", "200 original")
	other.Close()
	of.Close()
	ana.shares(1)
	v.gets("/b/3", "200 original")
	v.gets("/a/3", "200 ana")
}

func TestShareRefused(t *testing.T) {
	n := newNode(t)
	ana, bob, eve := n.session("ana", 0, nil), n.session("bob", 1, nil), n.session("eve", 2, nil)
	refused := func(c *colleague, m *protocol.Subscribe, want string) {
		t.Helper()
		_, a := subscribe(t, c.near, m)
		if a.Errno != syscall.EADDRINUSE || a.Cause != protocol.CauseHeld || a.Text != want {
			t.Errorf("%s: got %+v, want %q", c.name, a, want)
		}
	}
	of := ana.subscribed(below("/a"))
	bob.subscribed(below("/b"))
	refused(eve, below("/a"), "port 80 is held by ana since 00:00 UTC with the same filter")
	refused(eve, below("/b"), "port 80 is held by bob since 00:01 UTC with the same filter")
	refused(eve, &wholePort, "port 80 is held by ana since 00:00 UTC, who takes some requests: it cannot be taken whole")
	refused(ana, &wholePort, "port 80 is held by bob since 00:01 UTC, who takes some requests: it cannot be taken whole")
	refused(ana, below("/b"), "port 80 is held by bob since 00:01 UTC with the same filter")
	// Ana's agent goes on for bob, without a wish of its own.
	of.Close()
	ana.shares(1)
	visit(ana).gets("/b", "200 bob")
	refused(bob, &wholePort, "port 80 is held by ana since 00:00 UTC, who gives requests only: it cannot be taken whole")
	eve.subscribed(below("/a"))
	visit(ana).gets("/a", "200 eve")
}

func TestShareWhole(t *testing.T) {
	n := newNode(t)
	ana, bob := n.session("ana", 0, nil), n.session("bob", 1, nil)
	ana.subscribed(&wholePort)
	for _, m := range []*protocol.Subscribe{below("/a"), &wholePort} {
		_, a := subscribe(t, bob.near, m)
		if want := "port 80 is held by ana since 00:00 UTC, who takes all of it"; a.Cause != protocol.CauseHeld || a.Text != want {
			t.Errorf("got %+v, want %q", a, want)
		}
	}
}

// What two sessions want goes to the one that began first, whoever holds the port,
// and the other is told.
func TestShareOverlap(t *testing.T) {
	n := newNode(t)
	ana, bob, eve := n.session("ana", 5, nil), n.session("bob", 1, nil), n.session("eve", 9, nil)
	ana.subscribed(below("/a"))
	bob.subscribed(below("/a/b"))
	eve.subscribed(below("/a/b/c"))
	v := visit(ana)
	v.gets("/a/b/c", "200 bob")
	v.gets("/a/b/c", "200 bob")
	v.gets("/a", "200 ana")
	for _, c := range []*colleague{ana, eve} {
		want := "filter-overlaps: port 80: some requests that your filter matches go to another session, bob since 00:01 UTC, which began first and whose filter matches them as well"
		if got := within(t, "word for "+c.name, c.notices); got != want {
			t.Errorf("%s is told %q, want %q", c.name, got, want)
		}
	}
	for _, c := range []*colleague{ana, bob, eve} {
		if len(c.notices) > 0 {
			t.Errorf("%s is told %q as well", c.name, <-c.notices)
		}
	}
}

// However the holder ends, another session has the port then, the rest share it,
// and what the target was answering is answered.
func TestHolderEnds(t *testing.T) {
	for name, end := range map[string]func(*colleague){
		"orderly": func(c *colleague) { c.end() },
		"killed":  (*colleague).dies,
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			ana, bob, eve := n.session("ana", 0, nil), n.session("bob", 1, nil), n.session("eve", 2, nil)
			ana.subscribed(below("/a"))
			bob.subscribed(below("/b"))
			eve.subscribed(below("/e"))
			end(ana)
			next := bob
			select {
			case <-bob.steal.did:
			case <-eve.steal.did:
				next = eve
			case <-time.After(3 * time.Second):
				t.Fatal("nobody takes the port")
			}
			next.shares(2)
			v := visit(next)
			v.gets("/b", "200 bob")
			v.gets("/e", "200 eve")
			v.gets("/a", "200 original")
			for _, c := range []*colleague{bob, eve} {
				if len(c.notices) > 0 {
					t.Errorf("%s is told %q", c.name, <-c.notices)
				}
			}
		})
	}
}

// A guest's request that is under way when the holder's session ends is answered.
func TestHolderEndsUnderWay(t *testing.T) {
	n := newNode(t)
	goOn, came := make(chan struct{}), make(chan struct{})
	slow := func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4<<10))
		close(came)
		<-goOn
		_, _ = io.WriteString(c, okReply)
	}
	ana, bob := n.session("ana", 0, nil), n.session("bob", 1, slow)
	ana.subscribed(below("/a"))
	bob.subscribed(below("/b"))
	v := visit(ana)
	ask(t, v.c, "GET /b HTTP/1.1\r\nHost: a\r\n\r\n")
	within(t, "the request", came)
	ana.end()
	bob.holds()
	close(goOn)
	if got := answer(t, v.r, "GET"); got != "200 hi" {
		t.Errorf("got %q", got)
	}
}

// Whatever becomes of a guest, its requests are answered: by the target if they
// have reached nobody, by a word about it if they have.
func TestGuestEnds(t *testing.T) {
	for name, c := range map[string]struct {
		local func(net.Conn)
		end   func(*colleague)
		want  string
	}{
		"refuses":          {func(c net.Conn) { c.(*recorded).Conn.(*link.Stream).Reset(syscall.ECONNREFUSED) }, nil, "200 original"},
		"closes":           {func(c net.Conn) { _, _ = c.Read(make([]byte, 4<<10)) }, nil, "502"},
		"says goodbye":     {nil, func(c *colleague) { c.near.Close("") }, "200 original"},
		"is killed":        {nil, (*colleague).dies, "200 original"},
		"ends":             {nil, func(c *colleague) { c.end() }, "200 original"},
		"loses its link":   {nil, func(c *colleague) { c.hub.Suspend(true) }, "200 original"},
		"loses it, waited": {func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, nil, "502"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			ana, bob := n.session("ana", 0, nil), n.session("bob", 1, c.local)
			ana.subscribed(below("/a"))
			bob.subscribed(below("/b"))
			v := visit(ana)
			v.gets("/a", "200 ana")
			if name == "loses it, waited" {
				ask(t, v.c, "GET /b HTTP/1.1\r\nHost: a\r\n\r\n")
				comes(t, "the request", func() bool {
					bob.hub.mu.Lock()
					defer bob.hub.mu.Unlock()
					return len(bob.hub.held) > 0
				})
				bob.hub.Suspend(true)
				bob.hub.Abandon()
				if got := answer(t, v.r, "GET"); !strings.HasPrefix(got, c.want) {
					t.Errorf("got %q, want %q", got, c.want)
				}
				return
			}
			if c.end != nil {
				c.end(bob)
				if name != "says goodbye" { // that is its session's end only for who hears it
					ana.shares(1)
				}
			}
			v.gets("/b", c.want)
		})
	}
}

// While the holder's link is lost its requests are the target's, and the guests'
// are theirs. When the port has gone meanwhile it is shared the other way round.
func TestHolderSuspended(t *testing.T) {
	n := newNode(t)
	ana, bob := n.session("ana", 0, nil), n.session("bob", 1, nil)
	ana.subscribed(below("/a"))
	bob.subscribed(below("/b"))
	v := visit(ana)
	ana.hub.Suspend(true)
	v.gets("/a", "200 original")
	v.gets("/b", "200 bob")
	ana.hub.Suspend(false)
	v.gets("/a", "200 ana")

	ana.hub.crowd()
	bob.holds()
	ana.hub.relieve()
	visit(bob).gets("/a", "200 ana")
	visit(bob).gets("/b", "200 bob")
}
