package incoming

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

// source brings what a test puts into it.
type source struct {
	refuse error                    // of Add
	holds  func(uint16, bool) error // is asked by Add and told by Remove; may be nil
	conns  chan net.Conn
	did    chan string // "add 80", "remove 80"
}

func newSource() *source {
	return &source{conns: make(chan net.Conn, 4), did: make(chan string, 64)}
}

func (s *source) Add(port uint16) error {
	if s.refuse != nil {
		return s.refuse
	}
	if s.holds != nil {
		if err := s.holds(port, true); err != nil {
			return err
		}
	}
	s.did <- fmt.Sprintf("add %d", port)
	return nil
}

func (s *source) Remove(port uint16) error {
	if s.holds != nil {
		_ = s.holds(port, false)
	}
	s.did <- fmt.Sprintf("remove %d", port)
	return nil
}

func (s *source) Accept(ctx context.Context) (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// bench is a hub whose link has a scripted local at the other end.
type bench struct {
	t             *testing.T
	hub           *Hub
	steal, mirror *source
	near, far     *link.Conn
	end           context.CancelFunc // of the session
	ended         chan struct{}
}

func setUp(t *testing.T) *bench {
	t.Helper()
	return setUpWith(t, Options{})
}

// conns is memory for so many connections of each mode.
func conns(steal, mirror int) Memory {
	return Memory{Connections: map[uint8]*budget.Share{
		protocol.ModeSteal:  budget.New(steal*ConnCost).Share(0, budget.All),
		protocol.ModeMirror: budget.New(mirror*ConnCost).Share(0, budget.All),
	}}
}

// setUpWith is setUp with some options, which leave the link and the sources of
// connections to it.
func setUpWith(t *testing.T, o Options) *bench {
	t.Helper()
	leak.Check(t)
	return setUpAmong(t, o, newSource())
}

// setUpAmong is setUpWith, with this source of stolen connections, where there are other benches.
func setUpAmong(t *testing.T, o Options, steal *source) *bench {
	t.Helper()
	a, z := net.Pipe()
	b := &bench{t: t, steal: steal, mirror: newSource(), near: link.New(a, link.Local, link.Options{}), far: link.New(z, link.Agent, link.Options{}), ended: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	b.end = cancel
	o.Copy = newTeed
	sources := map[uint8]Source{protocol.ModeSteal: b.steal, protocol.ModeMirror: b.mirror}
	maps.Copy(sources, o.Sources)
	o.Link, o.Sources = b.far, sources
	h := New(o)
	b.hub = h
	var wg sync.WaitGroup
	wg.Go(func() { h.Run(ctx) })
	wg.Go(func() {
		for {
			s, m, err := b.far.Accept(ctx)
			if err != nil {
				return
			}
			wg.Go(func() { h.Subscribe(ctx, s, m.(*protocol.Subscribe)) })
		}
	})
	go func() { wg.Wait(); close(b.ended) }()
	t.Cleanup(func() {
		cancel()
		within(t, "the end of the hub", b.ended)
		b.near.Close("")
		b.far.Close("")
	})
	return b
}

// subscribe asks for a port and gives the answer.
func subscribe(t *testing.T, near *link.Conn, m *protocol.Subscribe) (*link.Stream, *protocol.Answer) {
	t.Helper()
	s, err := near.Open(t.Context(), link.Interactive, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	_ = s.SetReadDeadline(time.Now().Add(3 * time.Second))
	got, err := s.Receive()
	if err != nil {
		t.Fatal(err)
	}
	return s, got.(*protocol.Answer)
}

// subscribed is subscribe with the answer yes.
func (b *bench) subscribed(m *protocol.Subscribe) *link.Stream {
	b.t.Helper()
	s, a := subscribe(b.t, b.near, m)
	if err := a.Err(); err != nil {
		b.t.Fatal(err)
	}
	return s
}

// arrived waits for a connection at local.
func (b *bench) arrived() (*link.Stream, *protocol.Incoming) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 3*time.Second)
	defer cancel()
	s, m, err := b.near.Accept(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { s.Close() })
	_ = s.SetDeadline(time.Now().Add(3 * time.Second))
	return s, m.(*protocol.Incoming)
}

// within gives what comes from ch, soon.
func within[T any](t testing.TB, what string, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(3 * time.Second):
		t.Fatalf("waited in vain for %s", what)
	}
	return v
}

// did checks what was asked of a source, in order.
func did(t *testing.T, s *source, want ...string) {
	t.Helper()
	var got []string
	for range want {
		got = append(got, within(t, fmt.Sprintf("%v", want), s.did))
	}
	if !slices.Equal(got, want) || len(s.did) > 0 {
		t.Errorf("the source did %v and %d more, want %v", got, len(s.did), want)
	}
}

// stolen is a connection that a client made, and the client's end.
type stolen struct {
	*net.TCPConn
	local, remote net.Addr
}

func (s *stolen) LocalAddr() net.Addr  { return s.local }
func (s *stolen) RemoteAddr() net.Addr { return s.remote }

func newStolen(t *testing.T) (*stolen, *net.TCPConn) {
	t.Helper()
	c, s := testnet.Pair(t)
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	return &stolen{s, tcpAddr("[::ffff:10.1.2.3]:80"), tcpAddr("192.0.2.7:50000")}, c
}

func tcpAddr(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }

func TestSubscribe(t *testing.T) {
	b := setUp(t)
	s := b.subscribed(&protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal})
	did(t, b.steal, "add 80")
	again := b.subscribed(&protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal})
	b.subscribed(&protocol.Subscribe{Port: 80, Mode: protocol.ModeMirror}) // another matter
	did(t, b.mirror, "add 80")
	did(t, b.steal) // nothing: it comes already

	s.Close()
	other := b.subscribed(&protocol.Subscribe{Port: 81, Mode: protocol.ModeSteal})
	did(t, b.steal, "add 81")
	again.Reset(syscall.ECANCELED)
	again.Close()
	did(t, b.steal, "remove 80") // with the last one
	other.CloseWrite()
	did(t, b.steal, "remove 81")
	b.end()
	did(t, b.mirror, "remove 80")
}

// before is an Existing that tells what it is asked, among what a source does.
type before struct{ s *source }

func (b before) Before(port uint16, cut bool) (begin func()) {
	b.s.did <- fmt.Sprintf("look %d %v", port, cut)
	return func() { b.s.did <- fmt.Sprintf("begin %d", port) }
}
func (b before) Forget(port uint16) { b.s.did <- fmt.Sprintf("forget %d", port) }
func (b before) Ended() uint64      { return 7 }

// Connections from before are looked at before a port is taken, and ended after
// that; only where it was asked, and only once for several subscriptions.
func TestExisting(t *testing.T) {
	b := setUp(t)
	b.hub.o.Existing = before{b.steal}
	for _, c := range []struct {
		existing uint8
		want     []string
	}{
		{protocol.ExistingStay, []string{"add 80"}},
		{protocol.ExistingIdle, []string{"look 80 false", "add 80", "begin 80"}},
		{protocol.ExistingAll, []string{"look 80 true", "add 80", "begin 80"}},
	} {
		s := b.subscribed(&protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal, Existing: c.existing})
		did(t, b.steal, c.want...)
		again := b.subscribed(&protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal, Existing: c.existing})
		did(t, b.steal)
		again.Close()
		s.Close()
		did(t, b.steal, "forget 80", "remove 80")
	}
	b.subscribed(&protocol.Subscribe{Port: 80, Mode: protocol.ModeMirror, Existing: protocol.ExistingAll})
	did(t, b.mirror, "add 80")
	if got := b.hub.Counts(); got != (protocol.Counts{Ended: 7}) {
		t.Errorf("counted %+v", got)
	}
	b.end()
	did(t, b.mirror, "remove 80")
	did(t, b.steal)
}

func TestSubscribeAnewAtOnce(t *testing.T) {
	b := setUp(t)
	for range 20 { // a server that is reloaded
		s := b.subscribed(&protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal})
		s.Close()
	}
	adds, want := 0, 0
	for done := false; !done; {
		switch within(t, "the end", b.steal.did) {
		case "add 80":
			adds++
			want++
		case "remove 80":
			adds--
		}
		done = adds == 0 && want > 0 && len(b.steal.did) == 0
	}
}

// While nobody can answer, the target serves its ports itself.
func TestSuspend(t *testing.T) {
	b := setUp(t)
	kept := b.subscribed(&protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal})
	ended := b.subscribed(&protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal})
	b.subscribed(&protocol.Subscribe{Port: 80, Mode: protocol.ModeMirror})
	did(t, b.steal, "add 80")
	did(t, b.mirror, "add 80")
	b.hub.Suspend(true)
	b.hub.Suspend(true) // no news
	did(t, b.steal, "remove 80")
	did(t, b.mirror) // copies are in nobody's way
	ended.Close()
	b.hub.Suspend(false)
	did(t, b.steal, "add 80")

	// Another session was faster: the program is told.
	b.hub.Suspend(true)
	did(t, b.steal, "remove 80")
	b.steal.refuse = fmt.Errorf("held: %w", syscall.EADDRINUSE)
	b.hub.Suspend(false)
	if _, err := kept.ReadByte(); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("the subscription ended with %v, want %v", err, syscall.EADDRINUSE)
	}
	b.steal.refuse = nil
	again := b.subscribed(&protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal})
	did(t, b.steal, "add 80")
	again.Close()
	did(t, b.steal, "remove 80")
}

// When no more can be carried the target serves its ports itself, what is
// carried stays as it is, and copies have slots of their own.
func TestCrowd(t *testing.T) {
	notices := make(chan string, 16)
	b := setUpWith(t, Options{Memory: conns(4, 4), Notice: func(code, _ string) { notices <- code }})
	b.subscribed(&protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal})
	b.subscribed(&protocol.Subscribe{Port: 8080, Mode: protocol.ModeMirror})
	did(t, b.steal, "add 80")
	var clients []*net.TCPConn
	var locals []*link.Stream
	come := func() {
		s, c := newStolen(t)
		b.steal.conns <- s
		clients = append(clients, c)
	}
	for range 4 {
		come()
		s, _ := b.arrived()
		locals = append(locals, s)
	}
	did(t, b.steal, "remove 80")
	if got := within(t, "a notice", notices); got != "port-crowded" {
		t.Errorf("the notice is %s", got)
	}
	b.mirror.conns <- newCopied()
	if _, m := b.arrived(); m.Mode != protocol.ModeMirror {
		t.Errorf("then arrives %+v, want a copy", m)
	}
	if _, err := io.WriteString(clients[0], "x"); err != nil {
		t.Fatal(err)
	}
	if c, err := locals[0].ReadByte(); c != 'x' || err != nil {
		t.Errorf("local reads %q, %v", c, err)
	}
	leave := func(i int) {
		clients[i].SetLinger(0)
		clients[i].Close()
	}
	leave(0)
	leave(1) // the one who waits to be accepted has the third slot
	leave(2)
	did(t, b.steal, "add 80")

	// Lost as well: it takes both to end.
	b.hub.Suspend(true)
	did(t, b.steal, "remove 80")
	b.hub.crowd()
	b.hub.Suspend(false)
	did(t, b.steal)
	b.hub.relieve()
	did(t, b.steal, "add 80")
	if len(notices) > 0 {
		t.Errorf("then also %s", <-notices)
	}
}

// What is subscribed to takes memory, which is bounded, and given back.
func TestWishesAreBounded(t *testing.T) {
	wish := func(port uint16) *protocol.Subscribe {
		return &protocol.Subscribe{Port: port, Mode: protocol.ModeMirror, Filter: localFilter, Probes: []string{"/health"}}
	}
	r, err := newRule(wish(80))
	if err != nil || r.cost < ruleCost+len(localFilter)+r.filter.Bytes() {
		t.Fatalf("a rule costs %d bytes, %v", r.cost, err)
	}
	room := budget.New(2*r.cost).Share(0, budget.All)
	b := setUpWith(t, Options{Memory: Memory{Wishes: room}})
	first := b.subscribed(wish(80))
	b.subscribed(wish(81))
	if _, a := subscribe(t, b.near, wish(82)); a.Errno != syscall.ENOMEM {
		t.Errorf("one too many: %v %q, want ENOMEM", a.Errno, a.Text)
	}
	if _, a := subscribe(t, b.near, &protocol.Subscribe{Port: 0, Mode: protocol.ModeMirror}); a.Errno != syscall.EINVAL || room.Used() != 2*r.cost {
		t.Errorf("a refused one: %v, %d bytes are taken", a.Errno, room.Used())
	}
	first.Close()
	for end := time.Now().Add(10 * time.Second); room.Used() > r.cost; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("its memory is not given back")
		}
	}
	b.subscribed(wish(82))
}

func TestRefusedSubscriptions(t *testing.T) {
	for _, c := range []struct {
		name    string
		m       protocol.Subscribe
		refuse  error
		missing bool
		errno   syscall.Errno
		cause   protocol.Cause
		text    string
	}{
		{"held", protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal}, fmt.Errorf("port 80 is held by bob@desk: %w", syscall.EADDRINUSE), false,
			syscall.EADDRINUSE, protocol.CauseHeld, "port 80 is held by bob@desk: address already in use"},
		{"not allowed", protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal}, fmt.Errorf("load: %w", syscall.EPERM), false,
			syscall.EPERM, protocol.CauseDenied, "load: operation not permitted"},
		{"another errno", protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal}, syscall.ENOSPC, false, syscall.ENOSPC, 0, "no space left on device"},
		{"no errno", protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal}, errors.New("odd"), false, syscall.EIO, 0, "odd"},
		{"the agent cannot", protocol.Subscribe{Port: 80, Mode: protocol.ModeMirror}, nil, true,
			syscall.EOPNOTSUPP, protocol.CauseDenied, "CAP_NET_RAW is missing"},
		{"unknown mode", protocol.Subscribe{Port: 80, Mode: 9}, nil, false, syscall.EINVAL, protocol.CauseUnsupported, "mode 9 is not known to this agent"},
		{"filter", protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal, Filter: "x"}, nil, false,
			syscall.EOPNOTSUPP, protocol.CauseUnsupported, "this agent cannot filter stolen ports"},
		{"no filter", protocol.Subscribe{Port: 80, Mode: protocol.ModeMirror, Filter: "x"}, nil, false,
			syscall.EINVAL, 0, "read a filter: invalid character 'x' looking for beginning of value"},
		{"bad pattern", protocol.Subscribe{Port: 80, Mode: protocol.ModeMirror, Filter: `{"path":{"text":"(","origin":"x.json:3"}}`}, nil, false,
			syscall.EINVAL, 0, "x.json:3: path filter \"(\": missing closing ): `(`"},
		{"too many probes", protocol.Subscribe{Port: 80, Mode: protocol.ModeMirror, Probes: make([]string, maxProbes+1)}, nil, false,
			syscall.EINVAL, 0, "a port has at most 64 probes, not 65"},
		{"filter of datagrams", protocol.Subscribe{Port: 53, Mode: protocol.ModeSteal | protocol.ModeUDP, Filter: "x"}, nil, false,
			syscall.EINVAL, 0, "datagrams have no filter"},
		{"port 0", protocol.Subscribe{Mode: protocol.ModeSteal}, nil, false, syscall.EINVAL, 0, "port 0 cannot be subscribed to"},
	} {
		t.Run(c.name, func(t *testing.T) {
			leak.Check(t)
			src := newSource()
			src.refuse = c.refuse
			sources, missing := map[uint8]Source{protocol.ModeSteal: src, protocol.ModeMirror: src, protocol.ModeSteal | protocol.ModeUDP: src}, map[uint8]string{}
			if c.missing {
				delete(sources, protocol.ModeMirror)
				missing[protocol.ModeMirror] = "CAP_NET_RAW is missing"
			}
			a, z := net.Pipe()
			near, far := link.New(a, link.Local, link.Options{}), link.New(z, link.Agent, link.Options{})
			defer far.Close("")
			defer near.Close("")
			h := New(Options{Link: far, Sources: sources, Missing: missing})
			done := make(chan struct{})
			go func() {
				defer close(done)
				if s, m, err := far.Accept(context.Background()); err == nil {
					h.Subscribe(context.Background(), s, m.(*protocol.Subscribe))
				}
			}()
			s, got := subscribe(t, near, &c.m)
			if got.Errno != c.errno || got.Cause != c.cause || got.Text != c.text {
				t.Errorf("got %v, cause %d, %q, want %v, cause %d, %q", got.Errno, got.Cause, got.Text, c.errno, c.cause, c.text)
			}
			if _, err := s.Receive(); !errors.Is(err, io.EOF) {
				t.Errorf("after the answer comes %v, want the end", err)
			}
			within(t, "the end of the subscription", done)
			did(t, src)
		})
	}
}

func TestStolen(t *testing.T) {
	b := setUp(t)
	c, client := newStolen(t)
	b.steal.conns <- c
	s, m := b.arrived()
	ap := netip.MustParseAddrPort
	if want := (protocol.Incoming{Port: 80, Mode: protocol.ModeSteal, Peer: ap("192.0.2.7:50000"), Local: ap("10.1.2.3:80")}); *m != want {
		t.Errorf("got %+v, want %+v", *m, want)
	}
	if s.Lane() != link.Bulk {
		t.Error("a connection's data goes as interactive")
	}
	request, reply := bytes.Repeat([]byte("q"), 1<<20), bytes.Repeat([]byte("a"), 1<<20)
	go func() { client.Write(request); client.CloseWrite() }()
	if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, request) {
		t.Fatalf("local got %d bytes, %v, want %d", len(got), err, len(request))
	}
	go func() { s.Write(reply); s.CloseWrite() }()
	if got, err := io.ReadAll(client); err != nil || !bytes.Equal(got, reply) {
		t.Errorf("the client got %d bytes, %v, want %d", len(got), err, len(reply))
	}
}

func TestStolenIsReset(t *testing.T) {
	var reset *link.ResetError
	t.Run("by local", func(t *testing.T) { // nobody listens there
		b := setUp(t)
		c, client := newStolen(t)
		b.steal.conns <- c
		s, _ := b.arrived()
		s.Reset(syscall.ECONNREFUSED)
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client reads %v, want ECONNRESET", err)
		}
	})
	t.Run("by the client", func(t *testing.T) {
		b := setUp(t)
		c, client := newStolen(t)
		b.steal.conns <- c
		s, _ := b.arrived()
		client.SetLinger(0)
		client.Close()
		if _, err := s.Read(make([]byte, 1)); !errors.As(err, &reset) || reset.Errno != syscall.ECONNRESET {
			t.Errorf("local reads %v, want a reset with ECONNRESET", err)
		}
	})
	t.Run("by the end of the session", func(t *testing.T) {
		b := setUp(t)
		sub := b.subscribed(&protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal})
		c, client := newStolen(t)
		b.steal.conns <- c
		b.arrived()
		b.end()
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client reads %v, want ECONNRESET", err)
		}
		if _, err := sub.Read(make([]byte, 1)); !errors.As(err, &reset) || reset.Errno != syscall.ESHUTDOWN {
			t.Errorf("the subscription ends with %v, want ESHUTDOWN", err)
		}
		did(t, b.steal, "add 80", "remove 80")
	})
	t.Run("by the loss of the link", func(t *testing.T) {
		b := setUp(t)
		b.subscribed(&protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal})
		c, client := newStolen(t)
		b.steal.conns <- c
		b.arrived()
		b.near.Close("")
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client reads %v, want ECONNRESET", err)
		}
		did(t, b.steal, "add 80", "remove 80")

		c, client = newStolen(t) // one that comes too late
		b.steal.conns <- c
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a later client reads %v, want ECONNRESET", err)
		}
	})
}

// copied is the copy of a connection: it can be read and closed.
type copied struct {
	net.Conn // nil: nothing else is called
	data     chan []byte
	rest     []byte // of what was said, for which there was no room
	err      error  // when data is closed
	closed   chan struct{}
	once     sync.Once
	ignored  atomic.Bool
}

func newCopied() *copied {
	return &copied{data: make(chan []byte, 4), err: io.EOF, closed: make(chan struct{})}
}

func (c *copied) Ignore()              { c.ignored.Store(true) }
func (c *copied) LocalAddr() net.Addr  { return tcpAddr("[2001:db8::3]:8080") }
func (c *copied) RemoteAddr() net.Addr { return tcpAddr("[2001:db8::7]:50000") }
func (c *copied) Close() error         { c.once.Do(func() { close(c.closed) }); return nil }

// SetReadDeadline is that of any copy.
func (c *copied) SetReadDeadline(time.Time) error { return os.ErrNoDeadline }

func (c *copied) Read(p []byte) (int, error) {
	if len(c.rest) > 0 {
		n := copy(p, c.rest)
		c.rest = c.rest[n:]
		return n, nil
	}
	select {
	case d, ok := <-c.data:
		if !ok {
			return 0, c.err
		}
		n := copy(p, d)
		c.rest = d[n:]
		return n, nil
	case <-c.closed:
		return 0, net.ErrClosed
	}
}

// teed is a copied that is filled by the hub, and has room for some pieces.
type teed struct{ *copied }

func newTeed(netip.AddrPort, netip.AddrPort) Copy { return teed{newCopied()} }

func (c teed) Push(data []byte) error {
	select {
	case <-c.closed:
		return net.ErrClosed
	default:
	}
	select {
	case c.data <- data:
		return nil
	default:
		return errors.New("no room")
	}
}

func (c teed) Finish(err error) {
	c.err = err
	close(c.data)
}

func TestMirrored(t *testing.T) {
	b := setUp(t)
	c := newCopied()
	b.mirror.conns <- c
	s, m := b.arrived()
	ap := netip.MustParseAddrPort
	if want := (protocol.Incoming{Port: 8080, Mode: protocol.ModeMirror, Peer: ap("[2001:db8::7]:50000"), Local: ap("[2001:db8::3]:8080")}); *m != want {
		t.Errorf("got %+v, want %+v", *m, want)
	}
	c.data <- []byte("request")
	close(c.data)
	// A reply, against the protocol, goes nowhere and blocks nothing.
	if _, err := s.Write(make([]byte, 1<<20)); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(s); err != nil || string(got) != "request" {
		t.Errorf("local got %q, %v, want request", got, err)
	}
	s.Close()
	within(t, "the close of the copy", c.closed)
}

func TestEndOfCopies(t *testing.T) {
	t.Run("incomplete", func(t *testing.T) {
		b := setUp(t)
		c := newCopied()
		c.err = errors.New("packets were lost")
		b.mirror.conns <- c
		s, _ := b.arrived()
		close(c.data)
		var reset *link.ResetError
		if _, err := io.ReadAll(s); !errors.As(err, &reset) {
			t.Errorf("local reads %v, want a reset", err)
		}
		within(t, "the close of the copy", c.closed)
	})
	t.Run("nobody wants it", func(t *testing.T) {
		b := setUp(t)
		c := newCopied()
		b.mirror.conns <- c
		s, _ := b.arrived()
		s.Reset(syscall.ECONNREFUSED) // and the client says nothing more
		within(t, "the close of the copy", c.closed)
	})
	t.Run("session", func(t *testing.T) {
		b := setUp(t)
		c := newCopied()
		b.mirror.conns <- c
		b.arrived()
		b.end()
		within(t, "the close of the copy", c.closed)
	})
}
