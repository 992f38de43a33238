package outgoing

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// direct is a dialer in this process's own network.
func direct(ctx context.Context, network string, a netip.AddrPort) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, network, a.String())
}

// served gives local's end of a link whose agent serves dials with d until ctx
// ends. end must be called.
func served(ctx context.Context, t testing.TB, d Dialer) (near *link.Conn, end func()) {
	a, z := net.Pipe()
	near, far := link.New(a, link.Local, link.Options{}), link.New(z, link.Agent, link.Options{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		var all []chan struct{}
		for {
			s, m, err := far.Accept(context.Background())
			if err != nil {
				break
			}
			one := make(chan struct{})
			all = append(all, one)
			go func() { defer close(one); (&Server{Dial: d}).Serve(ctx, s, m.(*protocol.Dial)) }()
		}
		for _, one := range all {
			<-one
		}
	}()
	return near, func() {
		near.Close("")
		far.Close("")
		<-done
	}
}

func setUp(ctx context.Context, t *testing.T, d Dialer) *link.Conn {
	t.Helper()
	leak.Check(t)
	near, end := served(ctx, t, d)
	t.Cleanup(end)
	return near
}

// dial asks, and gives the stream and the answer.
func dial(t *testing.T, near *link.Conn, network uint8, a netip.AddrPort) (*link.Stream, *protocol.Answer) {
	t.Helper()
	s, err := near.Open(t.Context(), link.Bulk, &protocol.Dial{Network: network, Addr: a})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	_ = s.SetReadDeadline(time.Now().Add(3 * time.Second))
	m, err := s.Receive()
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	return s, m.(*protocol.Answer)
}

func listen(t *testing.T) (ln *net.TCPListener, a netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener), netip.MustParseAddrPort(l.Addr().String())
}

// connected is a dial that went well, and the server's end of it.
func connected(t *testing.T, near *link.Conn) (*link.Stream, *net.TCPConn) {
	t.Helper()
	ln, a := listen(t)
	s, answer := dial(t, near, protocol.NetworkTCP, a)
	if err := answer.Err(); err != nil {
		t.Fatal(err)
	}
	c, err := ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	if got, want := answer.Addr.String(), c.RemoteAddr().String(); got != want {
		t.Errorf("the answer's address is %s, want %s", got, want)
	}
	return s, c
}

func TestErrnoOfTheTargetsKernel(t *testing.T) {
	ln, gone := listen(t)
	ln.Close()
	remote := netip.MustParseAddrPort("203.0.113.9:80")
	for _, c := range []struct {
		name    string
		network uint8
		addr    netip.AddrPort
		err     error // of the dialer; nil: it really dials
		want    protocol.Answer
	}{
		{"refused", protocol.NetworkTCP, gone, nil, protocol.Answer{Errno: syscall.ECONNREFUSED}},
		{"wrapped", protocol.NetworkTCP, remote, &net.OpError{Op: "dial", Err: fmt.Errorf("in the target: %w", syscall.EHOSTUNREACH)}, protocol.Answer{Errno: syscall.EHOSTUNREACH}},
		{"udp", protocol.NetworkUDP, remote, syscall.ENETUNREACH, protocol.Answer{Errno: syscall.ENETUNREACH}},
		{"no errno", protocol.NetworkTCP, remote, errors.New("odd"), protocol.Answer{Errno: syscall.ENETUNREACH}},
		{"too late", protocol.NetworkTCP, remote, context.DeadlineExceeded, protocol.Answer{Errno: syscall.ETIMEDOUT}},
		{"ping", protocol.NetworkPing, remote, syscall.EACCES, protocol.Answer{Errno: syscall.EACCES}},
		{"unknown network", 4, remote, nil, protocol.Answer{Errno: syscall.EPROTONOSUPPORT, Cause: protocol.CauseUnsupported}},
		{"no network", 0, remote, nil, protocol.Answer{Errno: syscall.EPROTONOSUPPORT, Cause: protocol.CauseUnsupported}},
		{"no address", protocol.NetworkTCP, netip.AddrPort{}, nil, protocol.Answer{Errno: syscall.EPROTONOSUPPORT, Cause: protocol.CauseUnsupported}},
	} {
		t.Run(c.name, func(t *testing.T) {
			near := setUp(t.Context(), t, func(ctx context.Context, network string, a netip.AddrPort) (net.Conn, error) {
				if c.err != nil {
					return nil, c.err
				}
				return direct(ctx, network, a)
			})
			s, got := dial(t, near, c.network, c.addr)
			if got.Errno != c.want.Errno || got.Cause != c.want.Cause {
				t.Errorf("got %v cause %d, want %v cause %d", got.Errno, got.Cause, c.want.Errno, c.want.Cause)
			}
			if _, err := s.Receive(); !errors.Is(err, io.EOF) {
				t.Errorf("after the answer comes %v, want the end", err)
			}
		})
	}
}

// The target's kernel is the one to give up; but for ever is too long.
func TestDialIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, end := served(t.Context(), t, func(ctx context.Context, _ string, _ netip.AddrPort) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		began := time.Now()
		s, err := near.Open(t.Context(), link.Bulk, &protocol.Dial{Network: protocol.NetworkTCP, Addr: netip.MustParseAddrPort("203.0.113.9:80")})
		if err != nil {
			t.Fatal(err)
		}
		m, err := s.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if a := m.(*protocol.Answer); a.Errno != syscall.ETIMEDOUT || time.Since(began) != dialTime {
			t.Errorf("got %v after %v, want ETIMEDOUT after %v", a.Errno, time.Since(began), dialTime)
		}
		s.Close()
		end()
	})
}

func TestHalfCloseBothWays(t *testing.T) {
	near := setUp(t.Context(), t, direct)
	s, c := connected(t, near)
	want := make([]byte, 1<<20)
	rand.Read(want)
	go func() {
		s.Write(want)
		s.CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the server got %d bytes, %v, want %d", len(got), err, len(want))
	}
	c.Write([]byte("answer"))
	c.CloseWrite()
	if got, err := io.ReadAll(s); err != nil || string(got) != "answer" {
		t.Errorf("local got %q, %v, want answer", got, err)
	}
}

func TestHalfCloseByTheServerFirst(t *testing.T) {
	near := setUp(t.Context(), t, direct)
	s, c := connected(t, near)
	c.CloseWrite()
	if got, err := io.ReadAll(s); err != nil || len(got) > 0 {
		t.Errorf("local got %q, %v, want the end", got, err)
	}
	s.Write([]byte("late"))
	s.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "late" {
		t.Errorf("the server got %q, %v, want late", got, err)
	}
}

func TestResetBothWays(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	near := setUp(ctx, t, direct)
	t.Run("by the server", func(t *testing.T) {
		s, c := connected(t, near)
		c.SetLinger(0)
		c.Close()
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("local reads %v, want ECONNRESET", err)
		}
	})
	t.Run("by local", func(t *testing.T) {
		s, c := connected(t, near)
		s.Reset(syscall.ECONNRESET)
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the server reads %v, want ECONNRESET", err)
		}
	})
	t.Run("by the end of the session", func(t *testing.T) {
		s, c := connected(t, near)
		cancel()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the server reads %v, want ECONNRESET", err)
		}
		var reset *link.ResetError
		if _, err := s.Read(make([]byte, 1)); !errors.As(err, &reset) {
			t.Errorf("local reads %v, want a reset", err)
		}
	})
}

// Local may have given up when the connection is there at last: the server must
// not take that for an orderly end, and nothing may be left.
func TestLocalGaveUp(t *testing.T) {
	ln, a := listen(t)
	dialing, dialed := make(chan struct{}), make(chan struct{})
	near := setUp(t.Context(), t, func(ctx context.Context, network string, a netip.AddrPort) (net.Conn, error) {
		close(dialing)
		<-dialed
		return direct(ctx, network, a)
	})
	s, err := near.Open(t.Context(), link.Bulk, &protocol.Dial{Network: protocol.NetworkTCP, Addr: a})
	if err != nil {
		t.Fatal(err)
	}
	<-dialing
	s.Reset(syscall.ECANCELED)
	s.Close()
	// A call on a later stream is answered after the reset has arrived.
	if m, err := near.Call(t.Context(), &protocol.Dial{}); err != nil || m.(*protocol.Answer).Errno == 0 {
		t.Fatalf("got %v, %v", m, err)
	}
	close(dialed)
	c, err := ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server reads %v, want ECONNRESET", err)
	}
}

// plain is a connection without half-close.
type plain struct{ net.Conn }

func TestConnectionWithoutHalfClose(t *testing.T) {
	ln, a := listen(t)
	near := setUp(t.Context(), t, func(ctx context.Context, network string, a netip.AddrPort) (net.Conn, error) {
		c, err := direct(ctx, network, a)
		return plain{c}, err
	})
	if _, answer := dial(t, near, protocol.NetworkTCP, a); answer.Errno != syscall.EPROTO {
		t.Errorf("got %v, want EPROTO", answer.Errno)
	}
	c, err := ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the server reads %v, want the end", err)
	}
}
