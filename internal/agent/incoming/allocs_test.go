package incoming

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// TestAllocations pins what one request of a lasting connection costs in memory that
// has to be collected again: past a filter that does not match, and on a connection that is the target's as a whole.
func TestAllocations(t *testing.T) {
	question, reply := []byte("GET /api/items HTTP/1.1\r\nHost: shop\r\nUser-Agent: bench\r\nCookie: a=b; c=d\r\n\r\n"), []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	for _, c := range []struct {
		name, filter string
		most         float64
	}{
		{"passed on", `{"header":{"text":"^x-user: ana"}}`, 24},
		{"carried whole", `{"client":{"text":"203.0.113.0/24"}}`, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			leak.Check(t)
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			served := make(chan struct{})
			go func() {
				defer close(served)
				nc, err := ln.Accept()
				if err != nil {
					return
				}
				defer nc.Close()
				said, buf := 0, make([]byte, 4<<10)
				for {
					n, err := nc.Read(buf)
					if err != nil {
						return
					}
					for said += n; said >= len(question); said -= len(question) {
						if _, err := nc.Write(reply); err != nil {
							return
						}
					}
				}
			}()
			h := New(Options{Original: func(context.Context, netip.AddrPort, netip.AddrPort) (net.Conn, error) {
				return net.Dial("tcp", ln.Addr().String())
			}})
			r, err := newRule(&protocol.Subscribe{Mode: protocol.ModeSteal, Filter: c.filter})
			if err != nil {
				t.Fatal(err)
			}
			h.ports[key{protocol.ModeSteal, 80}] = []subscription{{rule: r}}
			stolen, client := newStolen(t)
			carried := make(chan struct{})
			go func() { defer close(carried); h.carry(t.Context(), protocol.ModeSteal, stolen) }()
			answer := make([]byte, len(reply))
			exchange := func() {
				if _, err := client.Write(question); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(client, answer); err != nil || !bytes.Equal(answer, reply) {
					t.Fatal(err)
				}
			}
			for range 100 { // buffers have grown
				exchange()
			}
			if got := testing.AllocsPerRun(1000, exchange); got > c.most {
				t.Errorf("%v allocations a request, want %v", got, c.most)
			}
			client.Close()
			<-carried
			<-served
		})
	}
}
