package netstack

import (
	"context"
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"github.com/mirrord-go/mirrord/internal/budget"
)

// Without memory a connection of the program's waits until another has ended,
// and one towards the program fails; all of it comes back.
func TestConnectionsWithoutMemory(t *testing.T) {
	m := Memory{Connections: budget.New(2*ConnCost).Share(0, budget.All), Buffers: budget.New(1<<20).Share(0, budget.All)}
	w := newWorldWith(t, Handler{TCP: echo(t)}, m)
	to := netip.AddrPortFrom(peer4, 7)
	first, second := w.connect("tcp", to), w.connect("tcp", to)
	if c, err := w.stack.Dial(t.Context(), to, netip.AddrPortFrom(program4, 80)); !errors.Is(err, syscall.ENOBUFS) {
		t.Errorf("towards the program: %v, %v, want ENOBUFS", c, err)
	}
	third := make(chan error, 1)
	go func() {
		c, err := w.dial("tcp", 0, to)
		if err == nil {
			_, err = c.Write([]byte("x"))
		}
		if err == nil {
			_, err = c.Read(make([]byte, 1)) // it is accepted there, too
		}
		if c != nil {
			c.Close()
		}
		third <- err
	}()
	select {
	case err := <-third:
		t.Errorf("the third did not wait: %v", err)
	default:
	}
	first.Close()
	if err := await(t, third); err != nil {
		t.Errorf("after the end of another: %v", err)
	}
	second.Close()
	w.stack.Close()
	if used := m.Connections.Used() + m.Buffers.Used(); used != 0 {
		t.Errorf("%d bytes are taken in the end", used)
	}
}

// Without memory the flow of datagrams that has been idle longest ends.
func TestDatagramsWithoutMemory(t *testing.T) {
	m := Memory{Datagrams: budget.New(2*udpCost).Share(0, budget.All)}
	ended := make(chan netip.AddrPort, 3)
	w := newWorldWith(t, Handler{UDP: func(ctx context.Context, f *UDPFlow) { echoUDP(ctx, f); ended <- f.Dst() }}, m)
	for port := range uint16(3) {
		c := w.connect("udp", netip.AddrPortFrom(peer4, 1000+port))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Errorf("port %d: %v", 1000+port, err)
		}
	}
	if got := await(t, ended); got.Port() != 1000 {
		t.Errorf("the flow to port %d has ended, want the first", got.Port())
	}
	w.stack.Close()
	if used := m.Datagrams.Used(); used != 0 {
		t.Errorf("%d bytes are taken in the end", used)
	}
}
