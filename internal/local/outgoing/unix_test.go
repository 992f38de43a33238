package outgoing

import (
	"context"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
	"github.com/mirrord-go/mirrord/internal/unixsock"
)

// unixPair is a program's socket and its other end.
func unixPair(t *testing.T, typ int) (program int, near *unixsock.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fds[0], false); err != nil {
		t.Fatal(err)
	}
	_ = unix.SetsockoptTimeval(fds[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	near, err = unixsock.New(fds[1])
	if err != nil {
		t.Fatal(err)
	}
	return fds[0], near
}

// streams has the router send what matches to the target.
func (b *bench) streams(patterns ...string) {
	var o rules.OutgoingOptions
	for _, p := range patterns {
		o.UnixStreams = append(o.UnixStreams, rules.Pattern{Text: p, Origin: "KEY in FILE:3"})
	}
	b.rule(o)
}

func TestUnixCarries(t *testing.T) {
	b := setUp(t, func(s *link.Stream, m protocol.Message) {
		defer s.Close()
		d := m.(*protocol.Dial)
		_ = s.Send(&protocol.Answer{})
		if d.Network == protocol.NetworkUnixPacket {
			for link.Packets.Receive(link.Packets{Stream: s}, func(p []byte) error {
				return link.Packets{Stream: s}.Send([]byte(d.Name + " " + string(p)))
			}) == nil {
			}
			return
		}
		said, _ := io.ReadAll(s)
		_, _ = s.Write([]byte(d.Name + " " + string(said)))
	})
	b.streams("^/run/", "^bus$")
	share := budget.New(1<<20).Share(0, budget.All)
	b.Connections = share
	for _, c := range []struct {
		name string
		typ  int
	}{{"/run/s", unix.SOCK_STREAM}, {"\x00bus", unix.SOCK_SEQPACKET}} {
		far, err := b.DialUnix(t.Context(), c.name, c.typ == unix.SOCK_SEQPACKET, true)
		if err != nil {
			t.Fatal(err)
		}
		if got := share.Used(); got != UnixCost {
			t.Errorf("a connection takes %d bytes, want %d", got, UnixCost)
		}
		program, near := unixPair(t, c.typ)
		done := make(chan struct{})
		go func() { far.Carry(t.Context(), near); close(done) }()
		// Descriptors stay behind, and are told of once.
		for range 2 {
			if err := unix.Sendmsg(program, []byte("hello"), unix.UnixRights(program), nil, 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Shutdown(program, unix.SHUT_WR); err != nil {
			t.Fatal(err)
		}
		var all string
		p := make([]byte, 100)
		for {
			n, err := unix.Read(program, p)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
			all += string(p[:n]) + "|"
		}
		want := c.name + " hellohello|"
		if c.typ == unix.SOCK_SEQPACKET {
			want = c.name + " hello|" + c.name + " hello|"
		}
		if all != want {
			t.Errorf("got %q, want %q", all, want)
		}
		unix.Close(program)
		<-done
		if got := share.Used(); got != 0 {
			t.Errorf("%d bytes are taken after the end", got)
		}
	}
	b.wantEvents("outgoing-connected", "unix-descriptors", "outgoing-connected")
	if e := b.events[0]; e.Facts["address"] != "/run/s" || e.Facts["network"] != "unix" || e.Facts["where"] != "remote" || !strings.Contains(e.Facts["why"], "KEY in FILE:3") || e.Text != "unix /run/s: remote, connected" {
		t.Errorf("event %+v", e)
	}
	if e := b.events[2]; e.Facts["address"] != "@bus" || e.Facts["network"] != "unixpacket" {
		t.Errorf("event %+v", e)
	}
}

func TestUnixErrno(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer protocol.Answer
		want   syscall.Errno
		events []string
	}{
		{"nothing there", protocol.Answer{Errno: syscall.ENOENT}, syscall.ENOENT, []string{"outgoing-refused"}},
		{"refused", protocol.Answer{Errno: syscall.ECONNREFUSED}, syscall.ECONNREFUSED, []string{"outgoing-refused"}},
		{"an older agent", protocol.Answer{Errno: syscall.EPROTONOSUPPORT, Cause: protocol.CauseUnsupported}, syscall.EPROTONOSUPPORT, []string{"outgoing-refused", "agent-lacks"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := setUp(t, func(s *link.Stream, _ protocol.Message) { _ = s.Send(&c.answer); s.Close() })
			b.streams(".")
			share := budget.New(1<<20).Share(0, budget.All)
			b.Connections = share
			if _, err := b.DialUnix(t.Context(), "/s", false, true); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			b.wantEvents(c.events...)
			if got := share.Used(); got != 0 {
				t.Errorf("%d bytes are taken after the end", got)
			}
		})
	}
	t.Run("no memory", func(t *testing.T) {
		b := setUp(t, func(s *link.Stream, _ protocol.Message) { s.Close() })
		b.streams(".")
		b.Connections = budget.New(UnixCost-1).Share(0, budget.All)
		if _, err := b.DialUnix(t.Context(), "/s", false, true); !errors.Is(err, syscall.EAGAIN) {
			t.Errorf("got %v, want EAGAIN", err)
		}
	})
	t.Run("the link has ended", func(t *testing.T) {
		b := setUp(t, func(s *link.Stream, _ protocol.Message) { s.Close() })
		b.streams(".")
		b.near.Close("")
		if _, err := b.DialUnix(t.Context(), "/s", false, true); !errors.Is(err, syscall.ENETDOWN) {
			t.Errorf("got %v, want ENETDOWN", err)
		}
	})
}

// Who gives up is not waited for, and what was made for nobody goes.
func TestUnixGivenUp(t *testing.T) {
	ended := make(chan error, 2)
	b := setUp(t, func(s *link.Stream, m protocol.Message) {
		defer s.Close()
		if m.(*protocol.Dial).Name == "/made" {
			_ = s.Send(&protocol.Answer{})
		}
		_, err := s.ReadByte()
		ended <- err
	})
	b.streams(".")
	share := budget.New(1<<20).Share(0, budget.All)
	b.Connections = share
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := b.DialUnix(ctx, "/never", false, true); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("got %v, want ETIMEDOUT", err)
	}
	if err := <-ended; err == nil {
		t.Error("the agent is not told")
	}
	far, err := b.DialUnix(t.Context(), "/made", false, true)
	if err != nil {
		t.Fatal(err)
	}
	far.Drop()
	if err := <-ended; err == nil || errors.Is(err, io.EOF) {
		t.Errorf("what nobody waits for ends with %v, want a reset", err)
	}
	if got := share.Used(); got != 0 {
		t.Errorf("%d bytes are taken after the end", got)
	}
}

// The end of the session ends what is carried.
func TestUnixEndsWithTheSession(t *testing.T) {
	b := setUp(t, func(s *link.Stream, _ protocol.Message) {
		_ = s.Send(&protocol.Answer{})
		_, _ = io.Copy(io.Discard, s)
		s.Close()
	})
	b.streams(".")
	for _, packet := range []bool{false, true} {
		far, err := b.DialUnix(t.Context(), "/s", packet, true)
		if err != nil {
			t.Fatal(err)
		}
		typ := unix.SOCK_STREAM
		if packet {
			typ = unix.SOCK_SEQPACKET
		}
		program, near := unixPair(t, typ)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { far.Carry(ctx, near); close(done) }()
		cancel()
		<-done
		if n, err := unix.Read(program, make([]byte, 1)); n > 0 || err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("the program reads %d, %v, want the end", n, err)
		}
		unix.Close(program)
	}
}

// What is not carried is said once.
func TestUnixToldOnce(t *testing.T) {
	b := setUp(t, func(s *link.Stream, _ protocol.Message) { s.Close() })
	b.streams("^/run/")
	for range 2 {
		b.UnixDatagram("/run/log")
		b.UnixRing(7)
	}
	b.wantEvents("unix-datagram", "unix-io-uring")
	if !b.RemoteUnix("/run/x") || b.RemoteUnix("/x") {
		t.Error("the patterns do not decide")
	}
}
