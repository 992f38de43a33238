package files

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// lostPeer lets everything wait for the link, in vain.
type lostPeer struct {
	Peer
	asked int
}

func (p *lostPeer) Call(context.Context, protocol.Message) (protocol.Message, error) {
	p.asked++
	time.Sleep(link.BeginTime)
	return nil, link.ErrLost
}

// Those for whom the kernel asks one after another for the same name do not wait
// one after another; later ones wait again, and other names do.
func TestQueueForALostName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer := &lostPeer{}
		r := newRemote(peer, 0, 0, nil)
		defer r.close()
		ask := func(p string, want time.Duration) {
			t.Helper()
			start := time.Now()
			_, err := r.ask(t.Context(), p)
			if took := time.Since(start); !errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EHOSTUNREACH) || took != want {
				t.Errorf("%s: %v after %v, want EIO after %v", p, err, took, want)
			}
		}
		ask("/data", link.BeginTime)
		for range 10 {
			ask("/data", 0)
		}
		time.Sleep(lostMoment + 1)
		ask("/data", link.BeginTime)
		ask("/other", link.BeginTime)
		time.Sleep(lostMoment + 1)
		if r.outOfReach("/other", time.Now()) || peer.asked != 3 || len(r.lost) != 0 {
			t.Errorf("asked %d times, want 3; %d paths are remembered, want none", peer.asked, len(r.lost))
		}
	})
}
