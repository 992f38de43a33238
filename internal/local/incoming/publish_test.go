package incoming

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

func TestPublished(t *testing.T) {
	b := setUp(t, protocol.ModeSteal)
	port := freePort(t)
	b.listening(1, at("0.0.0.0", port))
	for _, host := range []string{"127.0.0.1", "::1"} {
		ln := b.program(Inside, at(host, port))
		if host == "::1" { // a listener on 0.0.0.0 is reached from there too, by the last try
			b.mu.Lock()
			delete(b.programs, Attempt{Way: Inside, Dst: netip.MustParseAddrPort(at("127.0.0.1", port))})
			b.mu.Unlock()
		}
		client, err := net.Dial("tcp", at(host, port))
		if err != nil {
			t.Fatal(err)
		}
		app, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		client.Write([]byte("request"))
		client.(*net.TCPConn).CloseWrite()
		if got, err := io.ReadAll(app); err != nil || string(got) != "request" {
			t.Errorf("the program got %q, %v", got, err)
		}
		app.Write([]byte("reply"))
		app.Close()
		if got, err := io.ReadAll(client); err != nil || string(got) != "reply" {
			t.Errorf("the client got %q, %v", got, err)
		}
		client.Close()
	}
	if got := b.tried()[0]; got.Way != Inside || got.Src.Addr() != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("the program sees %v, want a client on its loopback", got)
	}
}

func TestPublishedOnABusyPort(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} { // one family is enough: localhost is both
		t.Run(host, func(t *testing.T) {
			b := setUp(t, protocol.ModeSteal)
			busy, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
			if err != nil {
				t.Fatal(err)
			}
			defer busy.Close()
			port := addrPort(busy.Addr()).Port()
			b.listening(1, at("0.0.0.0", port))
			e := b.event("port-open")
			published, err := netip.ParseAddrPort(e.Facts["published"])
			if err != nil || published.Port() == port || published.Addr() != netip.MustParseAddr("127.0.0.1") {
				t.Errorf("published at %v, %v, want another port", published, err)
			}
			if !strings.Contains(e.Text, published.String()) || !strings.Contains(e.Text, "is not free here") {
				t.Errorf("the event says %q", e.Text)
			}
			ln := b.program(Inside, at("127.0.0.1", port))
			client, err := net.Dial("tcp", published.String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			app, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			app.Close()
			if s := <-b.agent.subs; s.Port != port {
				t.Errorf("subscribed to %d, want %d", s.Port, port)
			}
		})
	}
}

func TestListenOfPublish(t *testing.T) {
	busy := &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}
	denied := &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EACCES)}
	missing := &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)}
	for _, c := range []struct {
		name    string
		machine map[string]error // by address; absent: free
		want    []string
		busy    error
	}{
		{"free", nil, []string{"127.0.0.1:80", "[::1]:80"}, nil},
		{"no IPv6", map[string]error{"[::1]:80": missing}, []string{"127.0.0.1:80"}, nil},
		{"no IPv4", map[string]error{"127.0.0.1:80": missing}, []string{"[::1]:80"}, nil},
		{"busy in both", map[string]error{"127.0.0.1:80": busy, "[::1]:80": busy}, []string{"127.0.0.1:4000", "[::1]:4000"}, syscall.EADDRINUSE},
		{"busy in one", map[string]error{"[::1]:80": busy}, []string{"127.0.0.1:4000", "[::1]:4000"}, syscall.EADDRINUSE},
		{"a low port", map[string]error{"127.0.0.1:80": denied, "[::1]:80": denied}, []string{"127.0.0.1:4000", "[::1]:4000"}, syscall.EACCES},
		{"busy without IPv6", map[string]error{"127.0.0.1:80": busy, "[::1]:80": missing, "[::1]:4000": missing}, []string{"127.0.0.1:4000"}, syscall.EADDRINUSE},
		{"the free number is busy in one", map[string]error{"127.0.0.1:80": busy, "[::1]:4000": busy}, []string{"127.0.0.1:4000"}, syscall.EADDRINUSE},
		{"nothing goes", map[string]error{"127.0.0.1:80": denied, "[::1]:80": denied, "127.0.0.1:0": denied, "[::1]:0": denied}, nil, syscall.EACCES},
	} {
		t.Run(c.name, func(t *testing.T) {
			var open atomic.Int32
			b, end := newBench(t, 0, func(_, address string) (net.Listener, error) {
				if err := c.machine[address]; err != nil {
					return nil, err
				}
				open.Add(1)
				address = strings.Replace(address, ":0", ":4000", 1)
				return &nobody{addr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address)), closed: make(chan struct{}), open: &open}, nil
			})
			pub, err := b.publish(portKey{number: 80}, 80, false)
			if err != nil {
				t.Errorf("got %v: without exact a busy number is no error", err)
			}
			all, err := pub.listeners, pub.busy
			var got []string
			for _, ln := range all {
				got = append(got, ln.Addr().String())
			}
			if !slices.Equal(got, c.want) || !errors.Is(err, c.busy) {
				t.Errorf("got %v, %v, want %v, %v", got, err, c.want, c.busy)
			}
			for _, ln := range all {
				ln.Close()
			}
			if n := open.Load(); n != 0 {
				t.Errorf("%d listeners are left", n)
			}
			end()
		})
	}
}

// Who listens again on a port that is just being closed waits for that: else it
// would find its own number busy.
func TestListenWhileThePortIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open atomic.Int32
		hold := make(chan struct{})
		b, end := newBench(t, protocol.ModeSteal, func(_, address string) (net.Listener, error) {
			if open.Add(1) > 2 {
				t.Error("published while the old publication is still there")
			}
			return &nobody{addr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address)), closed: make(chan struct{}), open: &open, hold: hold}, nil
		})
		b.listening(1, "0.0.0.0:80")
		go b.Closed(1)
		synctest.Wait()
		again := make(chan error, 1)
		go func() {
			again <- b.Listening(t.Context(), Listener{ID: 2, Addr: netip.MustParseAddrPort("0.0.0.0:80")})
		}()
		ctx, cancel := context.WithCancel(t.Context())
		impatient := make(chan error, 1)
		go func() { impatient <- b.Listening(ctx, Listener{ID: 3, Addr: netip.MustParseAddrPort("0.0.0.0:80")}) }()
		synctest.Wait()
		if len(again) > 0 {
			t.Error("listen returned too early")
		}
		cancel()
		if err := <-impatient; err != syscall.EINTR {
			t.Errorf("who gave up got %v, want EINTR", err)
		}
		close(hold)
		if err := <-again; err != nil {
			t.Errorf("got %v", err)
		}
		end()
		b.wantEvents("port-open", "port-closed", "port-open")
	})
}

// nobody is a listener that no one connects to.
type nobody struct {
	addr   net.Addr
	closed chan struct{}
	open   *atomic.Int32
	hold   chan struct{} // Close waits for it; nil: it does not
}

func (n *nobody) Accept() (net.Conn, error) { <-n.closed; return nil, net.ErrClosed }
func (n *nobody) Addr() net.Addr            { return n.addr }
func (n *nobody) Close() error {
	if n.hold != nil {
		<-n.hold
	}
	close(n.closed)
	n.open.Add(-1)
	return nil
}

// A machine without free descriptors fails accept(2); the port stays.
func TestAcceptThatFails(t *testing.T) {
	leak.Check(t)
	failing := &flaky{fail: 2}
	b, end := newBench(t, 0, func(network, address string) (net.Listener, error) {
		ln, err := net.Listen(network, address)
		if err != nil || failing.Listener != nil {
			return nil, syscall.EAFNOSUPPORT
		}
		failing.Listener = ln
		return failing, nil
	})
	defer end()
	port := freePort(t)
	b.listening(1, at("127.0.0.1", port))
	ln := b.program(Inside, at("127.0.0.1", port))
	client, err := net.Dial("tcp", at("127.0.0.1", port))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	app, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	app.Close()
}

type flaky struct {
	net.Listener
	fail int
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.fail--; f.fail >= 0 {
		return nil, syscall.EMFILE
	}
	return f.Listener.Accept()
}

// TestPorts: who looks at the session is told what the program listens on, once a
// port, while it does.
func TestPorts(t *testing.T) {
	b := setUp(t, protocol.ModeSteal)
	port := freePort(t)
	b.listening(1, at("0.0.0.0", port))
	b.listening(2, at("::", port))
	want := []Open{{Network: "tcp", Port: port, Target: port, Mode: "steal", Published: at("127.0.0.1", port)}}
	if got := b.Ports.Ports(); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	b.Closed(1)
	b.Closed(2)
	if got := b.Ports.Ports(); len(got) > 0 {
		t.Errorf("afterwards there is %+v", got)
	}
}
