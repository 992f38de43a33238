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
// one after another. Other names wait, and all of them in the next loss.
func TestQueueForALostName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer := &lostPeer{}
		r := newRemote(peer, 0, 0, nil)
		defer r.close()
		lostAt := time.Now()
		r.linkLost = func() time.Time { return lostAt }
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
		ask("/other", link.BeginTime)
		lostAt = time.Time{}
		ask("/data", link.BeginTime) // the end of the loss is known here before it is there
		lostAt = time.Now()
		ask("/data", link.BeginTime)
		ask("/data", 0)
		if peer.asked != 4 {
			t.Errorf("asked %d times, want 4", peer.asked)
		}
	})
}
