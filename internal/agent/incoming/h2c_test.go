package incoming

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
	"golang.org/x/net/http2/hpack"

	"github.com/mirrord-go/mirrord/internal/budget"
)

// upgrading serves HTTP/1, takes offers to go on in HTTP/2, and speaks that by prior
// knowledge as well.
func upgrading(h http.Handler) func(net.Conn) { return serveHTTP(h2c.NewHandler(h, &http2.Server{})) }

// Settings of clients that offer to go on in HTTP/2, as these versions send them.
var offers = map[string]string{
	"curl 7.88": "AAMAAABkAAQCAAAAAAIAAAAA",
	"Java 21":   "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA", // a larger table, and pushes
	"nghttp":    "AAMAAABkAAQAAP__",
}

// offerOf is a request with an offer.
func offerOf(method, path, settings, more string) string {
	return method + " " + path + " HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: " + settings + "\r\n" + more + "\r\n"
}

// client2 is the end of a client that goes on in HTTP/2.
type client2 struct {
	t  *testing.T
	c  net.Conn
	br *bufio.Reader
	f  *http2.Framer
	to *hpack.Encoder
	b  bytes.Buffer
}

// switched reads a 101, and says a client's first word of HTTP/2.
func switched(t *testing.T, c *net.TCPConn) *client2 {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	m := &client2{t: t, c: c, br: bufio.NewReader(c)}
	r, err := http.ReadResponse(m.br, nil)
	if err != nil || r.StatusCode != 101 || r.Header.Get("Upgrade") != "h2c" {
		t.Fatalf("the offer is answered %v, %v", r, err)
	}
	m.f = http2.NewFramer(c, m.br)
	m.f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	m.to = hpack.NewEncoder(&m.b)
	ask(t, c, http2.ClientPreface)
	_ = m.f.WriteSettings()
	return m
}

func (m *client2) ask(id uint32, path string) {
	m.b.Reset()
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", path}} {
		_ = m.to.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	_ = m.f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: true, EndHeaders: true, BlockFragment: m.b.Bytes()})
}

// answers reads as many replies.
func (m *client2) answers(n int) map[uint32]string {
	m.t.Helper()
	all := map[uint32]string{}
	for n > 0 {
		f, err := m.f.ReadFrame()
		if err != nil {
			m.t.Fatalf("after %v: %v", all, err)
		}
		id, ended := f.Header().StreamID, false
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			all[id] += f.PseudoValue("status") + " "
			ended = f.StreamEnded()
		case *http2.DataFrame:
			all[id] += string(f.Data())
			ended = f.StreamEnded()
		case *http2.RSTStreamFrame:
			all[id] += f.ErrCode.String()
			ended = true
		case *http2.GoAwayFrame:
			all[0] += fmt.Sprint("GOAWAY ", f.ErrCode)
			ended = true
		}
		if ended {
			n--
		}
	}
	return all
}

func (m *client2) gets(want map[uint32]string) {
	m.t.Helper()
	if got := m.answers(len(want)); fmt.Sprint(got) != fmt.Sprint(want) {
		m.t.Errorf("got %v, want %v", got, want)
	}
}

// What goes on in HTTP/2 is divided by its streams; the request with the offer is the
// first of them.
func TestUpgradeToHTTP2(t *testing.T) {
	for name, settings := range offers {
		t.Run(name, func(t *testing.T) {
			st := modern(t, stageOptions{orig: upgrading(answerer("original"))})
			c := st.client()
			ask(t, c, offerOf("GET", "/other/1", settings, ""))
			m := switched(t, c)
			m.gets(map[uint32]string{1: "200 original GET /other/1 0 map[]"})
			m.ask(3, "/local/3")
			m.ask(5, "/other/5")
			m.gets(map[uint32]string{3: "200 local GET /local/3 0 map[]", 5: "200 original GET /other/5 0 map[]"})
			if n := len(st.orig.opened); n != 1 {
				t.Errorf("the original has %d connections, want 1", n)
			}
			if got := st.hub.Counts().Passed; got != 2 {
				t.Errorf("%d are counted as passed on, want 2", got)
			}
			// What it hears is what the client has said, but the settings, which are ours.
			want, err := base64.RawURLEncoding.DecodeString("AAIAAAAAAAYABAAA")
			if head, _, _ := strings.Cut(st.orig.said(), http2.ClientPreface); err != nil || head != offerOf("GET", "/other/1", base64.RawURLEncoding.EncodeToString(want), "") {
				t.Errorf("the original hears %q", head)
			}
		})
	}
	t.Run("behind others, with a body", func(t *testing.T) {
		st := modern(t, stageOptions{orig: upgrading(answerer("original")), local: upgrading(answerer("local"))})
		c := st.client()
		br := bufio.NewReader(c)
		for _, who := range []string{"local", "other"} {
			ask(t, c, "GET /"+who+" HTTP/1.1\r\nHost: a\r\n\r\n")
			answer(t, br, "GET")
		}
		body := strings.Repeat("b", 100_000)
		ask(t, c, offerOf("POST", "/other/1", offers["nghttp"], fmt.Sprintf("Content-Length: %d\r\n", len(body)))+body)
		m := switched(t, c)
		m.gets(map[uint32]string{1: "200 original POST /other/1 100000 map[]"})
		m.ask(3, "/local/3")
		m.gets(map[uint32]string{3: "200 local GET /local/3 0 map[]"})
	})
	t.Run("of HEAD", func(t *testing.T) {
		st := modern(t, stageOptions{orig: upgrading(answerer("original"))})
		c := st.client()
		ask(t, c, offerOf("HEAD", "/other/1", offers["nghttp"], ""))
		switched(t, c).gets(map[uint32]string{1: "200 "})
	})
}

// An offer that the original does not take changes nothing; one with a request that is
// local's is not made to it.
func TestUpgradeToHTTP2NotTaken(t *testing.T) {
	for name, c := range map[string]struct{ local, orig func(net.Conn) }{
		"by a server of HTTP/1":              {serveHTTP(answerer("local")), serveHTTP(answerer("original"))},
		"by a program, which is not offered": {upgrading(answerer("local")), serveHTTP(answerer("original"))},
	} {
		t.Run(name, func(t *testing.T) {
			st := setStage(t, stageOptions{orig: c.orig, local: c.local})
			conn := st.client()
			br := bufio.NewReader(conn)
			for _, who := range []string{"local", "other", "local"} {
				ask(t, conn, offerOf("GET", "/"+who, offers["curl 7.88"], ""))
				want := fmt.Sprintf("200 %s GET /%s 0 map[]", strings.ReplaceAll(who, "other", "original"), who)
				if got := answer(t, br, "GET"); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
			declined := strings.Replace(offerOf("GET", "/local", offers["curl 7.88"], ""), "Upgrade: h2c\r\n", "", 1)
			heard(t, st.local, declined+declined)
			// With the last request as well.
			ask(t, conn, offerOf("GET", "/local/last", offers["curl 7.88"], "Connection: close\r\n"))
			if got := answer(t, br, "GET"); got != "200 local GET /local/last 0 map[]" {
				t.Errorf("got %q", got)
			}
		})
	}
	t.Run("that is malformed", func(t *testing.T) {
		st := setStage(t, stageOptions{orig: upgrading(answerer("original"))})
		conn := st.client()
		br := bufio.NewReader(conn)
		for _, settings := range []string{"AAM", "A A", "AAMAAABk\r\nHTTP2-Settings: AAMAAABk"} {
			ask(t, conn, offerOf("GET", "/other", settings, ""))
			if got := answer(t, br, "GET"); got != "200 original GET /other 0 map[]" {
				t.Errorf("%q is answered %q", settings, got)
			}
		}
	})
	t.Run("without memory", func(t *testing.T) {
		st := setStage(t, stageOptions{orig: upgrading(answerer("original")), room: budget.New(2*ConnCost+splitCost).Share(0, budget.All)})
		conn := st.client()
		br := bufio.NewReader(conn)
		ask(t, conn, offerOf("GET", "/other", offers["nghttp"], "")+"GET /local HTTP/1.1\r\nHost: a\r\n\r\n")
		for _, want := range []string{"200 original GET /other 0 map[]", "200 local GET /local 0 map[]"} {
			if got := answer(t, br, "GET"); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	})
}

// Whatever becomes of an offer, the memory for it is given back: there is only that of
// the connection that is waited for.
func TestUpgradeGivesMemoryBack(t *testing.T) {
	room := budget.New(1<<20).Share(0, budget.All)
	st := modern(t, stageOptions{orig: upgrading(answerer("original")), room: room})
	for name, use := range map[string]func(*net.TCPConn){
		"taken": func(c *net.TCPConn) {
			ask(t, c, offerOf("GET", "/other/1", offers["nghttp"], ""))
			switched(t, c).gets(map[uint32]string{1: "200 original GET /other/1 0 map[]"})
		},
		"declined": func(c *net.TCPConn) {
			ask(t, c, offerOf("GET", "/local/1", offers["nghttp"], ""))
		},
		"taken, and the client is gone": func(c *net.TCPConn) {
			ask(t, c, offerOf("GET", "/other/1", offers["nghttp"], ""))
			_, _ = bufio.NewReader(c).ReadString('\n')
			_ = c.CloseWrite()
			_, _ = io.ReadAll(c)
		},
	} {
		c := st.client()
		use(c)
		c.Close()
		comes(t, "the memory of: "+name, func() bool { return room.Used() == ConnCost })
	}
}

// An offer takes no memory before it is taken: slow requests of clients that make
// offers are as many as others.
func TestUpgradeTakesNoMemoryAhead(t *testing.T) {
	room := budget.New(1<<20).Share(0, budget.All)
	asked, goOn := make(chan struct{}), make(chan struct{})
	st := setStage(t, stageOptions{room: room, orig: serveHTTP(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(asked)
		<-goOn
	}))})
	c := st.client()
	ask(t, c, offerOf("GET", "/other/1", offers["nghttp"], ""))
	within(t, "the request", asked)
	if got := room.Used(); got != 2*ConnCost+splitCost {
		t.Errorf("%d bytes are taken, want those of a connection of HTTP/1", got)
	}
	close(goOn)
	if got := answer(t, bufio.NewReader(c), "GET"); got != "200 " {
		t.Errorf("got %q", got)
	}
}

// A client that is gone behind the 101 leaves nothing, whoever has answered it before.
func TestUpgradeOfWhoIsGone(t *testing.T) {
	room := budget.New(1<<20).Share(0, budget.All)
	st := setStage(t, stageOptions{orig: upgrading(answerer("original")), room: room})
	c := st.client()
	br := bufio.NewReader(c)
	ask(t, c, "GET /local HTTP/1.1\r\nHost: a\r\n\r\n")
	answer(t, br, "GET")
	ask(t, c, offerOf("GET", "/other/1", offers["nghttp"], ""))
	if line, err := br.ReadString('\n'); err != nil || !strings.Contains(line, " 101 ") {
		t.Fatalf("the offer is answered %q, %v", line, err)
	}
	c.Close()
	comes(t, "the memory of the connection", func() bool { return room.Used() == ConnCost })
}

// An original that ends behind its 101 ends the connection of a client that says nothing.
func TestUpgradeOfWhoEnds(t *testing.T) {
	st := setStage(t, stageOptions{orig: func(c net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
	}})
	c := st.client()
	ask(t, c, offerOf("GET", "/other/1", offers["nghttp"], ""))
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	got, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 101") {
		t.Errorf("the client got %q, %v, want the 101 and the end", got, err)
	}
}

// A program that takes what it was not offered does not get what its client says then.
func TestUpgradeToWhatWasNotOffered(t *testing.T) {
	said := make(chan string, 1)
	st := setStage(t, stageOptions{local: func(c net.Conn) {
		br := bufio.NewReader(c)
		_, _ = http.ReadRequest(br)
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
		b, _ := io.ReadAll(br)
		said <- string(b)
	}})
	c := st.client()
	ask(t, c, strings.Replace(offerOf("GET", "/local/1", offers["nghttp"], ""), "Upgrade: h2c", "Upgrade: websocket, h2c", 1))
	br := bufio.NewReader(c)
	if line, err := br.ReadString('\n'); err != nil || !strings.Contains(line, " 101 ") {
		t.Fatalf("it is answered %q, %v", line, err)
	}
	_, _ = io.WriteString(c, http2.ClientPreface)
	c.Close()
	if got := within(t, "the end of the program's connection", said); got != "" {
		t.Errorf("the program hears %q", got)
	}
}

// What a client says in HTTP/1 behind an offer that was taken reaches nobody.
func TestUpgradeToHTTP2ThenHTTP1(t *testing.T) {
	st := modern(t, stageOptions{orig: upgrading(answerer("original"))})
	c := st.client()
	ask(t, c, offerOf("GET", "/other/1", offers["nghttp"], "")+"GET /local/2 HTTP/1.1\r\nHost: a\r\n\r\n")
	b, _ := io.ReadAll(c)
	if got := string(b); !strings.HasPrefix(got, "HTTP/1.1 101") || !strings.Contains(got, "there is no preface") {
		t.Errorf("got %q", got)
	}
	if got := st.orig.said() + st.local.said(); strings.Contains(got, "/local/2") {
		t.Errorf("it is heard: %q", got)
	}
}

// The end of the session of a connection that has gone on in HTTP/2.
func TestUpgradeToHTTP2AtTheEnd(t *testing.T) {
	st := modern(t, stageOptions{orig: upgrading(answerer("original"))})
	c := st.client()
	ask(t, c, offerOf("GET", "/other/1", offers["nghttp"], ""))
	m := switched(t, c)
	m.gets(map[uint32]string{1: "200 original GET /other/1 0 map[]"})
	st.end()
	m.gets(map[uint32]string{0: "GOAWAY NO_ERROR"})
	c.Close()
	within(t, "the end of the hub", st.ended)
}
