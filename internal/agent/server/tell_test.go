package server

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/mirrord-go/mirrord/internal/agent/capture"
	"github.com/mirrord-go/mirrord/internal/agent/incoming"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// counting is a source of copies that loses some.
type counting struct {
	closableSource
	lost atomic.Int64
}

func (c *counting) Add(uint16) error { return nil }

func (c *counting) Stats() capture.Stats {
	n := c.lost.Load()
	return capture.Stats{Dropped: n, Incomplete: n / 10, Slow: n / 10, Refused: n / 10}
}

// TestTellLost: what is lost of copies is told when it has grown, and nothing
// otherwise. Datagrams count with the packets.
func TestTellLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, z := net.Pipe()
		near, far := link.New(a, link.Local, link.Options{}), link.New(z, link.Agent, link.Options{})
		defer near.Close("")
		defer far.Close("")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		hello, err := near.Open(ctx, link.Interactive, &protocol.Hello{})
		if err != nil {
			t.Fatal(err)
		}
		defer hello.Close()
		control, _, err := far.Accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		source := &counting{}
		taps := newLazySource(func() (closableSource, error) { return source, nil })
		datagrams := newLazySource(func() (closableSource, error) { return &losing{n: 5}, nil })
		s := &session{hello: control, hub: incoming.New(incoming.Options{}), taps: taps, copied: datagrams, stolen: newLazySource(nil)}
		done := make(chan struct{})
		go func() { s.tellLost(ctx); close(done) }()
		if err := taps.Add(80); err != nil {
			t.Fatal(err)
		}
		for _, n := range []int64{20, 21, 40} {
			source.lost.Store(n)
			m, err := hello.Receive()
			want := protocol.Lost{Packets: uint64(n), Copies: uint64(n / 10 * 3)}
			if got, ok := m.(*protocol.Lost); err != nil || !ok || *got != want {
				t.Errorf("got %+v, %v, want %+v", m, err, want)
			}
		}
		if err := datagrams.Add(53); err != nil {
			t.Fatal(err)
		}
		counts := s.counts()
		if want := (protocol.Counts{Packets: 45, Copies: 12}); counts != want {
			t.Errorf("the counts are %+v, want %+v", counts, want)
		}
		cancel()
		<-done
	})
}

// losing is a source of datagrams that has lost n.
type losing struct {
	closableSource
	n int64
}

func (l *losing) Add(uint16) error { return nil }
func (l *losing) Lost() int64      { return l.n }
