package incoming

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

const anaFilter = `{"header":{"text":"^x-user: ana$"}}`

// doubled is a bench whose mirrored port 8080 a client of HTTP/2 asks: the original
// answers him, and local gets copies.
type doubled struct {
	*bench
	c       *copied
	client  *http.Client
	conn    net.Conn    // the client's
	asked   chan string // what local was asked
	notices chan string
}

// double begins with what is subscribed to, and serve, which is local; nil: a server
// that notes what it is asked.
func double(t *testing.T, m *protocol.Subscribe, serve func(d *doubled, s *link.Stream)) *doubled {
	t.Helper()
	d := &doubled{c: newCopied(), asked: make(chan string, 100), notices: make(chan string, 10)}
	d.bench = setUpWith(t, Options{Notice: func(code, _ string) { d.notices <- code }})
	m.Port, m.Mode, m.Replies = 8080, protocol.ModeMirror, true
	d.subscribed(m)
	d.mirror.conns <- d.c
	if serve == nil {
		serve = func(d *doubled, s *link.Stream) { d.serve(s) }
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		for {
			s, m, err := d.near.Accept(ctx)
			if err != nil {
				return
			}
			if in := m.(*protocol.Incoming); in.Mode != protocol.ModeMirror || !in.Replies {
				t.Errorf("local is told %+v", in)
			}
			wg.Go(func() {
				defer s.Close()
				serve(d, s)
			})
		}
	})
	var front, back, server *net.TCPConn
	d.conn, front = testnet.Pair(t)
	back, server = testnet.Pair(t)
	wg.Go(func() { serveHTTP2(answerer("original"))(server) })
	wg.Go(func() {
		_, _ = io.Copy(front, back)
		front.Close()
	})
	wg.Go(func() { // a client's words go two ways
		defer close(d.c.data)
		buf := make([]byte, 32<<10)
		for {
			n, err := front.Read(buf)
			if n > 0 {
				_, _ = back.Write(buf[:n])
				select {
				case d.c.data <- bytes.Clone(buf[:n]):
				case <-d.c.closed:
				}
			}
			if err != nil {
				_ = back.CloseWrite()
				return
			}
		}
	})
	_ = d.conn.SetDeadline(time.Now().Add(time.Minute))
	cc, err := (&http2.Transport{AllowHTTP: true}).NewClientConn(d.conn)
	if err != nil {
		t.Fatal(err)
	}
	d.client = &http.Client{Transport: cc}
	t.Cleanup(func() { // before the bench's
		d.conn.Close()
		d.end()
		cancel()
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		within(t, "the end of the servers", done)
	})
	return d
}

// serve is local: its long answers go nowhere.
func (d *doubled) serve(s *link.Stream) {
	serveHTTP2(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		d.asked <- fmt.Sprintf("%s %s %s %d %v %v", r.Method, r.URL.RequestURI(), r.Header.Get("x-user"), n, r.Trailer, err)
		_, _ = w.Write(make([]byte, 300_000))
	}))(s)
}

// ask asks the original.
func (d *doubled) ask(user, path, body string) {
	d.t.Helper()
	q, err := http.NewRequest("POST", "http://a"+path, strings.NewReader(body))
	if err != nil {
		d.t.Error(err)
		return
	}
	q.Header.Set("x-user", user)
	q.Trailer = http.Header{"Sum": {user}}
	r, err := d.client.Do(q)
	if err != nil {
		d.t.Error(err)
		return
	}
	defer r.Body.Close()
	got, err := io.ReadAll(r.Body)
	if want := fmt.Sprintf("original POST %s %d map[Sum:[%s]]", path, len(body), user); string(got) != want || err != nil {
		d.t.Errorf("the client got %q, %v, want %q", got, err, want)
	}
}

// Of one connection's streams local gets those that match, whole, and the client
// is answered by the original alone.
func TestStreamsAreCopied(t *testing.T) {
	for name, filter := range map[string]string{"by a header": anaFilter, "by the client too": `{"all_of":[{"client":{"text":"2001:db8::/32"}},` + anaFilter + `]}`} {
		t.Run(name, func(t *testing.T) { streamsAreCopied(t, filter) })
	}
}

func streamsAreCopied(t *testing.T, filter string) {
	d := double(t, &protocol.Subscribe{Filter: filter}, nil)
	body := strings.Repeat("b", 300_000)
	var all sync.WaitGroup
	var want []string
	for i := range 20 {
		user, path := []string{"ana", "bob"}[i%2], fmt.Sprintf("/%d", i)
		all.Go(func() { d.ask(user, path, body) })
		if user == "ana" {
			want = append(want, fmt.Sprintf("POST %s ana %d map[Sum:[ana]] <nil>", path, len(body)))
		}
	}
	all.Wait()
	var got []string
	for range want {
		got = append(got, within(t, "a copy", d.asked))
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("local was asked %q, want %q", got, want)
	}
	if n := d.hub.Counts().Copies; n > 0 || len(d.asked) > 0 || len(d.notices) > 0 {
		t.Errorf("%d copies are lost, local was asked %d times more, %d notices", n, len(d.asked), len(d.notices))
	}
}

func TestStreamsAreCopiedByBodies(t *testing.T) {
	d := double(t, &protocol.Subscribe{Filter: `{"body":{"kind":"text","matches":{"text":"^mine"}}}`, BodySize: 1000}, nil)
	d.ask("ana", "/1", "mine")
	d.ask("bob", "/2", "yours")
	if len(d.notices) > 0 {
		t.Errorf("a notice: %s", <-d.notices)
	}
	d.ask("eve", "/3", "mine"+strings.Repeat("x", 1000))
	if got := within(t, "a notice", d.notices); got != "filter-undecided" {
		t.Errorf("the notice is %s", got)
	}
	d.ask("bob", "/4", "mine, too")
	got := []string{within(t, "a copy", d.asked), within(t, "another copy", d.asked)}
	slices.Sort(got) // streams do not wait for each other
	for i, want := range []string{"POST /1 ana 4", "POST /4 bob 9"} {
		if !strings.HasPrefix(got[i], want) {
			t.Errorf("local was asked %q, want %q", got[i], want)
		}
	}
}

// A local that takes nothing costs copies, which are counted, and nothing else.
func TestCopiedStreamsNeverWait(t *testing.T) {
	stuck := make(chan struct{})
	d := double(t, &protocol.Subscribe{Filter: anaFilter}, func(d *doubled, s *link.Stream) {
		<-stuck
		d.serve(s)
	})
	d.ask("ana", "/large", strings.Repeat("x", 8<<20))
	for end := time.Now().Add(3 * time.Second); d.hub.Counts().Copies != 1 && time.Now().Before(end); { // it is read behind what the original gets
		time.Sleep(time.Millisecond)
	}
	d.ask("bob", "/2", strings.Repeat("x", 8<<20))
	d.ask("ana", "/small", "x")
	close(stuck)
	if got := within(t, "a copy", d.asked); !strings.HasPrefix(got, "POST /small ana 1") {
		t.Errorf("local was asked %q", got)
	}
	if n := d.hub.Counts().Copies; n != 1 {
		t.Errorf("%d copies are counted as lost, want 1", n)
	}
}

// A local that ends its connection, or speaks another protocol, gets another with
// the next request.
func TestCopiedStreamsGoOn(t *testing.T) {
	for name, end := range map[string]func(s *link.Stream){
		"refused": func(s *link.Stream) { s.Reset(syscall.ECONNREFUSED) },
		"HTTP/1": func(s *link.Stream) {
			_, _ = io.WriteString(s, "HTTP/1.1 400 Bad Request\r\n\r\n")
			_, _ = io.Copy(io.Discard, s)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var conns atomic.Int32
			d := double(t, &protocol.Subscribe{Filter: anaFilter}, func(d *doubled, s *link.Stream) {
				if conns.Add(1) == 1 {
					end(s)
					return
				}
				d.serve(s)
			})
			// What is asked before the end is known is lost with it.
			for n := 0; ; n++ {
				d.ask("ana", "/", "x")
				select {
				case <-d.asked:
					if n == 0 {
						t.Error("the first request has reached a local that did not want it")
					}
					return
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
}

// When the client leaves, what it has asked for wholly is answered for, the rest ends.
func TestCopiedStreamsEnd(t *testing.T) {
	asked, goOn, ends := make(chan string), make(chan struct{}), make(chan error)
	d := double(t, &protocol.Subscribe{Filter: anaFilter}, func(_ *doubled, s *link.Stream) {
		serveHTTP2(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked <- r.URL.Path
			if r.URL.Path == "/half" {
				_, err := io.Copy(io.Discard, r.Body)
				ends <- err
				return
			}
			<-goOn
			ends <- r.Context().Err()
		}))(s)
	})
	d.ask("ana", "/whole", "x")
	within(t, "a copy", asked)
	body, more := io.Pipe()
	defer more.Close()
	q, err := http.NewRequest("POST", "http://a/half", body)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("x-user", "ana")
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if r, err := d.client.Do(q); err == nil {
			r.Body.Close()
		}
	}()
	_, _ = more.Write(make([]byte, 1000))
	within(t, "half a copy", asked)
	d.conn.Close()
	within(t, "the end of the client", gone)
	if err := within(t, "the end of half a request", ends); err == nil {
		t.Error("half a request ends as if it were whole")
	}
	close(goOn)
	if err := within(t, "the end of a whole one", ends); err != nil {
		t.Errorf("a whole request ends with %v", err)
	}
}

// A program whose replies cannot be heard gets no such copies, and that is told.
func TestStreamsNeedReplies(t *testing.T) {
	notices := make(chan string, 1)
	b := setUpWith(t, Options{Notice: func(code, _ string) { notices <- code }})
	b.subscribed(&protocol.Subscribe{Port: 8080, Mode: protocol.ModeMirror, Filter: localFilter})
	c := newCopied()
	b.mirror.conns <- c
	c.say(http2.ClientPreface)
	if got := within(t, "a notice", notices); got != "filter-passes-http2" {
		t.Errorf("the notice is %s", got)
	}
	within(t, "the close of the copy", c.closed)
	if !c.ignored.Load() {
		t.Error("what comes behind it is looked at")
	}
}

// Behind an offer in HTTP/1 that its server has taken, a client goes on in HTTP/2.
func TestOfferedStreamsAreCopied(t *testing.T) {
	for _, offer := range []string{"h2c", "websocket, h2c"} {
		t.Run(offer, func(t *testing.T) { offeredStreams(t, offer) })
	}
}

func offeredStreams(t *testing.T, offer string) {
	b := setUp(t)
	b.subscribed(&protocol.Subscribe{Port: 8080, Mode: protocol.ModeMirror, Filter: localFilter, Replies: true})
	c := newCopied()
	b.mirror.conns <- c
	var said bytes.Buffer
	encoder := hpack.NewEncoder(&said)
	for _, f := range []string{":method GET", ":scheme http", ":path /local/3", ":authority a"} {
		name, value, _ := strings.Cut(f, " ")
		_ = encoder.WriteField(hpack.HeaderField{Name: name, Value: value})
	}
	block := bytes.Clone(said.Bytes())
	said.Reset()
	said.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&said, nil)
	_ = f.WriteSettings()
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndStream: true, EndHeaders: true, BlockFragment: block})
	c.say("GET /local/1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: " + offer + "\r\nHTTP2-Settings: AAMAAABk\r\n\r\n")
	first, _ := b.arrived()
	c.say(said.String())
	second, m := b.arrived()
	if !m.Replies {
		t.Errorf("local is told %+v", m)
	}
	asked := make(chan string, 1)
	go serveHTTP2(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.URL.Path }))(second)
	if got := within(t, "a copy", asked); got != "/local/3" {
		t.Errorf("local was asked %q", got)
	}
	close(c.data)
	if got, err := io.ReadAll(first); !strings.HasPrefix(string(got), "GET /local/1 HTTP/1.1\r\n") || strings.Contains(string(got), "PRI") || err != nil {
		t.Errorf("local got %q, %v", got, err)
	}
	first.Close()
	within(t, "the close of the copy", c.closed)
}

// midway is a copy that does not begin where its connection did.
type midway struct{ *copied }

func (midway) Middle() bool { return true }

// A connection that is older than the session: requests that name nothing from before
// are copied, with a filter or without; that others are not is told.
func TestOlderStreamsAreCopied(t *testing.T) {
	var said bytes.Buffer
	encoder := hpack.NewEncoder(&said)
	request := func(id uint32, fields ...string) string {
		said.Reset()
		for i := 0; i < len(fields); i += 2 {
			_ = encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		block := bytes.Clone(said.Bytes())
		said.Reset()
		_ = http2.NewFramer(&said, nil).WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: true, EndHeaders: true, BlockFragment: block})
		return said.String()
	}
	head := []string{":method", "GET", ":scheme", "http", ":path", "/1", ":authority", "a", "x-user", "ana"}
	for name, filter := range map[string]string{"filtered": anaFilter, "whole": ""} {
		t.Run(name, func(t *testing.T) {
			encoder = hpack.NewEncoder(&said)
			notices := make(chan string, 10)
			b := setUpWith(t, Options{Notice: func(code, _ string) { notices <- code }})
			b.subscribed(&protocol.Subscribe{Port: 8080, Mode: protocol.ModeMirror, Filter: filter, Replies: true})
			c := newCopied()
			b.mirror.conns <- midway{c}
			request(1, "x-user", "ana") // before
			first := request(3, head...)
			if !Begins([]byte(first)) {
				t.Error("it is no beginning")
			}
			c.say(first)
			if got := within(t, "a notice", notices); got != "copies-from-before" {
				t.Errorf("the notice is %s", got)
			}
			encoder = hpack.NewEncoder(&said)
			encoder.SetMaxDynamicTableSize(0) // it says everything anew
			c.say(request(5, head...))
			s, _ := b.arrived()
			asked := make(chan string, 1)
			done := make(chan struct{})
			go func() {
				defer close(done)
				serveHTTP2(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					asked <- r.URL.Path + " " + r.Header.Get("x-user")
				}))(s)
			}()
			if got := within(t, "a copy", asked); got != "/1 ana" {
				t.Errorf("local was asked %q", got)
			}
			close(c.data)
			within(t, "the end of local", done)
			if n := b.hub.Counts().Copies; n != 1 || len(notices) > 0 {
				t.Errorf("%d copies are lost, %d more notices", n, len(notices))
			}
		})
	}
	t.Run("HTTP/1 whole", func(t *testing.T) {
		b := setUp(t)
		b.subscribed(&protocol.Subscribe{Port: 8080, Mode: protocol.ModeMirror})
		c := newCopied()
		b.mirror.conns <- midway{c}
		c.say("GET /local HTTP/1.1\r\n\r\nmore")
		close(c.data)
		s, _ := b.arrived()
		if got, err := io.ReadAll(s); string(got) != "GET /local HTTP/1.1\r\n\r\nmore" || err != nil {
			t.Errorf("local got %q, %v", got, err)
		}
	})
	t.Run("that breaks off", func(t *testing.T) {
		b := setUp(t)
		c := newCopied()
		c.err = errors.New("packets were lost")
		b.mirror.conns <- midway{c}
		c.say("GET /local HTTP/1.1\r\n\r\n")
		s, _ := b.arrived()
		close(c.data)
		var reset *link.ResetError
		if _, err := io.ReadAll(s); !errors.As(err, &reset) {
			t.Errorf("local reads %v, want a reset", err)
		}
	})
}
