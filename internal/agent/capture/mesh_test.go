package capture_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/capture"
	"github.com/mirrord-go/mirrord/internal/agent/target"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

// A request that a mesh's rules lead to its proxy is copied once, in the clear,
// where the proxy calls the port; one that they leave out is copied as it comes in.
func TestOneCopyInAMesh(t *testing.T) {
	for _, m := range testnet.Meshes {
		for _, exact := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, exact %v", m.Name, exact), func(t *testing.T) {
				inside, outside := m.Meshed(t)
				tg, client := testnet.Opened(t, target.Open, inside), testnet.Opened(t, target.Open, outside)
				for _, port := range []int{80, testnet.LeftPort} {
					sink(t, tg, fmt.Sprintf(":%d", port))
				}
				m.Proxy(t, tg.Do)
				tap, err := capture.Open(tg.Do, nil, capture.Marks{}, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer tap.Close()
				if !exact {
					capture.Unprivileged(tap)
				}
				tap.Sidecar()
				for _, port := range []uint16{80, testnet.LeftPort} {
					if err := tap.Add(port); err != nil {
						t.Fatal(err)
					}
				}
				call := func(port int, data []byte) net.Conn {
					t.Helper()
					var c net.Conn
					err := client.Do(func() (err error) {
						c, err = net.Dial("tcp", net.JoinHostPort(testnet.PodAddr, fmt.Sprint(port)))
						return err
					})
					if err != nil {
						t.Fatal(err)
					}
					_ = c.SetDeadline(time.Now().Add(20 * time.Second))
					_, _ = c.Write(data)
					return c
				}
				// Its end is there before the next begins: copies come in order.
				c := call(80, testnet.Sealed([]byte("through the proxy")))
				_ = c.(*net.TCPConn).CloseWrite()
				_, _ = io.ReadAll(c)
				c.Close()
				last := []byte("directly")
				if !m.Leaves {
					last = testnet.Sealed(last)
				}
				direct := call(testnet.LeftPort, last)
				defer direct.Close()
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				defer context.AfterFunc(ctx, func() { tap.Close() })() // ends a copy whose end does not come
				for i, want := range []struct {
					client, server, data string
				}{{m.Caller(), "80", "through the proxy"}, {testnet.ClientAddr, fmt.Sprint(testnet.LeftPort), "directly"}} {
					got, err := tap.Accept(ctx)
					if err != nil {
						t.Fatal(err)
					}
					if i == 1 { // until now it has a socket in the pod
						_ = direct.(*net.TCPConn).CloseWrite()
					}
					b, err := io.ReadAll(got)
					peer := netip.MustParseAddrPort(got.RemoteAddr().String()).Addr().String()
					if err != nil || string(b) != want.data || peer != want.client || got.LocalAddr().String() != testnet.PodAddr+":"+want.server {
						t.Errorf("the copy of what %s sent %v is %q, %v, want %q from %s", peer, got.LocalAddr(), b, err, want.data, want.client)
					}
				}
				select {
				case port := <-tap.Passes():
					if port != 80 {
						t.Errorf("something to port %d has gone to the proxy", port)
					}
				default:
					t.Error("nothing has gone to the proxy")
				}
				if n := tap.Stats().Connections; n != 2 {
					t.Errorf("%d copies, want 2", n)
				}
			})
		}
	}
}

// Rules that are no mesh's keep nobody from his copies, and a kernel that knows
// nothing keeps nobody in a mesh from his: better twice than never.
func TestCopiesOfWhatIsLedElsewhere(t *testing.T) {
	const rules = `nft 'add table ip t; add chain ip t p { type nat hook prerouting priority -100; }; add rule ip t p tcp dport 80 redirect to :81'`
	for _, c := range []struct {
		name    string
		prepare func(*capture.Tap)
		blind   bool
	}{
		{"no mesh", func(*capture.Tap) {}, false},
		{"a mesh, and a kernel that knows nothing", func(tap *capture.Tap) { capture.Blind(tap); tap.Sidecar() }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inside, outside := testnet.Cabled(t, rules)
			tg, client := testnet.Opened(t, target.Open, inside), testnet.Opened(t, target.Open, outside)
			sink(t, tg, ":81")
			tap, err := capture.Open(tg.Do, nil, capture.Marks{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer tap.Close()
			c.prepare(tap)
			if tap.Blind() != c.blind {
				t.Errorf("blind: %v", !c.blind)
			}
			if err := tap.Add(80); err != nil {
				t.Fatal(err)
			}
			send(t, client, testnet.PodAddr+":80", []byte("a word"))
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			got, err := tap.Accept(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(got); err != nil || string(b) != "a word" {
				t.Errorf("copied %q, %v", b, err)
			}
		})
	}
}
