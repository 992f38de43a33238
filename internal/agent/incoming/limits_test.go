package incoming

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/http1"
)

// When slow clients hold all large buffers, requests go on: long heads to the
// original, bodies in small pieces.
func TestBuffersAreBounded(t *testing.T) {
	const held = 3
	st := setStage(t, stageOptions{orig: func(c net.Conn) {
		br := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n%06d", n)
		}
	}})
	large := budget.New(held*http1.MaxHead).Share(0, budget.All)
	st.hub.o.Memory.Parsed = large
	pad := "X: " + strings.Repeat("x", 6000) + "\r\n"
	body := strings.Repeat("y", 64<<10)
	for range held { // half heads, for as long as they like
		ask(t, st.client(), "GET /other HTTP/1.1\r\n"+pad)
	}
	for end := time.Now().Add(3 * time.Second); large.Free() > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	c := st.client()
	br := bufio.NewReader(c)
	ask(t, c, "POST /other HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n"+body)
	if got := answer(t, br, "POST"); got != "200 065536" {
		t.Errorf("got %q", got)
	}
	ask(t, c, "POST /local HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n"+body)
	if got := answer(t, br, "POST"); got != "200 local POST /local 65536 map[]" {
		t.Errorf("got %q", got)
	}
	ask(t, c, "GET /local HTTP/1.1\r\nHost: a\r\n"+pad+"\r\n")
	if got := answer(t, br, "GET"); got != "200 000000" {
		t.Errorf("a long head is answered %q, want the original's reply", got)
	}
	if got := large.Free(); got != 0 {
		t.Errorf("%d bytes of large buffers are free", got)
	}
}

// What was peeked at is counted until somebody has read it.
func TestPeekedIsCounted(t *testing.T) {
	large := budget.New(2*http1.MaxHead).Share(0, budget.All)
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	said := "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 6000)
	go func() { _, _ = io.WriteString(client, said) }() // ends with the pipe
	p := peek(&conn{Conn: server}, large)
	defer p.release()
	if got := large.Used(); got != http1.MaxHead || p.request != nil {
		t.Errorf("%d bytes are counted, want %d", got, http1.MaxHead)
	}
	got := make([]byte, len(said))
	if _, err := io.ReadFull(p, got[:4000]); err != nil || large.Used() == 0 {
		t.Errorf("half of it was read: %v, %d bytes are counted", err, large.Used())
	}
	if _, err := io.ReadFull(p, got[4000:]); err != nil || string(got) != said || large.Used() != 0 {
		t.Errorf("all was read: %v, %d bytes are counted, as it was said: %v", err, large.Used(), string(got) == said)
	}
}

// A head that takes its time is the original's, with all that follows.
func TestSlowHead(t *testing.T) {
	const slow = 50 * time.Millisecond
	for name, begun := range map[string]string{
		"first":        "GET /other HTTP/1.1\r\nHost: a\r\n",
		"after others": "GET /other/1 HTTP/1.1\r\nHost: a\r\n\r\nGET /other HTTP/1.1\r\nHost: a\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			st := setStage(t, stageOptions{})
			st.hub.headTime = slow
			c := st.client()
			ask(t, c, begun)
			heard(t, st.orig, begun) // half a head, too: it has been given up
			ask(t, c, "Connection: close\r\n\r\n")
			b, err := io.ReadAll(c)
			if !strings.HasSuffix(string(b), "original GET /other 0 map[]") || err != nil {
				t.Errorf("the client got %q, %v", b, err)
			}
		})
	}
	t.Run("an empty line more", func(t *testing.T) {
		st := setStage(t, stageOptions{})
		st.hub.headTime = slow
		c := st.client()
		br := bufio.NewReader(c)
		ask(t, c, "POST /local HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx\r\n")
		answer(t, br, "POST")
		time.Sleep(2 * slow)
		ask(t, c, "GET /local HTTP/1.1\r\nHost: a\r\n\r\n")
		if got := answer(t, br, "GET"); got != "200 local GET /local 0 map[]" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("the original has spoken", func(t *testing.T) {
		const half = "GET /local HTTP/1.1\r\n"
		speak := make(chan struct{})
		st := setStage(t, stageOptions{orig: func(c net.Conn) {
			<-speak
			_, _ = io.WriteString(c, "220 mail\r\n")
			_, _ = io.Copy(io.Discard, c)
		}})
		st.hub.headTime = 4 * slow
		c := st.client()
		within(t, "a connection to the original", st.orig.opened)
		ask(t, c, half)
		time.Sleep(slow)
		close(speak)
		if _, err := io.ReadFull(c, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		ask(t, c, "x")
		time.Sleep(5 * slow)
		ask(t, c, "y")
		heard(t, st.orig, half+"xy")
	})
}

// A client that keeps what its server has closed does not keep it for ever.
func TestClosedEnds(t *testing.T) {
	const reply = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
	for name, c := range map[string]struct{ in, reply string }{
		"nothing said":        {"", ""},
		"idle":                {"GET /other HTTP/1.1\r\nHost: a\r\n\r\n", reply},
		"with the reply":      {"GET /other HTTP/1.1\r\nHost: a\r\n\r\n", strings.Replace(reply, "Co", "Connection: close\r\nCo", 1)},
		"with that of local":  {"GET /local HTTP/1.1\r\nHost: a\r\n\r\n", strings.Replace(reply, "Co", "Connection: close\r\nCo", 1)},
		"half a further head": {"GET /other HTTP/1.1\r\nHost: a\r\n\r\nGET /", reply},
	} {
		t.Run(name, func(t *testing.T) {
			serve := func(nc net.Conn) {
				if c.in != "" {
					_, _ = http.ReadRequest(bufio.NewReader(nc))
				}
				_, _ = io.WriteString(nc, c.reply)
				time.Sleep(20 * time.Millisecond) // keep-alive
			}
			st := setStage(t, stageOptions{orig: serve, local: serve})
			st.hub.closedTime = 50 * time.Millisecond
			conn := st.client()
			ask(t, conn, c.in)
			// It sees the end and keeps the connection.
			if got, err := io.ReadAll(conn); string(got) != c.reply || err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client got %q, %v, want %q", got, err, c.reply)
			}
			for end := time.Now().Add(2 * time.Second); st.carried() > 0; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("the connection is still carried")
				}
			}
		})
	}
}

// What the client still says to a server that has ended only its own direction
// is not cut.
func TestHalfClosedGoesOn(t *testing.T) {
	st := setStage(t, stageOptions{orig: func(c net.Conn) {
		_ = c.(*recorded).Conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	}})
	st.hub.closedTime = 100 * time.Millisecond
	c := st.client()
	ends(t, c)
	ask(t, c, "x")
	time.Sleep(200 * time.Millisecond)
	ask(t, c, "y")
	heard(t, st.orig, "xy")
}
