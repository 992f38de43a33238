package incoming

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

var client = netip.MustParseAddrPort("192.0.2.7:50000")

// arrive is a stolen connection to a program that listens on every address.
func arrive(t *testing.T, b *bench, ctx context.Context, mode uint8) (agent *link.Stream, app *net.TCPConn, done chan struct{}) {
	t.Helper()
	return arriveAs(t, b, ctx, protocol.Incoming{Mode: mode})
}

// arriveAs is arrive with what else m says.
func arriveAs(t *testing.T, b *bench, ctx context.Context, m protocol.Incoming) (agent *link.Stream, app *net.TCPConn, done chan struct{}) {
	t.Helper()
	port := freePort(t)
	b.listening(uint64(port), at("0.0.0.0", port))
	dst := netip.MustParseAddrPort(at("10.1.2.3", port))
	ln := b.program(Tunnel, dst.String())
	m.Port, m.Peer, m.Local = port, client, dst
	agent, done = b.deliver(ctx, &m)
	app, err := ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { app.Close() })
	within(t, "the program's connection", b.dialed)
	_ = app.SetDeadline(time.Now().Add(3 * time.Second))
	if got, want := b.tried(), []Attempt{{Tunnel, client, dst}}; !slices.Equal(got[len(got)-1:], want) {
		t.Errorf("tried %v, want %v: the program sees the client", got, want)
	}
	return agent, app, done
}

func TestStolen(t *testing.T) {
	b := setUp(t, protocol.ModeSteal)
	agent, app, done := arrive(t, b, t.Context(), protocol.ModeSteal)
	request, reply := bytes.Repeat([]byte("q"), 1<<20), bytes.Repeat([]byte("a"), 1<<20)
	go func() { agent.Write(request); agent.CloseWrite() }()
	if got, err := io.ReadAll(app); err != nil || !bytes.Equal(got, request) {
		t.Fatalf("the program got %d bytes, %v, want %d", len(got), err, len(request))
	}
	go func() { app.Write(reply); app.CloseWrite() }()
	if got, err := io.ReadAll(agent); err != nil || !bytes.Equal(got, reply) {
		t.Errorf("the client got %d bytes, %v, want %d", len(got), err, len(reply))
	}
	within(t, "the end of the delivery", done)
}

// The program's end first, and without any listener left.
func TestStolenOutlivesItsListener(t *testing.T) {
	b := setUp(t, protocol.ModeSteal)
	agent, app, done := arrive(t, b, t.Context(), protocol.ModeSteal)
	b.mu.Lock()
	last := b.attempts[len(b.attempts)-1]
	b.mu.Unlock()
	b.Closed(uint64(last.Dst.Port()))
	app.Write([]byte("hello"))
	app.CloseWrite()
	if got, err := io.ReadAll(agent); err != nil || string(got) != "hello" {
		t.Errorf("the client got %q, %v, want hello", got, err)
	}
	agent.Write([]byte("late"))
	agent.CloseWrite()
	if got, err := io.ReadAll(app); err != nil || string(got) != "late" {
		t.Errorf("the program got %q, %v, want late", got, err)
	}
	within(t, "the end of the delivery", done)
}

func TestStolenIsReset(t *testing.T) {
	var reset *link.ResetError
	b := setUp(t, protocol.ModeSteal)
	t.Run("by the client", func(t *testing.T) {
		agent, app, done := arrive(t, b, t.Context(), protocol.ModeSteal)
		agent.Reset(syscall.ECONNRESET)
		if _, err := app.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the program reads %v, want ECONNRESET", err)
		}
		within(t, "the end of the delivery", done)
	})
	t.Run("by the program", func(t *testing.T) {
		agent, app, done := arrive(t, b, t.Context(), protocol.ModeSteal)
		app.SetLinger(0)
		app.Close()
		if _, err := agent.Read(make([]byte, 1)); !errors.As(err, &reset) || reset.Errno != syscall.ECONNRESET {
			t.Errorf("the client reads %v, want a reset with ECONNRESET", err)
		}
		within(t, "the end of the delivery", done)
	})
	t.Run("by the end of the session", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		agent, app, done := arrive(t, b, ctx, protocol.ModeSteal)
		cancel()
		if _, err := app.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the program reads %v, want ECONNRESET", err)
		}
		if _, err := agent.Read(make([]byte, 1)); !errors.As(err, &reset) {
			t.Errorf("the client reads %v, want a reset", err)
		}
		within(t, "the end of the delivery", done)
	})
	t.Run("by the loss of the link", func(t *testing.T) {
		_, app, done := arrive(t, b, t.Context(), protocol.ModeSteal)
		b.far.Close("")
		if _, err := app.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the program reads %v, want ECONNRESET", err)
		}
		within(t, "the end of the delivery", done)
	})
}

func TestMirrored(t *testing.T) {
	b := setUp(t, protocol.ModeMirror)
	agent, app, done := arrive(t, b, t.Context(), protocol.ModeMirror)
	agent.Write([]byte("request"))
	agent.CloseWrite()
	if got, err := io.ReadAll(app); err != nil || string(got) != "request" {
		t.Errorf("the program got %q, %v, want request", got, err)
	}
	if _, err := app.Write(make([]byte, 4<<20)); err != nil { // a long reply blocks nothing
		t.Errorf("the reply: %v", err)
	}
	app.Close()
	if got, err := io.ReadAll(agent); err != nil || len(got) > 0 {
		t.Errorf("%d bytes of the reply travelled, %v, want none", len(got), err)
	}
	within(t, "the end of the delivery", done)
}

// Replies to a copy travel back where the agent asks for them: it is the client.
func TestMirroredWithReplies(t *testing.T) {
	b := setUp(t, protocol.ModeMirror)
	agent, app, done := arriveAs(t, b, t.Context(), protocol.Incoming{Mode: protocol.ModeMirror, Replies: true})
	app.Write([]byte("settings"))
	got := make([]byte, 8)
	if _, err := io.ReadFull(agent, got); err != nil || string(got) != "settings" {
		t.Errorf("the agent got %q, %v", got, err)
	}
	agent.Write([]byte("request"))
	agent.CloseWrite()
	if got, err := io.ReadAll(app); err != nil || string(got) != "request" {
		t.Errorf("the program got %q, %v, want request", got, err)
	}
	app.Close()
	within(t, "the end of the delivery", done)
}

// A copy with a gap must not look like a whole one.
func TestIncompleteCopy(t *testing.T) {
	b := setUp(t, protocol.ModeMirror)
	agent, app, done := arrive(t, b, t.Context(), protocol.ModeMirror)
	agent.Write([]byte("req"))
	if _, err := io.ReadFull(app, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	agent.Reset(syscall.ECONNRESET)
	if _, err := app.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the program reads %v, want ECONNRESET", err)
	}
	within(t, "the end of the delivery", done)
}

func TestNobodyListens(t *testing.T) {
	b := setUp(t, protocol.ModeSteal)
	port := freePort(t)
	m := &protocol.Incoming{Port: port, Mode: protocol.ModeSteal, Peer: client, Local: netip.MustParseAddrPort(at("10.1.2.3", port))}
	agent, _ := b.deliver(t.Context(), m)
	if _, err := agent.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("without a listener the client reads %v, want ECONNREFUSED", err)
	}
	b.listening(1, at("0.0.0.0", port)) // but it answers to no try
	agent, done := b.deliver(t.Context(), m)
	if _, err := agent.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the client reads %v, want ECONNREFUSED", err)
	}
	within(t, "the end of the delivery", done)
	none := netip.AddrPort{}
	want := []Attempt{{Tunnel, client, m.Local}, {Inside, none, netip.MustParseAddrPort(at("127.0.0.1", port))}, {Inside, none, netip.MustParseAddrPort(at("::1", port))}}
	if got := b.tried(); !slices.Equal(got, want) {
		t.Errorf("tried %v, want %v", got, want)
	}
}

// Whatever the reason: what has reached no program is refused, and nothing else
// is.
func TestRefused(t *testing.T) {
	m := &protocol.Incoming{Port: 80, Mode: protocol.ModeSteal, Peer: client, Local: netip.MustParseAddrPort("10.1.2.3:80")}
	for _, why := range []error{syscall.EHOSTUNREACH, syscall.ECONNRESET, net.ErrClosed, io.EOF} {
		t.Run(why.Error(), func(t *testing.T) {
			b := setUp(t, protocol.ModeSteal)
			b.o.Dial = func(context.Context, Attempt) (net.Conn, error) { return nil, why }
			b.listening(1, "0.0.0.0:80")
			agent, done := b.deliver(t.Context(), m)
			agent.Write([]byte("a request"))
			refused(t, agent)
			within(t, "the end of the delivery", done)
		})
	}
	for name, end := range map[string]func(b *bench, cancel func()){
		"by the end of the ports":   func(b *bench, _ func()) { b.Close() },
		"by the end of the session": func(_ *bench, cancel func()) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			b := setUp(t, protocol.ModeSteal)
			dialing := make(chan struct{})
			b.o.Dial = func(ctx context.Context, _ Attempt) (net.Conn, error) {
				close(dialing)
				<-ctx.Done()
				return nil, ctx.Err()
			}
			b.listening(1, "0.0.0.0:80")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			agent, done := b.deliver(ctx, m)
			within(t, "the dial", dialing)
			end(b, cancel)
			refused(t, agent)
			within(t, "the end of the delivery", done)
		})
	}
	for _, errno := range []syscall.Errno{syscall.ECONNREFUSED, syscall.EAGAIN, syscall.ETIMEDOUT} {
		t.Run("not after "+errno.Error(), func(t *testing.T) {
			b := setUp(t, protocol.ModeSteal)
			b.o.Dial = func(context.Context, Attempt) (net.Conn, error) { return failing{errno: errno}, nil }
			b.listening(1, "0.0.0.0:80")
			agent, done := b.deliver(t.Context(), m)
			var reset *link.ResetError
			want := errno
			if errno != syscall.ETIMEDOUT {
				want = syscall.ECONNRESET
			}
			if _, err := agent.Read(make([]byte, 1)); !errors.As(err, &reset) || reset.Errno != want {
				t.Errorf("the client reads %v, want %v", err, want)
			}
			within(t, "the end of the delivery", done)
		})
	}
}

// queued is a Peer that has ended in the queue of a listener, or has not.
type queued struct {
	yes              bool
	found, forgotten atomic.Bool
}

func (o *queued) Find()                           { o.found.Store(true) }
func (o *queued) Unaccepted(context.Context) bool { return o.yes }
func (o *queued) Place() (bool, bool)             { return false, true }
func (o *queued) Forget()                         { o.forgotten.Store(true) }

// forgetful is a connection that was reset right after it was made: it does not
// know its other end any more.
type forgetful struct{ *net.TCPConn }

func (forgetful) RemoteAddr() net.Addr { return nil }

// What has ended in a listener's queue was refused, unless something was heard
// of it.
func TestUnaccepted(t *testing.T) {
	for _, c := range []struct {
		name        string
		yes, speaks bool
		want        syscall.Errno
	}{
		{"in the queue", true, false, syscall.ECONNREFUSED},
		{"accepted", false, false, syscall.ECONNRESET},
		{"answered", true, true, syscall.ECONNRESET},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := setUp(t, protocol.ModeSteal)
			o := &queued{yes: c.yes}
			dial := b.o.Dial
			b.o.Dial = func(ctx context.Context, a Attempt) (net.Conn, error) {
				c, err := dial(ctx, a)
				if err != nil {
					return nil, err
				}
				return forgetful{c.(*net.TCPConn)}, nil
			}
			b.o.Follow = func(_, to netip.AddrPort) Peer {
				if want := b.o.Host.Pod4; to.Addr() != want {
					t.Errorf("%v is followed, want what was dialed at %v", to, want)
				}
				return o
			}
			agent, app, done := arrive(t, b, t.Context(), protocol.ModeSteal)
			agent.Write([]byte("a request"))
			if _, err := io.ReadFull(app, make([]byte, 9)); err != nil {
				t.Fatal(err)
			}
			if !o.found.Load() {
				t.Error("nobody looked for the program's side before it was told something")
			}
			if c.speaks {
				app.Write([]byte("a"))
				if _, err := io.ReadFull(agent, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			}
			app.SetLinger(0)
			app.Close()
			var reset *link.ResetError
			if _, err := agent.Read(make([]byte, 1)); !errors.As(err, &reset) || reset.Errno != c.want {
				t.Errorf("the client reads %v, want %v", err, c.want)
			}
			within(t, "the end of the delivery", done)
			if !o.forgotten.Load() {
				t.Error("the program's side was not forgotten")
			}
		})
	}
}

// failing is a program's connection that has failed.
type failing struct {
	net.Conn // nil: nothing else is called
	errno    syscall.Errno
}

func (f failing) Read([]byte) (int, error)    { return 0, f.errno }
func (f failing) Write(p []byte) (int, error) { return 0, f.errno }
func (f failing) CloseWrite() error           { return f.errno }
func (f failing) Close() error                { return nil }

// A program that is stopped in a debugger accepts nothing: the client is not
// kept for ever.
func TestDeliveryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, end := newBench(t, protocol.ModeSteal, nowhere)
		b.o.Dial = func(ctx context.Context, _ Attempt) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
		b.listening(1, "0.0.0.0:80")
		agent, err := b.far.Open(t.Context(), link.Bulk, &protocol.Incoming{Port: 80, Peer: client, Local: netip.MustParseAddrPort("10.1.2.3:80")})
		if err != nil {
			t.Fatal(err)
		}
		s, m, err := b.near.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		b.Serve(t.Context(), s, m.(*protocol.Incoming))
		if got := time.Since(began); got != deliverTime {
			t.Errorf("after %v, want %v", got, deliverTime)
		}
		if _, err := agent.Read(make([]byte, 1)); err == nil {
			t.Error("the client was told nothing")
		}
		agent.Close()
		end()
	})
}

func TestOrder(t *testing.T) {
	for _, c := range []struct {
		name, client, dialed string
		listeners, want      []string
	}{
		{"the dialed address first", "192.0.2.7", "10.1.2.3",
			[]string{"127.0.0.1:80", "0.0.0.0:80", "10.1.2.3:80"}, []string{"10.1.2.3:80", "0.0.0.0:80", "127.0.0.1:80"}},
		{"the client's family first", "2001:db8::7", "fd00::3",
			[]string{"0.0.0.0:80", "[::1]:80", "[::]:80"}, []string{"[::]:80", "0.0.0.0:80", "[::1]:80"}},
		{"a socket of both families", "192.0.2.7", "10.1.2.3", []string{"127.0.0.1:80", "[::]:80"}, []string{"[::]:80", "127.0.0.1:80"}},
		{"on loopback", "127.0.0.1", "127.0.0.1", []string{"10.1.2.3:80", "127.0.0.1:80", "[::1]:80"}, []string{"127.0.0.1:80", "10.1.2.3:80", "[::1]:80"}},
		{"one of many", "192.0.2.7", "10.1.2.3", []string{"0.0.0.0:80", "0.0.0.0:80", "0.0.0.0:80"}, []string{"0.0.0.0:80"}},
		{"mapped", "::ffff:192.0.2.7", "::ffff:10.1.2.3", []string{"0.0.0.0:80", "10.1.2.3:80"}, []string{"10.1.2.3:80", "0.0.0.0:80"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var all []netip.AddrPort
			for _, l := range c.listeners {
				all = append(all, netip.MustParseAddrPort(l))
			}
			var got []string
			for _, l := range order(all, arrival{client: netip.AddrPortFrom(netip.MustParseAddr(c.client), 999), dialed: netip.MustParseAddr(c.dialed)}) {
				got = append(got, l.String())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}
