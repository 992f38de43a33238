package server

import (
	"fmt"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/capture"
	"github.com/mirrord-go/mirrord/internal/agent/mesh"
	"github.com/mirrord-go/mirrord/internal/agent/redirect"
)

// takenPause is between two looks for who has taken a port: each lists the rules
// of the target's network.
const takenPause = time.Second

// watchedTap is a tap behind a mesh's proxy, with somebody who says when its copies
// cannot be there.
type watchedTap struct {
	*capture.Tap
	quit chan struct{} // closed by Close
	once sync.Once
	wg   sync.WaitGroup
}

func (s *session) watched(tap *capture.Tap, m mesh.Mesh) *watchedTap {
	w := &watchedTap{Tap: tap, quit: make(chan struct{})}
	w.wg.Go(func() {
		saysTaken(tap.Passes(), w.quit, takenPause, m.Name, func(port uint16) (string, bool) { return redirect.TakenByNAT(s.t, port) }, s.notice)
	})
	return w
}

// Close ends the copies.
func (w *watchedTap) Close() error {
	w.once.Do(func() { close(w.quit) })
	w.wg.Wait()
	return w.Tap.Close()
}

// saysTaken tells once that a port of which something went to the proxy is taken
// by another session, by nftables: what the proxy sends on goes there before a
// packet socket sees it, with another port.
func saysTaken(passes <-chan uint16, quit <-chan struct{}, pause time.Duration, proxy string, taken func(port uint16) (string, bool), notice func(code, text string)) {
	for {
		select {
		case port := <-passes:
			if holder, yes := taken(port); yes {
				notice("mesh-taken", fmt.Sprintf("port %d is held by %s, by nftables: behind %s nothing of it is copied to this session until that one has ended; "+
					"steal by a filter, which shares the port (mirrord exec --steal --header ...)", port, holder, proxy))
				return
			}
		case <-quit:
			return
		}
		select {
		case <-time.After(pause):
		case <-quit:
			return
		}
	}
}
