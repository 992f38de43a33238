package incoming

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/udpflow"
)

const stealUDP, mirrorUDP = protocol.ModeSteal | protocol.ModeUDP, protocol.ModeMirror | protocol.ModeUDP

// datagrams is a source of flows.
type datagrams struct {
	*source
	flows *udpflow.Table
	sent  chan string // to clients
}

func newDatagrams() *datagrams {
	d := &datagrams{source: newSource(), sent: make(chan string, 16)}
	d.flows = udpflow.New(udpflow.Options{Idle: time.Minute, Max: 9, Answer: func(_, client netip.AddrPort, p []byte) error {
		d.sent <- client.String() + " " + string(p)
		return nil
	}})
	return d
}

func (d *datagrams) Accept(ctx context.Context) (net.Conn, error) { return d.flows.Accept(ctx) }

// said gives the next datagram on a stream.
func said(t *testing.T, s *link.Stream) string {
	t.Helper()
	m, err := s.Receive()
	if err != nil {
		t.Fatal(err)
	}
	return string(m.(*protocol.Datagram).Data)
}

// TestDatagrams: each client's datagrams come on a stream of their own, whole, and
// answers go back as datagrams, where they are stolen.
func TestDatagrams(t *testing.T) {
	ap := netip.MustParseAddrPort
	server, client := ap("10.1.2.3:53"), ap("192.0.2.7:50000")
	for name, mode := range map[string]uint8{"stolen": stealUDP, "mirrored": mirrorUDP} {
		t.Run(name, func(t *testing.T) {
			src := newDatagrams()
			b := setUpWith(t, Options{Sources: map[uint8]Source{mode: src}})
			b.subscribed(&protocol.Subscribe{Port: 53, Mode: mode})
			did(t, src.source, "add 53")
			for _, text := range []string{"one", "", "three"} {
				src.flows.Deliver(client, server, []byte(text))
			}
			s, m := b.arrived()
			if want := (protocol.Incoming{Port: 53, Mode: mode, Peer: client, Local: server}); *m != want {
				t.Errorf("got %+v, want %+v", *m, want)
			}
			for _, want := range []string{"one", "", "three"} {
				if got := said(t, s); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
			_ = s.Send(&protocol.Datagram{Data: []byte("answer")})
			if mode == stealUDP {
				if got := within(t, "the answer", src.sent); got != "192.0.2.7:50000 answer" {
					t.Errorf("the client got %q", got)
				}
			}
			s.Close() // the program's socket is closed; a new one is another flow
			for ended := false; !ended; {
				src.flows.Deliver(client, server, []byte("again"))
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
				if again, _, err := b.near.Accept(ctx); err == nil {
					ended = said(t, again) == "again"
					again.Close()
				}
				cancel()
			}
			if len(src.sent) != 0 {
				t.Errorf("the client also got %q", <-src.sent)
			}
			src.flows.Close()
		})
	}
}

// TestDatagramsEnd: with the session flows end, and with a flow its stream; what
// local refuses counts.
func TestDatagramsEnd(t *testing.T) {
	ap := netip.MustParseAddrPort
	src := newDatagrams()
	b := setUpWith(t, Options{Sources: map[uint8]Source{stealUDP: src}})
	src.flows.Deliver(ap("192.0.2.7:50000"), ap("10.1.2.3:53"), nil)
	s, _ := b.arrived()
	said(t, s)
	src.flows.Forget(53)
	if _, err := s.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end of the flow: %v", err)
	}
	src.flows.Deliver(ap("192.0.2.7:50000"), ap("10.1.2.3:53"), nil)
	s, _ = b.arrived()
	s.Reset(syscall.ECONNREFUSED)
	for end := time.Now().Add(3 * time.Second); b.hub.Counts().Refused == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not count")
		}
	}
	src.flows.Deliver(ap("192.0.2.7:50001"), ap("10.1.2.3:53"), nil)
	s, _ = b.arrived()
	said(t, s)
	b.end()
	within(t, "the end of the hub", b.ended)
	if n := b.hub.Counts().Refused; n != 1 {
		t.Errorf("%d refused", n)
	}
	src.flows.Close()
}

// TestDatagramsSuspended: while the link is lost the target has a stolen port back.
func TestDatagramsSuspended(t *testing.T) {
	steal, mirror := newDatagrams(), newDatagrams()
	b := setUpWith(t, Options{Sources: map[uint8]Source{stealUDP: steal, mirrorUDP: mirror}})
	b.subscribed(&protocol.Subscribe{Port: 53, Mode: stealUDP})
	b.subscribed(&protocol.Subscribe{Port: 53, Mode: mirrorUDP})
	did(t, steal.source, "add 53")
	did(t, mirror.source, "add 53")
	b.hub.Suspend(true)
	did(t, steal.source, "remove 53")
	b.hub.Suspend(false)
	did(t, steal.source, "add 53")
	b.end()
	did(t, steal.source, "remove 53")
	did(t, mirror.source, "remove 53")
}
