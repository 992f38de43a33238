package outgoing

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
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
	"github.com/mirrord-go/mirrord/internal/testnet"
)

// bench is a router whose link has a scripted agent at the other end.
type bench struct {
	*Router
	t     testing.TB
	near  *link.Conn
	far   *link.Conn
	flows sync.WaitGroup

	mu     sync.Mutex
	events []event.Event
}

// newBench makes one; agent is called with each stream, which it owns. end
// must be called.
func newBench(t testing.TB, agent func(s *link.Stream, m protocol.Message)) (b *bench, end func()) {
	a, z := net.Pipe()
	b = &bench{t: t, near: link.New(a, link.Local, link.Options{}), far: link.New(z, link.Agent, link.Options{})}
	b.Router = &Router{Link: b.near, Rules: &rules.Outgoing{}, Translate: func(a netip.AddrPort) netip.AddrPort { return a }, Emit: func(e event.Event) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.events = append(b.events, e)
	}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			s, m, err := b.far.Accept(context.Background())
			if err != nil {
				return
			}
			wg.Go(func() { agent(s, m) })
		}
	})
	return b, func() {
		b.near.Close("")
		b.far.Close("")
		wg.Wait()
		b.flows.Wait()
	}
}

// rule makes o the rules.
func (b *bench) rule(o rules.OutgoingOptions) {
	b.t.Helper()
	r, err := rules.NewOutgoing(o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Rules = r
}

// setUp is newBench for a test without a bubble.
func setUp(t *testing.T, agent func(s *link.Stream, m protocol.Message)) *bench {
	t.Helper()
	leak.Check(t)
	b, end := newBench(t, agent)
	t.Cleanup(end)
	return b
}

func (b *bench) tcp(ctx context.Context, f TCPFlow) (done chan struct{}) {
	done = make(chan struct{})
	b.flows.Go(func() { b.TCP(ctx, f); close(done) })
	return done
}

func (b *bench) udp(ctx context.Context, f UDPFlow) (done chan struct{}) {
	done = make(chan struct{})
	b.flows.Go(func() { b.UDP(ctx, f); close(done) })
	return done
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

// attempt is a connection attempt of a program.
type attempt struct {
	dst     netip.AddrPort
	near    net.Conn // what Accept gives; nil: the program has given up
	program *net.TCPConn

	accepted chan struct{}
	refused  chan syscall.Errno
}

func newAttempt(t *testing.T, dst string) *attempt {
	near, program := testnet.Pair(t)
	return &attempt{dst: netip.MustParseAddrPort(dst), near: near, program: program, accepted: make(chan struct{}), refused: make(chan syscall.Errno, 2)}
}

func (f *attempt) Src() netip.AddrPort { return netip.MustParseAddrPort("10.1.2.3:40000") }
func (f *attempt) Dst() netip.AddrPort { return f.dst }
func (f *attempt) Accept() (net.Conn, error) {
	close(f.accepted)
	if f.near == nil {
		return nil, syscall.ECONNABORTED
	}
	return f.near, nil
}
func (f *attempt) Refuse(errno syscall.Errno) { f.refused <- errno }

// socket is the UDP flow of a program's socket.
type socket struct {
	dst         netip.AddrPort
	sent        chan []byte // by the program
	got         chan []byte
	unreachable chan syscall.Errno
	idle        chan struct{} // closed: Read fails as it does after a long silence

	once   sync.Once
	closed chan struct{}
}

func newSocket(dst string) *socket {
	return &socket{dst: netip.MustParseAddrPort(dst), sent: make(chan []byte, 8), got: make(chan []byte, 8),
		unreachable: make(chan syscall.Errno, 8), idle: make(chan struct{}), closed: make(chan struct{})}
}

func (f *socket) Src() netip.AddrPort { return netip.MustParseAddrPort("10.1.2.3:40000") }
func (f *socket) Dst() netip.AddrPort { return f.dst }
func (f *socket) Read(p []byte) (int, error) {
	select {
	case d := <-f.sent:
		if len(d) > len(p) {
			return 0, errors.New("a datagram was cut")
		}
		return copy(p, d), nil
	case <-f.idle:
		return 0, os.ErrDeadlineExceeded
	case <-f.closed:
		return 0, net.ErrClosed
	}
}
func (f *socket) Write(p []byte) (int, error) {
	select {
	case <-f.closed:
		return 0, net.ErrClosed
	case f.got <- slices.Clone(p):
		return len(p), nil
	}
}
func (f *socket) Unreachable(errno syscall.Errno) { f.unreachable <- errno }
func (f *socket) Close() error                    { f.once.Do(func() { close(f.closed) }); return nil }

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
