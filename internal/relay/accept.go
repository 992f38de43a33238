package relay

import (
	"context"
	"errors"
	"net"
	"time"
)

// acceptPause is how long a listener rests after accept(2) has failed: it does
// when this process has no descriptor left, and nothing tells when there is one
// again.
const acceptPause = 100 * time.Millisecond

// Accept gives each connection that comes to ln to take, which must not wait,
// until ln is closed. ctx ends a rest.
func Accept(ctx context.Context, ln net.Listener, take func(c Conn, from, to net.Addr)) {
	for {
		c, err := ln.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
			continue
		}
		conn, ok := c.(Conn)
		if !ok {
			c.Close()
			continue
		}
		take(conn, c.RemoteAddr(), c.LocalAddr())
	}
}
