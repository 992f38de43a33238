// Package outgoing is the agent's half of the outgoing flow: it connects from
// the target's network and carries the bytes.
//
// It knows no privilege and no namespace: the server gives it a dialer that
// makes sockets in the target's network. What fails there is told to local by
// the errno of the target's kernel.
package outgoing

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/relay"
	"github.com/mirrord-go/mirrord/internal/unixsock"
)

// Dialer connects from the target's network ("tcp", "udp", or "ping" for ICMP
// echo); its errors wrap the errno of the target's kernel. A TCP connection has a
// CloseWrite.
type Dialer func(ctx context.Context, network string, a netip.AddrPort) (net.Conn, error)

// dialTime bounds one dial: longer than Linux tries a connection with
// tcp_syn_retries 9 (487 s; it is 6 and 127 s by default, tcp(7)), so that it is
// the target's kernel that gives up.
const dialTime = 10 * time.Minute

// ConnCost is what a connection is counted as, in bytes, besides its stream: two
// stacks of 4 KiB, the buffers of relay, and what is known of it.
const ConnCost = 12 << 10

// Server answers dials. Its methods may be called concurrently, its fields do
// not change. nil shares have no end.
type Server struct {
	Dial Dialer
	// Unix connects to a unix socket: typ is SOCK_STREAM or SOCK_SEQPACKET, name
	// what sun_path has; with wait it waits for a busy server. nil: this agent may
	// not.
	Unix func(ctx context.Context, typ int, name string, wait bool) (*unixsock.Conn, error)
	// Dropped is told when a server at a unix socket has sent descriptors, which
	// cannot be carried. Required with Unix.
	Dropped     func(name string)
	Connections *budget.Share // a dial that finds no room fails with EAGAIN
	Relayed     *budget.Share // for large buffers
}

// Serve answers m on s, which it owns, and carries the connection until its
// end, or that of ctx.
func (o *Server) Serve(ctx context.Context, s *link.Stream, m *protocol.Dial) {
	defer s.Close()
	if typ := unixTypes[m.Network]; typ != 0 && o.Unix != nil {
		o.unix(ctx, s, m, typ)
		return
	}
	network := map[uint8]string{protocol.NetworkTCP: "tcp", protocol.NetworkUDP: "udp", protocol.NetworkPing: "ping"}[m.Network]
	if network == "" || !m.Addr.IsValid() {
		_ = s.Send(&protocol.Answer{Errno: syscall.EPROTONOSUPPORT, Cause: protocol.CauseUnsupported,
			Text: fmt.Sprintf("network %d to %v is not known to this agent", m.Network, m.Addr)})
		return
	}
	if !o.Connections.Take(ConnCost) {
		_ = s.Send(&protocol.Answer{Errno: syscall.EAGAIN, Text: "there is no memory for another connection"})
		return
	}
	defer o.Connections.Give(ConnCost)
	limit, cancel := context.WithTimeout(ctx, dialTime)
	c, err := o.Dial(limit, network, m.Addr)
	cancel()
	if err != nil {
		_ = s.Send(&protocol.Answer{Errno: dialErrno(err)})
		return
	}
	defer c.Close()
	answer := &protocol.Answer{}
	if ap, err := netip.ParseAddrPort(c.LocalAddr().String()); err == nil {
		answer.Addr = ap
	}
	if network != "tcp" {
		if s.Send(answer) == nil {
			o.datagrams(ctx, s, c)
		}
		return
	}
	conn, ok := c.(relay.Conn)
	if !ok {
		_ = s.Send(&protocol.Answer{Errno: syscall.EPROTO, Text: fmt.Sprintf("a connection of type %T cannot be half-closed", c)})
		return
	}
	if s.Send(answer) != nil {
		relay.Reset(conn, syscall.ECONNRESET) // local has given up: the peer sees no orderly end
		return
	}
	_, _ = relay.Join(ctx, o.Relayed, s, conn)
}

// dialErrno is what the program's connect must return.
func dialErrno(err error) syscall.Errno {
	var e syscall.Errno
	switch {
	case errors.As(err, &e) && e != 0:
		return e
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return syscall.ETIMEDOUT
	}
	return syscall.ENETUNREACH
}
