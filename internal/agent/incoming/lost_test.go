package incoming

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// stuck is a local process that says a part of a reply, and the rest when it is
// told to. What it hears then goes nowhere.
func stuck(part, rest string, goOn <-chan struct{}) func(net.Conn) {
	return func(c net.Conn) {
		buf := make([]byte, 4<<10)
		if _, err := c.Read(buf); err != nil {
			return
		}
		_, _ = io.WriteString(c, part)
		<-goOn
		_, _ = io.WriteString(c, rest)
		_, _ = io.Copy(io.Discard, c)
	}
}

const okReply = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"

// What waits for local when the link has been lost for long is answered, or
// ends; nothing that local says later reaches anybody.
func TestAbandon(t *testing.T) {
	filtered := protocol.Subscribe{}
	whole := protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal}
	probed := protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal, Probes: []string{"/health"}}
	const ask80 = "GET /local HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, c := range []struct {
		name      string
		subscribe protocol.Subscribe
		asks      string
		part      string // of local's reply
		want      string // the first line and the body; "": a reset
	}{
		{"filtered", filtered, ask80, "", "502"},
		{"filtered, the last request", filtered, "GET /local HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "", "502"},
		{"filtered, head only", filtered, "HEAD /local HTTP/1.1\r\nHost: a\r\n\r\n", "", "502 head"},
		{"filtered, half a body", filtered, "POST /local HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nhalf", "", "502"},
		{"filtered, the next is here", filtered, ask80 + ask80, "", "502"},
		{"filtered, an interim reply", filtered, "POST /local HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n", "100 502"},
		{"filtered, half a reply", filtered, ask80, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh", ""},
		{"filtered, a reply without end", filtered, ask80, "HTTP/1.1 200 OK\r\n\r\nh", ""},
		{"filtered, upgraded", filtered, "GET /local HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", ""},
		{"whole", whole, ask80, "", "502"},
		{"whole, head only", whole, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "", "502 head"},
		{"whole, a long target", whole, "GET /" + strings.Repeat("x", 200) + " HTTP/1.1\r\nHost: a\r\n\r\n", "", "502"},
		{"whole, a large body", whole, "POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("x", 8000), "", "502"},
		{"whole, half a reply", whole, ask80, "HTTP/1.1 200 OK\r\n", ""},
		{"whole, another protocol", whole, "\x00\x00\x00\x08\x04\xd2\x16\x2f", "", ""},
		{"whole, with probes", probed, ask80, "", "502"},
	} {
		t.Run(c.name, func(t *testing.T) {
			goOn := make(chan struct{})
			st := setStage(t, stageOptions{subscribe: c.subscribe, local: stuck(c.part, okReply, goOn)})
			client := st.client()
			ask(t, client, c.asks)
			br := bufio.NewReader(client)
			if c.part != "" && !strings.HasSuffix(c.part, "h") || strings.HasPrefix(c.name, "whole, half") {
				got := make([]byte, len(c.part)) // it is the client's before anything is lost
				if _, err := io.ReadFull(br, got); err != nil || string(got) != c.part {
					t.Fatalf("got %q, %v, want %q", got, err, c.part)
				}
			} else if c.part != "" {
				if _, err := br.Peek(len(c.part)); err != nil {
					t.Fatal(err)
				}
				_, _ = br.Discard(len(c.part))
			} else {
				begun(t, st.local, c.asks[:4])
			}
			if c.want == "100 502" {
				st.silent()
			}
			st.hub.Abandon() // nothing is lost yet
			st.hub.Suspend(true)
			st.hub.Abandon()
			close(goOn)
			all, err := io.ReadAll(br)
			if c.want == "" {
				if !errors.Is(err, syscall.ECONNRESET) || len(all) > 0 {
					t.Errorf("then comes %q, %v, want a reset", all, err)
				}
				return
			}
			text := string(all)
			if !strings.HasPrefix(text, "HTTP/1.1 502 Bad Gateway\r\n") || !strings.Contains(text, "\r\nConnection: close\r\n") || err != nil {
				t.Fatalf("then comes %q, %v, want 502", text, err)
			}
			_, body, _ := strings.Cut(text, "\r\n\r\n")
			if head := strings.HasSuffix(c.want, "head"); head && body != "" || !head && !strings.Contains(body, "mirrord") {
				t.Errorf("the body is %q", body)
			}
		})
	}
}

// silent waits until local's interim reply, which the client has, is told to be
// over.
func (st *stage) silent() {
	st.t.Helper()
	speaks := func() bool {
		st.hub.mu.Lock()
		defer st.hub.mu.Unlock()
		for w := range st.hub.held {
			if s, ok := w.(*split); ok {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.busy != nil && s.busy.speaks
			}
		}
		return false
	}
	for end := time.Now().Add(3 * time.Second); speaks(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			st.t.Fatal("local's interim reply has no end")
		}
	}
}

// begun waits until a has heard something that begins like this.
func begun(t *testing.T, a *actor, want string) {
	t.Helper()
	for end := time.Now().Add(3 * time.Second); !strings.HasPrefix(a.said(), want); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s heard %.100q, want %q first", a.name, a.said(), want)
		}
	}
}

// If the link comes back in time, nothing has happened.
func TestBackInTime(t *testing.T) {
	for name, m := range map[string]protocol.Subscribe{"filtered": {}, "whole": {Port: 80, Mode: protocol.ModeSteal}} {
		t.Run(name, func(t *testing.T) {
			goOn := make(chan struct{})
			st := setStage(t, stageOptions{subscribe: m, local: stuck("", okReply, goOn)})
			c := st.client()
			ask(t, c, "GET /local HTTP/1.1\r\nHost: a\r\n\r\n")
			begun(t, st.local, "GET ")
			st.hub.Suspend(true)
			st.hub.Suspend(false)
			st.hub.Abandon()
			close(goOn)
			if got := answer(t, bufio.NewReader(c), "GET"); got != "200 hi" {
				t.Errorf("got %q, want local's reply", got)
			}
		})
	}
}

// A connection that lasts goes on with the original while the link is lost, and
// is divided again afterwards.
func TestLastingConnection(t *testing.T) {
	st := setStage(t, stageOptions{})
	c := st.client()
	br := bufio.NewReader(c)
	for _, step := range []struct {
		lost bool
		want string
	}{{false, "200 local GET /local 0 map[]"}, {true, "200 original GET /local 0 map[]"}, {true, "200 original GET /local 0 map[]"}, {false, "200 local GET /local 0 map[]"}} {
		st.settled()
		st.hub.Suspend(step.lost)
		if step.lost {
			st.hub.Abandon()
		}
		ask(t, c, "GET /local HTTP/1.1\r\nHost: a\r\n\r\n")
		if got := answer(t, br, "GET"); got != step.want {
			t.Errorf("lost %v: got %q, want %q", step.lost, got, step.want)
		}
	}
}

// settled waits until no request is under way: a reply reaches its client a
// moment before that.
func (st *stage) settled() {
	st.t.Helper()
	busy := func() (yes bool) {
		st.hub.mu.Lock()
		defer st.hub.mu.Unlock()
		for w := range st.hub.held {
			s := w.(*split)
			s.mu.Lock()
			yes = yes || s.busy != nil
			s.mu.Unlock()
		}
		return yes
	}
	for end := time.Now().Add(3 * time.Second); busy(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			st.t.Fatal("a request is still under way")
		}
	}
}

// What the original is answering is none of our business.
func TestAbandonSparesOriginal(t *testing.T) {
	goOn := make(chan struct{})
	st := setStage(t, stageOptions{orig: stuck("", okReply, goOn)})
	c := st.client()
	ask(t, c, "GET /other HTTP/1.1\r\nHost: a\r\n\r\n")
	begun(t, st.orig, "GET ")
	st.hub.Suspend(true)
	st.hub.Abandon()
	close(goOn)
	if got := answer(t, bufio.NewReader(c), "GET"); got != "200 hi" {
		t.Errorf("got %q, want the original's reply", got)
	}
}

func TestBegins(t *testing.T) {
	for text, want := range map[string]bool{
		"": false, "G": true, "GET": true, "GET / HTTP/1.1\r\n\r\n": true, "GET /" + strings.Repeat("a", maxBeginning-5): true,
		"GET / HTTP/2": false, "PRI * HTTP/2.0\r\n\r\n": false, "\x16\x03\x01": false, "*1\r\n$4\r\nPING\r\n": false, "hello world\r\n": false,
		"get key\r\n": false,
	} {
		if got := begins([]byte(text)); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
