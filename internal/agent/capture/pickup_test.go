package capture

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/http1"
)

const get = "GET / HTTP/1.1\r\n\r\n" // 18 bytes

// Connections of which the beginning was not seen are copied from a request on,
// and what is sent again never makes a second copy.
func TestPickUp(t *testing.T) {
	const S, A, F, R = flagSYN, flagACK, flagFIN, flagRST
	for _, c := range []struct {
		name  string
		steps []step
		want  []string // the copies, each with what it ends with
	}{
		{"requests", []step{{A, 100, get, 0}, {A, 118, get, 0}, {A | F, 136, "", 0}}, []string{get + get + " EOF"}},
		{"behind a body", []step{{A, 100, "rest of a body", 0}, {A, 114, get, 0}, {A | F, 132, "", 0}}, []string{get + " EOF"}},
		{"a request and its end", []step{{A | F, 100, get, 0}}, []string{get + " EOF"}},
		{"a head in pieces", []step{{A, 100, "GET / HTTP/1.1\r\nHo", 0}, {A, 118, "st: a\r\n\r\n", 0}, {A | F, 127, "", 0}}, []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n EOF"}},
		{"a first line in pieces", []step{{A, 100, "GET ", 0}, {A, 104, "/ HTTP/1.1\r\n\r\n", 0}, {A, 118, get, 0}, {A | F, 136, "", 0}}, []string{get + " EOF"}},
		{"swapped", []step{{A, 100, get, 0}, {A, 136, "c", 0}, {A, 118, get, 0}, {A | F, 137, "", 0}}, []string{get + get + "c EOF"}},
		{"older data again", []step{{A, 118, get, 0}, {A, 100, get, 0}, {A, 118, get, 0}, {A | F, 136, "", 0}}, []string{get + " EOF"}},
		{"sent again behind the end", []step{{A | F, 100, get, 0}, {A | F, 100, get, 0}}, []string{get + " EOF"}},
		{"sent again behind the end of a whole one", []step{{S, 99, "", 0}, {A | F, 100, get, 0}, {A | F, 100, get, 0}}, []string{get + " EOF"}},
		{"a gap that stays", []step{{A, 100, get, 0}, {A, 120, "x", 0}, {A, 121, "x", 10 * time.Second}, {A, 139, get, 0}, {A | F, 157, "", 0}},
			[]string{get + " " + ErrIncomplete.Error(), get + " EOF"}},
		{"a gap of a whole one", []step{{S, 99, "", 0}, {A, 100, get, 0}, {A, 120, "x", 0}, {A, 121, "x", 10 * time.Second}, {A, 139, get, 0}, {A | F, 157, "", 0}},
			[]string{get + " " + ErrIncomplete.Error(), get + " EOF"}},
		{"reset", []step{{A, 100, get, 0}, {R | A, 118, "", 0}}, []string{get + " " + syscall.ECONNRESET.Error()}},
		{"port used again", []step{{A, 100, get, 0}, {S, 500, "", 0}, {A, 501, "ab", 0}, {A | F, 503, "", 0}}, []string{get + " " + ErrIncomplete.Error(), "ab EOF"}},
		{"sequence numbers wrap", []step{{A, 1<<32 - 9, get, 0}, {A, 9, get, 0}, {A | F, 27, "", 0}, {A, 9, get, 0}}, []string{get + get + " EOF"}},
		{"no request", []step{{A, 100, "", 0}, {A, 99, "x", 0}, {A, 100, "EHLO a\r\n", 0}, {A, 108, "\x16\x03\x01", 0}, {A, 111, "PRI * HTTP/2.0\r\n\r\n", 0}, {A | F, 129, "", 0}}, nil},
		{"a reset with data", []step{{R, 100, get, 0}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var conns []*Conn
			a := newAssembler(func(c *Conn) bool { conns = append(conns, c); return true }, http1.Begins, nil)
			now := time.Unix(0, 0)
			for _, s := range c.steps {
				now = now.Add(s.late)
				a.packet(ip(flowKey{client, server}, s.flags, s.seq, s.data), false, now)
			}
			a.forgetAll()
			var got []string
			for i, conn := range conns {
				b, err := io.ReadAll(conn)
				if err == nil {
					err = io.EOF
				}
				if first := i == 0 && c.steps[0].flags == S || string(b) == "ab"; conn.Middle() == first {
					t.Errorf("the copy %q is said to begin in the middle: %v", b, !first)
				}
				got = append(got, fmt.Sprintf("%s %v", b, err))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got the copies %q, want %q", got, c.want)
			}
			if a.stats.Connections != int64(len(c.want)) {
				t.Errorf("%d copies are counted, want %d", a.stats.Connections, len(c.want))
			}
		})
	}
}

// A reader that ends its copy gets another with the next request, and loses what
// comes between; unless it does not understand the connection.
func TestReaderEnds(t *testing.T) {
	for _, c := range []struct {
		name  string
		end   func(*Conn)
		said  []string
		want  string // the second copy
		slow  int64
		flows int // that are remembered
	}{
		{"between requests", func(c *Conn) { c.Close() }, []string{get, "more"}, get + "more", 0, 1},
		{"in a body", func(c *Conn) { c.Close() }, []string{"body", "body", get}, get, 1, 1},
		{"what it does not understand", func(c *Conn) { c.Ignore(); c.Close() }, []string{"body", get, get}, "", 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var conns []*Conn
			a := newAssembler(func(c *Conn) bool { conns = append(conns, c); return true }, http1.Begins, nil)
			now, k, seq := time.Unix(0, 0), flowKey{client, server}, uint32(10)
			a.packet(ip(k, flagSYN, 9, ""), false, now)
			say := func(text string, flags byte) {
				a.packet(ip(k, flagACK|flags, seq, text), false, now)
				seq += uint32(len(text))
			}
			say("POST / HTTP/1.1\r\n\r\n", 0)
			c.end(conns[0])
			for _, text := range c.said {
				say(text, 0)
			}
			if len(a.flows) != c.flows || a.stats.Slow != c.slow {
				t.Errorf("%d connections are remembered, want %d; counted %+v", len(a.flows), c.flows, a.stats)
			}
			say("", flagFIN)
			got := ""
			if len(conns) > 1 {
				b, _ := io.ReadAll(conns[1])
				got = string(b)
			}
			if conns[0].Middle() || len(conns) > 1 && !conns[1].Middle() {
				t.Error("it is not known which copy begins in the middle")
			}
			if got != c.want || len(conns) > 2 {
				t.Errorf("of %d copies the second is %q, want %q", len(conns), got, c.want)
			}
			if len(a.flows) != 0 {
				t.Errorf("%d connections are remembered behind the end", len(a.flows))
			}
		})
	}
}

// Without room for one more copy at the handshake there may be some when the
// client speaks; a request that finds none is counted, and the next one tried.
func TestNoRoomForACopy(t *testing.T) {
	var room bool
	var conns []*Conn
	a := newAssembler(func(c *Conn) bool {
		if room {
			conns = append(conns, c)
		}
		return room
	}, http1.Begins, nil)
	now, k := time.Unix(0, 0), flowKey{client, server}
	a.packet(ip(k, flagSYN, 9, ""), false, now)
	a.packet(ip(k, flagACK, 10, ""), false, now)
	if a.stats.Refused != 0 {
		t.Errorf("counted %+v before the client has spoken", a.stats)
	}
	a.packet(ip(k, flagACK, 10, get), false, now)
	if a.stats.Refused != 1 || len(a.flows) != 0 {
		t.Errorf("counted %+v, and %d connections are followed", a.stats, len(a.flows))
	}
	room = true
	a.packet(ip(k, flagACK|flagFIN, 28, get), false, now)
	if len(conns) != 1 || a.stats.Refused != 1 {
		t.Fatalf("%d copies, counted %+v", len(conns), a.stats)
	}
	if b, err := io.ReadAll(conns[0]); string(b) != get || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
}

// Requests on unknown connections take no more than there may be, nor does
// looking for room cost each of their packets; what has ended is forgotten.
func TestPickedUpAreBounded(t *testing.T) {
	a := newAssembler(func(*Conn) bool { return true }, http1.Begins, nil)
	now := time.Unix(0, 0)
	ask := func(n int, flags byte) {
		k := flowKey{netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 1), server}
		a.packet(ip(k, flagACK|flags, 1, get), false, now)
	}
	for n := range maxFlows + 100 {
		ask(n, 0)
	}
	if len(a.flows) != maxFlows || a.stats.Refused != 100 || !a.swept.Equal(now) {
		t.Errorf("%d flows, %d refused", len(a.flows), a.stats.Refused)
	}
	for _, f := range a.flows {
		f.ignored = true // one that nobody needs
		break
	}
	if ask(maxFlows+100, 0); a.stats.Refused != 101 {
		t.Error("all connections are looked at for each request")
	}
	now = now.Add(sweepTime)
	if ask(maxFlows+100, 0); a.stats.Refused != 101 || len(a.flows) != maxFlows {
		t.Errorf("%d flows when one has made room, %d refused", len(a.flows), a.stats.Refused)
	}
	now = now.Add(idleTime + time.Second)
	ask(maxFlows+200, 0)
	if len(a.flows) != 1 {
		t.Errorf("%d flows when the others are idle, want 1", len(a.flows))
	}
	for n := range 3 * maxPast {
		ask(n, flagFIN)
	}
	if len(a.past.next) != maxPast || len(a.past.keys) != maxPast {
		t.Errorf("%d ended connections are remembered, in %d places, want %d", len(a.past.next), len(a.past.keys), maxPast)
	}
}

// FuzzPickUp: requests of one connection in any segments, some lost, some sent
// again. Each copy begins with a request and goes on without a gap, and no
// request has two.
func FuzzPickUp(f *testing.F) {
	f.Add([]byte{0, 18, 18, 18, 36, 5, 41, 30}, uint32(9))
	f.Add([]byte{54, 18, 18, 18, 0, 18, 90, 18, 72, 40}, uint32(1<<32-40))
	f.Fuzz(func(t *testing.T, cuts []byte, first uint32) {
		var sent []byte
		for i := range 12 {
			sent = fmt.Appendf(sent, "GET /%d HTTP/1.1\r\n\r\n", 10+i) // 20 bytes each
		}
		var conns []*Conn
		a := newAssembler(func(c *Conn) bool { conns = append(conns, c); return true }, http1.Begins, nil)
		now, k := time.Unix(0, 0), flowKey{client, server}
		for ; len(cuts) >= 2; cuts = cuts[2:] {
			from := min(int(cuts[0]), len(sent))
			to := min(from+int(cuts[1]), len(sent))
			now = now.Add(time.Second)
			a.packet(ip(k, flagACK, first+uint32(from), string(sent[from:to])), false, now)
		}
		a.forgetAll()
		had := 0 // up to where the copies have come
		for _, c := range conns {
			b, err := io.ReadAll(c)
			if !errors.Is(err, ErrIncomplete) {
				t.Errorf("a copy ends with %v", err)
			}
			at := 0
			for ; at < len(sent) && string(sent[at:min(at+len(b), len(sent))]) != string(b); at += 20 {
			}
			if at+len(b) > len(sent) || at < had {
				t.Errorf("the copy %q, behind byte %d", b, had)
			}
			had = at + len(b)
		}
	})
}
