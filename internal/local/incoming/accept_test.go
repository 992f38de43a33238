package incoming

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

func TestWaitTime(t *testing.T) {
	const limit = 10 * time.Second
	for _, c := range []struct {
		name         string
		limit        time.Duration
		late, queued bool
		want         time.Duration
	}{
		{"nothing is known", limit, false, false, limit},
		{"others wait, not for long", limit, false, true, limit},
		{"one has waited in vain, and is in the queue still", limit, true, true, 0},
		{"the queue is empty: the program may have gone on", limit, true, false, lateTime},
		{"less than that is asked for", lateTime / 2, true, false, lateTime / 2},
	} {
		if got := waitTime(c.limit, c.late, c.queued); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	for _, c := range []struct {
		name    string
		waited  time.Duration
		waiting int64
		want    time.Duration
	}{
		{"at first", 0, 1, firstPause},
		{"in proportion", 2 * time.Millisecond, 1, time.Millisecond},
		{"for long", time.Minute, 0, longPause},
		{"among many", time.Minute, 2000, longPause + 100*time.Millisecond},
	} {
		if got := pause(c.waited, c.waiting); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// lazy is a program that accepts when it is told to.
type lazy struct {
	mu       sync.Mutex
	ends     []net.Conn // its own, of connections that were made to it
	accepted int        // of these, the first
	waiting  bool       // the others are seen in its queue
	full     bool       // its queue is
}

// set changes how the program is, and gives how many connections were made to it.
func (l *lazy) set(change func()) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	return len(l.ends)
}

func (l *lazy) dial(ctx context.Context, _ Attempt) (net.Conn, error) {
	l.mu.Lock()
	if l.full {
		l.mu.Unlock()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	defer l.mu.Unlock()
	near, far := net.Pipe()
	l.ends = append(l.ends, far)
	return halved{near}, nil
}

func (l *lazy) follow(_, _ netip.AddrPort) Peer {
	l.mu.Lock()
	defer l.mu.Unlock()
	return inQueue{l, len(l.ends)}
}

func (l *lazy) Waiting(uint16) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting
}

func (l *lazy) Stopped() []int { return []int{4711} }

// halved is a pipe's end that ends as a whole.
type halved struct{ net.Conn }

func (h halved) CloseWrite() error { return h.Close() }

// inQueue is the connection with a number.
type inQueue struct {
	*lazy
	number int
}

func (q inQueue) Place() (queued, accepted bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.accepted < q.number, q.accepted >= q.number
}
func (inQueue) Find()                           {}
func (inQueue) Unaccepted(context.Context) bool { return false }
func (inQueue) Forget()                         {}

// lazyBench is a bench with such a program on port 80, which has ten seconds.
func lazyBench(t *testing.T) (b *bench, l *lazy, end func()) {
	b, end = newBench(t, protocol.ModeSteal, nowhere)
	l = &lazy{}
	b.o.Accept, b.o.Queues, b.o.Dial, b.o.Follow = 10*time.Second, l, l.dial, l.follow
	b.listening(1, "0.0.0.0:80")
	return b, l, end
}

// client has a connection delivered, on which it says something.
func (b *bench) client(says string) (*link.Stream, chan struct{}) {
	agent, err := b.far.Open(b.t.Context(), link.Bulk, &protocol.Incoming{Port: 80, Mode: protocol.ModeSteal, Peer: client, Local: netip.MustParseAddrPort("10.1.2.3:80")})
	if err != nil {
		b.t.Fatal(err)
	}
	s, m, err := b.near.Accept(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { b.Serve(b.t.Context(), s, m.(*protocol.Incoming)); close(done) }()
	if _, err := io.WriteString(agent, says); err != nil {
		b.t.Fatal(err)
	}
	return agent, done
}

// refused waits until a connection is.
func refused(t *testing.T, agent *link.Stream) {
	t.Helper()
	var reset *link.ResetError
	if _, err := agent.Read(make([]byte, 1)); !errors.As(err, &reset) || !reset.Remote || reset.Errno != syscall.ECONNREFUSED {
		t.Errorf("the agent reads %v, want a refusal", err)
	}
}

// handedBack waits until a client's connection is refused, and says how long that
// took.
func (b *bench) handedBack() time.Duration {
	b.t.Helper()
	began := time.Now()
	agent, done := b.client("a request")
	defer agent.Close()
	refused(b.t, agent)
	took := time.Since(began)
	<-done
	return took
}

// What a program has not accepted in time is refused, and the program never hears a
// word of it. Until it goes on nobody waits for it again.
func TestNotAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, l, end := lazyBench(t)
		defer end()
		took := func(what string, want time.Duration, dials int) {
			t.Helper()
			if got := b.handedBack(); got != want {
				t.Errorf("%s: handed back after %v, want %v", what, got, want)
			}
			if got := l.set(func() {}); got != dials {
				t.Errorf("%s: %d connections were made to the program, want %d", what, got, dials)
			}
		}
		first, done := b.client("a request")
		began := time.Now()
		time.Sleep(4 * time.Second)
		var program net.Conn
		l.set(func() { program = l.ends[0] })
		heard := make(chan string, 1)
		go func() {
			b := make([]byte, 16)
			n, _ := program.Read(b)
			heard <- string(b[:n])
		}()
		if got := b.handedBack(); got < 6*time.Second || got > 6*time.Second+2*longPause {
			t.Errorf("one that came after 4s was handed back after %v, want when the first was", got)
		}
		refused(t, first)
		if got := time.Since(began); got > 10*time.Second+2*longPause {
			t.Errorf("the first was handed back after %v", got)
		}
		first.Close()
		<-done
		if got := <-heard; got != "" {
			t.Errorf("the program has heard %q, which the target has", got)
		}
		l.set(func() { l.waiting = true })
		took("while it is in the queue", 0, 2)
		l.set(func() { l.waiting = false })
		took("when the queue is empty", lateTime, 3)
		l.set(func() { l.full = true })
		took("when there is no room in the queue", lateTime, 3)
		if e := b.event("port-not-accepting"); e.Facts["port"] != "80" || e.Facts["why"] != "process 4711 is stopped, by a debugger or a signal" {
			t.Errorf("said of %v", e.Facts)
		}

		l.set(func() { l.full = false; l.accepted = 4 })
		agent, done := b.client("a request")
		answered(t, l, agent)
		agent.Close()
		<-done
		b.event("port-accepting")
		if port, limit, bounded := b.patience(arrival{client: client, port: 80, target: true}); port != 80 || limit != b.o.Accept || !bounded {
			t.Errorf("the next may wait for %v", limit)
		}
	})
}

// answered has the program's last connection answer what the client has said.
func answered(t *testing.T, l *lazy, agent *link.Stream) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	program := l.ends[len(l.ends)-1]
	l.mu.Unlock()
	request, reply := make([]byte, 9), make([]byte, 2)
	if _, err := io.ReadFull(program, request); err != nil || string(request) != "a request" {
		t.Errorf("the program has heard %q, %v", request, err)
	}
	if _, err := program.Write([]byte("ok")); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(agent, reply); err != nil || string(reply) != "ok" {
		t.Errorf("the client has heard %q, %v", reply, err)
	}
	program.Close()
}

// A program that takes its time hears what was said meanwhile; one that has spoken has
// accepted, whatever the kernel shows.
func TestAcceptedLate(t *testing.T) {
	for name, accept := range map[string]func(l *lazy){
		"by the kernel": func(l *lazy) { l.set(func() { l.accepted = 1 }) },
		"by its words": func(l *lazy) {
			var program net.Conn
			l.set(func() { program = l.ends[0] })
			program.Write([]byte("!"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, l, end := lazyBench(t)
				defer end()
				agent, done := b.client("a request")
				time.Sleep(9 * time.Second)
				accept(l)
				if name == "by its words" {
					if _, err := io.ReadFull(agent, make([]byte, 1)); err != nil {
						t.Error(err)
					}
				}
				time.Sleep(5 * time.Second)
				answered(t, l, agent)
				agent.Close()
				<-done
				b.wantEvents("port-open", "delivered")
			})
		})
	}
}

// What was withdrawn says nothing more, and what has spoken is not withdrawn, whichever
// is first by a moment.
func TestWithdrawn(t *testing.T) {
	for name, c := range map[string]struct{ withdrawn, stays bool }{"first": {true, false}, "too late": {false, true}} {
		one := (&Ports{}).taken(t.Context(), nil, nil, netip.AddrPort{}, nil)
		if c.stays && !one.stays() {
			t.Errorf("%s: it does not stay", name)
		}
		if got := one.withdraw(); got != c.withdrawn {
			t.Errorf("%s: withdrawn is %v", name, got)
		}
		if got := one.stays(); got != c.stays {
			t.Errorf("%s: that it may speak is %v", name, got)
		}
	}
}

// Copies wait for ever, and so do the developer's own connections.
func TestNobodyElseIsHandedBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, l, end := lazyBench(t)
		defer end()
		l.set(func() { l.waiting = true })
		b.isLate(80)
		for _, a := range []arrival{{client: client, port: 80, target: true, copied: true}, {client: client, port: 80, own: true}} {
			if _, limit, bounded := b.patience(a); bounded || limit != deliverTime {
				t.Errorf("%+v may wait for %v", a, limit)
			}
		}
		b.Closed(1)
		if b.lates.has(80) {
			t.Error("a listener that is gone is not forgotten")
		}
	})
}
