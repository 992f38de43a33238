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

	"github.com/mirrord-go/mirrord/internal/http1"
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

// Replies come as they were sent, also those that no server of today writes.
func TestOddReplies(t *testing.T) {
	for _, text := range []string{
		"HTTP/1.1 200 OK\r\n\r\nuntil the end",
		"HTTP/1.0 200 OK\nContent-Length: 2\n\nhi, and more",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink:  </a>\r\n\r\nHTTP/1.1 200 OK\r\nsEt-Cookie:a\r\nset-cookie: b\r\ncontent-length: 2\r\n\r\nhi",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nT: x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nhi\n0\n\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\ncut",
		"HTTP/1.1 200 OK\r\nCont",
		"hello",
		"<html>0.9</html>",
	} {
		for _, path := range []string{"/local", "/other"} {
			t.Run(path+" "+text[:5], func(t *testing.T) {
				reply := scripted("\r\n", text)
				st := setStage(t, stageOptions{local: reply, orig: reply})
				c := st.client()
				ask(t, c, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
				// A side that ends without being asked to ends nothing but itself if
				// it is local; the client says when it has enough.
				c.CloseWrite()
				if got, err := io.ReadAll(c); string(got) != text || err != nil {
					t.Errorf("got %q, %v, want %q", got, err, text)
				}
			})
		}
	}
}

// Whatever local replies, the filter keeps what is not local's from it.
func TestRepliesOpenNothing(t *testing.T) {
	const secret = "GET /other/secret HTTP/1.1\r\nHost: a\r\n\r\n"
	for name, first := range map[string]string{
		"two lengths":     "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
		"bare line ends":  "HTTP/1.0 200 OK\nContent-Length: 2\nConnection: keep-alive\n\nhi",
		"two codings":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
		"bare chunks":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nhi\n0\n\n",
		"length, coding":  "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
		"until the end":   "HTTP/1.1 200 OK\r\n\r\nhi",
		"the last":        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
		"unasked upgrade": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
	} {
		for _, pipelined := range []bool{false, true} {
			t.Run(fmt.Sprint(name, pipelined), func(t *testing.T) {
				st := setStage(t, stageOptions{local: func(c net.Conn) {
					_, _ = http.ReadRequest(bufio.NewReaderSize(c, 16))
					_, _ = io.WriteString(c, first)
					if strings.Contains(name, "the ") {
						_ = c.(*recorded).Conn.(*link.Stream).CloseWrite() // as it has announced
					}
					_, _ = io.Copy(io.Discard, c)
				}})
				c := st.client()
				const matches = "GET /local HTTP/1.1\r\nHost: a\r\n\r\n"
				var got []byte
				if pipelined {
					ask(t, c, matches+secret)
				} else {
					ask(t, c, matches)
					got = make([]byte, len(first))
					if _, err := io.ReadFull(c, got); err != nil {
						t.Fatal(err)
					}
					_, _ = io.WriteString(c, secret) // it may be closed already
				}
				more, err := io.ReadAll(c)
				c.Close()
				if got = append(got, more...); string(got) != first || err != nil && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the client got %q, %v, want %q", got, err, first)
				}
				if got := st.local.said(); got != matches {
					t.Errorf("local heard %q, want %q", got, matches)
				}
			})
		}
	}
	t.Run("refused expectation", func(t *testing.T) {
		const head = "POST /local HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
		st := setStage(t, stageOptions{local: func(c net.Conn) {
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, "HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
		}})
		c := st.client()
		br := bufio.NewReader(c)
		ask(t, c, head)
		if got := answer(t, br, "POST"); got != "417 " {
			t.Errorf("got %q", got)
		}
		_, _ = io.WriteString(c, secret)
		if b, _ := io.ReadAll(br); len(b) > 0 {
			t.Errorf("then comes %q", b)
		}
		if got := st.local.said(); got != head {
			t.Errorf("local heard %q, want %q", got, head)
		}
	})
	t.Run("half a close", func(t *testing.T) {
		const matches = "GET /local HTTP/1.1\r\nHost: a\r\n\r\n"
		const short = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\ncut"
		st := setStage(t, stageOptions{local: func(c net.Conn) {
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, short)
			_ = c.(*recorded).Conn.(*link.Stream).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
		}})
		c := st.client()
		ask(t, c, matches)
		if got, err := io.ReadAll(c); string(got) != short || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, short)
		}
		ask(t, c, secret)
		c.CloseWrite()
		within(t, "the end of local's connection", within(t, "a connection", st.local.opened).(*recorded).done)
		if got := st.local.said(); got != matches {
			t.Errorf("local heard %q, want %q", got, matches)
		}
	})
}

// What is not clearly HTTP/1 is the original's, from the first doubtful byte.
func TestPassesToOriginal(t *testing.T) {
	echo := func(c net.Conn) {
		_, _ = io.Copy(c, c)
		_ = c.(*recorded).Conn.(*net.TCPConn).CloseWrite()
	}
	for _, c := range []struct{ name, in, notice string }{
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00", "filter-passes-http2"},
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
	st.hub.budget = http1.NewBudget(held)
	pad := "X: " + strings.Repeat("x", 6000) + "\r\n"
	body := strings.Repeat("y", 64<<10)
	for range held { // half heads, for as long as they like
		ask(t, st.client(), "GET /other HTTP/1.1\r\n"+pad)
	}
	for end := time.Now().Add(3 * time.Second); st.hub.budget.Free() > 0 && time.Now().Before(end); {
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
	if got := st.hub.budget.Free(); got != 0 {
		t.Errorf("%d large buffers are free", got)
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
	get("local", "local")
	get("other", "original")
	get("local", "local")
	// Both end theirs: the client notices nothing.
	for _, a := range []*actor{st.local, st.orig} {
		r := within(t, "a connection to "+a.name, a.opened).(*recorded)
		if err := r.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		within(t, "the end of the connection to "+a.name, r.done) // it was seen
	}
	get("local", "local")
	get("other", "original")
	within(t, "another to local", st.local.opened)
	within(t, "another to the original", st.orig.opened).Close()
	ends(t, br)
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

// carried is how many connections are; one slot is that of the next.
func (b *bench) carried() int { return len(b.hub.slots[protocol.ModeSteal]) - 1 }

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

func TestLocalFails(t *testing.T) {
	const get = "GET /local HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, c := range []struct {
		name  string
		local func(net.Conn)
		in    string
		why   string
	}{
		{"nobody listens", func(c net.Conn) { c.(*recorded).Conn.(*link.Stream).Reset(syscall.ECONNREFUSED) }, get, "connection refused"},
		{"it dies", func(c net.Conn) {
			_, _ = c.Read(make([]byte, 100))
			c.(*recorded).Conn.(*link.Stream).Reset(syscall.ECONNRESET)
		}, get, "connection reset by peer"},
		{"it closes", func(c net.Conn) { _, _ = c.Read(make([]byte, 1000)) }, get, "it closed the connection without an answer"},
		{"a request that is the last", func(c net.Conn) { c.(*recorded).Conn.(*link.Stream).Reset(syscall.ECONNREFUSED) },
			"GET /local HTTP/1.0\r\n\r\n", "connection refused"},
		{"in the middle of an upload", func(c net.Conn) { c.(*recorded).Conn.(*link.Stream).Reset(syscall.ECONNREFUSED) },
			"POST /local HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n" + strings.Repeat("x", 3000000), "connection refused"},
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
	st := setStage(t, stageOptions{local: func(c net.Conn) { c.(*recorded).Conn.(*link.Stream).Reset(syscall.ECONNREFUSED) },
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
