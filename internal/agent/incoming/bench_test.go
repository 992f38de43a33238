package incoming

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/protocol"
)

// BenchmarkUnmatched is the round trip of a small request on one connection,
// straight to a server and past a filter that does not match.
func BenchmarkUnmatched(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })}
	go srv.Serve(ln)
	defer srv.Close()
	dial := func(context.Context, netip.AddrPort, netip.AddrPort) (net.Conn, error) {
		return net.Dial("tcp", ln.Addr().String())
	}
	direct, _ := dial(context.Background(), netip.AddrPort{}, netip.AddrPort{})
	defer direct.Close()
	h := New(Options{Original: dial})
	r, err := newRule(&protocol.Subscribe{Filter: `{"header":{"text":"^baggage: .*session=me"}}`})
	if err != nil {
		b.Fatal(err)
	}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	client, err := net.Dial("tcp", front.Addr().String())
	if err != nil {
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
	defer func() { client.Close(); <-done }()
	for _, c := range []struct {
		name string
		conn net.Conn
	}{{"direct", direct}, {"filtered", client}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			br := bufio.NewReader(c.conn)
			var took []time.Duration
			for b.Loop() {
				begin := time.Now()
				if _, err := io.WriteString(c.conn, "GET /api/items HTTP/1.1\r\nHost: shop\r\nUser-Agent: bench\r\nAccept: */*\r\nCookie: a=b; c=d\r\n\r\n"); err != nil {
					b.Fatal(err)
				}
				r, err := http.ReadResponse(br, nil)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, r.Body)
				took = append(took, time.Since(begin))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}
