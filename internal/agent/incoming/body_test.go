package incoming

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// forMe is a filter of bodies.
const forMe = `{"body":{"kind":"json","query":{"text":"$.for"},"matches":{"text":"^me$"}}}`

const (
	mine   = `{"for": "me"}`  // 13 bytes
	others = `{"for": "you"}` // 14
)

func byBody(m protocol.Subscribe) stageOptions {
	m.Port, m.Mode = 80, protocol.ModeSteal
	if m.Filter == "" {
		m.Filter = forMe
	}
	return stageOptions{subscribe: m}
}

// bodied are requests that only their bodies tell apart.
var bodied = []struct{ raw, answer string }{
	{"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\n" + mine, "200 local POST /1 13 map[]"},
	{"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 14\r\n\r\n" + others, "200 original POST /2 14 map[]"},
	{"PUT /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n5;x=y\r\n{\"for\r\n008\r\n\": \"me\"}\r\n00\r\nT: 1\r\n\r\n", "200 local PUT /3 13 map[T:[1]]"},
	{"PUT /4 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"for\r\n0\r\n\r\n", "200 original PUT /4 5 map[]"},
	{"GET /5 HTTP/1.1\r\nHost: a\r\n\r\n", "200 original GET /5 0 map[]"},
	{"POST /6 HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: 13\r\n\r\n" + mine, "200 original POST /6 13 map[]"},
	{"POST /7 HTTP/1.1\r\nHost: a\r\nContent-Length: 60013\r\n\r\n" + mine + strings.Repeat(" ", 60000), "200 local POST /7 60013 map[]"},
	{"POST /8 HTTP/1.1\r\nHost: a\r\nContent-Length: 70013\r\n\r\n" + mine + strings.Repeat(" ", 70000), "200 original POST /8 70013 map[]"},
	{"POST /9 HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\n" + mine, "200 local POST /9 13 map[]"},
}

// Requests go by their bodies, each to its own, and come as they were sent.
func TestBodiesAreDivided(t *testing.T) {
	var wantLocal, wantOriginal, all string
	for _, r := range bodied {
		if all += r.raw; strings.HasPrefix(r.answer, "200 local") {
			wantLocal += r.raw
		} else {
			wantOriginal += r.raw
		}
	}
	for _, how := range []string{"one after another", "pipelined", "in pieces"} {
		t.Run(how, func(t *testing.T) {
			st := setStage(t, byBody(protocol.Subscribe{BodyTime: 30000}))
			c := st.client()
			br := bufio.NewReader(c)
			if how == "pipelined" {
				go func() { _, _ = io.WriteString(c, all) }()
			}
			for _, r := range bodied {
				switch how {
				case "one after another":
					ask(t, c, r.raw)
				case "in pieces":
					for rest := r.raw; rest != ""; {
						n := min(len(rest), max(1, len(r.raw)/100))
						ask(t, c, rest[:n])
						rest = rest[n:]
					}
				}
				method, _, _ := strings.Cut(r.raw, " ")
				if got := answer(t, br, method); got != r.answer {
					t.Errorf("%.20q is answered %q, want %q", r.raw, got, r.answer)
				}
			}
			heard(t, st.orig, wantOriginal)
			heard(t, st.local, wantLocal)
			if n := len(st.orig.opened) + len(st.local.opened); n != 2 {
				t.Errorf("%d connections were made for it, want one to each", n)
			}
			if got := <-st.notices; got != "filter-undecided" || len(st.notices) > 0 {
				t.Errorf("told %q and %d more, want it once", got, len(st.notices))
			}
			c.CloseWrite()
			ends(t, c)
		})
	}
}

// interim reads 100 Continue, and nothing else.
func interim(t *testing.T, br *bufio.Reader) {
	t.Helper()
	const want = "HTTP/1.1 100 Continue\r\n\r\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(br, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
	if br.Buffered() > 0 {
		t.Fatal("something follows")
	}
}

// A body that waits for 100 Continue is asked for once, and the request is
// nobody's before it is known whose.
func TestBodyIsInvited(t *testing.T) {
	st := setStage(t, byBody(protocol.Subscribe{}))
	c := st.client()
	br := bufio.NewReader(c)
	var want [2]string
	for i, body := range []string{mine, others, mine, others} {
		head := fmt.Sprintf("POST /%d HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", i, len(body))
		ask(t, c, head)
		interim(t, br)
		if got := st.local.said() + st.orig.said(); got != want[0]+want[1] {
			t.Errorf("before the body somebody heard %q", strings.TrimPrefix(got, want[0]+want[1]))
		}
		ask(t, c, body)
		who := []string{"local", "original"}[i%2]
		if got, want := answer(t, br, "POST"), fmt.Sprintf("200 %s POST /%d %d map[]", who, i, len(body)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		want[i%2] += head + body
	}
	heard(t, st.local, want[0])
	heard(t, st.orig, want[1])
}

// Where the filter does not wait for the body, whoever gets the request is asked
// for 100 Continue, as ever.
func TestBodyIsNotInvited(t *testing.T) {
	for name, c := range map[string]struct{ filter, head, body string }{
		"too large":         {"", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 70000\r\n\r\n", strings.Repeat("x", 70000)},
		"the head decides":  {`{"all_of":[` + forMe + `,{"path":{"text":"^/x"}}]}`, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 13\r\n\r\n", mine},
		"it is compressed":  {"", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Encoding: br\r\nContent-Length: 13\r\n\r\n", mine},
		"another is wanted": {`{"any_of":[` + forMe + `,{"not":{"path":{"text":"^/"}}}]}`, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 70000\r\n\r\n", strings.Repeat("x", 70000)},
	} {
		t.Run(name, func(t *testing.T) {
			st := setStage(t, byBody(protocol.Subscribe{Filter: c.filter}))
			conn := st.client()
			br := bufio.NewReader(conn)
			ask(t, conn, c.head)
			heard(t, st.orig, c.head) // he has it before the body
			interim(t, br)
			ask(t, conn, c.body)
			if got, want := answer(t, br, "POST"), fmt.Sprintf("200 original POST / %d map[]", len(c.body)); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// A refusal in place of 100 Continue comes too late to keep the body back, and
// is the reply.
func TestInvitedAndRefused(t *testing.T) {
	for who, body := range map[string]string{"local": mine, "original": others} {
		t.Run(who, func(t *testing.T) {
			st := setStage(t, byBody(protocol.Subscribe{}))
			c := st.client()
			br := bufio.NewReader(c)
			path := map[string]string{"local": "/local/refuse", "original": "/other/refuse"}[who]
			head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", path, len(body))
			ask(t, c, head)
			interim(t, br)
			ask(t, c, body)
			if got, want := answer(t, br, "POST"), "417 "+who+" refuses\n"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if who == "original" {
				heard(t, st.orig, head+body)
			}
		})
	}
}

// A body that is not there in time, or never, is the original's, with all that
// has come of it.
func TestBodyIsLate(t *testing.T) {
	const head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\n"
	t.Run("late", func(t *testing.T) {
		st := setStage(t, byBody(protocol.Subscribe{BodyTime: 50}))
		c := st.client()
		br := bufio.NewReader(c)
		ask(t, c, head+mine[:5])
		heard(t, st.orig, head+mine[:5])
		ask(t, c, mine[5:])
		if got := answer(t, br, "POST"); got != "200 original POST / 13 map[]" {
			t.Errorf("got %q", got)
		}
		if got := <-st.notices; got != "filter-undecided" {
			t.Errorf("told %q", got)
		}
		ask(t, c, head+mine) // the next one is in time
		if got := answer(t, br, "POST"); got != "200 local POST / 13 map[]" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("cut", func(t *testing.T) {
		st := setStage(t, byBody(protocol.Subscribe{}))
		c := st.client()
		ask(t, c, head+mine[:5])
		c.CloseWrite()
		heard(t, st.orig, head+mine[:5])
		if b, _ := io.ReadAll(c); len(b) > 0 && !strings.HasPrefix(string(b), "HTTP/1.1 ") {
			t.Errorf("got %q", b)
		}
	})
	t.Run("in two ways", func(t *testing.T) {
		st := setStage(t, byBody(protocol.Subscribe{}))
		c := st.client()
		raw := "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n" + mine + "\n0\r\n\r\n"
		ask(t, c, raw)
		heard(t, st.orig, raw)
	})
	t.Run("the session ends", func(t *testing.T) {
		st := setStage(t, byBody(protocol.Subscribe{BodyTime: 60000}))
		c := st.client()
		ask(t, c, head+mine[:5])
		_ = c.SetDeadline(time.Now().Add(20 * time.Second)) // it is reset long before, if it is not ended
		held := func() bool {                               // by the filter: it does not pass whole
			st.hub.mu.Lock()
			defer st.hub.mu.Unlock()
			return len(st.hub.held) > 0
		}
		for !held() { // the test's own limit ends it
			time.Sleep(time.Millisecond)
		}
		st.end()
		ask(t, c, mine[5:])
		br := bufio.NewReader(c)
		if got := answer(t, br, "POST"); got != "200 original POST / 13 map[]" {
			t.Errorf("got %q", got)
		}
		ends(t, br)
		within(t, "the end of the hub", st.ended)
	})
}

// The original may end its connection while a body is awaited: so does the
// client's, as with any server that ends an idle one.
func TestOriginalEndsMeanwhile(t *testing.T) {
	o := byBody(protocol.Subscribe{BodyTime: 60000})
	end := make(chan struct{})
	o.orig = func(c net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
		<-end
	}
	st := setStage(t, o)
	c := st.client()
	br := bufio.NewReader(c)
	ask(t, c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if got := answer(t, br, "GET"); got != "200 hi" {
		t.Errorf("got %q", got)
	}
	ask(t, c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\n"+mine[:5])
	close(end)
	if b, err := io.ReadAll(br); len(b) > 0 {
		t.Errorf("got %q, %v, want the end", b, err)
	}
	c.Close()
}

// Bodies that match are copied, as they were sent.
func TestMatchingBodiesAreCopied(t *testing.T) {
	b := setUp(t)
	b.subscribed(&protocol.Subscribe{Port: 8080, Mode: protocol.ModeMirror, Filter: forMe, BodyTime: 30000})
	c := newCopied()
	b.mirror.conns <- c
	var want string
	for _, r := range bodied {
		if strings.HasPrefix(r.answer, "200 local") {
			want += r.raw
		}
	}
	go func() {
		for _, r := range bodied {
			c.say(r.raw)
		}
		close(c.data)
	}()
	s, _ := b.arrived()
	received(t, s, want)
	ends(t, s)
}

// What is waited for has its bounds, also for whoever asks for more.
func TestBodyBounds(t *testing.T) {
	for _, c := range []struct {
		size, wait uint32
		ok         bool
	}{{0, 0, true}, {rules.MaxBodySize, 60000, true}, {rules.MaxBodySize + 1, 0, false}, {0, 60001, false}, {1 << 31, 1 << 31, false}} {
		r, err := newRule(&protocol.Subscribe{Filter: forMe, BodySize: c.size, BodyTime: c.wait})
		if (err == nil) != c.ok {
			t.Errorf("%d bytes, %d ms: %v", c.size, c.wait, err)
		}
		if c.size == 0 && c.wait == 0 && (r.bodySize != 65535 || r.bodyTime != time.Second) {
			t.Errorf("by default %d, %v", r.bodySize, r.bodyTime)
		}
	}
}
