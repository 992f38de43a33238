package outgoing

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/datagram"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// server is a UDP server that repeats everything.
func server(t *testing.T) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	return serveUDP(t, "[::1]:0", func(p []byte) [][]byte { return [][]byte{p} })
}

// serveUDP serves UDP at an address: each datagram is answered with some.
func serveUDP(t *testing.T, address string, answer func([]byte) [][]byte) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			for _, r := range answer(buf[:n]) {
				c.WriteToUDPAddrPort(r, from)
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return c, netip.MustParseAddrPort(c.LocalAddr().String())
}

func receiveDatagram(t *testing.T, s *link.Stream) *protocol.Datagram {
	t.Helper()
	m, err := s.Receive()
	if err != nil {
		t.Fatal(err)
	}
	return m.(*protocol.Datagram)
}

// unadorned hides that a connection has a descriptor.
type unadorned struct{ net.Conn }

func TestDatagrams(t *testing.T) {
	for name, d := range map[string]Dialer{
		"socket": direct,
		"any connection": func(ctx context.Context, network string, a netip.AddrPort) (net.Conn, error) {
			c, err := direct(ctx, network, a)
			return unadorned{c}, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			near := setUp(t.Context(), t, d)
			_, a := server(t)
			s, answer := dial(t, near, protocol.NetworkUDP, a)
			if err := answer.Err(); err != nil {
				t.Fatal(err)
			}
			if !answer.Addr.IsValid() || answer.Addr.Addr() != a.Addr() {
				t.Errorf("the answer's address is %v", answer.Addr)
			}
			for name, want := range map[string][]byte{"small": []byte("ping"), "empty": {}, "largest": bytes.Repeat([]byte("x"), datagram.Max)} {
				if err := s.Send(&protocol.Datagram{Data: want}); err != nil {
					t.Fatal(err)
				}
				if got := receiveDatagram(t, s); !bytes.Equal(got.Data, want) || got.Errno != 0 {
					t.Errorf("%s: got %d bytes, errno %v, want %d", name, len(got.Data), got.Errno, len(want))
				}
			}
			s.Close() // and nothing is left: see leak.Check
		})
	}
}

// What is sent together with the dial arrives.
func TestDatagramBeforeTheAnswer(t *testing.T) {
	near := setUp(t.Context(), t, direct)
	_, a := server(t)
	s, err := near.Open(t.Context(), link.Interactive, &protocol.Dial{Network: protocol.NetworkUDP, Addr: a})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_ = s.SetReadDeadline(time.Now().Add(3 * time.Second))
	if err := s.Send(&protocol.Datagram{Data: []byte("early")}); err != nil {
		t.Fatal(err)
	}
	m, err := s.Receive()
	if err != nil || m.(*protocol.Answer).Err() != nil {
		t.Fatalf("got %v, %v, want yes", m, err)
	}
	if got := receiveDatagram(t, s); string(got.Data) != "early" {
		t.Errorf("got %q, want early", got.Data)
	}
}

func TestUnreachable(t *testing.T) {
	near := setUp(t.Context(), t, direct)
	c, a := server(t)
	s, _ := dial(t, near, protocol.NetworkUDP, a)
	c.Close()
	for range 2 { // the socket goes on
		if err := s.Send(&protocol.Datagram{Data: []byte("anybody there?")}); err != nil {
			t.Fatal(err)
		}
		if got := receiveDatagram(t, s); got.Errno != syscall.ECONNREFUSED || len(got.Data) > 0 {
			t.Errorf("got %q, %v, want ECONNREFUSED", got.Data, got.Errno)
		}
	}
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(a))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	s.Send(&protocol.Datagram{Data: []byte("and now?")})
	buf := make([]byte, 64)
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "and now?" {
		t.Errorf("the server got %q, %v", buf[:n], err)
	}
}

// The error that an earlier datagram met comes in the way of the next one: it
// is told, and the datagram sent all the same.
func TestErrorInTheWay(t *testing.T) {
	inTheWay := &blocked{wrote: make(chan []byte, 1), closed: make(chan struct{})}
	near := setUp(t.Context(), t, func(context.Context, string, netip.AddrPort) (net.Conn, error) { return inTheWay, nil })
	s, _ := dial(t, near, protocol.NetworkUDP, netip.MustParseAddrPort("203.0.113.9:9"))
	s.Send(&protocol.Datagram{Data: []byte("x")})
	if got := receiveDatagram(t, s); got.Errno != syscall.ECONNREFUSED {
		t.Errorf("got %v, want ECONNREFUSED", got.Errno)
	}
	select {
	case got := <-inTheWay.wrote:
		if string(got) != "x" {
			t.Errorf("sent %q, want x", got)
		}
	case <-time.After(3 * time.Second):
		t.Error("the datagram was not sent")
	}
}

// blocked fails its first Write.
type blocked struct {
	net.Conn
	failed bool
	wrote  chan []byte
	closed chan struct{}
}

func (b *blocked) LocalAddr() net.Addr { return &net.UDPAddr{} }
func (b *blocked) Write(p []byte) (int, error) {
	if !b.failed {
		b.failed = true
		return 0, &net.OpError{Op: "write", Err: syscall.ECONNREFUSED}
	}
	b.wrote <- bytes.Clone(p)
	return len(p), nil
}
func (b *blocked) Read([]byte) (int, error) { <-b.closed; return 0, net.ErrClosed }
func (b *blocked) Close() error {
	select {
	case <-b.closed:
	default:
		close(b.closed)
	}
	return nil
}

func TestEndOfDatagrams(t *testing.T) {
	t.Run("by the session", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		near := setUp(ctx, t, direct)
		_, a := server(t)
		s, _ := dial(t, near, protocol.NetworkUDP, a)
		cancel()
		if _, err := s.Receive(); err == nil {
			t.Error("a datagram came after the end")
		}
	})
	t.Run("by a message that does not belong there", func(t *testing.T) {
		near := setUp(t.Context(), t, direct)
		_, a := server(t)
		s, _ := dial(t, near, protocol.NetworkUDP, a)
		s.Send(&protocol.Env{})
		var reset *link.ResetError
		if m, err := s.Receive(); err == nil || errors.As(err, &reset) {
			t.Errorf("got %v, %v, want the end", m, err)
		}
	})
}
