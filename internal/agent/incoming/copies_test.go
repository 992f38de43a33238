package incoming

import (
	"errors"
	"io"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/http2"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// mirrored is a bench with a filter on the mirrored port 8080, and a copy.
func mirrored(t *testing.T) (*bench, *copied) {
	t.Helper()
	b := setUp(t)
	b.subscribed(&protocol.Subscribe{Port: 8080, Mode: protocol.ModeMirror, Filter: localFilter})
	c := newCopied()
	b.mirror.conns <- c
	return b, c
}

// say brings text as the client's, in portions.
func (c *copied) say(text string) {
	for len(text) > 0 {
		n := min(len(text), 1000)
		c.data <- []byte(text[:n])
		text = text[n:]
	}
}

// received reads exactly want.
func received(t *testing.T, s *link.Stream, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(s, got); err != nil || string(got) != want {
		t.Errorf("local got %.200q, %v, want %.200q", got[:n], err, want)
	}
}

// Only requests that match are copied, as they were sent.
func TestMatchingRequestsAreCopied(t *testing.T) {
	b, c := mirrored(t)
	var want string
	go func() {
		for _, r := range odd {
			c.say(r)
		}
		c.say("GET /other/ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n")
		c.say("\x81\x80frames")
		close(c.data)
	}()
	want, _ = sides()
	s, m := b.arrived()
	if want := (protocol.Incoming{Port: 8080, Mode: protocol.ModeMirror, Peer: netip.MustParseAddrPort("[2001:db8::7]:50000"), Local: netip.MustParseAddrPort("[2001:db8::3]:8080")}); *m != want {
		t.Errorf("got %+v, want %+v", *m, want)
	}
	if _, err := s.Write(make([]byte, 1<<20)); err != nil { // replies go nowhere
		t.Error(err)
	}
	if got, err := io.ReadAll(s); string(got) != want || err != nil {
		t.Errorf("local got %q, %v, want %q", got, err, want)
	}
	s.Close()
	within(t, "the close of the copy", c.closed)
}

func TestCopyOfAnUpgrade(t *testing.T) {
	b, c := mirrored(t)
	words := "GET /local/ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n" + "\x81\x80" + strings.Repeat("frames", 1000)
	go func() { c.say(words); close(c.data) }()
	s, _ := b.arrived()
	if got, err := io.ReadAll(s); string(got) != words || err != nil {
		t.Errorf("local got %d bytes, %v, want %d", len(got), err, len(words))
	}
}

// A program is not offered to go on in HTTP/2, whatever the target makes of the offer.
func TestCopyOfAnOffer(t *testing.T) {
	b, c := mirrored(t)
	const get = "GET /local HTTP/1.1\r\n"
	go func() {
		c.say(get + "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n" + get + "\r\n" + get + "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n" + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
		close(c.data)
	}()
	s, _ := b.arrived()
	want := get + "HTTP2-Settings: AAMAAABk\r\n\r\n" + get + "\r\n" + get + "HTTP2-Settings: AAMAAABk\r\n\r\n"
	if got, err := io.ReadAll(s); string(got) != want || err != nil {
		t.Errorf("local got %q, %v, want %q", got, err, want)
	}
}

// A program that ends its connection gets another for the next request.
func TestCopiesGoOn(t *testing.T) {
	const get = "GET /local HTTP/1.1\r\nHost: a\r\n\r\n"
	b, c := mirrored(t)
	go c.say(get + "GET /other HTTP/1.1\r\n\r\n")
	s, _ := b.arrived()
	received(t, s, get)
	s.Reset(syscall.ECONNREFUSED)
	again := make(chan *link.Stream)
	go func() {
		s, _ := b.arrived()
		again <- s
	}()
	// What is asked before the end is known is lost with it.
	var next *link.Stream
	for next == nil {
		c.say(get)
		select {
		case next = <-again:
		case <-time.After(20 * time.Millisecond):
		}
	}
	received(t, next, get)
}

func TestWhatIsNotCopied(t *testing.T) {
	for name, in := range map[string]struct {
		said    string
		ignored bool // also what comes behind it
	}{
		"text": {"EHLO x\r\nGET /local HTTP/1.1\r\n\r\n", true}, "half a preface": {"PRI * HTTP/2.0\r\n\r\n", false},
		"HTTP/2 that is none":  {http2.Preface + "GET /local HTTP/1.1\r\n\r\n", true},
		"ambiguous":            {"GET /local HTTP/1.1\r\nA : b\r\n\r\n", true},
		"an ambiguous body":    {"POST /other HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", true},
		"nothing that matches": {"GET /other HTTP/1.1\r\n\r\nGET /local?", false}, "nothing": {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			b, c := mirrored(t)
			c.say(in.said)
			close(c.data)
			within(t, "the close of the copy", c.closed)
			if got := c.ignored.Load(); got != in.ignored {
				t.Errorf("the connection is ignored: %v, want %v", got, in.ignored)
			}
			b.end()
		})
	}
}

// A copy that breaks off is told as incomplete.
func TestCopyBreaksOff(t *testing.T) {
	for name, in := range map[string]string{
		"in a body":        "POST /local HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc",
		"in a later body":  "GET /local HTTP/1.1\r\n\r\nPOST /other HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc",
		"in a later head":  "GET /local HTTP/1.1\r\n\r\nPOST /other",
		"between requests": "GET /local HTTP/1.1\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			b, c := mirrored(t)
			c.err = errors.New("packets were lost")
			c.say(in)
			s, _ := b.arrived()
			close(c.data)
			var reset *link.ResetError
			if _, err := io.ReadAll(s); !errors.As(err, &reset) {
				t.Errorf("local reads %v, want a reset", err)
			}
		})
	}
	t.Run("the session ends", func(t *testing.T) {
		b, c := mirrored(t)
		c.say("GET /local HTTP/1.1\r\n\r\n")
		s, _ := b.arrived()
		b.end()
		var reset *link.ResetError
		if _, err := io.ReadAll(s); !errors.As(err, &reset) {
			t.Errorf("local reads %v, want a reset", err)
		}
		within(t, "the close of the copy", c.closed)
	})
}
