// Package outgoing is the agent's half of the outgoing flow: it connects from
// the target's network and carries the bytes.
//
// It knows no kernel: the server gives it a dialer that makes sockets in the
// target's network namespace.
package outgoing

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/relay"
)

// Dialer connects from the target's network ("tcp" or "udp"); its errors wrap
// the errno of the target's kernel.
type Dialer func(ctx context.Context, network string, a netip.AddrPort) (net.Conn, error)

// maxDatagram is the largest UDP payload in bytes (RFC 768, IPv4).
const maxDatagram = 65507

// Serve answers m on s, which it owns, and carries the connection until its
// end.
func (d Dialer) Serve(ctx context.Context, s *link.Stream, m *protocol.Dial) {
	defer s.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	network := map[uint8]string{protocol.NetworkTCP: "tcp", protocol.NetworkUDP: "udp"}[m.Network]
	if network == "" || !m.Addr.IsValid() {
		_ = s.Send(&protocol.Answer{Errno: syscall.EPROTONOSUPPORT, Cause: protocol.CauseUnsupported,
			Text: fmt.Sprintf("network %d to %v is not known to this agent", m.Network, m.Addr)})
		return
	}
	c, err := d(ctx, network, m.Addr)
	if err != nil {
		_ = s.Send(&protocol.Answer{Errno: dialErrno(err)})
		return
	}
	defer c.Close()
	answer := &protocol.Answer{}
	if ap, err := netip.ParseAddrPort(c.LocalAddr().String()); err == nil {
		answer.Addr = ap
	}
	if err := s.Send(answer); err != nil {
		return
	}
	if network == "udp" {
		datagrams(ctx, s, c)
		return
	}
	if tc, ok := c.(relay.Conn); ok {
		_, _ = relay.Join(ctx, s, tc)
	}
}

// dialErrno is what the program's connect must return.
func dialErrno(err error) syscall.Errno {
	var e syscall.Errno
	var ne net.Error
	switch {
	case errors.As(err, &e) && e != 0:
		return e
	case errors.As(err, &ne) && ne.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return syscall.ETIMEDOUT
	}
	return syscall.ENETUNREACH
}

// datagrams carries datagrams both ways until either side ends.
func datagrams(ctx context.Context, s *link.Stream, c net.Conn) {
	stop := context.AfterFunc(ctx, func() { c.Close(); s.Close() })
	defer stop()
	back := make(chan struct{})
	go func() {
		defer close(back)
		defer s.Close()
		buf := make([]byte, maxDatagram)
		for {
			n, err := c.Read(buf)
			m := &protocol.Datagram{Data: buf[:n]}
			if err != nil {
				var e syscall.Errno
				if !errors.As(err, &e) { // closed
					return
				}
				m = &protocol.Datagram{Errno: e} // the socket goes on after an ICMP error
			}
			if s.Send(m) != nil {
				return
			}
		}
	}()
	for {
		m, err := s.Receive()
		if err != nil {
			break
		}
		d, ok := m.(*protocol.Datagram)
		if !ok {
			break
		}
		// A pending ICMP error belongs to the reader, and the datagram may be
		// lost as on any network.
		_, _ = c.Write(d.Data)
	}
	c.Close()
	<-back
}

// Timeout bounds one dial: longer than Linux tries a connection by default
// (127 s with tcp_syn_retries 6), so that it is the target's kernel that gives
// up.
const Timeout = 135 * time.Second
