package incoming

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// passing gives two connections to a server of HTTP/1 and 2: straight, and past a
// filter that does not match.
func passing(b *testing.B) (direct, filtered net.Conn) {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{Protocols: &protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/large" {
			_, _ = w.Write(make([]byte, large))
			return
		}
		_, _ = io.WriteString(w, "hello")
	})}
	go srv.Serve(ln)
	b.Cleanup(func() { srv.Close() })
	dial := func(context.Context, netip.AddrPort, netip.AddrPort) (net.Conn, error) {
		return net.Dial("tcp", ln.Addr().String())
	}
	direct, _ = dial(context.Background(), netip.AddrPort{}, netip.AddrPort{})
	h := New(Options{Original: dial})
	r, err := newRule(&protocol.Subscribe{Filter: `{"header":{"text":"^baggage: .*session=me"}}`})
	if err != nil {
		b.Fatal(err)
	}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	if filtered, err = net.Dial("tcp", front.Addr().String()); err != nil {
		b.Fatal(err)
	}
	stolen, err := front.Accept()
	if err != nil {
		b.Fatal(err)
	}
	front.Close()
	k := key{protocol.ModeSteal, addrPort(stolen.LocalAddr()).Port()}
	h.ports[k] = []subscription{{rule: r}}
	done := make(chan struct{})
	go func() { h.carry(context.Background(), protocol.ModeSteal, stolen); close(done) }()
	b.Cleanup(func() { direct.Close(); filtered.Close(); <-done })
	return direct, filtered
}

// large is how much a server says of /large, in bytes.
const large = 1 << 20

// times measures f.
func times(b *testing.B, f func() error) {
	b.ReportAllocs()
	var took []time.Duration
	for b.Loop() {
		begin := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkUnmatched is the round trip of a small request on one connection,
// straight to a server and past a filter that does not match.
func BenchmarkUnmatched(b *testing.B) {
	direct, filtered := passing(b)
	for _, c := range []struct {
		name string
		conn net.Conn
	}{{"direct", direct}, {"filtered", filtered}} {
		b.Run(c.name, func(b *testing.B) {
			br := bufio.NewReader(c.conn)
			times(b, func() error {
				if _, err := io.WriteString(c.conn, "GET /api/items HTTP/1.1\r\nHost: shop\r\nUser-Agent: bench\r\nAccept: */*\r\nCookie: a=b; c=d\r\n\r\n"); err != nil {
					return err
				}
				r, err := http.ReadResponse(br, nil)
				if err == nil {
					_, err = io.Copy(io.Discard, r.Body)
				}
				return err
			})
		})
	}
}

// BenchmarkUnmatchedStreams is the same with HTTP/2, for a small reply and a large
// one, one at a time and many at once.
func BenchmarkUnmatchedStreams(b *testing.B) {
	direct, filtered := passing(b)
	for _, c := range []struct {
		name string
		conn net.Conn
	}{{"direct", direct}, {"filtered", filtered}} {
		cc, err := (&http2.Transport{AllowHTTP: true}).NewClientConn(c.conn)
		if err != nil {
			b.Fatal(err)
		}
		get := func(path string) error {
			q, err := http.NewRequest("GET", "http://shop"+path, nil)
			if err != nil {
				return err
			}
			r, err := cc.RoundTrip(q)
			if err == nil {
				_, err = io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
			return err
		}
		b.Run("small/"+c.name, func(b *testing.B) { times(b, func() error { return get("/api/items") }) })
		b.Run("large/"+c.name, func(b *testing.B) {
			b.SetBytes(large)
			times(b, func() error { return get("/large") })
		})
		b.Run("many/"+c.name, func(b *testing.B) {
			times(b, func() error {
				var all errgroup
				for range 100 {
					all.Go(func() error { return get("/api/items") })
				}
				return all.Wait()
			})
		})
	}
}

// errgroup waits for many, and gives an error of one.
type errgroup struct {
	wg  sync.WaitGroup
	mu  sync.Mutex
	err error
}

func (g *errgroup) Go(f func() error) {
	g.wg.Go(func() {
		if err := f(); err != nil {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.err = err
		}
	})
}

func (g *errgroup) Wait() error {
	g.wg.Wait()
	return g.err
}
