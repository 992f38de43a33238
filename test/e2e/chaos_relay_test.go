package e2e

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// relay stands between mirrord and the API server, and does what networks and
// load balancers do.
type relay struct {
	ln      net.Listener
	backend string
	wg      sync.WaitGroup

	mu     sync.Mutex
	cond   *sync.Cond
	conns  map[net.Conn]bool
	closes bool          // what comes is closed
	stalls bool          // nothing passes
	idle   time.Duration // without a byte either way, after which a connection is closed; 0: never
}

// newRelay makes one, and a kubeconfig that leads through it.
func newRelay(t *testing.T) (r *relay, kubeconfig string) {
	t.Helper()
	text, err := os.ReadFile(w.cluster.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	server := regexp.MustCompile(`server: https://([^:\s]+):(\d+)`).FindStringSubmatch(string(text))
	if server == nil {
		t.Fatalf("no API server in %s", w.cluster.Kubeconfig())
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r = &relay{ln: ln, backend: net.JoinHostPort(server[1], server[2]), conns: map[net.Conn]bool{}}
	r.cond = sync.NewCond(&r.mu)
	r.wg.Go(r.accept)
	t.Cleanup(r.close)
	changed := strings.Replace(string(text), server[0], "server: https://"+ln.Addr().String()+"\n    tls-server-name: "+server[1], 1)
	dir, err := os.MkdirTemp(w.dir, "relay-") // t.TempDir is root's alone
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig = filepath.Join(dir, "kubeconfig")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(kubeconfig, []byte(changed), 0o600), os.Chown(kubeconfig, user, user)); err != nil {
		t.Fatal(err)
	}
	return r, kubeconfig
}

// set changes how the relay behaves.
func (r *relay) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	if r.closes {
		for c := range r.conns {
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	}
	r.cond.Broadcast()
}

func (r *relay) close() {
	r.set(func() { r.closes, r.stalls = true, false })
	r.ln.Close()
	r.wg.Wait()
}

func (r *relay) accept() {
	for {
		c, err := r.ln.Accept()
		if err != nil {
			return
		}
		if !r.add(c) {
			continue
		}
		r.wg.Go(func() {
			b, err := net.Dial("tcp", r.backend)
			if err != nil || !r.add(b) {
				r.drop(c)
				return
			}
			life := &life{r: r, last: time.Now()}
			r.wg.Go(func() { r.pump(b, c, life) })
			r.pump(c, b, life)
		})
	}
}

func (r *relay) add(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closes {
		c.Close()
		return false
	}
	r.conns[c] = true
	return true
}

func (r *relay) drop(conns ...net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		c.Close()
		delete(r.conns, c)
	}
}

// life is when something passed last.
type life struct {
	r    *relay
	last time.Time // guarded by r.mu
}

// pump passes bytes on, as long as they may pass.
func (r *relay) pump(dst, src net.Conn, l *life) {
	defer r.drop(dst, src)
	buf := make([]byte, 32<<10)
	for {
		_ = src.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		n, err := src.Read(buf)
		var ne net.Error
		waiting := errors.As(err, &ne) && ne.Timeout()
		r.mu.Lock()
		for r.stalls {
			r.cond.Wait()
			l.last = time.Now()
		}
		if n > 0 {
			l.last = time.Now()
		}
		cut := r.idle > 0 && time.Since(l.last) > r.idle
		r.mu.Unlock()
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if cut || err != nil && !waiting {
			if !errors.Is(err, io.EOF) {
				_ = dst.(*net.TCPConn).SetLinger(0)
			}
			return
		}
	}
}
