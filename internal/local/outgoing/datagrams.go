package outgoing

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/datagram"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/local/activity"
	"github.com/mirrord-go/mirrord/internal/ping"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

const dnsPort = 53

var (
	broadcast    = netip.MustParseAddr("255.255.255.255")
	errBroadcast = fmt.Errorf("multicast and broadcast do not leave the sandbox: %w", syscall.ENETUNREACH)
)

// UDP carries f until it has been idle or either side ends, or until the end
// of ctx. It closes f.
func (r *Router) UDP(ctx context.Context, f UDPFlow) {
	r.carryDatagrams(ctx, f, r.route("udp", f.Dst()))
}

// Ping carries f, whose datagrams are ICMP echo requests and replies, in the same
// way. Its ports are 0.
func (r *Router) Ping(ctx context.Context, f UDPFlow) {
	r.carryDatagrams(ctx, f, r.route("ping", f.Dst()))
}

func (r *Router) carryDatagrams(ctx context.Context, f UDPFlow, t *route) {
	defer f.Close()
	err := errNoAddress
	switch {
	case !t.dst.IsValid():
	case t.dst.Addr().IsMulticast() || t.dst.Addr() == broadcast:
		err = errBroadcast
	case t.Where == rules.Local:
		var c net.Conn
		if c, err = r.connectHere(ctx, t); err == nil {
			r.report(t, nil)
			f := &counted{UDPFlow: f}
			defer f.end()
			f.call.Store(r.began(t))
			localDatagrams(ctx, f, c)
			return
		}
	default:
		lane, network := link.Bulk, protocol.NetworkUDP
		if t.dst.Port() == dnsPort {
			lane = link.Interactive // a lookup never waits behind a transfer
		}
		if t.network == "ping" {
			lane, network = link.Interactive, protocol.NetworkPing
		}
		var s *link.Stream
		if s, err = r.Link.Open(ctx, lane, &protocol.Dial{Network: network, Addr: t.dst}); err == nil {
			f := &counted{UDPFlow: f}
			defer f.end()
			r.remoteDatagrams(ctx, f, s, t)
			return
		}
	}
	f.Unreachable(Errno(err))
	r.report(t, err)
}

// counted is a flow whose bytes are counted.
type counted struct {
	UDPFlow
	call  atomic.Pointer[activity.Call] // nil: whether it can be carried is not known yet
	early atomic.Int64                  // bytes that were sent until then
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.UDPFlow.Read(p)
	if call := c.call.Load(); call != nil {
		call.Carried(int64(n), 0)
	} else {
		c.early.Add(int64(n))
	}
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.UDPFlow.Write(p)
	c.call.Load().Carried(0, int64(n))
	return n, err
}

func (c *counted) end() {
	call := c.call.Load()
	call.Carried(c.early.Load(), 0)
	call.Close()
}

// remoteDatagrams owns s. It does not wait for the agent's answer before it
// sends: a lookup costs one round trip, not two.
func (r *Router) remoteDatagrams(ctx context.Context, f *counted, s *link.Stream, t *route) {
	stop := context.AfterFunc(ctx, func() { s.Close(); f.Close() })
	defer stop()
	back := make(chan struct{})
	go func() {
		defer close(back)
		defer f.Close()
		limit, cancel := context.WithTimeout(ctx, dialTime)
		err := answered(limit, s)
		cancel()
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return // the flow ended first
		}
		r.report(t, err)
		if err != nil {
			f.Unreachable(Errno(err))
			return
		}
		f.call.Store(r.began(t))
		fromAgent(f, s)
	}()
	buf := datagram.Take()
	for {
		n, err := r.readOn(f, t, buf[:])
		if err != nil || s.Send(&protocol.Datagram{Data: buf[:n]}) != nil {
			break
		}
	}
	datagram.Give(buf)
	s.Close()
	<-back
}

// readOn reads the next datagram of f. It does not take a flow for idle whose
// answers wait for a lost link; who looks up a name is told when that takes
// longer than new work waits.
func (r *Router) readOn(f UDPFlow, t *route, buf []byte) (int, error) {
	for first := time.Now(); ; {
		began := time.Now()
		n, err := f.Read(buf)
		if r.LostSince == nil || !idle(err) || !r.LostSince(began) {
			return n, err
		}
		if t.dst.Port() == dnsPort && time.Since(first) >= link.BeginTime {
			f.Unreachable(syscall.EHOSTUNREACH)
		}
	}
}

// idle reports whether err says that nothing came for long.
func idle(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// fromAgent gives the program what the agent sends until s ends.
func fromAgent(f UDPFlow, s *link.Stream) {
	for {
		d, err := s.ReceiveDatagram()
		switch {
		case err != nil:
			return
		case d.Errno != 0:
			f.Unreachable(d.Errno)
		default:
			_, _ = f.Write(d.Data) // a datagram may be lost; a closed flow shows in Read
		}
	}
}

// localDatagrams owns c.
func localDatagrams(ctx context.Context, f UDPFlow, c net.Conn) {
	stop := context.AfterFunc(ctx, func() { c.Close(); f.Close() })
	defer stop()
	back := make(chan struct{})
	go func() {
		defer close(back)
		defer f.Close()
		buf := datagram.Take()
		defer datagram.Give(buf)
		for {
			n, err := c.Read(buf[:])
			var e syscall.Errno
			switch {
			case errors.As(err, &e): // an ICMP error; the socket goes on
				f.Unreachable(e)
				if sc, ok := c.(syscall.Conn); ok {
					ping.Drain(sc)
				}
			case err != nil:
				return
			default:
				_, _ = f.Write(buf[:n])
			}
		}
	}()
	buf := datagram.Take()
	for {
		n, err := f.Read(buf[:])
		if err != nil {
			break
		}
		send(c, buf[:n], f.Unreachable)
	}
	datagram.Give(buf)
	c.Close()
	<-back
}

// send writes one datagram. A socket that has an ICMP error to tell does so
// instead of sending (udp(7)): that is passed on, and the datagram tried again.
func send(c net.Conn, p []byte, unreachable func(syscall.Errno)) {
	var e syscall.Errno
	if _, err := c.Write(p); errors.As(err, &e) {
		unreachable(e)
		_, _ = c.Write(p)
	}
}
