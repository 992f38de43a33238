package incoming

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/tlsport"
	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// stage is a bench with a filter on port 80 that matches paths below /local,
// an original and a local process. Both are real HTTP servers that name
// themselves, or what a test puts in their place; what they hear is recorded.
type stage struct {
	*bench
	sub     *link.Stream
	local   *actor
	orig    *actor
	notices chan string
	came    chan *protocol.Incoming // what local was told of its connections
	kept    *budget.Share
}

const localFilter = `{"path":{"text":"^/local"}}`

// actor is one of the two that answer.
type actor struct {
	name   string
	accept chan net.Conn // for serve
	opened chan net.Conn // each connection that was made

	mu    sync.Mutex
	heard bytes.Buffer
}

func newActor(name string) *actor {
	return &actor{name: name, accept: make(chan net.Conn), opened: make(chan net.Conn, 64)}
}

// said is what the actor has heard.
func (a *actor) said() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.heard.String()
}

// recorded is an actor's connection.
type recorded struct {
	net.Conn
	a    *actor
	done chan struct{}
	once sync.Once

	quiet bool // nothing is recorded
}

func (r *recorded) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	if r.quiet {
		return n, err
	}
	r.a.mu.Lock()
	r.a.heard.Write(p[:n])
	r.a.mu.Unlock()
	return n, err
}

func (r *recorded) Close() error {
	r.once.Do(func() { close(r.done) })
	return r.Conn.Close()
}

// run gives connections to serve, one call each, and waits for all.
func (a *actor) run(ctx context.Context, serve func(net.Conn), next func() (net.Conn, error)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := next()
		if err != nil {
			return
		}
		r := &recorded{Conn: c, a: a, done: make(chan struct{})}
		select {
		case a.opened <- r:
		default:
		}
		wg.Go(func() {
			stop := context.AfterFunc(ctx, func() { r.Conn.Close() })
			defer stop()
			defer r.Close()
			serve(r)
		})
	}
}

// serveHTTP serves HTTP on one connection.
func serveHTTP(h http.Handler) func(net.Conn) {
	return func(c net.Conn) {
		ln := &oneListener{c: c, done: c.(*recorded).done}
		srv := &http.Server{Handler: h}
		_ = srv.Serve(ln)
		<-c.(*recorded).done
	}
}

type oneListener struct {
	c    net.Conn
	done chan struct{}
}

func (l *oneListener) Accept() (net.Conn, error) {
	if c := l.c; c != nil {
		l.c = nil
		return c, nil
	}
	<-l.done
	return nil, net.ErrClosed
}
func (l *oneListener) Close() error   { return nil }
func (l *oneListener) Addr() net.Addr { return tcpAddr("127.0.0.1:1") }

// answerer answers what it is asked, in its name.
func answerer(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/other/events", "/local/events":
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprintf(w, "data: %s\n\n", name)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		case "/other/refuse", "/local/refuse":
			http.Error(w, name+" refuses", http.StatusExpectationFailed)
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		text := fmt.Sprintf("%s %s %s %d %v", name, r.Method, r.URL.RequestURI(), n, r.Trailer)
		if r.URL.Path == "/local/close" || r.URL.Path == "/other/close" {
			w.Header().Set("Connection", "close")
		}
		_, _ = io.WriteString(w, text)
	})
}

type stageOptions struct {
	subscribe   protocol.Subscribe // zero: localFilter on port 80
	local, orig func(net.Conn)     // nil: answerer
	refused     bool               // by the original
	dialed      func(*net.TCPConn) net.Conn
	room        *budget.Share // for stolen connections; nil: it has no end
	files       tlsport.ReadFile
}

func setStage(t *testing.T, o stageOptions) *stage {
	t.Helper()
	if o.local == nil {
		o.local = serveHTTP(answerer("local"))
	}
	if o.orig == nil {
		o.orig = serveHTTP(answerer("original"))
	}
	if o.subscribe.Port == 0 {
		o.subscribe = protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal, Filter: localFilter}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	st := &stage{local: newActor("local"), orig: newActor("original"), notices: make(chan string, 16), came: make(chan *protocol.Incoming, 64), kept: budget.New(16*maxKept).Share(0, budget.All)}
	st.bench = setUpWith(t, Options{
		Original: func(ctx context.Context, client, dst netip.AddrPort) (net.Conn, error) {
			if client != netip.MustParseAddrPort("192.0.2.7:50000") || dst != netip.MustParseAddrPort("10.1.2.3:80") {
				t.Errorf("the original is connected from %v to %v", client, dst)
			}
			if o.refused {
				return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
			}
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", ln.Addr().String())
			if err == nil && o.dialed != nil {
				c = o.dialed(c.(*net.TCPConn))
			}
			return c, err
		},
		Notice:   func(code, text string) { st.notices <- code },
		ReadFile: o.files,
		Memory:   Memory{Kept: st.kept, Connections: map[uint8]*budget.Share{protocol.ModeSteal: o.room}},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	st.sub = st.subscribed(&o.subscribe)
	wg.Go(func() { st.orig.run(ctx, o.orig, ln.Accept) })
	wg.Go(func() {
		st.local.run(ctx, o.local, func() (net.Conn, error) {
			s, m, err := st.near.Accept(ctx)
			if err == nil {
				st.came <- m.(*protocol.Incoming)
			}
			return s, err
		})
	})
	t.Cleanup(func() { // before the bench's
		cancel()
		ln.Close()
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		within(t, "the end of the servers", done)
	})
	return st
}

// client makes a connection that is stolen.
func (st *stage) client() *net.TCPConn {
	st.t.Helper()
	c, client := newStolen(st.t)
	st.steal.conns <- c
	return client
}

// ask sends raw on c.
func ask(t *testing.T, c io.Writer, raw string) {
	t.Helper()
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
}

// answer reads one reply and gives its status and body.
func answer(t *testing.T, br *bufio.Reader, method string) string {
	t.Helper()
	r, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("read a reply: %v", err)
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatalf("read a reply's body: %v", err)
	}
	return fmt.Sprintf("%d %s", r.StatusCode, b)
}

// heard waits until a has heard exactly want.
func heard(t *testing.T, a *actor, want string) {
	t.Helper()
	for end := time.Now().Add(3 * time.Second); ; time.Sleep(time.Millisecond) {
		got := a.said()
		if got == want {
			return
		}
		if time.Now().After(end) || !strings.HasPrefix(want, got) {
			t.Fatalf("%s heard %.300q, want %.300q", a.name, got, want)
		}
	}
}

// ends checks that c gives nothing more than its orderly end.
func ends(t *testing.T, c io.Reader) {
	t.Helper()
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Errorf("then comes %q, %v, want the end", b, err)
	}
}
