package outgoing

import (
	"bytes"
	"context"
	"errors"
	"io"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// lookups carries f as lookups, of a name server that is remote.
func (b *bench) lookups(ctx context.Context, f UDPFlow) (done chan struct{}) {
	b.Lookups = func() bool { return true }
	done = make(chan struct{})
	b.flows.Go(func() {
		b.CarryLookups(ctx, f, f.Dst(), rules.Decision{Where: rules.Remote, Why: "a name server"})
		close(done)
	})
	return done
}

// repeat answers each lookup with itself.
func repeat(t testing.TB) func(*link.Stream, protocol.Message) {

	return func(s *link.Stream, m protocol.Message) {
		defer s.Close()
		q, ok := m.(*protocol.Lookup)
		if !ok {
			t.Errorf("got message %d, want a lookup", m.Kind())
			return
		}
		_ = s.Send(&protocol.Datagram{Data: q.Query})
	}
}

// Each lookup is one question and one answer, and leaves nothing behind: a
// program may have made more sockets within the idle time of a flow than there
// may be streams.
func TestLookups(t *testing.T) {
	lanes := make(chan link.Lane, 4)
	answer := repeat(t)
	b := setUp(t, func(s *link.Stream, m protocol.Message) {
		lanes <- s.Lane()
		if q := m.(*protocol.Lookup); q.Addr.String() != "10.96.0.10:53" {
			t.Errorf("asked %v", q.Addr)
		}
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("after a lookup comes %v, want the end", err)
		}
		answer(s, m)
	})
	f := newSocket("10.96.0.10:53")
	done := b.lookups(t.Context(), f)
	for _, q := range []string{"A? db.", "AAAA? db.", ""} {
		f.sent <- []byte(q)
		if got := within(t, "an answer", f.got); string(got) != q {
			t.Errorf("got %q, want %q", got, q)
		}
		if got := within(t, "a stream", lanes); got != link.Interactive {
			t.Errorf("lane %d, want interactive", got)
		}
	}
	f.sent <- make([]byte, maxLookup+1) // dropped
	f.sent <- bytes.Repeat([]byte("x"), maxLookup)
	if got := within(t, "an answer", f.got); len(got) != maxLookup {
		t.Errorf("got %d bytes, want %d", len(got), maxLookup)
	}
	close(f.idle)
	within(t, "the end of an idle flow", done)
	within(t, "the close of the flow", f.closed)
	b.wantEvents("outgoing-connected")
}

// reads tells of each Read of a socket that says that it is idle.
type reads struct {
	*socket
	idle chan struct{}
}

func (r reads) Read(p []byte) (int, error) {
	n, err := r.socket.Read(p)
	if idle(err) {
		r.idle <- struct{}{}
	}
	return n, err
}

// A socket whose lookups wait for their answers is not idle: while the link is
// lost they come later than most flows live.
func TestLookupsWaitForTheLink(t *testing.T) {
	asked, answer := make(chan struct{}), repeat(t)
	hold := make(chan struct{})
	b := setUp(t, func(s *link.Stream, m protocol.Message) {
		close(asked)
		<-hold
		answer(s, m)
	})
	f := reads{newSocket("10.96.0.10:53"), make(chan struct{})}
	done := b.lookups(t.Context(), f)
	f.sent <- []byte("A? db.")
	within(t, "the lookup", asked)
	close(f.socket.idle)
	for range 3 {
		within(t, "a Read of an idle socket", f.idle)
	}
	close(hold)
	for {
		select {
		case <-f.idle:
			continue
		case got := <-f.got:
			if string(got) != "A? db." {
				t.Errorf("got %q", got)
			}
			// It is idle now, unless it had read before the answer was there.
			for {
				select {
				case <-f.idle:
					continue
				case <-done:
				}
				return
			}
		case <-done:
			t.Fatal("the flow has ended before the answer")
		}
	}
}

// A question that a lost link keeps from its answer fails, as what is new does.
func TestLookupsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newSocket("10.96.0.10:53")
		r := &Router{Link: silent{}, Lookups: func() bool { return true }, Emit: event.Discard}
		done := make(chan struct{})
		start := time.Now()
		go func() {
			r.CarryLookups(t.Context(), f, f.Dst(), rules.Decision{Where: rules.Remote})
			close(done)
		}()
		f.sent <- []byte("A? db.")
		if got := <-f.unreachable; got != syscall.EHOSTUNREACH || time.Since(start) != lookupTime {
			t.Errorf("%v after %v", got, time.Since(start))
		}
		close(f.idle)
		<-done
	})
}

// silent is a link on which nothing comes.
type silent struct{ Opener }

func (silent) Call(ctx context.Context, _ protocol.Message) (protocol.Message, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// Sockets that have their answers, and are idle, take none of the link's streams.
func TestManyLookups(t *testing.T) {
	b := setUp(t, repeat(t))
	for range 3000 {
		f := newSocket("10.96.0.10:53")
		defer f.Close()
		b.lookups(t.Context(), f)
		f.sent <- []byte("A? db.")
		select {
		case <-f.got:
		case errno := <-f.unreachable:
			t.Fatal(errno)
		}
	}
}

// An agent of before is asked by datagrams of one dial.
func TestLookupsOfAnOlderAgent(t *testing.T) {
	b := setUp(t, echo(t))
	f := newSocket("10.96.0.10:53")
	b.Lookups = func() bool { return false }
	b.flows.Go(func() {
		b.CarryLookups(t.Context(), f, f.Dst(), rules.Decision{Where: rules.Remote, Why: "a name server"})
	})
	for _, q := range []string{"A? db.", "AAAA? db."} {
		f.sent <- []byte(q)
		if got := within(t, "an answer", f.got); string(got) != q {
			t.Errorf("got %q, want %q", got, q)
		}
	}
	f.Close()
}

// What the target's network says reaches the program, and the flow goes on.
func TestLookupsFail(t *testing.T) {
	for name, c := range map[string]struct {
		says  protocol.Message
		want  syscall.Errno // 0: nothing
		event string
	}{
		"port unreachable":  {&protocol.Datagram{Errno: syscall.ECONNREFUSED}, syscall.ECONNREFUSED, "outgoing-connected"},
		"no socket":         {&protocol.Answer{Errno: syscall.EADDRNOTAVAIL}, syscall.EADDRNOTAVAIL, "outgoing-refused"},
		"a foreign message": {&protocol.Env{}, syscall.EPROTO, "outgoing-refused"},
		"nothing":           {&protocol.Answer{}, 0, "outgoing-connected"},
	} {
		t.Run(name, func(t *testing.T) {
			answer := repeat(t)
			b := setUp(t, func(s *link.Stream, m protocol.Message) {
				if q := m.(*protocol.Lookup); string(q.Query) == "again" {
					answer(s, m)
					return
				}
				defer s.Close()
				_ = s.Send(c.says)
			})
			f := newSocket("10.96.0.10:53")
			done := b.lookups(t.Context(), f)
			f.sent <- []byte("A? db.")
			if c.want != 0 {
				if got := within(t, "an errno", f.unreachable); got != c.want {
					t.Errorf("got %v, want %v", got, c.want)
				}
			}
			f.sent <- []byte("again")
			within(t, "an answer", f.got)
			f.Close()
			within(t, "the end of the flow", done)
			b.wantEvents(c.event)
		})
	}
}

// A socket has a bounded number of lookups that wait, and none after the end of
// the session.
func TestLookupsAreBounded(t *testing.T) {
	asked := make(chan string, maxLookups+2)
	over := make(chan struct{})
	b := setUp(t, func(s *link.Stream, m protocol.Message) {
		defer s.Close()
		asked <- string(m.(*protocol.Lookup).Query)
		<-over
	})
	ctx, cancel := context.WithCancel(t.Context())
	f := newSocket("10.96.0.10:53")
	done := b.lookups(ctx, f)
	for range maxLookups {
		f.sent <- []byte("A? db.")
		within(t, "a lookup", asked)
	}
	for range 1 + cap(f.sent) { // when the last of them is queued the first has been read
		f.sent <- []byte("one more")
	}
	cancel()
	within(t, "the end of the flow", done)
	close(over)
	select {
	case got := <-asked:
		t.Errorf("%q was asked while %d others waited", got, maxLookups)
	default:
	}
	b.wantEvents()
}
