package incoming

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

// odd are requests that a proxy which writes them anew would change.
var odd = []string{
	"GET /other/1?x=%2f HTTP/1.1\r\nhOsT: a\r\nX-A:  1 \r\nx-a:2\r\n\r\n",
	"GET /local/1 HTTP/1.1\r\nHost: a\r\n\r\n",
	"POST /other/2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
	"POST /local/2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
	"POST /local/3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n3;x=y\r\nabc\r\n00\r\nT: 1\r\n\r\n",
	"POST /other/3 HTTP/1.1\r\nHost: a\r\ntransfer-ENCODING:chunked\r\nTrailer: T\r\n\r\n3\r\nabc\r\n002;x=\"y\"\r\nde\r\n0\r\nT: 1\r\n\r\n",
	"HEAD /local/4 HTTP/1.1\r\nHost: a\r\n\r\n",
	"HEAD /other/4 HTTP/1.1\r\nHost: a\r\n\r\n",
	"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET http://a/local/5 HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET http://a/other/5 HTTP/1.1\r\nHost: a\r\n\r\n",
}

var oddAnswers = []string{
	"200 original GET /other/1?x=%2f 0 map[]", "200 local GET /local/1 0 map[]",
	"200 original POST /other/2 5 map[]", "200 local POST /local/2 5 map[]",
	"200 local POST /local/3 3 map[T:[1]]", "200 original POST /other/3 5 map[T:[1]]",
	"200 ", "200 ", "200 ", "200 local GET /local/5 0 map[]", "200 original GET /other/5 0 map[]",
}

// sides gives the bytes of odd that each side must have heard.
func sides() (local, original string) {
	for _, r := range odd {
		line, _, _ := strings.Cut(r, "\r\n")
		if strings.Contains(line, "/local/") {
			local += r
		} else {
			original += r
		}
	}
	return local, original
}

// Requests of one connection go each to its own, and come as they were sent;
// replies keep their order.
func TestRequestsAreDivided(t *testing.T) {
	wantLocal, wantOriginal := sides()
	for name, send := range map[string]func(t *testing.T, c net.Conn, br *bufio.Reader){
		"one after another": func(t *testing.T, c net.Conn, br *bufio.Reader) {
			for i, r := range odd {
				ask(t, c, r)
				method, _, _ := strings.Cut(r, " ")
				if got := answer(t, br, method); got != oddAnswers[i] {
					t.Errorf("%.30q is answered %q, want %q", r, got, oddAnswers[i])
				}
			}
		},
		"pipelined": func(t *testing.T, c net.Conn, br *bufio.Reader) {
			ask(t, c, strings.Join(odd, ""))
			for i, r := range odd {
				method, _, _ := strings.Cut(r, " ")
				if got := answer(t, br, method); got != oddAnswers[i] {
					t.Errorf("%.30q is answered %q, want %q", r, got, oddAnswers[i])
				}
			}
		},
		"byte by byte": func(t *testing.T, c net.Conn, br *bufio.Reader) {
			for i, r := range odd {
				for j := range len(r) {
					ask(t, c, r[j:j+1])
				}
				method, _, _ := strings.Cut(r, " ")
				if got := answer(t, br, method); got != oddAnswers[i] {
					t.Errorf("%.30q is answered %q, want %q", r, got, oddAnswers[i])
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			st := setStage(t, stageOptions{})
			c := st.client()
			send(t, c, bufio.NewReader(c))
			heard(t, st.orig, wantOriginal)
			heard(t, st.local, wantLocal)
			if n := len(st.orig.opened) + len(st.local.opened); n != 2 {
				t.Errorf("%d connections were made for it, want one to each", n)
			}
			c.CloseWrite()
			ends(t, c)
			want := protocol.Counts{Passed: uint64(len(odd) - strings.Count(wantLocal, "/local/"))}
			if got := st.hub.Counts(); got != want {
				t.Errorf("counted %+v, want %+v", got, want)
			}
		})
	}
}

// Requests in any order, cut anywhere, arrive as they were sent.
func TestAnyOrder(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 0))
			st := setStage(t, stageOptions{})
			c := st.client()
			var all, wantLocal, wantOriginal string
			var order []int
			for range 30 {
				i := rnd.IntN(len(odd))
				order = append(order, i)
				all += odd[i]
				if line, _, _ := strings.Cut(odd[i], "\r\n"); strings.Contains(line, "/local/") {
					wantLocal += odd[i]
				} else {
					wantOriginal += odd[i]
				}
			}
			go func() {
				for len(all) > 0 {
					n := min(len(all), 1+rnd.IntN(300))
					if _, err := io.WriteString(c, all[:n]); err != nil {
						return
					}
					all = all[n:]
				}
			}()
			br := bufio.NewReader(c)
			for _, i := range order {
				method, _, _ := strings.Cut(odd[i], " ")
				if got := answer(t, br, method); got != oddAnswers[i] {
					t.Errorf("seed %d: %.30q is answered %q, want %q", seed, odd[i], got, oddAnswers[i])
				}
			}
			heard(t, st.orig, wantOriginal)
			heard(t, st.local, wantLocal)
			c.CloseWrite()
			ends(t, br)
		})
	}
}

// Many clients at once each get their own replies.
func TestManyClients(t *testing.T) {
	st := setStage(t, stageOptions{})
	var wg sync.WaitGroup
	for i := range 16 {
		c := st.client()
		wg.Go(func() {
			br := bufio.NewReader(c)
			for j := range 20 {
				who, path := "local", "local"
				if (i+j)%2 == 0 {
					who, path = "original", "other"
				}
				body := strings.Repeat("x", i*1000+j)
				_, _ = fmt.Fprintf(c, "POST /%s/%d-%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", path, i, j, len(body), body)
				r, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Error(err)
					return
				}
				b, err := io.ReadAll(r.Body)
				if want := fmt.Sprintf("%s POST /%s/%d-%d %d map[]", who, path, i, j, len(body)); string(b) != want || err != nil {
					t.Errorf("got %q, %v, want %q", b, err, want)
				}
			}
		})
	}
	wg.Wait()
}

// A client of the language's own, with keep-alive and expectations.
func TestHTTPClient(t *testing.T) {
	st := setStage(t, stageOptions{})
	tr := &http.Transport{Dial: func(string, string) (net.Conn, error) { return st.client(), nil }, ExpectContinueTimeout: 2 * time.Second}
	defer tr.CloseIdleConnections()
	hc := &http.Client{Transport: tr}
	for i := range 20 {
		for _, c := range []struct{ path, want string }{{"/local/a", "local POST /local/a 70000 map[]"}, {"/other/a", "original POST /other/a 70000 map[]"}} {
			req, _ := http.NewRequest("POST", "http://shop"+c.path, strings.NewReader(strings.Repeat("x", 70000)))
			if i%2 == 0 {
				req.Header.Set("Expect", "100-continue")
			}
			if i%3 == 0 {
				req.ContentLength = -1
			}
			r, err := hc.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r.Body)
			if string(b) != c.want || err != nil {
				t.Errorf("got %q, %v, want %q", b, err, c.want)
			}
		}
	}
	for _, c := range []struct{ path, want string }{{"/local/refuse", "local refuses\n"}, {"/other/refuse", "original refuses\n"}} {
		req, _ := http.NewRequest("POST", "http://shop"+c.path, strings.NewReader("body"))
		req.Header.Set("Expect", "100-continue")
		r, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(r.Body); r.StatusCode != 417 || string(b) != c.want {
			t.Errorf("got %d %q, want 417 %q", r.StatusCode, b, c.want)
		}
	}
}

// A client that was refused and then sends another request instead of the body
// is understood by the one who refused, not by us.
func TestRefusedExpectation(t *testing.T) {
	st := setStage(t, stageOptions{})
	c := st.client()
	br := bufio.NewReader(c)
	head := "POST /other/refuse HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 30\r\n\r\n"
	ask(t, c, head)
	if got := answer(t, br, "POST"); got != "417 original refuses\n" {
		t.Errorf("got %q", got)
	}
	ask(t, c, "GET /local/1 HTTP/1.1\r\n\r\n")
	heard(t, st.orig, head+"GET /local/1 HTTP/1.1\r\n\r\n")
}

func TestLargeBodies(t *testing.T) {
	const size = 64 << 20
	var sum [32]byte
	sink := func(name string) func(net.Conn) {
		return serveHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h := sha256.New()
			n, _ := io.Copy(h, r.Body)
			h.Sum(sum[:0])
			fmt.Fprintf(w, "%s %d", name, n)
		}))
	}
	for _, path := range []string{"/local/up", "/other/up"} {
		t.Run(path, func(t *testing.T) {
			st := setStage(t, stageOptions{local: unrecorded(sink("local")), orig: unrecorded(sink("original"))})
			c := st.client()
			_ = c.SetDeadline(time.Now().Add(30 * time.Second))
			ask(t, c, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", path, size))
			var before, now runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			chunk := make([]byte, 1<<20)
			want := sha256.New()
			for i := range size >> 20 {
				chunk[i] = byte(i + 1)
				want.Write(chunk)
				if _, err := c.Write(chunk); err != nil {
					t.Fatal(err)
				}
			}
			runtime.ReadMemStats(&now)
			if grown := int64(now.HeapInuse) - int64(before.HeapInuse); grown > 24<<20 { // the link may hold 16 MiB
				t.Errorf("it took %d MiB of memory", grown>>20)
			}
			if got := answer(t, bufio.NewReader(c), "POST"); !strings.HasSuffix(got, fmt.Sprint(size)) {
				t.Errorf("got %q", got)
			}
			if string(sum[:]) != string(want.Sum(nil)) {
				t.Error("other bytes came than were sent")
			}
		})
	}
}

// unrecorded keeps the recorder out of a large transfer's memory.
func unrecorded(serve func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		c.(*recorded).quiet = true
		serve(c)
	}
}

func TestEventStream(t *testing.T) {
	for path, want := range map[string]string{"/local/events": "data: local\n", "/other/events": "data: original\n"} {
		t.Run(path, func(t *testing.T) {
			st := setStage(t, stageOptions{})
			c := st.client()
			ask(t, c, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
			r, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(r.Body).ReadString('\n')
			if line != want || err != nil {
				t.Errorf("got %q, %v, want %q", line, err, want)
			}
			// The client goes away, and the server notices: its handler ends.
			c.SetLinger(0)
			c.Close()
			a := st.orig
			if strings.HasPrefix(path, "/local") {
				a = st.local
			}
			within(t, "the end of the handler", within(t, "a connection", a.opened).(*recorded).done)
		})
	}
}

// upgrader switches protocols and echoes.
func upgrader(c net.Conn) {
	br := bufio.NewReader(c)
	if _, err := http.ReadRequest(br); err != nil {
		return
	}
	_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET ") // it speaks at once
	_, _ = io.Copy(c, br)
	_ = c.(*recorded).Conn.(interface{ CloseWrite() error }).CloseWrite()
}

func TestUpgrade(t *testing.T) {
	for _, path := range []string{"/local/ws", "/other/ws"} {
		t.Run(path, func(t *testing.T) {
			st := setStage(t, stageOptions{local: upgrader, orig: upgrader})
			c := st.client()
			head := "GET " + path + " HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
			ask(t, c, head)
			br := bufio.NewReader(c)
			r, err := http.ReadResponse(br, nil)
			if err != nil || r.StatusCode != 101 {
				t.Fatal(r, err)
			}
			frames := "\x81\x05hello" + "GET /local HTTP/1.1\r\n\r\n" + "GET /other HTTP/1.1\r\n\r\n" + strings.Repeat("\x00\xff", 100000)
			go func() { io.WriteString(c, frames); c.CloseWrite() }()
			if got, err := io.ReadAll(br); string(got) != "GET "+frames || err != nil {
				t.Errorf("%d bytes came back, %v, want %d", len(got), err, len(frames)+4)
			}
			a := st.orig
			if path == "/local/ws" {
				a = st.local
			}
			heard(t, a, head+frames)
		})
	}
}

// An upgrade that is not taken up leaves the connection divided.
func TestUpgradeRefused(t *testing.T) {
	st := setStage(t, stageOptions{})
	c := st.client()
	br := bufio.NewReader(c)
	for _, who := range []string{"local", "other", "local"} {
		ask(t, c, "GET /"+who+" HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
		want := fmt.Sprintf("200 %s GET /%s 0 map[]", strings.ReplaceAll(who, "other", "original"), who)
		if got := answer(t, br, "GET"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// What ends a connection ends it, whoever it was with.
func TestLastRequest(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"1.0 to local", "GET /local HTTP/1.0\r\n\r\n", "200 local GET /local 0 map[]"},
		{"1.0 to the original", "GET /other HTTP/1.0\r\n\r\n", "200 original GET /other 0 map[]"},
		{"close to local", "GET /local HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200 local GET /local 0 map[]"},
		{"close to the original", "GET /other HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200 original GET /other 0 map[]"},
		{"closed by local", "GET /local/close HTTP/1.1\r\nHost: a\r\n\r\n", "200 local GET /local/close 0 map[]"},
		{"closed by the original", "GET /other/close HTTP/1.1\r\nHost: a\r\n\r\n", "200 original GET /other/close 0 map[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := setStage(t, stageOptions{})
			conn := st.client()
			ask(t, conn, "GET /local/0 HTTP/1.1\r\nHost: a\r\n\r\nGET /other/0 HTTP/1.1\r\nHost: a\r\n\r\n"+c.in)
			br := bufio.NewReader(conn)
			for _, want := range []string{"200 local GET /local/0 0 map[]", "200 original GET /other/0 0 map[]", c.want} {
				if got := answer(t, br, "GET"); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
			ends(t, br)
		})
	}
}

// scripted answers everything it hears with one text, then closes.
func scripted(head, text string) func(net.Conn) {
	return func(c net.Conn) {
		br := bufio.NewReader(c)
		for {
			line, err := br.ReadString('\n')
			if err != nil {
				return
			}
			if line == head {
				break
			}
		}
		_, _ = io.WriteString(c, text)
	}
}

// What is not clearly HTTP/1 is the original's, from the first doubtful byte.
func TestPassesToOriginal(t *testing.T) {
	echo := func(c net.Conn) {
		_, _ = io.Copy(c, c)
		_ = c.(*recorded).Conn.(*net.TCPConn).CloseWrite()
	}
	for _, c := range []struct{ name, in, notice string }{
		{"nearly HTTP/2", "PRI * HTTP/2.0\r\n\r\nSN", ""},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01", "filter-passes-tls"},
		{"binary", "\x00\x01\x02", ""},
		{"text", "EHLO x\r\nGET /local HTTP/1.1\r\n\r\n", ""},
		{"smuggled", "POST /local HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /local HTTP/1.1\r\n\r\n", ""},
		{"bare line ends", "GET /local HTTP/1.1\nHost: a\n\n", ""},
		{"half a request", "GET /local HTTP/1.1\r\nHo", ""},
		{"an endless head", "GET /local?" + strings.Repeat("a", 100000), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := setStage(t, stageOptions{orig: echo})
			conn := st.client()
			go func() { io.WriteString(conn, c.in); conn.CloseWrite() }()
			if got, err := io.ReadAll(conn); string(got) != c.in || err != nil {
				t.Errorf("got %.100q, %v, want %.100q", got, err, c.in)
			}
			heard(t, st.orig, c.in)
			if c.notice != "" {
				if got := within(t, "a notice", st.notices); got != c.notice {
					t.Errorf("the notice is %s, want %s", got, c.notice)
				}
				again := st.client()
				go func() { io.WriteString(again, c.in); again.CloseWrite() }()
				_, _ = io.ReadAll(again)
			}
			if len(st.notices) > 0 {
				t.Errorf("then also %s", <-st.notices)
			}
		})
	}
}

// Doubt in the middle: what came before is answered, the rest is the
// original's; in a body it is whose the request is.
func TestDoubtComesLater(t *testing.T) {
	st := setStage(t, stageOptions{orig: func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }})
	c := st.client()
	const bad = "GET /local HTTP/1.1\r\nA : b\r\n\r\nGET /local HTTP/1.1\r\n\r\n"
	ask(t, c, "GET /local/1 HTTP/1.1\r\nHost: a\r\n\r\n"+bad)
	if got := answer(t, bufio.NewReader(c), "GET"); got != "200 local GET /local/1 0 map[]" {
		t.Errorf("got %q", got)
	}
	c.CloseWrite()
	heard(t, st.orig, bad)

	c = st.client()
	const body = "POST /local/1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\nGET /other HTTP/1.1\r\n\r\n"
	before := st.local.said()
	ask(t, c, body)
	c.CloseWrite()
	_, _ = io.ReadAll(c)
	heard(t, st.local, before+body)
}

func TestServerSpeaksFirst(t *testing.T) {
	st := setStage(t, stageOptions{orig: func(c net.Conn) {
		_, _ = io.WriteString(c, "220 mail\r\n")
		_, _ = io.Copy(c, c)
		_ = c.(*recorded).Conn.(*net.TCPConn).CloseWrite()
	}})
	c := st.client()
	br := bufio.NewReader(c)
	if line, err := br.ReadString('\n'); line != "220 mail\r\n" || err != nil {
		t.Fatalf("got %q, %v", line, err)
	}
	const words = "GET /local HTTP/1.1\r\n\r\n" // even that
	ask(t, c, words)
	c.CloseWrite()
	if got, err := io.ReadAll(br); string(got) != words || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// A client that is only slow is a client as any other.
func TestClientSpeaksLate(t *testing.T) {
	st := setStage(t, stageOptions{})
	c := st.client()
	within(t, "a connection to the original", st.orig.opened)
	br := bufio.NewReader(c)
	for _, who := range []string{"local", "other"} {
		ask(t, c, "GET /"+who+" HTTP/1.1\r\nHost: a\r\n\r\n")
		if got := answer(t, br, "GET"); got != fmt.Sprintf("200 %s GET /%s 0 map[]", strings.ReplaceAll(who, "other", "original"), who) {
			t.Errorf("got %q", got)
		}
	}
	if len(st.orig.opened) > 0 {
		t.Error("the original was connected again")
	}
}

func TestNothingIsSaid(t *testing.T) {
	t.Run("the client closes", func(t *testing.T) {
		st := setStage(t, stageOptions{})
		c := st.client()
		c.CloseWrite()
		ends(t, c)
		if len(st.orig.opened) > 0 {
			t.Error("the original was connected")
		}
	})
	t.Run("the original closes", func(t *testing.T) {
		st := setStage(t, stageOptions{orig: func(net.Conn) {}})
		ends(t, st.client())
	})
}

// An idle connection ends with the one who answered last, if that is the
// original; local may end its own.
func TestIdleEnds(t *testing.T) {
	st := setStage(t, stageOptions{})
	c := st.client()
	br := bufio.NewReader(c)
	get := func(who, want string) {
		t.Helper()
		ask(t, c, "GET /"+who+" HTTP/1.1\r\nHost: a\r\n\r\n")
		if got := answer(t, br, "GET"); got != "200 "+want+" GET /"+who+" 0 map[]" {
			t.Errorf("got %q from %s", got, want)
		}
	}
	// Each ends its own, long after it has got a whole request: the client notices
	// nothing.
	end := func(a *actor) {
		t.Helper()
		r := within(t, "a connection to "+a.name, a.opened).(*recorded)
		if err := r.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		within(t, "the end of the connection to "+a.name, r.done) // it was seen
	}
	get("local", "local")
	get("other", "original")
	end(st.local)
	get("local", "local")
	end(st.orig)
	within(t, "another to local", st.local.opened)
	get("other", "original")
	within(t, "another to the original", st.orig.opened).Close()
	ends(t, br)
}

// carried is how many connections are; one place is that of the next.
func (b *bench) carried() int {
	b.hub.mu.Lock()
	defer b.hub.mu.Unlock()
	return b.hub.stolen - 1
}

func TestLocalFails(t *testing.T) {
	const get = "GET /local HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, c := range []struct {
		name  string
		local func(net.Conn)
		in    string
		why   string
	}{
		{"it dies unheard", func(c net.Conn) { c.(*recorded).Conn.(*link.Stream).Reset(syscall.ETIMEDOUT) }, get, "connection timed out"},
		{"it dies", func(c net.Conn) {
			_, _ = c.Read(make([]byte, 100))
			c.(*recorded).Conn.(*link.Stream).Reset(syscall.ECONNRESET)
		}, get, "connection reset by peer"},
		{"it closes", func(c net.Conn) { _, _ = c.Read(make([]byte, 1000)) }, get, "it closed the connection without an answer"},
		{"a request that is the last", func(c net.Conn) { c.(*recorded).Conn.(*link.Stream).Reset(syscall.ETIMEDOUT) },
			"GET /local HTTP/1.0\r\n\r\n", "connection timed out"},
		{"in the middle of an upload", func(c net.Conn) { c.(*recorded).Conn.(*link.Stream).Reset(syscall.ETIMEDOUT) },
			"POST /local HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n" + strings.Repeat("x", 3000000), "connection timed out"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := setStage(t, stageOptions{local: c.local})
			conn := st.client()
			ask(t, conn, "GET /other HTTP/1.1\r\nHost: a\r\n\r\n")
			br := bufio.NewReader(conn)
			answer(t, br, "GET")
			go io.WriteString(conn, c.in)
			r, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r.Body)
			if r.StatusCode != 502 || !r.Close || !strings.Contains(string(b), c.why) || err != nil {
				t.Errorf("got %d, close %v, %q, %v, want 502 with %q", r.StatusCode, r.Close, b, err, c.why)
			}
			ends(t, br)
		})
	}
	t.Run("in a reply", func(t *testing.T) {
		seen := make(chan struct{})
		st := setStage(t, stageOptions{local: func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1000))
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
			<-seen
			c.(*recorded).Conn.(*link.Stream).Reset(syscall.ECONNRESET)
		}})
		conn := st.client()
		ask(t, conn, get)
		br := bufio.NewReader(conn)
		if _, err := br.ReadString('f'); err != nil {
			t.Fatal(err)
		}
		close(seen)
		if _, err := io.ReadAll(br); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client reads %v, want ECONNRESET", err)
		}
	})
}

func TestOriginalFails(t *testing.T) {
	t.Run("refuses", func(t *testing.T) {
		st := setStage(t, stageOptions{refused: true})
		c := st.client()
		br := bufio.NewReader(c)
		ask(t, c, "GET /local HTTP/1.1\r\nHost: a\r\n\r\n")
		if got := answer(t, br, "GET"); got != "200 local GET /local 0 map[]" {
			t.Errorf("got %q", got)
		}
		ask(t, c, "GET /other HTTP/1.1\r\nHost: a\r\n\r\n")
		if _, err := io.ReadAll(br); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client reads %v, want ECONNRESET", err)
		}
	})
	t.Run("answers early and closes", func(t *testing.T) {
		st := setStage(t, stageOptions{orig: func(c net.Conn) {
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			_ = c.(*recorded).Conn.(*net.TCPConn).CloseWrite()
			_, _ = io.CopyN(io.Discard, c, 1<<20)
		}})
		conn := st.client()
		go io.WriteString(conn, "POST /other HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n"+strings.Repeat("x", 3000000))
		if got := answer(t, bufio.NewReader(conn), "POST"); got != "413 " {
			t.Errorf("got %q", got)
		}
	})
}

// An answer before the end of its request leaves the connection divided.
func TestEarlyReply(t *testing.T) {
	st := setStage(t, stageOptions{orig: func(c net.Conn) {
		br := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
			_, _ = io.Copy(io.Discard, r.Body)
		}
	}})
	c := st.client()
	br := bufio.NewReader(c)
	ask(t, c, "POST /other HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
	if got := answer(t, br, "POST"); got != "200 hi" {
		t.Errorf("got %q", got)
	}
	ask(t, c, "helloGET /local HTTP/1.1\r\nHost: a\r\n\r\n")
	if got := answer(t, br, "GET"); got != "200 local GET /local 0 map[]" {
		t.Errorf("got %q", got)
	}
}

// When nobody takes requests any more, the connection is the original's.
func TestSubscriptionEnds(t *testing.T) {
	for name, end := range map[string]func(st *stage){
		"unsubscribed": func(st *stage) { st.sub.Close(); did(st.t, st.steal, "add 80", "remove 80") },
		"suspended":    func(st *stage) { st.hub.Suspend(true) },
	} {
		t.Run(name, func(t *testing.T) {
			st := setStage(t, stageOptions{})
			c := st.client()
			br := bufio.NewReader(c)
			ask(t, c, "GET /local HTTP/1.1\r\nHost: a\r\n\r\n")
			if got := answer(t, br, "GET"); got != "200 local GET /local 0 map[]" {
				t.Errorf("got %q", got)
			}
			end(st)
			for range 2 {
				ask(t, c, "GET /local HTTP/1.1\r\nHost: a\r\n\r\n")
				if got := answer(t, br, "GET"); got != "200 original GET /local 0 map[]" {
					t.Errorf("then got %q", got)
				}
			}
			late := st.client()
			ask(t, late, "GET /local HTTP/1.1\r\nHost: a\r\n\r\n")
			if got := answer(t, bufio.NewReader(late), "GET"); got != "200 original GET /local 0 map[]" {
				t.Errorf("a late one got %q", got)
			}
		})
	}
}

func TestNewestFilterCounts(t *testing.T) {
	st := setStage(t, stageOptions{})
	c := st.client()
	br := bufio.NewReader(c)
	get := func(path, want string) {
		t.Helper()
		ask(t, c, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
		if got := answer(t, br, "GET"); got != "200 "+want+" GET "+path+" 0 map[]" {
			t.Errorf("%s: got %q, want %s", path, got, want)
		}
	}
	get("/local", "local")
	newer := st.subscribed(&protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal, Filter: `{"path":{"text":"^/new"}}`})
	get("/local", "original")
	get("/new", "local")
	newer.Close()
	for end := time.Now().Add(3 * time.Second); len(st.hub.listed(key{protocol.ModeSteal, 80})) > 1 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	get("/local", "local")
	get("/new", "original")
	whole := st.subscribed(&protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal})
	get("/new", "local")
	whole.Close()
}

func (h *Hub) listed(k key) []subscription {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ports[k]
}

func TestProbes(t *testing.T) {
	probe := func(target string) string {
		return "GET " + target + " HTTP/1.1\r\nHost: a\r\nuser-agent: kube-probe/1.30\r\nConnection: close\r\n\r\n"
	}
	probes := []string{"/local/healthz", "local/ready?full=1", ""}
	for name, filter := range map[string]string{"filtered": localFilter, "whole": ""} {
		t.Run(name, func(t *testing.T) {
			st := setStage(t, stageOptions{subscribe: protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal, Filter: filter, Probes: probes}})
			for _, c := range []struct{ in, want string }{
				{probe("/local/healthz"), "original"},
				{probe("/local/ready?full=1"), "original"},
				{probe("/"), "original"},
				{probe("/local/healthz?x"), "local"},
				{probe("/local/other"), "local"},
				{"GET /local/healthz HTTP/1.1\r\nHost: a\r\nUser-Agent: curl kube-probe/1\r\nConnection: close\r\n\r\n", "local"},
				{"GET /local/healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "local"},
			} {
				conn := st.client()
				ask(t, conn, c.in)
				if got := answer(t, bufio.NewReader(conn), "GET"); !strings.HasPrefix(got, "200 "+c.want+" ") {
					t.Errorf("%q is answered %q, want %s", c.in, got, c.want)
				}
			}
		})
	}
}

// A whole port with probes stays whole: whatever does not begin with a probe
// is the session's, also what is no HTTP.
func TestWholePortWithProbes(t *testing.T) {
	echo := func(c net.Conn) {
		_, _ = io.WriteString(c, "hi ")
		_, _ = io.Copy(c, c)
		_ = c.(*recorded).Conn.(interface{ CloseWrite() error }).CloseWrite()
	}
	st := setStage(t, stageOptions{local: echo, subscribe: protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal, Probes: []string{"/healthz"}}})
	for _, in := range []string{"\x16\x03\x01", "GET / HTTP/1.1\r\nA : b\r\n\r\n", "GET / HTTP/1.1\r\nHo", "", "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /healthz HTTP/1.1\r\nUser-Agent: kube-probe/1\r\n\r\n"} {
		c := st.client()
		ask(t, c, in)
		b := make([]byte, 3)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "hi " {
			t.Errorf("%q: got %q, %v", in, b, err)
		}
		c.CloseWrite()
		if got, err := io.ReadAll(c); string(got) != in || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, in)
		}
	}
}

// There, a reset by local is a reset.
func TestWholePortIsReset(t *testing.T) {
	st := setStage(t, stageOptions{local: func(c net.Conn) { c.(*recorded).Conn.(*link.Stream).Reset(syscall.EHOSTUNREACH) },
		subscribe: protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal, Probes: []string{"/healthz"}}})
	c := st.client()
	ask(t, c, "GET / HTTP/1.1\r\n\r\n")
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client reads %v, want ECONNRESET", err)
	}
}

// The end of the session lets the original finish, and cuts the rest.
func TestSessionEnds(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		st := setStage(t, stageOptions{})
		c := st.client()
		br := bufio.NewReader(c)
		for _, path := range []string{"/other", "/local", "/other"} {
			ask(t, c, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
			answer(t, br, "GET")
		}
		st.end()
		ends(t, br)
		within(t, "the end of the hub", st.ended)
	})
	t.Run("the original has it", func(t *testing.T) {
		ended, asked := make(chan struct{}), make(chan struct{})
		st := setStage(t, stageOptions{orig: serveHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(asked)
			<-ended
			_, _ = io.WriteString(w, "done")
		}))})
		c := st.client()
		ask(t, c, "GET /other HTTP/1.1\r\nHost: a\r\n\r\n")
		within(t, "the request", asked)
		st.end()
		close(ended)
		br := bufio.NewReader(c)
		if got := answer(t, br, "GET"); got != "200 done" {
			t.Errorf("got %q", got)
		}
		ends(t, br)
		within(t, "the end of the hub", st.ended)
	})
	t.Run("local has it", func(t *testing.T) {
		st := setStage(t, stageOptions{})
		c := st.client()
		ask(t, c, "GET /local/events HTTP/1.1\r\nHost: a\r\n\r\n")
		br := bufio.NewReader(c)
		if _, err := http.ReadResponse(br, nil); err != nil {
			t.Fatal(err)
		}
		st.end()
		if _, err := io.ReadAll(br); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client reads %v, want ECONNRESET", err)
		}
	})
}
