package outgoing

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// memory is what this process uses after a collection, stacks included.
func memory() int {
	runtime.GC()
	runtime.GC() // what pools kept from the first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// stuck is a connection whose peer neither reads nor says anything.
type stuck struct {
	net.Conn
	once sync.Once
	over chan struct{}
}

func (c *stuck) LocalAddr() net.Addr         { return &net.TCPAddr{} }
func (c *stuck) Read([]byte) (int, error)    { <-c.over; return 0, net.ErrClosed }
func (c *stuck) Write(p []byte) (int, error) { <-c.over; return 0, net.ErrClosed }
func (c *stuck) CloseWrite() error           { return nil }
func (c *stuck) Close() error                { c.once.Do(func() { close(c.over) }); return nil }

// Connections with everything in them that there is room for cost no more than
// they are counted as, and those without room are refused.
func TestCost(t *testing.T) {
	leak.Check(t)
	const n = 500
	room := budget.New(n*ConnCost).Share(0, budget.All)
	server := &Server{Connections: room, Relayed: budget.New(0).Share(0, 0),
		Dial: func(context.Context, string, netip.AddrPort) (net.Conn, error) {
			return &stuck{over: make(chan struct{})}, nil
		}}
	// All windows are the smallest.
	least := budget.New(2*n*link.StreamCost).Share(0, budget.All)
	a, z := net.Pipe()
	near := link.New(a, link.Local, link.Options{})
	far := link.New(z, link.Agent, link.Options{Memory: link.Memory{Interactive: least, Opened: least, Accepted: least, Windows: budget.New(0).Share(0, 0)}})
	before := memory()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			s, m, err := far.Accept(ctx)
			if err != nil {
				return
			}
			wg.Go(func() { server.Serve(ctx, s, m.(*protocol.Dial)) })
		}
	})
	defer func() {
		cancel()
		near.Close("")
		far.Close("")
		wg.Wait()
	}()
	ask := func() (*link.Stream, error) {
		s, err := near.Open(t.Context(), link.Bulk, &protocol.Dial{Network: protocol.NetworkTCP, Addr: netip.MustParseAddrPort("203.0.113.9:80")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		m, err := s.Receive()
		if err != nil {
			t.Fatal(err)
		}
		return s, m.(*protocol.Answer).Err()
	}
	much := make([]byte, 64<<10)
	var writing sync.WaitGroup
	for range n {
		s, err := ask()
		if err != nil {
			t.Fatal(err)
		}
		_ = s.SetWriteDeadline(time.Now().Add(time.Second)) // as much as goes
		writing.Go(func() { _, _ = s.Write(much) })
	}
	if _, err := ask(); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("without room: %v, want EAGAIN", err)
	}
	writing.Wait()
	const local = 4 << 10 // what the other end has of each stream, here
	if got, want := (memory()-before)/n, link.StreamCost+ConnCost+local; got > want {
		t.Errorf("a connection costs %d bytes, it is counted as %d", got, want)
	} else {
		t.Logf("a connection costs %d bytes of %d", got, want)
	}
}
