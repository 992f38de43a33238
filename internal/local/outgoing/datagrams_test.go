package outgoing

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/datagram"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// echo answers a dial when the first datagram has come, and repeats all.
func echo(t testing.TB) func(*link.Stream, protocol.Message) {
	return func(s *link.Stream, m protocol.Message) {
		defer s.Close()
		if d := m.(*protocol.Dial); d.Network != protocol.NetworkUDP {
			t.Errorf("dialed network %d", d.Network)
		}
		for first := true; ; first = false {
			m, err := s.Receive()
			if err != nil {
				return
			}
			if first {
				_ = s.Send(&protocol.Answer{})
			}
			_ = s.Send(m)
		}
	}
}

func TestDatagrams(t *testing.T) {
	b := setUp(t, echo(t))
	f := newSocket("203.0.113.9:9000")
	done := b.udp(t.Context(), f)
	for name, want := range map[string][]byte{"small": []byte("ping"), "empty": {}, "largest": bytes.Repeat([]byte("x"), datagram.Max)} {
		f.sent <- want
		if got := within(t, "the answer to a "+name+" datagram", f.got); !bytes.Equal(got, want) {
			t.Errorf("%s: got %d bytes, want %d", name, len(got), len(want))
		}
	}
	close(f.idle)
	within(t, "the end of an idle flow", done)
	within(t, "the close of the flow", f.closed)
	b.wantEvents("outgoing-connected")
}

// A flow is not idle while its answers wait for a lost link: it goes on, and
// ends when it is idle again.
func TestDatagramsWaitForTheLink(t *testing.T) {
	b := setUp(t, echo(t))
	lost := make(chan bool) // asked once a timeout
	b.LostSince = func(time.Time) bool { return <-lost }
	f := newSocket("203.0.113.9:9000")
	close(f.idle)
	done := b.udp(t.Context(), f)
	for range 3 {
		select {
		case lost <- true:
		case <-done:
			t.Fatal("the flow has ended while the link was lost")
		}
	}
	lost <- false
	within(t, "the end of an idle flow", done)
}

// A lookup costs one round trip: nothing waits for the answer to the dial. And
// it does not wait behind bulk data.
func TestLookup(t *testing.T) {
	lanes := make(chan link.Lane, 2)
	e := echo(t)
	b := setUp(t, func(s *link.Stream, m protocol.Message) { lanes <- s.Lane(); e(s, m) })
	f := newSocket("10.96.0.10:53")
	done := b.udp(t.Context(), f)
	f.sent <- []byte("A? db.")
	within(t, "an answer", f.got)
	if got := within(t, "a stream", lanes); got != link.Interactive {
		t.Errorf("lane %d, want interactive", got)
	}
	f.Close()
	within(t, "the end of the flow", done)
}

// A ping goes as an echo request of the target's, also where connections are
// made, and does not wait behind bulk data.
func TestPing(t *testing.T) {
	lanes := make(chan link.Lane, 1)
	b := setUp(t, func(s *link.Stream, m protocol.Message) {
		defer s.Close()
		lanes <- s.Lane()
		if d := m.(*protocol.Dial); d.Network != protocol.NetworkPing || d.Addr != netip.MustParseAddrPort("203.0.113.9:0") {
			t.Errorf("dialed %v", d)
		}
		_ = s.Send(&protocol.Answer{})
		for m, err := s.Receive(); err == nil; m, err = s.Receive() {
			_ = s.Send(m)
		}
	})
	f := newSocket("203.0.113.9:0")
	done := make(chan struct{})
	b.flows.Go(func() { b.Ping(t.Context(), f); close(done) })
	f.sent <- []byte("echo")
	if got := within(t, "a reply", f.got); string(got) != "echo" {
		t.Errorf("got %q", got)
	}
	if got := within(t, "a stream", lanes); got != link.Interactive {
		t.Errorf("lane %d, want interactive", got)
	}
	f.Close()
	within(t, "the end of the flow", done)
	b.wantEvents("outgoing-connected")
}

// Where nobody may ping, the program is told, and the developer once.
func TestPingIsRefused(t *testing.T) {
	b := setUp(t, func(s *link.Stream, m protocol.Message) {
		_ = s.Send(&protocol.Answer{Errno: syscall.EACCES})
		s.Close()
	})
	for range 2 {
		f := newSocket("203.0.113.9:0")
		done := make(chan struct{})
		b.flows.Go(func() { b.Ping(t.Context(), f); close(done) })
		if got := within(t, "an errno", f.unreachable); got != syscall.EACCES {
			t.Errorf("got %v, want EACCES", got)
		}
		within(t, "the end of the flow", done)
	}
	b.wantEvents("outgoing-refused", "ping-refused", "outgoing-refused")
}

func TestUnreachable(t *testing.T) {
	b := setUp(t, func(s *link.Stream, _ protocol.Message) {
		defer s.Close()
		_ = s.Send(&protocol.Answer{})
		if _, err := s.Receive(); err != nil {
			t.Error(err)
		}
		_ = s.Send(&protocol.Datagram{Errno: syscall.ECONNREFUSED})
		_ = s.Send(&protocol.Datagram{Data: []byte("alive again")}) // the socket goes on
	})
	f := newSocket("203.0.113.9:9000")
	done := b.udp(t.Context(), f)
	f.sent <- []byte("anybody there?")
	if got := within(t, "an errno", f.unreachable); got != syscall.ECONNREFUSED {
		t.Errorf("got %v, want ECONNREFUSED", got)
	}
	if got := within(t, "a datagram", f.got); string(got) != "alive again" {
		t.Errorf("got %q", got)
	}
	within(t, "the end of the flow with the agent's", done)
	within(t, "the close of the flow", f.closed)
	b.wantEvents("outgoing-connected")
}

func TestRefusedDatagrams(t *testing.T) {
	for _, c := range []struct {
		name, dst string
		agent     func(*link.Stream)
		want      syscall.Errno
	}{
		{"no route", "203.0.113.9:9000", func(s *link.Stream) { _ = s.Send(&protocol.Answer{Errno: syscall.ENETUNREACH}) }, syscall.ENETUNREACH},
		{"another message", "203.0.113.9:9000", func(s *link.Stream) { _ = s.Send(&protocol.Datagram{}) }, syscall.EPROTO},
		{"multicast", "224.0.0.251:5353", nil, syscall.ENETUNREACH},
		{"multicast v6", "[ff02::fb]:5353", nil, syscall.ENETUNREACH},
		{"broadcast", "255.255.255.255:67", nil, syscall.ENETUNREACH},
	} {
		t.Run(c.name, func(t *testing.T) {
			agent := never(t)
			if c.agent != nil {
				agent = func(s *link.Stream, _ protocol.Message) { c.agent(s); s.Close() }
			}
			b := setUp(t, agent)
			f := newSocket(c.dst)
			done := b.udp(t.Context(), f)
			if got := within(t, "an errno", f.unreachable); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
			within(t, "the end of the flow", done)
			within(t, "the close of the flow", f.closed)
			b.wantEvents("outgoing-refused")
		})
	}
}

func TestEndOfDatagrams(t *testing.T) {
	for _, where := range []string{"remote", "local"} {
		t.Run("by the session, "+where, func(t *testing.T) {
			b := setUp(t, echo(t))
			b.rule(rules.OutgoingOptions{UDPLocal: where == "local"})
			ctx, cancel := context.WithCancel(t.Context())
			f := newSocket("127.0.0.1:9")
			done := b.udp(ctx, f)
			cancel()
			within(t, "the end of the flow", done)
			within(t, "the close of the flow", f.closed)
		})
	}
	t.Run("by the loss of the link", func(t *testing.T) {
		b := setUp(t, echo(t))
		f := newSocket("203.0.113.9:9000")
		done := b.udp(t.Context(), f)
		f.sent <- []byte("x")
		within(t, "an answer", f.got)
		b.far.Close("")
		within(t, "the end of the flow", done)
	})
	t.Run("idle, and the agent never answered", func(t *testing.T) {
		b := setUp(t, func(s *link.Stream, _ protocol.Message) { _, _ = s.Receive(); s.Close() })
		f := newSocket("203.0.113.9:9000")
		done := b.udp(t.Context(), f)
		close(f.idle)
		within(t, "the end of the flow", done)
		b.wantEvents()
	})
}

func TestLocalDatagrams(t *testing.T) {
	b := setUp(t, never(t))
	b.rule(rules.OutgoingOptions{UDPLocal: true})
	server, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	f := newSocket(server.LocalAddr().String())
	done := b.udp(t.Context(), f)
	f.sent <- []byte("ping")
	buf := make([]byte, 16)
	n, from, err := server.ReadFromUDPAddrPort(buf)
	if err != nil || string(buf[:n]) != "ping" {
		t.Fatalf("the server got %q, %v", buf[:n], err)
	}
	server.WriteToUDPAddrPort([]byte("pong"), from)
	if got := within(t, "an answer", f.got); string(got) != "pong" {
		t.Errorf("got %q, want pong", got)
	}
	server.Close()
	f.sent <- []byte("ping")
	if got := within(t, "an errno", f.unreachable); got != syscall.ECONNREFUSED {
		t.Errorf("got %v, want ECONNREFUSED", got)
	}
	close(f.idle)
	within(t, "the end of the flow", done)
	b.wantEvents("outgoing-connected")
}
