package activity

import (
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/relay"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

// pipe is a connection both of whose ends are in this process.
type pipe struct{ net.Conn }

func (p pipe) CloseWrite() error { return p.Close() }

// watched gives a log, and what is told so far, one line an event.
func watched(heads *budget.Share) (l *Log, told func() []string, stop func()) {
	var mu sync.Mutex
	var all []string
	l = New(heads)
	stop = l.Watch(func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.At.IsZero() || e.Millis < 0 {
			all = append(all, "without a time")
		}
		all = append(all, strings.Join(strings.Fields(fmt.Sprint(e.Kind, " ", e.Flow, " ", e.What, e.Connection, " ", e.Method, e.Path, " ", e.Status, " ", e.Sent, "/", e.Received, e.Error)), " "))
	})
	return l, func() []string { mu.Lock(); defer mu.Unlock(); return all }, stop
}

// say writes each of texts by turns: the first by the one who asks.
func exchange(t *testing.T, asks, answers io.ReadWriter, texts ...string) {
	t.Helper()
	for i, text := range texts {
		from, to := asks, answers
		if i%2 == 1 {
			from, to = answers, asks
		}
		done := make(chan error, 1)
		go func() { _, err := io.WriteString(from, text); done <- err }()
		got := make([]byte, len(text))
		if _, err := io.ReadFull(to, got); err != nil || string(got) != text {
			t.Fatalf("got %q, %v, want %q", got, err, text)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// TestCalls: connections both ways are counted, their requests are told with
// their answers, and not a byte is changed.
func TestCalls(t *testing.T) {
	asked := []string{"GET /a?secret HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "POST http://h/b HTTP/1.1\r\nContent-Length: 1\r\n\r\n.", "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"}
	for _, incoming := range []bool{true, false} {
		l, told, stop := watched(nil)
		program, session := net.Pipe()
		var c *Call
		flow, first := "outgoing", "sent"
		if incoming {
			c = l.Incoming(Event{Client: "c"}, false)
			flow, first = "incoming", "received"
		} else {
			c = l.Outgoing(Event{Network: "tcp"})
		}
		near := c.Stream(pipe{session})
		counts := func() Traffic {
			if incoming {
				return l.Counts().Incoming
			}
			return l.Counts().Outgoing
		}
		if got := counts(); got.Open != 1 || got.Connections != 1 {
			t.Errorf("%s: open: got %+v", flow, got)
		}
		if incoming { // the session says what the client has said
			exchange(t, near, program, asked...)
		} else {
			exchange(t, program, near, asked...)
		}
		near.Close()
		program.Close()
		c.Close()
		c.Close()
		stop()
		asks, answers := int64(len(asked[0])+len(asked[2])), int64(len(asked[1])+len(asked[3]))
		want, line := Traffic{Connections: 1, Requests: 2, Sent: asks, Received: answers}, fmt.Sprint(asks, "/", answers)
		if first == "received" {
			want.Sent, want.Received, line = answers, asks, fmt.Sprint(answers, "/", asks)
		}
		if got := counts(); got != want {
			t.Errorf("%s: got %+v, want %+v", flow, got, want)
		}
		wantTold := []string{"connection " + flow + " opened1 0 0/0", "request " + flow + " 1 GET/a 200 0/0", "request " + flow + " 1 POST/b 404 0/0", "connection " + flow + " closed1 0 " + line}
		if got := told(); !reflect.DeepEqual(got, wantTold) {
			t.Errorf("%s: told %q, want %q", flow, got, wantTold)
		}
	}
}

// TestOwn: what this machine's programs do at published ports is told and does
// not count; what reaches nobody does.
func TestOwn(t *testing.T) {
	l, told, stop := watched(nil)
	c := l.Incoming(Event{}, true)
	c.Carried(1, 2)
	c.Close()
	l.NotDelivered(Event{}, true)
	if got := l.Counts(); !reflect.DeepEqual(got, Counts{}) {
		t.Errorf("got %+v, want nothing", got)
	}
	l.NotDelivered(Event{Error: "e"}, false)
	l.NotConnected(Event{Error: "e"})
	stop()
	l.NotConnected(Event{})
	if got := l.Counts(); got.Incoming.Refused != 1 || got.Outgoing.Refused != 2 {
		t.Errorf("got %+v", got)
	}
	if got := len(told()); got != 5 {
		t.Errorf("%d events, want 5: %q", got, told())
	}
}

// TestPipelined: of answers that nobody waits for, and of too many questions,
// nothing more is told; everything passes.
func TestPipelined(t *testing.T) {
	share := budget.New(1<<20).Share(0, 1<<20)
	l, told, stop := watched(share)
	c := l.Outgoing(Event{})
	program, session := net.Pipe()
	near := c.Stream(pipe{session})
	exchange(t, program, near, strings.Repeat("GET / HTTP/1.1\r\n\r\n", 2*maxAsked)+"GET /begun HT")
	if got := l.Counts().Outgoing.Requests; got != maxAsked {
		t.Errorf("%d requests are counted, want %d", got, maxAsked)
	}
	exchange(t, near, program, strings.Repeat("HTTP/1.1 204 No\r\n\r\n", 2*maxAsked)+"HTTP/1.1 2")
	relay.Reset(near, io.ErrUnexpectedEOF)
	program.Close()
	c.Close()
	stop()
	if got := len(told()); got != maxAsked+2 {
		t.Errorf("%d events, want %d", got, maxAsked+2)
	}
	if got := share.Used(); got != 0 {
		t.Errorf("%d bytes are still counted", got)
	}
}

// TestNobodyWatches: an event is not even made, and a session without a log works.
func TestNobodyWatches(t *testing.T) {
	describe := func() Event { t.Error("an event is made for nobody"); return Event{} }
	l := New(nil)
	l.Lookup(describe)
	l.File(true, describe)
	l.FileBytes(3, 4)
	l.Say(event.Event{})
	if got, want := l.Counts(), (Counts{Lookups: 1, Files: Files{Opened: 1, Read: 3, Written: 4}}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	program, session := net.Pipe()
	defer program.Close()
	defer session.Close()
	near := l.Outgoing(Event{}).Stream(pipe{session})
	b := make([]byte, 100)
	go io.Copy(io.Discard, program)
	if n := testing.AllocsPerRun(100, func() { _, _ = near.Write(b) }); n > 0 {
		t.Errorf("%v allocations for a write, want none", n)
	}
	l = nil
	l.Lookup(describe)
	l.File(true, describe)
	l.FileBytes(1, 1)
	l.Tell(Event{})
	l.Agent().Lost(Loss{1, 1})
	l.Agent().Passed(Passed{1, 1, 1, 1})
	l.NotConnected(Event{})
	l.NotDelivered(Event{}, false)
	for _, c := range []*Call{l.Outgoing(Event{}), l.Incoming(Event{}, false)} {
		if c.Stream(pipe{session}) != relay.Conn(pipe{session}) {
			t.Error("without a log the connection is another")
		}
		c.Carried(1, 1)
		c.Close()
	}
	if !reflect.DeepEqual(l.Counts(), Counts{}) || l.Watched() {
		t.Error("no log counts")
	}
}

// TestPorts: what comes to the program is counted by mode, a connection without
// requests as one; what agents count adds up over them, in whatever order they tell
// of it.
func TestPorts(t *testing.T) {
	l := New(nil)
	say := func(mode string, own bool, texts ...string) {
		program, session := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, program) }()
		c := l.Incoming(Event{Mode: mode}, own)
		near := c.Stream(pipe{session})
		for _, text := range texts {
			_, _ = io.WriteString(near, text)
		}
		c.Close()
		session.Close()
		program.Close()
	}
	const get, post = "GET / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n."
	say("mirror", false, get, post, get)
	say("mirror", false)
	say("steal", false, "no HTTP", "at all")
	say("steal", false, get+get)
	say("", true, get)
	returned := l.Incoming(Event{Mode: "steal"}, false)
	returned.Returned()
	returned.Returned()
	returned.Close()
	l.NotDelivered(Event{Mode: "mirror"}, false)
	l.NotDelivered(Event{Mode: "steal"}, false)
	one, other := l.Agent(), l.Agent()
	for _, now := range []struct {
		of *Agent
		Passed
	}{{one, Passed{2, 1, 1, 0}}, {other, Passed{1, 0, 0, 0}}, {one, Passed{7, 2, 1, 5}}, {other, Passed{3, 1, 0, 1}}, {one, Passed{2, 1, 1, 0}}} {
		now.of.Passed(now.Passed)
	}
	one.Lost(Loss{Packets: 9, Copies: 2})
	if got, want := l.Counts().Ports, (Ports{Mirrored: 4, Stolen: 3, Passed: 10, Returned: 3, Lost: 4, Ended: 6}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestLost: agents count from nothing, the session goes on counting.
func TestLost(t *testing.T) {
	l := New(nil)
	one, other := l.Agent(), l.Agent()
	one.Lost(Loss{1, 0})
	other.Lost(Loss{1, 0})
	one.Lost(Loss{5, 2})
	other.Lost(Loss{2, 1})
	if got, want := l.Counts().Lost, (Loss{7, 3}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestSaid: the session's words are told, the details of flows are not, which
// tell of themselves.
func TestSaid(t *testing.T) {
	l, told, stop := watched(nil)
	defer stop()
	l.Say(event.Event{Level: event.Detail, Code: "delivered"})
	l.Say(event.Event{Level: event.Warning, Code: "link-lost"})
	if got := told(); len(got) != 1 {
		t.Errorf("told %q, want one", got)
	}
}
