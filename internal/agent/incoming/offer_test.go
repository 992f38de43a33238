package incoming

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// refusing is a local that gives a connection to nobody.
func refusing(errno syscall.Errno) func(net.Conn) {
	return func(c net.Conn) { c.(*recorded).Conn.(*link.Stream).Reset(errno) }
}

type netAddr = netip.AddrPort

// closedChan is for what need not be waited for.
var closedChan = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// defaulted is m, or a subscription with localFilter.
func defaulted(m protocol.Subscribe) *protocol.Subscribe {
	if m.Port == 0 {
		m = protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal, Filter: localFilter}
	}
	return &m
}

var wholePort = protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal}

// repeater says what it has heard when its client has ended.
func repeater(c net.Conn) {
	b, err := io.ReadAll(c)
	fmt.Fprintf(c, "original heard %s %v", b, err)
}

// keptNothing checks that nothing is kept any more.
func (st *stage) keptNothing() {
	st.t.Helper()
	for end := time.Now().Add(3 * time.Second); st.kept.Used() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			st.t.Fatalf("%d bytes are still kept", st.kept.Used())
		}
	}
}

// A whole connection that local refuses is the original's, from the client's
// first byte to its end.
func TestRefusedWhole(t *testing.T) {
	probed := wholePort
	probed.Probes = []string{"/health"}
	most := strings.Repeat("x", maxKept)
	for name, c := range map[string]struct {
		subscribe    protocol.Subscribe
		errno        syscall.Errno
		before, then string // what the client says before local refuses, and after
		want         string // ""; a reset
	}{
		"nothing was said":  {wholePort, syscall.ECONNREFUSED, "", "all", "all"},
		"something":         {wholePort, syscall.ECONNREFUSED, "first ", "last", "first last"},
		"all":               {wholePort, syscall.ECONNREFUSED, "all", "", "all"},
		"as much as can be": {wholePort, syscall.ECONNREFUSED, most, "", most},
		"too much":          {wholePort, syscall.ECONNREFUSED, most + "x", "", ""},
		"no room":           {wholePort, syscall.EAGAIN, "first ", "last", "first last"},
		"no probe":          {probed, syscall.ECONNREFUSED, "GET /x HTTP/1.1\r\n\r\n", "body", "GET /x HTTP/1.1\r\n\r\nbody"},
		"another reason":    {wholePort, syscall.ECONNRESET, "first", "", ""},
		"no memory":         {wholePort, syscall.ENOMEM, "first", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			refuse := make(chan struct{})
			st := setStage(t, stageOptions{subscribe: c.subscribe, orig: repeater, local: func(l net.Conn) {
				_, _ = io.CopyN(io.Discard, l, int64(len(c.before)))
				<-refuse
				refusing(c.errno)(l)
			}})
			client := st.client()
			ask(t, client, c.before)
			if c.then == "" {
				_ = client.CloseWrite()
			}
			begun(t, st.local, c.before)
			close(refuse)
			if c.then != "" {
				ask(t, client, c.then)
				_ = client.CloseWrite()
			}
			got, err := io.ReadAll(client)
			switch {
			case c.want == "" && (!errors.Is(err, syscall.ECONNRESET) || st.orig.said() != ""):
				t.Errorf("the client got %.100q, %v, want a reset", got, err)
			case c.want != "" && string(got) != "original heard "+c.want+" <nil>":
				t.Errorf("the client got %.100q, %v", got, err)
			}
			st.keptNothing()
			returned := protocol.Counts{Returned: 1}
			switch {
			case name == "too much":
				returned = protocol.Counts{Refused: 1}
			case c.want == "":
				returned = protocol.Counts{}
			}
			if got := st.hub.Counts(); got != returned {
				t.Errorf("counted %+v, want %+v", got, returned)
			}
		})
	}
}

// What all connections together may keep is bounded.
func TestKeptIsBounded(t *testing.T) {
	st := setStage(t, stageOptions{subscribe: wholePort, orig: repeater, local: func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		refusing(syscall.ECONNREFUSED)(c)
	}})
	left := st.kept.Free() - 3
	st.kept.Take(left)
	for said, want := range map[string]error{"abc": nil, "abcd": syscall.ECONNRESET} {
		c := st.client()
		ask(t, c, said)
		_ = c.CloseWrite()
		if got, err := io.ReadAll(c); !errors.Is(err, want) {
			t.Errorf("%q: the client got %q, %v, want %v", said, got, err, want)
		}
		if got := st.kept.Used(); got != left {
			t.Errorf("%d bytes are kept", got)
		}
	}
}

// Local's word is its yes: a refusal behind it is none.
func TestRefusedTooLate(t *testing.T) {
	for name, m := range map[string]protocol.Subscribe{"whole": wholePort, "filtered": {}} {
		t.Run(name, func(t *testing.T) {
			seen := make(chan struct{})
			st := setStage(t, stageOptions{subscribe: m, local: func(c net.Conn) {
				_, _ = c.Read(make([]byte, 1000))
				_, _ = io.WriteString(c, "H")
				<-seen
				refusing(syscall.ECONNREFUSED)(c)
			}})
			c := st.client()
			ask(t, c, "GET /local HTTP/1.0\r\n\r\n")
			for end := time.Now().Add(3 * time.Second); st.local.said() == "" && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			if m.Port != 0 {
				if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			} else {
				st.keptNothing()
			}
			close(seen)
			if got, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client got %q, %v, want a reset", got, err)
			}
			if said := st.orig.said(); said != "" {
				t.Errorf("the original heard %q", said)
			}
		})
	}
}

// A request that local refuses is the original's, and the rest of the connection
// is divided as before.
func TestRefusedRequests(t *testing.T) {
	const get, post = "GET /%s HTTP/1.1\r\nHost: a\r\n\r\n", "POST /%s HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
	request := func(form, path string) string { return fmt.Sprintf(form, path) }
	for name, c := range map[string]struct {
		asks []string
		want []string // of each the answer
	}{
		"the first":     {[]string{request(get, "local/1")}, []string{"200 original GET /local/1 0 map[]"}},
		"with a body":   {[]string{request(post, "local/1")}, []string{"200 original POST /local/1 5 map[]"}},
		"every one":     {[]string{request(get, "local/1"), request(get, "local/2")}, []string{"200 original GET /local/1 0 map[]", "200 original GET /local/2 0 map[]"}},
		"after another": {[]string{request(get, "other/1"), request(get, "local/2"), request(get, "other/3")}, []string{"200 original GET /other/1 0 map[]", "200 original GET /local/2 0 map[]", "200 original GET /other/3 0 map[]"}},
		"all at once": {[]string{request(get, "local/1") + request(post, "local/2") + request(get, "other/3") + request(get, "local/4")},
			[]string{"200 original GET /local/1 0 map[]", "200 original POST /local/2 5 map[]", "200 original GET /other/3 0 map[]", "200 original GET /local/4 0 map[]"}},
		"chunked": {[]string{"POST /local HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", request(get, "local/2")},
			[]string{"200 original POST /local 3 map[]", "200 original GET /local/2 0 map[]"}},
		"expecting": {[]string{"POST /local HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", "hello"},
			[]string{"100 ", "200 original POST /local 5 map[]"}},
		"the last": {[]string{"GET /local HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"}, []string{"200 original GET /local 0 map[]"}},
	} {
		t.Run(name, func(t *testing.T) {
			st := setStage(t, stageOptions{local: refusing(syscall.ECONNREFUSED)})
			client := st.client()
			br := bufio.NewReader(client)
			want := c.want
			for _, text := range c.asks {
				ask(t, client, text)
				if len(c.asks) == 1 {
					break
				}
				if got := answer(t, br, "GET"); got != want[0] {
					t.Errorf("got %q, want %q", got, want[0])
				}
				want = want[1:]
			}
			for _, w := range want {
				if got := answer(t, br, "GET"); got != w {
					t.Errorf("got %q, want %q", got, w)
				}
			}
			if name == "the last" {
				ends(t, br)
			}
			st.keptNothing()
		})
	}
}

// When local has somebody again, requests on the same connection reach it.
func TestRefusedForAWhile(t *testing.T) {
	var mu sync.Mutex
	refuses := true
	serve := serveHTTP(answerer("local"))
	st := setStage(t, stageOptions{local: func(c net.Conn) {
		mu.Lock()
		no := refuses
		mu.Unlock()
		if no {
			refusing(syscall.ECONNREFUSED)(c)
			return
		}
		serve(c)
	}})
	c := st.client()
	br := bufio.NewReader(c)
	for _, who := range []string{"original", "original", "local", "local", "original"} {
		mu.Lock()
		refuses = who == "original"
		mu.Unlock()
		if st.settled(); refuses { // so that local needs another stream
			select {
			case last := <-st.local.opened:
				for more := true; more; {
					select {
					case last = <-st.local.opened:
					default:
						more = false
					}
				}
				_ = last.(*recorded).Conn.(*link.Stream).CloseWrite()
				within(t, "its end", last.(*recorded).done)
			default:
			}
		}
		ask(t, c, "GET /local HTTP/1.1\r\nHost: a\r\n\r\n")
		if got := answer(t, br, "GET"); got != "200 "+who+" GET /local 0 map[]" {
			t.Errorf("got %q, want %s", got, who)
		}
	}
}

// Where the original is not there either, local's refusal stands.
func TestRefusedByBoth(t *testing.T) {
	for name, m := range map[string]protocol.Subscribe{"whole": wholePort, "filtered": {}} {
		t.Run(name, func(t *testing.T) {
			st := setStage(t, stageOptions{subscribe: m, local: refusing(syscall.ECONNREFUSED), refused: true})
			c := st.client()
			// It may be reset before, and a socket tells that once.
			_, wrote := io.WriteString(c, "GET /local HTTP/1.1\r\nHost: a\r\n\r\n")
			if m.Port != 0 {
				if _, err := io.ReadAll(c); !errors.Is(errors.Join(wrote, err), syscall.ECONNRESET) {
					t.Errorf("the client writes: %v, and reads: %v; want ECONNRESET", wrote, err)
				}
				return
			}
			br := bufio.NewReader(c)
			if got := answer(t, br, "GET"); !strings.HasPrefix(got, "502 ") || !strings.Contains(got, "connection refused") {
				t.Errorf("got %q, want 502 with the reason", got)
			}
			ends(t, br)
		})
	}
}

// What local has not said a word about at its goodbye is the original's, also
// while the agent ends.
func TestGoodbye(t *testing.T) {
	for name, m := range map[string]protocol.Subscribe{"whole": wholePort, "filtered": {}} {
		t.Run(name, func(t *testing.T) {
			b := setUpWith(t, Options{Original: slowOriginal(t, make(chan struct{}), closedChan)})
			b.subscribed(defaulted(m))
			s, c := newStolen(t)
			b.steal.conns <- s
			ask(t, c, "GET /local HTTP/1.1\r\nHost: a\r\n\r\n")
			b.arrived() // but nobody has looked at it
			go func() { <-b.far.Done(); b.end() }()
			b.near.Close("")
			if got, err := io.ReadAll(c); !strings.HasSuffix(string(got), "hi") || err != nil {
				t.Errorf("the client got %q, %v, want the original's reply", got, err)
			}
			c.Close()
			within(t, "the end of the hub", b.ended)
		})
	}
}

// The end of the pipe without a goodbye says nothing about what local has.
func TestNoGoodbye(t *testing.T) {
	for name, m := range map[string]protocol.Subscribe{"whole": wholePort, "filtered": {}} {
		t.Run(name, func(t *testing.T) {
			b := setUpWith(t, Options{Original: func(context.Context, netAddr, netAddr) (net.Conn, error) {
				t.Error("the original is connected")
				return nil, syscall.ECONNREFUSED
			}})
			b.subscribed(defaulted(m))
			s, c := newStolen(t)
			b.steal.conns <- s
			ask(t, c, "GET /local HTTP/1.1\r\nHost: a\r\n\r\n")
			b.arrived()
			b.far.Close("") // ours, of which local has not heard
			b.end()
			got, err := io.ReadAll(c)
			if !errors.Is(err, syscall.ECONNRESET) && !strings.HasPrefix(string(got), "HTTP/1.1 502 ") {
				t.Errorf("the client got %q, %v, want a failure", got, err)
			}
		})
	}
}

// The session ends while the original is being connected in place of local.
func TestEndWhileMoving(t *testing.T) {
	for name, m := range map[string]protocol.Subscribe{"whole": wholePort, "filtered": {}} {
		t.Run(name, func(t *testing.T) {
			asked, reach := make(chan struct{}), make(chan struct{})
			b := setUpWith(t, Options{Original: slowOriginal(t, asked, reach)})
			b.subscribed(defaulted(m))
			s, c := newStolen(t)
			b.steal.conns <- s
			ask(t, c, "GET /local HTTP/1.1\r\nHo")
			if m.Filter == "" && m.Port == 0 {
				ask(t, c, "st: a\r\n\r\n")
			}
			l, _ := b.arrived()
			l.Reset(syscall.ECONNREFUSED)
			within(t, "the dial", asked)
			b.end()
			if m.Port != 0 {
				ask(t, c, "st: a\r\n\r\n")
			}
			time.Sleep(20 * time.Millisecond) // for the end to be noticed
			close(reach)
			if got, err := io.ReadAll(c); !strings.HasSuffix(string(got), "hi") || err != nil {
				t.Errorf("the client got %q, %v, want the original's reply", got, err)
			}
			c.Close()
			within(t, "the end of the hub", b.ended)
		})
	}
}

// Whatever local refuses, and whenever it says goodbye: each request is answered,
// and by one of the two only.
func TestOnceEach(t *testing.T) {
	const clients = 120
	for name, m := range map[string]protocol.Subscribe{"whole": wholePort, "filtered": {}} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			served := map[string]int{}
			count := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				served[r.URL.Path]++
				mu.Unlock()
				w.Header().Set("Connection", "close")
				_, _ = io.WriteString(w, "ok")
			})
			orig := newActor("original")
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			kept := budget.New(clients*maxKept).Share(0, budget.All)
			b := setUpWith(t, Options{Memory: Memory{Kept: kept}, Original: func(ctx context.Context, _, _ netAddr) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "tcp", ln.Addr().String())
			}})
			ctx, cancel := context.WithCancel(context.Background())
			var servers, local, all sync.WaitGroup
			servers.Go(func() { orig.run(ctx, serveHTTP(count), ln.Accept) })
			t.Cleanup(func() { cancel(); ln.Close(); servers.Wait() })
			b.subscribed(defaulted(m))
			left := make(chan struct{})
			go func() { // local: serves a half, and leaves when it has seen a half
				defer close(left)
				for range clients / 2 {
					s, _, err := b.near.Accept(ctx)
					if err != nil {
						return
					}
					if rand.IntN(2) == 0 {
						s.Reset(syscall.ECONNREFUSED)
						s.Close()
						continue
					}
					local.Go(func() {
						r := &recorded{Conn: s, a: newActor("local"), done: make(chan struct{})}
						serveHTTP(count)(r)
					})
				}
				local.Wait() // every stream that it has taken has ended
				go func() { <-b.far.Done(); b.end() }()
				b.near.Close("")
			}()
			servers.Go(func() { // what the hub does not take any more a source passes on itself
				select {
				case <-b.ended:
				case <-ctx.Done():
				}
				orig.run(ctx, serveHTTP(count), func() (net.Conn, error) { return b.steal.Accept(ctx) })
			})
			for i := range clients {
				s, c := newStolen(t)
				b.steal.conns <- s
				all.Go(func() {
					_ = c.SetDeadline(time.Now().Add(20 * time.Second))
					if i%3 == 0 {
						time.Sleep(rand.N(5 * time.Millisecond))
					}
					fmt.Fprintf(c, "GET /local/%d HTTP/1.1\r\nHost: a\r\n", i)
					if i%2 == 0 {
						time.Sleep(rand.N(2 * time.Millisecond))
					}
					_, _ = io.WriteString(c, "\r\n")
					if got, err := io.ReadAll(c); !strings.HasSuffix(string(got), "ok") {
						t.Errorf("client %d got %q, %v", i, got, err)
					}
				})
			}
			all.Wait()
			within(t, "local's goodbye", left)
			mu.Lock()
			defer mu.Unlock()
			for path, n := range served {
				if n != 1 {
					t.Errorf("%s was served %d times", path, n)
				}
			}
			if got := kept.Used(); got != 0 {
				t.Errorf("%d bytes are still kept", got)
			}
		})
	}
}
