package incoming

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// bench is the ports of a session whose link has a scripted agent at the other
// end, and a program that is a table of listeners.
type bench struct {
	*Ports
	t         *testing.T
	near, far *link.Conn
	agent     agent
	answering sync.WaitGroup // all agents

	lost   chan struct{} // gets one for each port-lost
	dialed chan struct{} // gets one for each attempt that succeeded

	mu       sync.Mutex
	events   []event.Event
	attempts []Attempt
	programs map[Attempt]net.Listener // by where an attempt leads; Src is left out
	sockets  map[Attempt]net.PacketConn
}

// agent keeps the subscriptions that it got.
type agent struct {
	answer func(m *protocol.Subscribe) *protocol.Answer // nil: no answer
	subs   chan *sub
}

type sub struct {
	*protocol.Subscribe
	s     *link.Stream
	ended chan error // local has ended it
}

func yes(*protocol.Subscribe) *protocol.Answer { return &protocol.Answer{} }

var podHost = Host{
	Pod4: netip.MustParseAddr("10.1.2.3"), Pod6: netip.MustParseAddr("fd00::3"),
	Localhost4: netip.MustParseAddr("198.18.0.1"), Localhost6: netip.MustParseAddr("fd00:6d69::1"),
}

// newBench makes one without any rules but a mode; end must be called. listen is
// Options.Listen.
func newBench(t *testing.T, mode uint8, listen func(network, address string) (net.Listener, error)) (b *bench, end func()) {
	name := map[uint8]string{0: rules.IncomingOff, protocol.ModeMirror: rules.IncomingMirror, protocol.ModeSteal: rules.IncomingSteal}[mode]
	return newBenchWith(t, rules.IncomingOptions{Mode: name}, listen)
}

func newBenchWith(t *testing.T, o rules.IncomingOptions, listen func(network, address string) (net.Listener, error)) (b *bench, end func()) {
	t.Helper()
	in, err := rules.NewIncoming(o, false)
	if err != nil {
		t.Fatal(err)
	}
	b = &bench{t: t, agent: agent{answer: yes, subs: make(chan *sub, 64)},
		lost: make(chan struct{}, 8), dialed: make(chan struct{}, 256), programs: map[Attempt]net.Listener{}, sockets: map[Attempt]net.PacketConn{}}
	b.connect()
	b.Ports = New(Options{Link: b, Rules: in, Host: podHost, Dial: b.dial, DialUDP: b.dialUDP, Listen: listen, ListenPacket: net.ListenPacket, Emit: func(e event.Event) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.events = append(b.events, e)
		if e.Code == "port-lost" {
			b.lost <- struct{}{}
		}
	}})
	return b, func() {
		b.Close()
		b.near.Close("")
		b.far.Close("")
		b.answering.Wait()
	}
}

// connect gives the session a new agent in place of the one that it may have.
func (b *bench) connect() {
	if b.near != nil {
		b.far.Close("the target has ended")
		<-b.near.Done()
	}
	a, z := net.Pipe()
	b.near, b.far = link.New(a, link.Local, link.Options{}), link.New(z, link.Agent, link.Options{})
	far := b.far
	b.answering.Go(func() {
		for {
			s, m, err := far.Accept(context.Background())
			if err != nil {
				return
			}
			b.answering.Go(func() {
				one := &sub{m.(*protocol.Subscribe), s, make(chan error, 1)}
				b.agent.subs <- one
				if answer := b.agent.answer(one.Subscribe); answer != nil {
					_ = s.Send(answer)
				}
				_, err := s.Read(make([]byte, 1))
				one.ended <- err
				s.Close()
			})
		}
	})
}

// Open implements Opener by the link that there is now.
func (b *bench) Open(ctx context.Context, lane link.Lane, m protocol.Message) (*link.Stream, error) {
	return b.near.Open(ctx, lane, m)
}

func setUp(t *testing.T, mode uint8) *bench {
	t.Helper()
	leak.Check(t)
	b, end := newBench(t, mode, net.Listen)
	t.Cleanup(end)
	return b
}

// setUpWith is setUp with rules.
func setUpWith(t *testing.T, o rules.IncomingOptions) *bench {
	t.Helper()
	leak.Check(t)
	b, end := newBenchWith(t, o, net.Listen)
	t.Cleanup(end)
	return b
}

// dial is Options.Dial.
func (b *bench) dial(ctx context.Context, a Attempt) (net.Conn, error) {
	b.mu.Lock()
	b.attempts = append(b.attempts, a)
	a.Src = netip.AddrPort{}
	ln := b.programs[a]
	b.mu.Unlock()
	if ln == nil {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", ln.Addr().String())
	if err == nil {
		b.dialed <- struct{}{}
	}
	return c, err
}

// dialUDP is Options.DialUDP: where there is no program the socket is connected to
// nobody, as the sandbox's are.
func (b *bench) dialUDP(_ context.Context, a Attempt) (net.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.attempts = append(b.attempts, a)
	a.Src = netip.AddrPort{}
	c := b.sockets[a]
	if c == nil {
		return nil, &net.OpError{Op: "dial", Err: syscall.EADDRINUSE}
	}
	return net.Dial("udp", c.LocalAddr().String())
}

// socket lets attempts by way to dst reach a UDP socket.
func (b *bench) socket(way Way, dst string) net.PacketConn {
	b.t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sockets[Attempt{Way: way, Dst: netip.MustParseAddrPort(dst)}] = c
	return c
}

// program lets attempts by way to dst reach a server.
func (b *bench) program(way Way, dst string) *net.TCPListener {
	b.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { ln.Close() })
	b.mu.Lock()
	defer b.mu.Unlock()
	b.programs[Attempt{Way: way, Dst: netip.MustParseAddrPort(dst)}] = ln
	return ln.(*net.TCPListener)
}

// tried gives the attempts so far.
func (b *bench) tried() []Attempt {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.attempts)
}

// deliver serves one connection of the target; its stream's end is the
// agent's.
func (b *bench) deliver(ctx context.Context, m *protocol.Incoming) (agent *link.Stream, done chan struct{}) {
	b.t.Helper()
	agent, err := b.far.Open(b.t.Context(), link.Bulk, m)
	if err != nil {
		b.t.Fatal(err)
	}
	_ = agent.SetDeadline(time.Now().Add(3 * time.Second))
	s, got, err := b.near.Accept(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	done = make(chan struct{})
	go func() { b.Serve(ctx, s, got.(*protocol.Incoming)); close(done) }()
	b.t.Cleanup(func() { agent.Close(); within(b.t, "the end of a delivery", done) })
	return agent, done
}

// listening is Listening with success.
func (b *bench) listening(id uint64, addr string) {
	b.t.Helper()
	b.heard(Listener{ID: id, Addr: netip.MustParseAddrPort(addr)})
}

func (b *bench) heard(l Listener) {
	b.t.Helper()
	if err := b.Listening(b.t.Context(), l); err != nil {
		b.t.Fatalf("listen on %s: %v", l.Addr, err)
	}
}

// event gives the only event with a code.
func (b *bench) event(code string) (e event.Event) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, one := range b.events {
		if one.Code == code {
			e = one
			n++
		}
	}
	if n != 1 {
		b.t.Errorf("%d events %s, want 1: %v", n, code, b.events)
	}
	return e
}

// wantEvents checks the codes of all events so far.
func (b *bench) wantEvents(want ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var got []string
	for _, e := range b.events {
		got = append(got, e.Code)
	}
	if !slices.Equal(got, want) {
		b.t.Errorf("events %v, want %v: %v", got, want, b.events)
	}
}

// freePort is one that nobody on this machine's loopback has, in either
// family, below those that the kernel gives to clients (ip_local_port_range).
func freePort(t *testing.T) uint16 {
	t.Helper()
	for range 100 {
		port := uint16(15000 + rand.IntN(17000))
		free := true
		for _, host := range []string{"127.0.0.1", "::1"} {
			ln, err := net.Listen("tcp", at(host, port))
			if err != nil {
				free = false
				break
			}
			ln.Close()
		}
		if free {
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// reachable reports whether somebody listens on this machine's loopback; the
// connection may be reset at once.
func reachable(t *testing.T, port uint16) bool {
	t.Helper()
	c, err := net.Dial("tcp", at("127.0.0.1", port))
	switch {
	case err == nil:
		c.Close()
	case errors.Is(err, syscall.ECONNREFUSED):
		return false
	case !errors.Is(err, syscall.ECONNRESET):
		t.Error(err)
	}
	return true
}

func at(host string, port uint16) string { return net.JoinHostPort(host, fmt.Sprint(port)) }

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
