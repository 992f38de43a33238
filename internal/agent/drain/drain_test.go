package drain

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/target"
	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

const pod4, pod6, client4, client6 = "198.51.100.2", "2001:db8:1::2", "198.51.100.1", "2001:db8:1::1"

// newNet is a pod and a client, joined by a cable. The pod drops what comes in
// by an interface that it would not answer by.
func newNet(t *testing.T) (pod, client *target.Target) {
	t.Helper()
	open := func(script string) (*target.Target, int) {
		pid := testnet.Process(t, syscall.CLONE_NEWNET, nil, script)
		tg, err := target.Open(pid)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tg.Close() })
		return tg, pid
	}
	up := func(v4, v6 string) string {
		return fmt.Sprintf("ip link set lo up; ip addr add %s/24 dev eth0; ip -6 addr add %s/64 dev eth0 nodad; ip link set eth0 up", v4, v6)
	}
	ready := func(v6 string) string {
		return fmt.Sprintf("until ip link show eth0 | grep -q 'state UP' && ip -6 route get %s 2>&1 | grep -q ^local; do :; done", v6)
	}
	pod, pid := open("for d in all default lo; do echo 1 >/proc/sys/net/ipv4/conf/$d/rp_filter; done")
	client, _ = open(fmt.Sprintf("ip link add eth0 type veth peer name eth0 netns %d; ip link set eth0 up", pid))
	for _, do := range []struct {
		in     *target.Target
		script string
	}{{pod, up(pod4, pod6)}, {client, up(client4, client6)}, {pod, ready(pod6)}, {client, ready(client6)}} {
		err := do.in.Do(func() error { // the child has the namespace of the thread
			out, err := exec.Command("sh", "-c", do.script).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s: %w: %s", do.script, err, out)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return pod, client
}

// stage is a pod with an HTTP server, and a Drain.
type stage struct {
	*Drain
	t       *testing.T
	pod     *target.Target
	client  *target.Target
	port    uint16
	ended   atomic.Int32
	release chan struct{} // lets /slow answer
	served  sync.Map      // how often, by path
}

func setUp(t *testing.T) *stage {
	t.Helper()
	st := &stage{t: t, release: make(chan struct{})}
	st.pod, st.client = newNet(t)
	var ln net.Listener
	err := st.pod.Do(func() (err error) { ln, err = net.Listen("tcp", ":0"); return err })
	if err != nil {
		t.Fatal(err)
	}
	st.port = uint16(ln.Addr().(*net.TCPAddr).Port)
	srv := &http.Server{Handler: st}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { srv.Close(); <-done })
	st.Drain = New(Options{Namespace: st.pod, Ended: func(port uint16) {
		if port != st.port {
			t.Errorf("a connection to port %d has ended", port)
		}
		st.ended.Add(1)
	}})
	t.Cleanup(func() { st.Close() })
	return st
}

func (st *stage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n, _ := st.served.LoadOrStore(r.URL.Path, new(atomic.Int32))
	n.(*atomic.Int32).Add(1)
	_, _ = io.Copy(io.Discard, r.Body)
	switch {
	case strings.HasPrefix(r.URL.Path, "/slow"):
		_, _ = io.WriteString(w, "first ")
		w.(http.Flusher).Flush()
		select {
		case <-st.release:
		case <-r.Context().Done():
		}
	}
	_, _ = io.WriteString(w, "answer")
}

// others are the connections that are not this process's: all sockets of the test
// are.
func (st *stage) others() Connections {
	st.t.Helper()
	c := Connections{port: st.port}
	err := st.pod.Do(func() (err error) { c.keys, err = established(st.port, nil); return err })
	if err != nil {
		st.t.Fatal(err)
	}
	return c
}

func (st *stage) dial(from *target.Target, host string) (net.Conn, *bufio.Reader) {
	st.t.Helper()
	var c net.Conn
	err := from.Do(func() (err error) {
		c, err = net.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(st.port)))
		return err
	})
	if err != nil {
		st.t.Fatal(err)
	}
	st.t.Cleanup(func() { c.Close() })
	return c, bufio.NewReader(c)
}

func (st *stage) begin(want int) {
	st.t.Helper()
	c := st.others()
	for end := time.Now().Add(5 * time.Second); c.Len() != want && time.Now().Before(end); c = st.others() {
		time.Sleep(time.Millisecond)
	}
	if c.Len() != want {
		st.t.Fatalf("%d connections are there, want %d", c.Len(), want)
	}
	if err := st.Begin(c); err != nil {
		st.t.Fatal(err)
	}
}

// exchange asks for a path and gives the response's text.
func exchange(c net.Conn, br *bufio.Reader, path string) (string, error) {
	if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", path); err != nil {
		return "", err
	}
	return response(br)
}

func response(br *bufio.Reader) (string, error) {
	r, err := http.ReadResponse(br, nil)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(r.Body)
	return string(text), err
}

// stays checks that nothing ends c for a time in which it would have been.
func stays(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(4 * quietTime))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d bytes, %v, want silence", n, err)
	}
	_ = c.SetReadDeadline(time.Time{})
}

// ends checks that c ends in order.
func ends(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read %d bytes, %v, want the end", n, err)
	}
}

// A connection that was there before ends, in order, behind a request that was
// answered, whatever its way; the server has no socket of it any more.
func TestIdleEnds(t *testing.T) {
	for name, c := range map[string]struct {
		host string
		in   bool // it comes from the pod itself, as a mesh's sidecar does
	}{"v4": {pod4, false}, "v6": {pod6, false}, "within the pod": {pod4, true}, "loopback": {"127.0.0.1", true}, "loopback v6": {"::1", true}} {
		t.Run(name, func(t *testing.T) {
			st := setUp(t)
			from := st.client
			if c.in {
				from = st.pod
			}
			conn, br := st.dial(from, c.host)
			st.begin(1)
			stays(t, conn) // nothing is known of it
			if got, err := exchange(conn, br, "/x"); err != nil || got != "answer" {
				t.Fatalf("got %q, %v", got, err)
			}
			ends(t, conn)
			conn.Close()
			if n := st.ended.Load(); n != 1 {
				t.Errorf("%d connections have ended, want 1", n)
			}
			for end := time.Now().Add(5 * time.Second); st.others().Len() > 0; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("the connection is still there")
				}
			}
			st.wg.Wait() // nothing is watched any more
		})
	}
}

// Nothing ends while a request is under way, nor what is not HTTP or unknown.
func TestBusyStays(t *testing.T) {
	st := setUp(t)
	slow, sr := st.dial(st.client, pod4)
	stream, tr := st.dial(st.client, pod4)
	half, _ := st.dial(st.client, pod4)
	silent, _ := st.dial(st.client, pod4)
	st.begin(4)
	later, lr := st.dial(st.client, pod4) // made after
	if _, err := exchange(later, lr, "/x"); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(slow, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	fmt.Fprint(stream, "GET /slow2 HTTP/1.1\r\nHost: a\r\n\r\n")
	fmt.Fprint(half, "POST /half HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
	if line, err := tr.ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Fatalf("got %q, %v", line, err)
	}
	for _, c := range []net.Conn{half, silent, later} {
		stays(t, c)
	}
	close(st.release)
	if got, err := response(sr); err != nil || got != "first answer" {
		t.Errorf("got %q, %v", got, err)
	}
	ends(t, slow)
	if n := st.ended.Load(); n > 2 {
		t.Errorf("%d connections have ended", n)
	}
}

// However a request meets the end, it is answered, or it has reached no program:
// clients that repeat only what got no byte of a response do everything once.
func TestOnceEach(t *testing.T) {
	st := setUp(t)
	const clients, requests = 20, 12
	conns := make([]net.Conn, clients)
	readers := make([]*bufio.Reader, clients)
	for i := range clients {
		conns[i], readers[i] = st.dial(st.client, pod4)
	}
	st.begin(clients)
	var wg sync.WaitGroup
	var again atomic.Int32
	for i := range clients {
		wg.Go(func() {
			c, br := conns[i], readers[i]
			for j := range requests {
				// Most requests come at the moment at which the connection is ended.
				time.Sleep(quietTime + time.Duration(rand.Int64N(int64(2*tickTime))) - tickTime/2)
				path := fmt.Sprintf("/%d/%d", i, j)
				got, err := exchange(c, br, path)
				if err != nil {
					again.Add(1)
					c, br = st.dial(st.client, pod4)
					got, err = exchange(c, br, path)
				}
				if err != nil || got != "answer" {
					t.Errorf("%s: got %q, %v", path, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
	for i := range clients {
		for j := range requests {
			path := fmt.Sprintf("/%d/%d", i, j)
			if n, _ := st.served.Load(path); n == nil || n.(*atomic.Int32).Load() != 1 {
				t.Errorf("%s was not served once", path)
			}
		}
	}
	if n := st.ended.Load(); n == 0 {
		t.Error("no connection has ended")
	}
	t.Logf("%d ended, %d requests repeated", st.ended.Load(), again.Load())
}

// What is cut is cut at once. This process's own sockets are not listed.
func TestCut(t *testing.T) {
	st := setUp(t)
	c, br := st.dial(st.client, pod4)
	v6, _ := st.dial(st.client, pod6)
	if _, err := exchange(c, br, "/x"); err != nil {
		t.Fatal(err)
	}
	st.begin(2)
	if own, err := st.Connections(st.port); err != nil || own.Len() != 0 {
		t.Errorf("%d connections of this process are listed, %v", own.Len(), err)
	}
	if n, err := st.Cut(st.others()); n != 2 || err != nil {
		t.Errorf("cut %d, %v, want 2", n, err)
	}
	for _, c := range []net.Conn{c, v6} {
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client reads %v, want a reset", err)
		}
	}
	if n, err := st.Cut(Connections{}); n != 0 || err != nil {
		t.Errorf("cut %d of none, %v", n, err)
	}
}

// Forget and Close leave everything alone.
func TestForget(t *testing.T) {
	for name, leave := range map[string]func(*stage){"forget": func(st *stage) { st.Forget(st.port) }, "close": func(st *stage) { st.Close() }} {
		t.Run(name, func(t *testing.T) {
			st := setUp(t)
			c, br := st.dial(st.client, pod4)
			st.begin(1)
			leave(st)
			if _, err := exchange(c, br, "/x"); err != nil {
				t.Fatal(err)
			}
			stays(t, c)
			st.wg.Wait()
		})
	}
}
