package incoming

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

const closing = "GET /other HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

// The end of a session costs nobody a request that he has begun, or is about
// to send on a connection that he has just made.
func TestEndSparesUnmatched(t *testing.T) {
	for name, sent := range map[string]string{
		"nothing said yet":     "",
		"half a head":          "GET /other HTTP/1.1\r\nHo",
		"half a head for us":   "GET /local HTTP/1.1\r\nHo",
		"a reply, half a head": "GET /other HTTP/1.1\r\nHost: a\r\n\r\nGET /local HTTP/1.1\r\nHo",
	} {
		t.Run(name, func(t *testing.T) {
			st := setStage(t, stageOptions{})
			whole := "GET /other HTTP/1.1\r\nHost: a\r\n\r\n"
			rest := whole[len(sent)%len(whole):]
			c := st.client()
			st.taken()
			ask(t, c, sent)
			time.Sleep(20 * time.Millisecond) // for the agent to read it
			st.end()
			ask(t, c, rest)
			got, err := io.ReadAll(c)
			if err != nil || len(got) == 0 {
				t.Errorf("the client got %q, %v, want a reply and the end", got, err)
			}
			if said := st.local.said(); said != "" {
				t.Errorf("local heard %q", said)
			}
			within(t, "the end of the hub", st.ended)
		})
	}
}

// taken waits until the hub has taken the connection that it was brought.
func (b *bench) taken() {
	for end := time.Now().Add(3 * time.Second); len(b.steal.conns) > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

// slowOriginal is an original that is reached only when reach is closed.
func slowOriginal(t *testing.T, asked chan<- struct{}, reach <-chan struct{}) func(context.Context, netip.AddrPort, netip.AddrPort) (net.Conn, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = http.ReadRequest(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi")
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return func(ctx context.Context, _, _ netip.AddrPort) (net.Conn, error) {
		close(asked)
		select {
		case <-reach:
			return net.Dial("tcp", ln.Addr().String())
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// While the original is being connected the session may end, on a filtered
// port and for a probe of a whole one.
func TestEndWhileConnecting(t *testing.T) {
	for name, m := range map[string]protocol.Subscribe{
		"filtered": {Port: 80, Mode: protocol.ModeSteal, Filter: localFilter},
		"whole":    {Port: 80, Mode: protocol.ModeSteal, Probes: []string{"/other"}},
	} {
		t.Run(name, func(t *testing.T) {
			asked, reach := make(chan struct{}), make(chan struct{})
			b := setUpWith(t, Options{Original: slowOriginal(t, asked, reach)})
			b.subscribed(&m)
			s, c := newStolen(t)
			b.steal.conns <- s
			ask(t, c, closing[:len(closing)-2]+"User-Agent: kube-probe/1\r\n\r\n")
			within(t, "the dial", asked)
			b.end()
			time.Sleep(20 * time.Millisecond) // for the end to be noticed
			close(reach)
			if got, err := io.ReadAll(c); len(got) == 0 || err != nil {
				t.Errorf("the client got %q, %v, want the reply", got, err)
			}
		})
	}
}

// A dial that hangs does not hold the agent.
func TestEndOfHangingDial(t *testing.T) {
	asked := make(chan struct{})
	b := setUpWith(t, Options{Original: func(ctx context.Context, _, _ netip.AddrPort) (net.Conn, error) {
		close(asked)
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	b.subscribed(&protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal, Filter: localFilter})
	s, c := newStolen(t)
	b.steal.conns <- s
	ask(t, c, closing)
	within(t, "the dial", asked)
	b.end()
	select {
	case <-b.ended:
	case <-time.After(graceTime + 2*time.Second):
		t.Error("the hub still waits")
	}
}

type noLink struct{}

func (noLink) Open(context.Context, link.Lane, protocol.Message) (*link.Stream, error) {
	return nil, io.ErrClosedPipe
}

func (noLink) Err() error { return io.ErrClosedPipe }

// A whole connection that local cannot be told of is the original's: not a
// byte of it has gone anywhere.
func TestWholeWithoutLink(t *testing.T) {
	st := setStage(t, stageOptions{subscribe: protocol.Subscribe{Port: 80, Mode: protocol.ModeSteal}})
	st.hub.o.Link = noLink{}
	c := st.client()
	ask(t, c, closing)
	if got, err := io.ReadAll(c); len(got) == 0 || err != nil {
		t.Errorf("the client got %q, %v, want a reply", got, err)
	}
}

// shut is a client's connection that hears nothing before open is closed.
type shut struct {
	net.Conn
	tells chan<- struct{} // there is something to hear
	open  <-chan struct{}
}

func (g shut) Write(p []byte) (int, error) {
	select {
	case g.tells <- struct{}{}:
	default:
	}
	<-g.open
	return g.Conn.Write(p)
}

func (g shut) CloseWrite() error           { return g.Conn.(*stolen).CloseWrite() }
func (g shut) SetLinger(seconds int) error { return g.Conn.(*stolen).SetLinger(seconds) }

// What local has said before an orderly end reaches its client, which may be slow.
func TestLastWords(t *testing.T) {
	want := strings.Repeat("the last words ", 2000)
	last := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		w.Header().Set("Content-Length", strconv.Itoa(len(want)))
		_, _ = io.WriteString(w, want)
	}
	for name, m := range map[string]protocol.Subscribe{"whole": wholePort, "filtered": {}} {
		t.Run(name, func(t *testing.T) {
			st := setStage(t, stageOptions{subscribe: m, local: serveHTTP(http.HandlerFunc(last))})
			tells, open := make(chan struct{}, 1), make(chan struct{})
			s, c := newStolen(t)
			st.steal.conns <- shut{s, tells, open}
			ask(t, c, "GET /local HTTP/1.1\r\nHost: a\r\n\r\n")
			within(t, "the reply", tells)
			within(t, "the end of local's connection", (<-st.local.opened).(*recorded).done)
			st.near.Close("")
			within(t, "the end of the link", st.far.Done())
			st.end()
			time.Sleep(20 * time.Millisecond) // for the end to be noticed
			close(open)
			if got, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(got), want) {
				t.Errorf("the client got %d bytes, %v, want the reply", len(got), err)
			}
			c.Close()
			within(t, "the end of the hub", st.ended)
		})
	}
}

// parting ends its connection with the last words.
type parting struct {
	net.Conn
	words string
}

func (p parting) Write(b []byte) (int, error) {
	n, err := p.Conn.Write(b)
	if strings.Contains(string(b), p.words) {
		p.Close()
	}
	return n, err
}

// The same of a stream, where the end comes just behind the reply.
func TestLastWordsOfStreams(t *testing.T) {
	const words = "the last words"
	serve := serveHTTP2(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(words)))
		_, _ = io.WriteString(w, words)
	}))
	for i := range 50 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			st := modern(t, stageOptions{local: func(c net.Conn) { serve(parting{c, words}) }})
			c, _ := st.caller()
			type reply struct {
				text string
				err  error
			}
			got := make(chan reply, 1)
			go func() {
				text, err := fetch(c, "GET", "/local", "")
				got <- reply{text, err}
			}()
			within(t, "the end of local's connection", (<-st.local.opened).(*recorded).done)
			st.near.Close("")
			<-st.far.Done()
			st.end()
			if r := <-got; r.err != nil || r.text != "200 "+words {
				t.Errorf("the client got %q, %v, want the reply", r.text, r.err)
			}
		})
	}
}
