package netstack

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/netns"
)

func TestHalfClose(t *testing.T) { bothDevices(t, testHalfClose) }

func testHalfClose(t *testing.T) {
	type halfCloser interface {
		net.Conn
		CloseWrite() error
	}
	bothFamilies(t, func(t *testing.T, _, peer netip.Addr) {
		for _, who := range []string{"program first", "peer first"} {
			t.Run(who, func(t *testing.T) {
				program, near := pair(t, peer)
				var first, second halfCloser = program, near
				if who == "peer first" {
					first, second = near, program
				}
				for _, c := range []struct {
					from, to halfCloser
					text     string
				}{{first, second, "question"}, {second, first, "answer"}} {
					if _, err := io.WriteString(c.from, c.text); err != nil {
						t.Fatal(err)
					}
					if err := c.from.CloseWrite(); err != nil {
						t.Fatal(err)
					}
					if got, err := io.ReadAll(c.to); err != nil || string(got) != c.text {
						t.Errorf("got %q, %v, want %q and the end of the stream", got, err, c.text)
					}
				}
			})
		}
	})
}

func TestProgramResets(t *testing.T) {
	program, near := pair(t, peer4)
	program.SetLinger(0)
	program.Close()
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: got %v, want ECONNRESET", err)
	}
	if _, err := near.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write: got %v, want EPIPE", err)
	}
	if err := near.CloseWrite(); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("half-close: got %v, want ENOTCONN", err)
	}
}

func TestAbortResets(t *testing.T) { bothDevices(t, testAbortResets) }

func testAbortResets(t *testing.T) {
	bothFamilies(t, func(t *testing.T, _, peer netip.Addr) {
		program, near := pair(t, peer)
		near.Abort()
		near.Close()
		if _, err := program.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the program reads: got %v, want ECONNRESET", err)
		}
	})
	t.Run("after half-close", func(t *testing.T) {
		program, near := pair(t, peer4)
		if err := program.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := near.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("got %v, want the end of the stream", err)
		}
		near.Abort()
		if _, err := program.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the program reads: got %v, want ECONNRESET", err)
		}
	})
}

// A reset is one for who reads, also when a write has heard of it first.
func TestResetIsHeardByAll(t *testing.T) {
	program, near := pair(t, peer4)
	program.SetLinger(0)
	program.Close()
	for end := time.Now().Add(patience); ; {
		_, err := near.Write([]byte("x"))
		if errors.Is(err, syscall.ECONNRESET) {
			break
		}
		if err != nil || time.Now().After(end) {
			t.Fatalf("write: got %v, want ECONNRESET", err)
		}
	}
	for range 2 {
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: got %v, want ECONNRESET", err)
		}
	}
}

// What the program has sent before its reset is still read.
func TestDataBeforeReset(t *testing.T) {
	program, near := pair(t, peer4)
	if _, err := io.WriteString(near, "unread"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(program, "last words"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(near, got); err != nil || string(got) != "last" {
		t.Fatalf("got %q, %v", got, err)
	}
	program.Close() // resets, as there is unread data
	rest, err := io.ReadAll(near)
	if string(rest) != " words" || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %q, %v, want %q and ECONNRESET", rest, err, " words")
	}
}

func TestClosedConn(t *testing.T) {
	_, near := pair(t, peer4)
	result := make(chan error)
	go func() {
		_, err := near.Read(make([]byte, 1))
		result <- err
	}()
	if err := near.Close(); err != nil {
		t.Fatal(err)
	}
	if err := await(t, result); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a read that was waiting: got %v, want net.ErrClosed", err)
	}
	if _, err := near.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write: got %v, want net.ErrClosed", err)
	}
	if err := near.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second close: got %v, want net.ErrClosed", err)
	}
}

func TestDeadline(t *testing.T) {
	_, near := pair(t, peer4)
	near.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, err := near.Read(make([]byte, 1))
	var ne net.Error
	if !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("got %v, want a timeout", err)
	}
}

func TestServerSpeaksFirst(t *testing.T) { bothDevices(t, testServerSpeaksFirst) }

func testServerSpeaksFirst(t *testing.T) {
	bothFamilies(t, func(t *testing.T, _, peer netip.Addr) {
		program, near := pair(t, peer)
		if _, err := io.WriteString(near, "220 ready\r\n"); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 11)
		if _, err := io.ReadFull(program, got); err != nil || string(got) != "220 ready\r\n" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// Both directions at once, so that neither may wait for the other.
func TestBulk(t *testing.T) { bothDevices(t, testBulk) }

func testBulk(t *testing.T) {
	const size = 8 << 20
	bothFamilies(t, func(t *testing.T, _, peer netip.Addr) {
		program, near := pair(t, peer)
		var wg sync.WaitGroup
		for _, way := range []struct {
			name     string
			from, to net.Conn
		}{{"up", program, near}, {"down", near, program}} {
			data := make([]byte, size)
			rand.Read(data)
			want := sha256.Sum256(data)
			wg.Go(func() {
				if _, err := way.from.Write(data); err != nil {
					t.Errorf("%s: %v", way.name, err)
				}
				if err := way.from.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
					t.Errorf("%s: %v", way.name, err)
				}
			})
			wg.Go(func() {
				h := sha256.New()
				n, err := io.Copy(h, struct{ io.Reader }{way.to})
				if err != nil || !bytes.Equal(h.Sum(nil), want[:]) {
					t.Errorf("%s: got %d bytes, %v, not the %d that were sent", way.name, n, err, size)
				}
			})
		}
		wg.Wait()
	})
}

// listen gives a program's listener.
func (w *world) listen(addr string) *net.TCPListener {
	w.t.Helper()
	var ln net.Listener
	w.do(func() (err error) {
		ln, err = net.Listen("tcp", addr)
		return err
	})
	w.t.Cleanup(func() { ln.Close() })
	ln.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	return ln.(*net.TCPListener)
}

func TestDial(t *testing.T) { bothDevices(t, testDial) }

func testDial(t *testing.T) {
	w := newWorld(t, Handler{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	bothFamilies(t, func(t *testing.T, program, peer netip.Addr) {
		ln := w.listen(netip.AddrPortFrom(program, 8080).String())
		other := w.listen(netip.AddrPortFrom(program, 8081).String())
		client := netip.AddrPortFrom(peer, 40123)
		dial := func(ln *net.TCPListener, src netip.AddrPort) (near, accepted net.Conn) {
			t.Helper()
			to := ln.Addr().(*net.TCPAddr).AddrPort()
			near, err := w.stack.Dial(ctx, src, to)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { near.Close() })
			if accepted, err = ln.Accept(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { accepted.Close() })
			return near, accepted
		}
		near, accepted := dial(ln, client)
		if got := accepted.RemoteAddr().String(); got != client.String() {
			t.Errorf("the program sees the client %v, want %v", got, client)
		}
		if got := near.LocalAddr().String(); got != client.String() {
			t.Errorf("local address: got %v, want %v", got, client)
		}
		for _, c := range []struct{ from, to net.Conn }{{near, accepted}, {accepted, near}} {
			if _, err := io.WriteString(c.from, "hello"); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 5)
			if _, err := io.ReadFull(c.to, got); err != nil || string(got) != "hello" {
				t.Errorf("got %q, %v, want hello", got, err)
			}
		}
		if _, a := dial(other, client); a.RemoteAddr().String() != client.String() {
			t.Errorf("towards another server: got the client %v, want %v", a.RemoteAddr(), client)
		}
		_, a := dial(ln, client) // the same again, while the first is open
		if got := a.RemoteAddr().(*net.TCPAddr).AddrPort(); got.Addr() != peer || got.Port() == client.Port() {
			t.Errorf("second client with equal address: got %v, want another port of %v", got, peer)
		}

		_, err := w.stack.Dial(ctx, client, netip.AddrPortFrom(program, 9))
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("nobody listens: got %v, want ECONNREFUSED", err)
		}
	})
	t.Run("mapped", func(t *testing.T) {
		ln := w.listen("10.1.2.3:8082")
		src := netip.AddrPortFrom(netip.AddrFrom16(peer4.As16()), 40124)
		c, err := w.stack.Dial(ctx, src, netip.MustParseAddrPort("[::ffff:10.1.2.3]:8082"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		a, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		if got := a.RemoteAddr().String(); got != "192.0.2.9:40124" {
			t.Errorf("the program sees the client %v, want 192.0.2.9:40124", got)
		}
	})
	t.Run("two families", func(t *testing.T) {
		_, err := w.stack.Dial(ctx, netip.AddrPortFrom(peer4, 1), netip.AddrPortFrom(program6, 80))
		if !errors.Is(err, syscall.EAFNOSUPPORT) {
			t.Errorf("got %v, want EAFNOSUPPORT", err)
		}
	})
	t.Run("end of ctx", func(t *testing.T) {
		// The sandbox forwards nothing: a packet to others is dropped.
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		_, err := w.stack.Dial(short, netip.AddrPortFrom(peer4, 1), netip.MustParseAddrPort("198.51.100.1:80"))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline of ctx", err)
		}
	})
}

// Programs connect and are connected to from the same address at once.
func TestDialAmongFlows(t *testing.T) {
	w := newWorld(t, Handler{TCP: echo(t)})
	ln := w.listen("10.1.2.3:8080")
	program := w.connect("tcp", netip.AddrPortFrom(peer4, 80))
	near, err := w.stack.Dial(t.Context(), netip.AddrPortFrom(peer4, 80), netip.MustParseAddrPort("10.1.2.3:8080"))
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	if err := netns.Do(w.ns, func() error {
		a, err := ln.Accept()
		if err != nil {
			return err
		}
		return a.Close()
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := near.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("got %v, want the end of the stream", err)
	}
	if _, err := program.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := program.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
}
