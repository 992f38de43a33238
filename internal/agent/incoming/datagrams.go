package incoming

import (
	"context"
	"sync"

	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/udpflow"
)

// datagrams carries a flow of UDP until it has been idle, or local or the session
// ends it. What local does not take is lost, as on any way: nobody else has been
// asked, and the client asks again.
func (h *Hub) datagrams(ctx context.Context, c *conn, f *udpflow.Flow) {
	s, err := h.open(ctx, c, nil)
	if err != nil {
		h.refused.Add(1)
		return
	}
	stop := context.AfterFunc(ctx, func() { s.Close(); c.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer s.Close()
	wg.Go(func() {
		defer c.Close()
		for {
			d, err := s.ReceiveDatagram()
			if refused(err) {
				h.refused.Add(1)
			}
			if err != nil {
				return
			}
			if d.Errno == 0 && c.key.steals() {
				_, _ = c.Write(d.Data) // a datagram may be lost; an end shows in Read
			}
		}
	})
	for {
		d, err := f.Next()
		if err != nil || s.Send(&protocol.Datagram{Data: d}) != nil {
			return
		}
	}
}
