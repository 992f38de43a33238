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

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

const db = "203.0.113.9:5432"

// yes answers every dial and hands the stream over.
func yes(streams chan<- *link.Stream) func(*link.Stream, protocol.Message) {
	return func(s *link.Stream, _ protocol.Message) {
		_ = s.Send(&protocol.Answer{Addr: netip.MustParseAddrPort("10.1.2.3:40001")})
		streams <- s
	}
}

// never fails the test if the agent is asked.
func never(t *testing.T) func(*link.Stream, protocol.Message) {
	return func(s *link.Stream, m protocol.Message) {
		t.Errorf("the agent got message %d", m.Kind())
		s.Close()
	}
}

func TestConnectReturnsWhatTheTargetSaid(t *testing.T) {
	answer := func(a *protocol.Answer) func(*link.Stream) { return func(s *link.Stream) { _ = s.Send(a); s.Close() } }
	for _, c := range []struct {
		name  string
		agent func(*link.Stream)
		want  syscall.Errno
	}{
		{"refused", answer(&protocol.Answer{Errno: syscall.ECONNREFUSED}), syscall.ECONNREFUSED},
		{"no route", answer(&protocol.Answer{Errno: syscall.EHOSTUNREACH}), syscall.EHOSTUNREACH},
		{"timed out", answer(&protocol.Answer{Errno: syscall.ETIMEDOUT}), syscall.ETIMEDOUT},
		{"denied", answer(&protocol.Answer{Errno: syscall.EACCES, Cause: protocol.CauseDenied, Text: "no"}), syscall.EACCES},
		{"only a cause", answer(&protocol.Answer{Cause: protocol.CauseTarget}), syscall.EIO},
		{"not known", func(s *link.Stream) { _ = s.Reset(syscall.ENOSYS); s.Close() }, syscall.ENOSYS},
		{"another message", func(s *link.Stream) { _ = s.Send(&protocol.Env{}); s.Close() }, syscall.EPROTO},
		{"no answer", func(s *link.Stream) { s.Close() }, syscall.ENETUNREACH},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := setUp(t, func(s *link.Stream, _ protocol.Message) { c.agent(s) })
			f := newAttempt(t, db)
			done := b.tcp(t.Context(), f)
			if got := within(t, "an errno", f.refused); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
			within(t, "the end of the flow", done)
			b.wantEvents("outgoing-refused")
			if got, want := b.events[0].Facts["errno"], fmt.Sprint(int(c.want)); got != want {
				t.Errorf("the event's errno is %s, want %s", got, want)
			}
		})
	}
}

func TestConnectWithoutALink(t *testing.T) {
	for _, before := range []bool{true, false} {
		t.Run(fmt.Sprintf("lost before: %v", before), func(t *testing.T) {
			asked := make(chan struct{}, 1)
			b := setUp(t, func(s *link.Stream, _ protocol.Message) { asked <- struct{}{}; _, _ = s.Receive(); s.Close() })
			if before {
				b.far.Close("")
				<-b.near.Done()
			}
			f := newAttempt(t, db)
			b.tcp(t.Context(), f)
			if !before {
				within(t, "the dial", asked)
				b.far.Close("")
			}
			if got := within(t, "an errno", f.refused); got != syscall.ENETDOWN {
				t.Errorf("got %v, want ENETDOWN", got)
			}
		})
	}
}

// An agent that never answers must not keep an attempt for ever, and a program
// whose session ends must not be kept at all.
func TestSilentAgent(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit time.Duration // of the flow's context
		after time.Duration
		want  syscall.Errno
	}{
		{"for ever", time.Hour, dialTime, syscall.ETIMEDOUT},
		{"until the session ends", 5 * time.Second, 5 * time.Second, syscall.ENETDOWN},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, end := newBench(t, func(s *link.Stream, _ protocol.Message) { _, _ = io.Copy(io.Discard, s); s.Close() })
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(c.limit, cancel)
				f := &attempt{dst: netip.MustParseAddrPort(db), accepted: make(chan struct{}), refused: make(chan syscall.Errno, 1)}
				began := time.Now()
				b.tcp(ctx, f)
				if got := <-f.refused; got != c.want {
					t.Errorf("got %v, want %v", got, c.want)
				}
				if got := time.Since(began); got != c.after {
					t.Errorf("after %v, want %v", got, c.after)
				}
				end()
				cancel()
			})
		})
	}
}

func TestTheTargetIsDialedFirst(t *testing.T) {
	asked, answer := make(chan *protocol.Dial, 1), make(chan struct{})
	b := setUp(t, func(s *link.Stream, m protocol.Message) {
		asked <- m.(*protocol.Dial)
		<-answer
		_ = s.Send(&protocol.Answer{})
		_, _ = s.Write([]byte("hello, server first"))
		s.Close()
	})
	b.Translate = func(a netip.AddrPort) netip.AddrPort { // the sandbox's word for localhost
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port())
	}
	f := newAttempt(t, "198.18.0.1:6379")
	done := b.tcp(t.Context(), f)
	m := within(t, "the dial", asked)
	if want := netip.MustParseAddrPort("127.0.0.1:6379"); m.Addr != want || m.Network != protocol.NetworkTCP {
		t.Errorf("dialed %d %v, want tcp %v", m.Network, m.Addr, want)
	}
	select {
	case <-f.accepted:
		t.Error("the program's connect returned before the target's")
	default:
	}
	close(answer)
	if got, err := io.ReadAll(f.program); string(got) != "hello, server first" || err != nil {
		t.Errorf("the program read %q, %v", got, err)
	}
	f.program.Close()
	within(t, "the end of the flow", done)
	b.wantEvents("outgoing-connected")
	if got := b.events[0].Facts; got["address"] != "127.0.0.1:6379" || got["where"] != "remote" {
		t.Errorf("the event says %v", got)
	}
}

func TestHalfCloseBothWays(t *testing.T) {
	streams := make(chan *link.Stream, 1)
	b := setUp(t, yes(streams))
	f := newAttempt(t, db)
	done := b.tcp(t.Context(), f)
	s := within(t, "a stream", streams)
	defer s.Close()
	if s.Lane() != link.Bulk {
		t.Error("a connection's data goes as interactive")
	}
	want := make([]byte, 1<<20)
	rand.Read(want)
	go func() {
		f.program.Write(want)
		f.program.CloseWrite()
	}()
	if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the target got %d bytes, %v, want %d", len(got), err, len(want))
	}
	if _, err := s.Write([]byte("answer")); err != nil { // the other direction is open
		t.Fatal(err)
	}
	s.CloseWrite()
	if got, err := io.ReadAll(f.program); err != nil || string(got) != "answer" {
		t.Errorf("the program got %q, %v, want answer", got, err)
	}
	within(t, "the end of the flow", done)
	b.wantEvents("outgoing-connected")
}

func TestHalfCloseByTheTargetFirst(t *testing.T) {
	streams := make(chan *link.Stream, 1)
	b := setUp(t, yes(streams))
	f := newAttempt(t, db)
	done := b.tcp(t.Context(), f)
	s := within(t, "a stream", streams)
	defer s.Close()
	s.CloseWrite()
	if got, err := io.ReadAll(f.program); err != nil || len(got) > 0 {
		t.Errorf("the program got %q, %v, want the end", got, err)
	}
	f.program.Write([]byte("late"))
	f.program.CloseWrite()
	if got, err := io.ReadAll(s); err != nil || string(got) != "late" {
		t.Errorf("the target got %q, %v, want late", got, err)
	}
	within(t, "the end of the flow", done)
}

func TestResetBothWays(t *testing.T) {
	streams := make(chan *link.Stream, 1)
	b := setUp(t, yes(streams))
	t.Run("by the target", func(t *testing.T) {
		f := newAttempt(t, db)
		done := b.tcp(t.Context(), f)
		s := within(t, "a stream", streams)
		defer s.Close()
		within(t, "accept", f.accepted)
		s.Reset(syscall.ECONNRESET)
		if _, err := f.program.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the program reads %v, want ECONNRESET", err)
		}
		within(t, "the end of the flow", done)
	})
	t.Run("by the program", func(t *testing.T) {
		f := newAttempt(t, db)
		done := b.tcp(t.Context(), f)
		s := within(t, "a stream", streams)
		defer s.Close()
		within(t, "accept", f.accepted)
		f.program.SetLinger(0)
		f.program.Close()
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the target reads %v, want ECONNRESET", err)
		}
		within(t, "the end of the flow", done)
	})
	t.Run("by the end of the session", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f := newAttempt(t, db)
		done := b.tcp(ctx, f)
		s := within(t, "a stream", streams)
		defer s.Close()
		within(t, "accept", f.accepted)
		cancel()
		if _, err := f.program.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the program reads %v, want ECONNRESET", err)
		}
		within(t, "the end of the flow", done)
	})
	t.Run("by the loss of the link", func(t *testing.T) {
		f := newAttempt(t, db)
		done := b.tcp(t.Context(), f)
		defer within(t, "a stream", streams).Close()
		within(t, "accept", f.accepted)
		b.far.Close("")
		if _, err := f.program.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the program reads %v, want ECONNRESET", err)
		}
		within(t, "the end of the flow", done)
	})
}

func TestProgramThatGaveUp(t *testing.T) {
	streams := make(chan *link.Stream, 1)
	b := setUp(t, yes(streams))
	f := &attempt{dst: netip.MustParseAddrPort(db), accepted: make(chan struct{}), refused: make(chan syscall.Errno, 1)}
	done := b.tcp(t.Context(), f)
	s := within(t, "a stream", streams)
	defer s.Close()
	var reset *link.ResetError
	if _, err := s.Read(make([]byte, 1)); !errors.As(err, &reset) {
		t.Errorf("the target reads %v, want a reset", err)
	}
	within(t, "the end of the flow", done)
	if len(f.refused) > 0 {
		t.Error("a flow was accepted and refused")
	}
	b.wantEvents()
}

func TestLocalByRule(t *testing.T) {
	b := setUp(t, never(t))
	b.rule(rules.OutgoingOptions{TCPLocal: true})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := newAttempt(t, ln.Addr().String())
	done := b.tcp(t.Context(), f)
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	go func() { io.Copy(c, c); c.Close() }()
	f.program.Write([]byte("echo"))
	f.program.CloseWrite()
	if got, err := io.ReadAll(f.program); err != nil || string(got) != "echo" {
		t.Errorf("got %q, %v, want echo", got, err)
	}
	within(t, "the end of the flow", done)

	ln.Close()
	f = newAttempt(t, ln.Addr().String())
	b.tcp(t.Context(), f)
	if got := within(t, "an errno", f.refused); got != syscall.ECONNREFUSED {
		t.Errorf("got %v, want ECONNREFUSED", got)
	}
	b.flows.Wait()
	b.wantEvents("outgoing-connected", "outgoing-refused")
	if got := b.events[0].Facts; got["where"] != "local" || got["why"] != "outgoing.tcp is off" {
		t.Errorf("the event says %v", got)
	}
}

// An address that stands for the pod's own means nothing where the pod has
// none of that family.
func TestNoSuchAddress(t *testing.T) {
	b := setUp(t, never(t))
	b.Translate = func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(netip.Addr{}, a.Port()) }
	f := newAttempt(t, "[fd00::2]:80")
	b.tcp(t.Context(), f)
	if got := within(t, "an errno", f.refused); got != syscall.ENETUNREACH {
		t.Errorf("tcp: got %v, want ENETUNREACH", got)
	}
	u := newSocket("[fd00::2]:80")
	within(t, "the end of the flow", b.udp(t.Context(), u))
	if got := within(t, "an errno", u.unreachable); got != syscall.ENETUNREACH {
		t.Errorf("udp: got %v, want ENETUNREACH", got)
	}
}
