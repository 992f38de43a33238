package redirect

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/quiet"
	"github.com/mirrord-go/mirrord/internal/relay"
)

// Conn is a stolen connection: its LocalAddr is what the client dialed.
type Conn struct {
	*quiet.Conn
	local net.Addr
	r     *Redirect
	once  sync.Once
}

// LocalAddr is what the client dialed.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// Close closes the connection.
func (c *Conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.r.release)
	return err
}

func (r *Redirect) accept(ln *net.TCPListener) {
	for {
		c, err := ln.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, for the moment
			select {
			case <-time.After(acceptPause):
				continue
			case <-r.quit:
				return
			}
		}
		local, ok := r.steering.dialed(c)
		if !ok || !r.hold() {
			_ = c.SetLinger(0) // somebody dialed our own port
			c.Close()
			continue
		}
		r.offer(&Conn{Conn: quiet.New(c), local: net.TCPAddrFromAddrPort(local), r: r})
	}
}

// offer queues c for Accept, or passes it on if its port has gone back.
func (r *Redirect) offer(c *Conn) {
	port := tcpAddr(c.local).Port()
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.claims[port] != nil && len(r.queue) >= backlog {
		r.cond.Wait()
	}
	if r.claims[port] == nil {
		r.pass(c)
		return
	}
	r.queue = append(r.queue, c)
	r.cond.Broadcast()
}

// pass lets the original serve c, which it owns. They are no more at once than
// the queue and the handshakes under way when a port goes back. mu is held:
// nothing is passed after Close has begun to wait.
func (r *Redirect) pass(c *Conn) {
	r.passing.Go(func() {
		o, err := r.Original(r.ctx, c)
		if err != nil {
			relay.Reset(c, err)
			return
		}
		none := budget.New(0).Share(0, 0) // they are few, and do without large buffers
		_, _ = relay.Join(r.ctx, none, c, o.(relay.Conn))
	})
}

// Accept waits for the next stolen connection, a *Conn. After Close it fails
// with net.ErrClosed.
func (r *Redirect) Accept(ctx context.Context) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() {
		r.mu.Lock() // or the waiter could miss it between its look and its wait
		defer r.mu.Unlock()
		r.cond.Broadcast()
	})
	defer stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		switch {
		case r.closed:
			return nil, net.ErrClosed
		case len(r.queue) > 0:
			c := r.queue[0]
			r.queue = slices.Delete(r.queue, 0, 1)
			r.cond.Broadcast()
			return c, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
		r.cond.Wait()
	}
}

// tcpAddr is the address of a connection's own end.
func tcpAddr(a net.Addr) netip.AddrPort {
	p := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
