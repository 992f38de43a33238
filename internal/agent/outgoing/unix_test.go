package outgoing

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/unixsock"
)

// dialsUnix connects as this process.
func dialsUnix(_ context.Context, typ int, name string, _ bool) (*unixsock.Conn, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, typ|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := unixsock.Connect(fd, name); err != nil {
		syscall.Close(fd)
		return nil, err
	}
	return unixsock.New(fd)
}

// asked dials by o and gives the stream and the answer.
func asked(t *testing.T, o *Server, m *protocol.Dial) (*link.Stream, *protocol.Answer) {
	t.Helper()
	s := opened(t, o, m)
	_ = s.SetReadDeadline(time.Now().Add(3 * time.Second))
	a, err := s.Receive()
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	return s, a.(*protocol.Answer)
}

func opened(t *testing.T, o *Server, m *protocol.Dial) *link.Stream {
	t.Helper()
	a, z := net.Pipe()
	near, far := link.New(a, link.Local, link.Options{}), link.New(z, link.Agent, link.Options{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		if s, m, err := far.Accept(context.Background()); err == nil {
			o.Serve(context.Background(), s, m.(*protocol.Dial))
		}
	}()
	t.Cleanup(func() { near.Close(""); far.Close(""); <-done })
	s, err := near.Open(t.Context(), link.Bulk, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestUnix(t *testing.T) {
	for network, number := range map[string]uint8{"unix": protocol.NetworkUnix, "unixpacket": protocol.NetworkUnixPacket} {
		t.Run(network, func(t *testing.T) {
			leak.Check(t)
			path := filepath.Join(t.TempDir(), "s")
			ln, err := net.ListenUnix(network, &net.UnixAddr{Name: path, Net: network})
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			dropped := make(chan string, 10)
			o := &Server{Unix: dialsUnix, Dropped: func(name string) { dropped <- name }}
			s, answer := asked(t, o, &protocol.Dial{Network: number, Name: path, Wait: true})
			if err := answer.Err(); err != nil {
				t.Fatal(err)
			}
			c, err := ln.AcceptUnix()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			say, hear := func(text string) error { _, err := s.Write([]byte(text)); return err }, func() (string, error) {
				b := make([]byte, 100)
				n, err := s.Read(b)
				return string(b[:n]), err
			}
			if number == protocol.NetworkUnixPacket {
				say = func(text string) error { return link.Packets{Stream: s}.Send([]byte(text)) }
				hear = func() (text string, err error) {
					err = link.Packets{Stream: s}.Receive(func(p []byte) error { text = string(p); return nil })
					return text, err
				}
			}
			if err := say("question"); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 100)
			if n, err := c.Read(b); err != nil || string(b[:n]) != "question" {
				t.Errorf("the server got %q, %v", b[:n], err)
			}
			// A descriptor that comes along is told of, and the rest arrives.
			if _, _, err := c.WriteMsgUnix([]byte("answer"), syscall.UnixRights(1), nil); err != nil {
				t.Fatal(err)
			}
			if got, err := hear(); err != nil || got != "answer" {
				t.Errorf("local got %q, %v", got, err)
			}
			if got := <-dropped; got != path {
				t.Errorf("dropped for %q, want %q", got, path)
			}
			// Half-close, then the end.
			if err := s.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(b); !errors.Is(err, io.EOF) {
				t.Errorf("after the half-close: %q, %v, want EOF", b[:n], err)
			}
			if _, err := c.Write([]byte("last")); err != nil {
				t.Error(err)
			}
			if got, err := hear(); err != nil || got != "last" {
				t.Errorf("local got %q, %v", got, err)
			}
			c.Close()
			if got, err := hear(); !errors.Is(err, io.EOF) {
				t.Errorf("at the end: %q, %v, want EOF", got, err)
			}
		})
	}
}

func TestUnixRefused(t *testing.T) {
	leak.Check(t)
	for _, c := range []struct {
		name string
		o    *Server
		want protocol.Answer
	}{
		{"nobody", &Server{Unix: dialsUnix}, protocol.Answer{Errno: syscall.ENOENT}},
		{"no memory", &Server{Unix: dialsUnix, Connections: budget.New(1).Share(0, budget.All)}, protocol.Answer{Errno: syscall.EAGAIN}},
		{"an agent that may not", &Server{}, protocol.Answer{Errno: syscall.EPROTONOSUPPORT, Cause: protocol.CauseUnsupported}},
	} {
		_, got := asked(t, c.o, &protocol.Dial{Network: protocol.NetworkUnix, Name: filepath.Join(t.TempDir(), "s")})
		if got.Errno != c.want.Errno || got.Cause != c.want.Cause {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

// A dial ends when nobody waits for it any more.
func TestUnixGivenUp(t *testing.T) {
	leak.Check(t)
	begun, ended := make(chan struct{}), make(chan error, 1)
	o := &Server{Unix: func(ctx context.Context, _ int, _ string, _ bool) (*unixsock.Conn, error) {
		close(begun)
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}}
	s := opened(t, o, &protocol.Dial{Network: protocol.NetworkUnix, Name: "/s", Wait: true})
	<-begun
	s.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
