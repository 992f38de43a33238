package redirect_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/agent/redirect"
	"github.com/mirrord-go/mirrord/internal/agent/target"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

// BenchmarkConnections makes connections from another machine, each with one
// word there and back: straight to the server, and stolen and passed on to it.
// It reports connections per second, and how long one takes at the median and
// the 99th percentile.
func BenchmarkConnections(b *testing.B) {
	for _, who := range []string{"server", "client"} {
		b.Run(who+" closes first", func(b *testing.B) {
			for _, way := range []struct {
				name string
				open func(redirect.Namespace, string) (*redirect.Redirect, error)
			}{{"direct", nil}, {"bpf", redirect.NewByLookup}, {"nftables", redirect.NewByNAT}} {
				for _, addr := range []string{pod4 + ":80", "[" + pod6 + "]:80"} {
					for _, workers := range []int{1, 16} {
						name := way.name + "/" + map[bool]string{true: "IPv4", false: "IPv6"}[addr[0] != '['] + "/" + map[int]string{1: "alone", 16: "16 at once"}[workers]
						b.Run(name, func(b *testing.B) {
							p, client := newNet(b)
							echo(b, p, who == "server")
							if way.open != nil {
								passOn(b, opened(b, p, func(p *pod) (*redirect.Redirect, error) { return way.open(p.t, "") }, 80))
							}
							measure(b, client.t, netip.MustParseAddrPort(addr), workers, who == "client")
						})
					}
				}
			}
		})
	}
}

// echo answers each connection's word.
func echo(b *testing.B, p *pod, closes bool) {
	var ln net.Listener
	err := p.t.Do(func() (err error) {
		lc := net.ListenConfig{}
		lc.SetMultipathTCP(false)
		ln, err = lc.Listen(context.Background(), "tcp", ":80")
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	testnet.Serve(b, ln, func(c net.Conn) {
		defer c.Close()
		var word [4]byte
		if _, err := io.ReadFull(c, word[:]); err == nil {
			_, _ = c.Write(word[:])
		}
		if !closes {
			_, _ = c.Read(word[:])
		}
	})
}

func measure(b *testing.B, from *target.Target, to netip.AddrPort, workers int, closes bool) {
	times := make([][]time.Duration, workers)
	var wg sync.WaitGroup
	b.ResetTimer()
	for w := range workers {
		wg.Go(func() {
			for i := w; i < b.N; i += workers {
				begin := time.Now()
				if err := once(from, to, uint16(30000+i%35000), closes); err != nil {
					b.Error(err)
					return
				}
				times[w] = append(times[w], time.Since(begin))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(times...)
	if len(all) == 0 {
		return
	}
	slices.Sort(all)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "conn/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "µs-p50")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "µs-p99")
}

func once(from *target.Target, to netip.AddrPort, port uint16, closes bool) error {
	c, err := from.DialWith(context.Background(), "tcp", to, func(fd int) error {
		// Chosen here: with many sockets in TIME_WAIT the kernel would search long.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil || to.Addr().Is4() {
			return errors.Join(err, unix.Bind(fd, &unix.SockaddrInet4{Addr: netip.MustParseAddr(client4).As4(), Port: int(port)}))
		}
		return unix.Bind(fd, &unix.SockaddrInet6{Addr: netip.MustParseAddr(client6).As16(), Port: int(port)})
	})
	if err != nil {
		return err
	}
	defer c.Close()
	tcp := c.(*net.TCPConn)
	var word [4]byte
	if _, err := tcp.Write(word[:]); err != nil {
		return err
	}
	if _, err := io.ReadFull(tcp, word[:]); err != nil {
		return err
	}
	if closes {
		_ = tcp.CloseWrite()
	}
	if _, err := tcp.Read(word[:]); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
