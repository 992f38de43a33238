package drain

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

var (
	aClient = netip.MustParseAddrPort("192.0.2.1:50000")
	aServer = netip.MustParseAddrPort("192.0.2.2:80")
)

// wire makes the segments of one connection, in order.
type wire struct{ next [2]uint32 }

func (w *wire) say(from int, text string) segment {
	s := segment{src: aClient, dst: aServer, seq: w.next[from], ack: w.next[1-from], flags: ack, data: []byte(text)}
	if from == server {
		s.src, s.dst = aServer, aClient
	}
	w.next[from] += uint32(len(text))
	return s
}

// When a connection is idle: words by turns, a client's first; "-" is a segment that
// is not seen, "*" one that comes twice.
func TestDue(t *testing.T) {
	const (
		get   = "GET / HTTP/1.1\r\n\r\n"
		ok    = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
		empty = ""
	)
	for _, c := range []struct {
		name string
		says []string
		want bool
	}{
		{"nothing", nil, false},
		{"a request and its response", []string{get, ok}, true},
		{"in pieces", []string{get[:5], empty, get[5:], ok[:9], empty, ok[9:]}, true},
		{"a request", []string{get}, false},
		{"an interim response", []string{get, "HTTP/1.1 100 Continue\r\n\r\n"}, false},
		{"half a response", []string{get, ok[:len(ok)-1]}, false},
		{"half of the next request", []string{get, ok, get[:3]}, false},
		{"the next request", []string{get, ok, get}, false},
		{"two", []string{get, ok, get, ok}, true},
		{"two at once", []string{get + get, ok + ok}, true},
		{"two at once, of which one is answered", []string{get + get, ok}, false},
		{"half a body", []string{"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\na", ok}, false},
		{"the server's last response", []string{get, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"}, false},
		{"the client's last request", []string{"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", ok}, false},
		{"a response without an end", []string{get, "HTTP/1.1 200 OK\r\n\r\n"}, false},
		{"events", []string{get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"}, false},
		{"WebSocket", []string{"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 101 Go\r\n\r\n"}, false},
		{"another protocol", []string{"SELECT 1", "1"}, false},
		{"the rest of a response from before", []string{empty, "ok"}, false},
		{"the rest of a request from before", []string{"hello", ok}, false},
		{"from the second request on", []string{"hello", ok, get, ok}, true},
		{"a request that was not seen", []string{get, ok, "-" + get}, true}, // the server's kernel knows better
		{"the same, and half a response", []string{get, ok, "-" + get, ok[:5]}, false},
		{"a response with a gap", []string{get, "-" + ok[:3], empty, ok[3:]}, false},
		{"said twice", []string{"*" + get, "*" + ok}, true},
	} {
		w := watch{flows: map[flowKey]*flow{}}
		w.add([]flowKey{{aClient, aServer}})
		l := &wire{next: [2]uint32{1<<32 - 20, 1<<32 - 10}}
		now := time.Now()
		for i, text := range c.says {
			times := 1
			switch {
			case strings.HasPrefix(text, "-"):
				text, times = text[1:], 0
			case strings.HasPrefix(text, "*"):
				text, times = text[1:], 2
			}
			s := l.say(i%2, text)
			for range times {
				if last := w.segment(s, now); last != nil {
					t.Errorf("%s: an end is told unasked", c.name)
				}
			}
		}
		if early := w.due(now.Add(quietTime - 1)); len(early) > 0 {
			t.Errorf("%s: ended before it is quiet", c.name)
		}
		due := w.due(now.Add(quietTime))
		if got := len(due) == 1; got != c.want {
			t.Errorf("%s: ended is %v, want %v", c.name, got, c.want)
		}
		if len(due) == 1 && !strings.Contains(c.name, "not seen") && (due[0].seq != l.next[client] || due[0].ack != l.next[server] || due[0].flags != fin|ack || due[0].src != aClient) {
			t.Errorf("%s: the end is %+v", c.name, due[0])
		}
	}
}

// The client is told only when the server's kernel has taken the end.
func TestFarewell(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(l *wire) segment // what the server's kernel says
		told   bool
		kept   bool // the connection is still watched
	}{
		"taken":               {func(l *wire) segment { s := l.say(server, ""); s.ack++; return s }, true, false},
		"taken and closed":    {func(l *wire) segment { s := l.say(server, ""); s.ack++; s.flags |= fin; return s }, true, false},
		"not yet":             {func(l *wire) segment { return l.say(server, "") }, false, true},
		"a request was first": {func(l *wire) segment { l.next[client] += 9; return l.say(server, "") }, false, true},
		"reset":               {func(l *wire) segment { s := l.say(server, ""); s.flags |= rst; return s }, false, false},
	} {
		w := watch{flows: map[flowKey]*flow{}}
		k := flowKey{aClient, aServer}
		w.add([]flowKey{k})
		l, now := &wire{}, time.Now()
		ask, reply := l.say(client, "GET / HTTP/1.1\r\n\r\n"), l.say(server, "HTTP/1.1 204 No\r\n\r\n")
		ask.stamps, ask.val, ask.ecr, reply.stamps, reply.val, reply.ecr, reply.window = true, 7, 1, true, 9, 7, 500
		w.segment(ask, now)
		w.segment(reply, now)
		due := w.due(now.Add(quietTime))
		if len(due) != 1 {
			t.Fatal("not due")
		}
		if s := due[0]; !s.stamps || s.val != 7 || s.ecr != 9 {
			t.Errorf("%s: the timestamps are %v %d %d", name, s.stamps, s.val, s.ecr)
		}
		if w.segment(*due[0], now) != nil || len(w.due(now.Add(quietTime))) > 0 {
			t.Errorf("%s: our own end is taken for another", name)
		}
		s := c.answer(l)
		s.stamps, s.val, s.ecr, s.window = true, 10, 7, 400
		last := w.segment(s, now)
		if (last != nil) != c.told || (w.flows[k] != nil) != c.kept {
			t.Errorf("%s: told %+v, watched %v", name, last, w.flows[k] != nil)
		}
		want := &segment{src: aServer, dst: aClient, seq: l.next[server], ack: l.next[client], flags: fin | ack, window: 400, stamps: true, val: 10, ecr: 7}
		if last != nil && !reflect.DeepEqual(last, want) {
			t.Errorf("%s: told %+v, want %+v", name, last, want)
		}
	}
}

// What is written is what is read, whatever stands in it.
func FuzzSegment(f *testing.F) {
	for _, s := range []segment{
		{src: aClient, dst: aServer, seq: 1, ack: 2, flags: fin | ack, window: 3},
		{src: netip.MustParseAddrPort("[2001:db8::1]:1"), dst: netip.MustParseAddrPort("[2001:db8::2]:2"), flags: syn, stamps: true, val: 8, ecr: 9, data: []byte("x")},
	} {
		f.Add(s.packet())
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		s, ok := parse(bytes.Clone(packet))
		if !ok {
			return
		}
		if again, ok := parse(s.packet()); len(s.data) < 60000 && (!ok || !reflect.DeepEqual(again, s)) {
			t.Errorf("got %+v, want %+v", again, s)
		}
	})
}
