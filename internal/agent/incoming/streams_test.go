package incoming

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/mirrord-go/mirrord/internal/budget"
	hop "github.com/mirrord-go/mirrord/internal/http2"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// serveHTTP2 serves HTTP/2 on one connection.
func serveHTTP2(h http.Handler) func(net.Conn) {
	return func(c net.Conn) { (&http2.Server{}).ServeConn(c, &http2.ServeConnOpts{Handler: h}) }
}

// modern is a stage whose servers speak HTTP/2.
func modern(t *testing.T, o stageOptions) *stage {
	t.Helper()
	if o.local == nil {
		o.local = serveHTTP2(answerer("local"))
	}
	if o.orig == nil {
		o.orig = serveHTTP2(answerer("original"))
	}
	return setStage(t, o)
}

// patient gives a client the time for much.
func patient(c *net.TCPConn) net.Conn {
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// caller is a client of HTTP/2 that keeps one connection. Its count is of those
// that it has made.
func (st *stage) caller() (*http.Client, func() int) {
	n := 0
	var mu sync.Mutex
	tr := &http2.Transport{AllowHTTP: true, DialTLSContext: func(context.Context, string, string, *tls.Config) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		n++
		return patient(st.client()), nil
	}}
	st.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}, func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// fetch gives a reply as text.
func fetch(c *http.Client, method, path, body string) (string, error) {
	q, err := http.NewRequest(method, "http://a"+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	if body == "" {
		q.Body = http.NoBody
	}
	r, err := c.Do(q)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return fmt.Sprintf("%d %s", r.StatusCode, b), err
}

// Many streams at once on one connection, and each goes where it belongs.
func TestStreamsByFilter(t *testing.T) {
	st := modern(t, stageOptions{})
	c, made := st.caller()
	if got, err := fetch(c, "GET", "/other", ""); got != "200 original GET /other 0 map[]" {
		t.Fatal(got, err)
	}
	var wg sync.WaitGroup
	body := strings.Repeat("b", 300_000)
	for i := range 60 {
		wg.Go(func() {
			who, path := "original", fmt.Sprintf("/other/%d", i)
			if i%2 == 0 {
				who, path = "local", fmt.Sprintf("/local/%d", i)
			}
			want := fmt.Sprintf("200 %s POST %s %d map[]", who, path, len(body))
			if got, err := fetch(c, "POST", path, body); got != want || err != nil {
				t.Errorf("%s: %.200q, %v", path, got, err)
			}
		})
	}
	wg.Wait()
	if n := made(); n != 1 {
		t.Errorf("the client has made %d connections, want 1", n)
	}
	if got := st.hub.Counts(); got.Passed != 31 || got.Returned != 0 || got.Refused != 0 {
		t.Errorf("counted are %+v", got)
	}
	for _, a := range []*actor{st.local, st.orig} {
		if n := len(a.opened); n != 1 {
			t.Errorf("%s has %d connections, want 1", a.name, n)
		}
	}
	if len(st.notices) > 0 {
		t.Errorf("a notice: %s", <-st.notices)
	}
}

// What passes is what the client would see and the server hear without us: replies,
// trailers, interim replies, bodies both ways.
func TestStreamsPassUnchanged(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(io.Discard, "%v", r)
		w.Header().Set("Link", "</x>")
		if r.URL.Path == "/hints" {
			w.WriteHeader(103)
		}
		w.Header().Set("Trailer", "X-Sum")
		w.Header()["Date"] = nil
		for _, k := range []string{"X-A", "Cookie", "Te", "User-Agent", "Authorization"} {
			w.Header()["Got-"+k] = r.Header[k]
		}
		switch r.URL.Path {
		case "/none":
			w.WriteHeader(204)
			return
		case "/large":
			_, _ = w.Write(bytes.Repeat([]byte("l"), 3<<20))
		}
		n, err := io.Copy(w, r.Body)
		fmt.Fprintf(w, "%s %s %s %d %v %v", r.Method, r.Host, r.RequestURI, n, err, r.Trailer)
		w.Header().Set("X-Sum", fmt.Sprint(n))
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	st := modern(t, stageOptions{orig: serveHTTP2(h)})
	through, _ := st.caller()
	direct := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", ln.Addr().String())
	}}
	var servers sync.WaitGroup
	servers.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			servers.Go(func() { serveHTTP2(h)(c) })
		}
	})
	defer servers.Wait()
	defer direct.CloseIdleConnections()
	defer ln.Close()
	ask := func(c *http.Client, method, path, body string, trailer bool) string {
		q, _ := http.NewRequest(method, "http://shop.example:80"+path, io.MultiReader(strings.NewReader(body)))
		if body == "" {
			q.Body = nil
		}
		q.Header = http.Header{"X-A": {"1", "", "ü"}, "Cookie": {"a=b; c=d"}, "Te": {"trailers"}, "Authorization": {"secret"}}
		if trailer {
			q.Trailer = http.Header{"X-T": {"v"}}
		}
		r, err := c.Do(q)
		if err != nil {
			return err.Error()
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		return fmt.Sprintf("%s %v %d %.200s… %d %v %v %v", r.Proto, r.Status, r.ContentLength, b, len(b), r.Header, r.Trailer, err)
	}
	for _, c := range []struct {
		method, path, body string
		trailer            bool
	}{
		{"GET", "/", "", false}, {"HEAD", "/", "", false}, {"GET", "/none", "", false}, {"GET", "/large?x=%2F", "", false}, {"GET", "/hints", "", false},
		{"POST", "/", "body", false}, {"POST", "/", "body", true}, {"PUT", "/", strings.Repeat("x", 2<<20), true}, {"OPTIONS", "/*", "", false}, {"ODD", "/%2fz?", "", false},
	} {
		want := ask(&http.Client{Transport: direct}, c.method, c.path, c.body, c.trailer)
		if got := ask(through, c.method, c.path, c.body, c.trailer); got != want {
			t.Errorf("%s %s:\n%s\nwant\n%s", c.method, c.path, got, want)
		}
	}
}

// A server that does not speak HTTP/2 hears and says what it would without us, on a
// connection of its own.
func TestStreamsNeedAServer(t *testing.T) {
	const in = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	for name, reply := range map[string]string{"HTTP/1": "HTTP/1.1 400 Bad Request\r\n\r\n", "nothing": ""} {
		t.Run(name, func(t *testing.T) {
			st := setStage(t, stageOptions{orig: func(c net.Conn) {
				_, _ = io.ReadFull(c, make([]byte, len(in)))
				_, _ = io.WriteString(c, reply)
			}})
			c := st.client()
			ask(t, c, in)
			if got, err := io.ReadAll(c); string(got) != reply || err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client hears %q, %v", got, err)
			}
			if got := st.orig.said(); !strings.HasSuffix(got, in) {
				t.Errorf("the original hears %q", got)
			}
			if got := st.hub.Counts(); got.Passed != 1 {
				t.Errorf("counted are %+v", got)
			}
		})
	}
	t.Run("the beginning only", func(t *testing.T) {
		st := setStage(t, stageOptions{orig: func(c net.Conn) { _, _ = io.Copy(c, c) }})
		c := st.client()
		ask(t, c, in[:16])
		c.CloseWrite()
		if got, err := io.ReadAll(c); string(got) != in[:16] || err != nil {
			t.Errorf("the client hears %q, %v", got, err)
		}
		heard(t, st.orig, in[:16])
	})
}

// A client that is silent at first is divided as any other.
func TestStreamsOfASilentClient(t *testing.T) {
	st := modern(t, stageOptions{})
	tr := &http2.Transport{AllowHTTP: true, DialTLSContext: func(context.Context, string, string, *tls.Config) (net.Conn, error) {
		c := st.client()
		within(t, "the original's connection", st.orig.opened)
		return patient(c), nil
	}}
	defer tr.CloseIdleConnections()
	for _, path := range []string{"/local/1", "/other/1"} {
		if got, err := fetch(&http.Client{Transport: tr}, "GET", path, ""); !strings.Contains(got, path) || err != nil {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
}

// What reaches no program is the target's.
func TestStreamsHandedBack(t *testing.T) {
	st := modern(t, stageOptions{local: func(c net.Conn) {
		_ = c.(*recorded).Conn.(*link.Stream).Reset(syscall.ECONNREFUSED)
	}})
	c, _ := st.caller()
	for range 3 {
		if got, err := fetch(c, "POST", "/local/1", "body"); got != "200 original POST /local/1 4 map[]" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	comes(t, "three to be counted", func() bool { return st.hub.Counts().Returned == 3 })
	if n := st.hub.Counts().Passed; n != 0 {
		t.Errorf("%d are counted as passed on", n)
	}
}

// A program that is no server of HTTP/2, or ends, is an answer that says so; the
// connection goes on.
func TestStreamsUnanswered(t *testing.T) {
	for name, c := range map[string]struct {
		local func(net.Conn)
		want  string
	}{
		"HTTP/1": {func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
		}, "it does not speak HTTP/2"},
		"closes": {func(c net.Conn) { _, _ = c.Read(make([]byte, 1000)) }, "it closed the connection without an answer"},
		"dies":   {serveHTTP2(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })), ""},
	} {
		t.Run(name, func(t *testing.T) {
			st := modern(t, stageOptions{local: c.local})
			client, _ := st.caller()
			got, err := fetch(client, "GET", "/local/1", "")
			if want := "502 mirrord: a developer's process takes this request, but did not answer: " + c.want + "\n"; c.want != "" && (got != want || err != nil) {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
			if c.want == "" && err == nil {
				t.Errorf("got %q", got)
			}
			if got, err := fetch(client, "GET", "/other", ""); got != "200 original GET /other 0 map[]" {
				t.Errorf("then %q, %v", got, err)
			}
		})
	}
}

// events opens a stream that does not end.
func events(t *testing.T, c *http.Client, path string) *http.Response {
	t.Helper()
	r, err := c.Get("http://a" + path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Body.Close() })
	if _, err := io.ReadFull(r.Body, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	return r
}

// When the session ends, what local owes is lost, and what the original has may be
// finished.
func TestStreamsAtTheEnd(t *testing.T) {
	release, arrived := make(chan struct{}), make(chan string, 4)
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/slow") {
			arrived <- r.URL.Path
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		answerer("original").ServeHTTP(w, r)
	})
	st := modern(t, stageOptions{orig: serveHTTP2(slow), local: serveHTTP2(slow)})
	c, _ := st.caller()
	running := events(t, c, "/local/events")
	results := map[string]chan string{"/local/slow": make(chan string, 1), "/other/slow": make(chan string, 1)}
	for path, result := range results {
		go func() {
			got, err := fetch(c, "GET", path, "")
			result <- fmt.Sprint(got, " ", err)
		}()
	}
	for range results {
		within(t, "a request", arrived)
	}
	st.end()
	if _, err := io.ReadAll(running.Body); err == nil {
		t.Error("what local has begun ends in order")
	}
	if got := within(t, "local's answer", results["/local/slow"]); !strings.HasPrefix(got, "502 ") {
		t.Errorf("what local owes: %q", got)
	}
	close(release)
	if got := within(t, "the original's answer", results["/other/slow"]); got != "200 original GET /other/slow 0 map[] <nil>" {
		t.Errorf("what the original owes: %q", got)
	}
	within(t, "the end of the hub", st.ended)
}

// While the link is lost, what comes is the target's; what local owes is waited for
// until it is abandoned.
func TestStreamsWithoutLink(t *testing.T) {
	arrived := make(chan string, 1)
	st := modern(t, stageOptions{local: serveHTTP2(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- r.URL.Path
		<-r.Context().Done()
	}))})
	c, _ := st.caller()
	result := make(chan string, 1)
	go func() {
		got, err := fetch(c, "GET", "/local/1", "")
		result <- fmt.Sprint(got, " ", err)
	}()
	within(t, "a request", arrived)
	st.hub.Suspend(true)
	if got, err := fetch(c, "GET", "/local/2", ""); got != "200 original GET /local/2 0 map[]" {
		t.Errorf("%q, %v", got, err)
	}
	select {
	case got := <-result:
		t.Errorf("before it is abandoned: %q", got)
	default:
	}
	st.hub.Abandon()
	if got := within(t, "an answer", result); !strings.HasPrefix(got, "502 mirrord: a developer's process takes this request, but did not answer: the link") {
		t.Errorf("got %q", got)
	}
	st.hub.Suspend(false)
}

// A body that decides.
func TestStreamsByBody(t *testing.T) {
	st := modern(t, stageOptions{subscribe: protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal, Filter: `{"body":{"kind":"text","matches":{"text":"mine"}}}`, BodySize: 1000, BodyTime: 60_000}})
	c, _ := st.caller()
	for body, who := range map[string]string{"it is mine": "local", "yours": "original", "": "original", strings.Repeat("mine", 1000): "original"} {
		want := fmt.Sprintf("200 %s POST /x %d map[]", who, len(body))
		if got, err := fetch(c, "POST", "/x", body); got != want || err != nil {
			t.Errorf("%.20q: %q, %v", body, got, err)
		}
	}
	if got := within(t, "a notice", st.notices); got != "filter-undecided" {
		t.Errorf("the notice is %s", got)
	}
}

// Where there is no room to look for streams the connection is the original's.
func TestStreamsWithoutMemory(t *testing.T) {
	st := modern(t, stageOptions{room: budget.New(ConnCost+splitCost).Share(0, budget.All)})
	c, _ := st.caller()
	if got, err := fetch(c, "GET", "/local/1", ""); got != "200 original GET /local/1 0 map[]" {
		t.Errorf("%q, %v", got, err)
	}
}

// Sessions share the streams of one connection, each by its filter.
func TestStreamsAmongSessions(t *testing.T) {
	n := newNode(t)
	ana, bob := n.session("ana", 0, serveHTTP2(answerer("ana"))), n.session("bob", 1, serveHTTP2(answerer("bob")))
	ana.subscribed(below("/a"))
	of := bob.subscribed(below("/b"))
	tr := &http2.Transport{AllowHTTP: true, DialTLSContext: func(context.Context, string, string, *tls.Config) (net.Conn, error) {
		s, c := newStolen(t)
		ana.steal.conns <- s
		return patient(c), nil
	}}
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr}
	gets := func(path, want string) {
		t.Helper()
		if got, err := fetch(c, "GET", path, ""); !strings.HasPrefix(got, want) || err != nil {
			t.Errorf("%s: got %q, %v, want %q", path, got, err, want)
		}
	}
	for range 2 {
		gets("/a/1", "200 ana GET /a/1")
		gets("/b/1", "200 bob GET /b/1")
		gets("/c", "200 original GET /c")
	}
	of.Close()
	ana.shares(1)
	gets("/b/3", "200 original")
	gets("/a/3", "200 ana")
}

// Of sessions that want to see bodies each sees as much as it may.
func TestStreamsByBodiesAmongSessions(t *testing.T) {
	n := newNode(t)
	ana, bob := n.session("ana", 0, serveHTTP2(answerer("ana"))), n.session("bob", 1, serveHTTP2(answerer("bob")))
	of := func(text string, size int) *protocol.Subscribe {
		return &protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal, Filter: fmt.Sprintf(`{"body":{"kind":"text","matches":{"text":%q}}}`, text), BodySize: uint32(size), BodyTime: 60_000}
	}
	ana.subscribed(of("a", 10))
	bob.subscribed(of("b", 1000))
	tr := &http2.Transport{AllowHTTP: true, DialTLSContext: func(context.Context, string, string, *tls.Config) (net.Conn, error) {
		s, c := newStolen(t)
		ana.steal.conns <- s
		return patient(c), nil
	}}
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr}
	for body, who := range map[string]string{"a": "ana", strings.Repeat("b", 100): "bob", strings.Repeat("a", 100): "original"} {
		if got, err := fetch(c, "POST", "/x", body); !strings.HasPrefix(got, "200 "+who) || err != nil {
			t.Errorf("%.5q: %q, %v", body, got, err)
		}
	}
}

// One stream that is not read, of either side, stops no other.
func TestSlowStreams(t *testing.T) {
	many := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for range 200 {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	})
	quiet := func(c net.Conn) {
		c.(*recorded).quiet = true
		serveHTTP2(many)(c)
	}
	st := modern(t, stageOptions{orig: quiet, local: quiet})
	c, _ := st.caller()
	for _, path := range []string{"/local/slow", "/other/slow"} {
		r, err := c.Get("http://a" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
	}
	for _, path := range []string{"/local/quick", "/other/quick"} {
		if got, err := fetch(c, "GET", path, ""); len(got) != 4+200*64<<10 || err != nil {
			t.Errorf("%s: %d bytes, %v", path, len(got), err)
		}
	}
}

// A client whose first word comes when the session has just ended is told to open no
// more streams, as others are.
func TestStreamsBehindTheEnd(t *testing.T) {
	st := modern(t, stageOptions{orig: func(c net.Conn) { // one that does not speak first
		if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err == nil {
			_ = http2.NewFramer(c, c).WriteSettings()
			_, _ = io.Copy(io.Discard, c)
		}
	}})
	c := st.client()
	within(t, "a connection to the original", st.orig.opened) // the client has said nothing for long
	st.end()
	f := http2.NewFramer(c, patient(c))
	ask(t, c, http2.ClientPreface)
	_ = f.WriteSettings()
	for {
		got, err := f.ReadFrame()
		if err != nil {
			t.Fatalf("the connection ends without GOAWAY: %v", err)
		}
		if got.Header().Type == http2.FrameGoAway {
			break
		}
	}
	c.Close()
	within(t, "the end of the hub", st.ended)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// The buffer of a long header block is not kept.
func TestStreamsKeepNoLargeBuffer(t *testing.T) {
	var server *hop.Peer
	h := hop.New(hop.Options{Route: func(*hop.Request) hop.Verdict { return hop.Verdict{} }, Connect: func(p *hop.Peer) { server = p }})
	defer h.Close()
	h.Original()
	var said, block bytes.Buffer
	f := http2.NewFramer(&said, nil)
	says := func(p *hop.Peer) {
		if err := p.Receive(said.Bytes()); err != nil {
			t.Fatal(err)
		}
		said.Reset()
	}
	_ = f.WriteSettings()
	says(server)
	said.WriteString(http2.ClientPreface)
	_ = f.WriteSettings()
	enc := hpack.NewEncoder(&block)
	for _, field := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {"x", strings.Repeat("~", 70_000)}} {
		_ = enc.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	b := block.Bytes()
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, BlockFragment: b[:16<<10]})
	for b = b[16<<10:]; len(b) > 16<<10; b = b[16<<10:] {
		_ = f.WriteContinuation(1, false, b[:16<<10])
	}
	_ = f.WriteContinuation(1, true, b)
	says(h.Client())
	var caps []int
	write(writerFunc(func(b []byte) (int, error) {
		if caps = append(caps, cap(b)); len(caps) == 1 {
			_ = f.WritePing(false, [8]byte{})
			says(server)
			return len(b), nil
		}
		return 0, io.ErrClosedPipe
	}), server)
	if len(caps) != 2 || caps[0] < 70_000 || caps[1] > mostKept {
		t.Errorf("buffers of %d bytes", caps)
	}
}

// A client that has gone is not kept for an original that says nothing.
func TestStreamsWithASilentServer(t *testing.T) {
	st := modern(t, stageOptions{orig: func(c net.Conn) { _, _ = io.Copy(io.Discard, c); <-t.Context().Done() }})
	st.hub.closedTime = 50 * time.Millisecond
	c := st.client()
	ask(t, c, http2.ClientPreface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	_ = c.CloseWrite()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadAll(c); timeout(err) {
		t.Error("the connection is kept")
	}
}

// A client that breaks the rules and reads nothing is not kept either.
func TestStreamsOfWhoDoesNotRead(t *testing.T) {
	wrote := make(chan struct{})
	st := modern(t, stageOptions{orig: serveHTTP2(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
			select {
			case wrote <- struct{}{}:
			case <-r.Context().Done():
				return
			}
		}
	}))})
	c := st.client()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	f := http2.NewFramer(c, c)
	ask(t, c, http2.ClientPreface)
	_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	_ = f.WriteWindowUpdate(0, 1<<30)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, field := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", "/other"}} {
		_ = enc.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: block.Bytes()})
	within(t, "a reply", wrote)
	for full := false; !full; { // nobody takes more of it
		select {
		case <-wrote:
		case <-time.After(200 * time.Millisecond):
			full = true
		}
	}
	f.AllowIllegalWrites = true
	_ = f.WriteData(0, false, nil)
	for {
		if _, err := c.Write(make([]byte, 1000)); timeout(err) {
			t.Fatal("the connection is kept")
		} else if err != nil {
			return
		}
	}
}
