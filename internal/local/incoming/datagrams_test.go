package incoming

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

const stealUDP, mirrorUDP = protocol.ModeSteal | protocol.ModeUDP, protocol.ModeMirror | protocol.ModeUDP

// bound tells that the program has bound a UDP socket.
func (b *bench) bound(id uint64, addr string) {
	b.t.Helper()
	if err := b.Listening(b.t.Context(), Listener{ID: id, Addr: netip.MustParseAddrPort(addr), UDP: true}); err != nil {
		b.t.Fatal(err)
	}
}

// TestUDPPort: a UDP port is asked for as what it is, beside the TCP port of the same
// number, for as long as somebody has it.
func TestUDPPort(t *testing.T) {
	for want, mode := range map[string]uint8{"stolen": protocol.ModeSteal, "mirrored": protocol.ModeMirror} {
		t.Run(want, func(t *testing.T) {
			b := setUp(t, mode)
			port := freePort(t)
			b.listening(1, at("0.0.0.0", port))
			tcp := within(t, "the subscription", b.agent.subs)
			b.bound(2, at("0.0.0.0", port))
			udp := within(t, "the subscription", b.agent.subs)
			if tcp.Mode != mode || udp.Mode != mode|protocol.ModeUDP || udp.Port != port || udp.Existing != 0 {
				t.Errorf("asked for %+v and %+v", tcp.Subscribe, udp.Subscribe)
			}
			b.bound(3, at("::", port))
			ports := b.Ports.Ports()
			published := ports[1].Published
			if want := []Open{
				{Network: "tcp", Port: port, Target: port, Mode: modeName(mode), Published: at("127.0.0.1", port)},
				{Network: "udp", Port: port, Target: port, Mode: modeName(mode), Published: published},
			}; !slices.Equal(ports, want) || published == "" {
				t.Errorf("got %+v, want %+v", ports, want)
			}
			if text := b.text("port-open"); !strings.Contains(text, fmt.Sprintf("UDP port %d: the target's traffic is %s, open here at %s", port, want, published)) {
				t.Errorf("said %q", text)
			}
			b.Closed(2)
			b.Closed(3)
			if err := within(t, "the end of the subscription", udp.ended); !errors.Is(err, io.EOF) {
				t.Errorf("it ended with %v", err)
			}
			if ports := b.Ports.Ports(); len(ports) != 1 || ports[0].Network != "tcp" {
				t.Errorf("afterwards there is %+v", ports)
			}
		})
	}
}

// text is what was said with a code, a line each.
func (b *bench) text(code string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []string
	for _, e := range b.events {
		if e.Code == code {
			all = append(all, e.Text)
		}
	}
	return strings.Join(all, "\n")
}

// TestUDPHeld: a port that another session has is an error of bind(2), and the one of
// TCP is another matter.
func TestUDPHeld(t *testing.T) {
	b := setUpWith(t, rules.IncomingOptions{Mode: rules.IncomingSteal})
	b.agent.answer = func(m *protocol.Subscribe) *protocol.Answer {
		if m.Mode == stealUDP {
			return &protocol.Answer{Errno: syscall.EADDRINUSE, Cause: protocol.CauseHeld, Text: "UDP port 53 is held by ann@laptop"}
		}
		return yes(m)
	}
	err := b.Listening(t.Context(), Listener{ID: 1, Addr: netip.MustParseAddrPort("0.0.0.0:53"), UDP: true})
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("bind: %v", err)
	}
	if got, want := b.text("port-held"), "UDP port 53 of the target is taken: UDP port 53 is held by ann@laptop"; got != want {
		t.Errorf("said %q, want %q", got, want)
	}
	b.listening(2, "0.0.0.0:53")
}

// TestUDPDelivered: a client's datagrams reach the program with the client's
// address, and the answers go back, unless they are copies.
func TestUDPDelivered(t *testing.T) {
	client, pod := netip.MustParseAddrPort("192.0.2.7:50000"), netip.MustParseAddrPort("10.1.2.3:53")
	for name, mode := range map[string]uint8{"stolen": stealUDP, "mirrored": mirrorUDP} {
		t.Run(name, func(t *testing.T) {
			b := setUp(t, mode&^protocol.ModeUDP)
			program := b.socket(Tunnel, "10.1.2.3:53")
			b.bound(1, "0.0.0.0:53")
			b.listening(2, "0.0.0.0:53") // of TCP, which gets none of it
			agent, done := b.deliver(t.Context(), &protocol.Incoming{Port: 53, Mode: mode, Peer: client, Local: pod})
			buf := make([]byte, 100)
			for _, text := range []string{"one", "", "three"} {
				if err := agent.Send(&protocol.Datagram{Data: []byte(text)}); err != nil {
					t.Fatal(err)
				}
				n, from, err := program.ReadFrom(buf)
				if err != nil || string(buf[:n]) != text {
					t.Fatalf("the program got %q, %v, want %q", buf[:n], err, text)
				}
				if _, err := program.WriteTo([]byte("to "+text), from); err != nil {
					t.Fatal(err)
				}
				if mode == mirrorUDP {
					continue
				}
				if m, err := agent.Receive(); err != nil || string(m.(*protocol.Datagram).Data) != "to "+text {
					t.Errorf("answered %v, %v", m, err)
				}
			}
			if got, want := b.tried(), []Attempt{{Tunnel, client, pod}}; !slices.Equal(got, want) {
				t.Errorf("tried %v, want %v", got, want)
			}
			agent.CloseWrite()
			within(t, "the end of the flow", done)
			if m, err := agent.Receive(); !errors.Is(err, io.EOF) {
				t.Errorf("then comes %v, %v", m, err)
			}
		})
	}
}

// TestUDPNotDelivered: what nobody takes is refused.
func TestUDPNotDelivered(t *testing.T) {
	b := setUp(t, protocol.ModeSteal)
	b.listening(1, "0.0.0.0:53") // of TCP
	agent, done := b.deliver(t.Context(), &protocol.Incoming{Port: 53, Mode: stealUDP, Peer: netip.MustParseAddrPort("192.0.2.7:50000"), Local: netip.MustParseAddrPort("10.1.2.3:53")})
	within(t, "the end of the flow", done)
	var reset *link.ResetError
	if _, err := agent.Receive(); !errors.As(err, &reset) || reset.Errno != syscall.ECONNREFUSED {
		t.Errorf("the agent got %v", err)
	}
	if got, want := b.text("not-delivered"), "a connection of 192.0.2.7:50000 to UDP port 53 reached nobody: connection refused"; got != want {
		t.Errorf("said %q, want %q", got, want)
	}
}

// TestUDPHere: programs of this machine reach the port on its loopback.
func TestUDPHere(t *testing.T) {
	b := setUp(t, 0)
	port := freePort(t)
	program := b.socket(Inside, at("127.0.0.1", port))
	b.bound(1, at("127.0.0.1", port))
	c, err := net.Dial("udp", b.Ports.Ports()[0].Published)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	buf := make([]byte, 100)
	for _, text := range []string{"one", "two"} {
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		n, from, err := program.ReadFrom(buf)
		if err != nil || string(buf[:n]) != text {
			t.Fatalf("the program got %q, %v", buf[:n], err)
		}
		_, _ = program.WriteTo([]byte("to "+text), from)
		if n, err = c.Read(buf); err != nil || string(buf[:n]) != "to "+text {
			t.Errorf("answered %q, %v", buf[:n], err)
		}
	}
	b.Closed(1)
	for end := time.Now().Add(3 * time.Second); ; {
		_, _ = c.Write([]byte("gone"))
		if _, err := c.Read(buf); errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the port is still open")
		}
	}
}

// TestUDPEnds: the end of a session ends flows.
func TestUDPEnds(t *testing.T) {
	b := setUp(t, protocol.ModeSteal)
	b.socket(Tunnel, "10.1.2.3:53")
	b.bound(1, "0.0.0.0:53")
	ctx, cancel := context.WithCancel(t.Context())
	_, done := b.deliver(ctx, &protocol.Incoming{Port: 53, Mode: stealUDP, Peer: netip.MustParseAddrPort("192.0.2.7:50000"), Local: netip.MustParseAddrPort("10.1.2.3:53")})
	cancel()
	within(t, "the end of the flow", done)
}
