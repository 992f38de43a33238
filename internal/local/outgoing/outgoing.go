// Package outgoing is the local half of the outgoing flow: it sends each
// connection and datagram of the program where the rules say, and gives the
// program the true result.
//
// The session hands it the flows of the network stack. A connection is dialed
// first, in the target's network or on this machine, and accepted only when
// that has succeeded: so connect(2) returns what the target's kernel said.
package outgoing

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/relay"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// TCPFlow is a connection attempt of the program that waits for its answer.
type TCPFlow interface {
	Src() netip.AddrPort
	Dst() netip.AddrPort
	// Accept completes the program's connect.
	Accept() (net.Conn, error)
	// Refuse makes it fail.
	Refuse(errno syscall.Errno)
}

// UDPFlow is the datagrams between one socket of the program and one peer.
type UDPFlow interface {
	Src() netip.AddrPort
	Dst() netip.AddrPort
	// Read and Write carry one datagram each.
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
	// Unreachable tells the program that its datagrams reach nobody.
	Unreachable(errno syscall.Errno)
	Close() error
}

// Opener starts a stream towards the agent.
type Opener interface {
	Open(ctx context.Context, lane link.Lane, m protocol.Message) (*link.Stream, error)
}

// Router answers flows. Its fields are set before the first and not changed
// after.
type Router struct {
	Link  Opener
	Rules rules.Outgoing
	// Translate maps the addresses that the sandbox puts on packets for
	// localhost and for the pod itself to what they mean in the target.
	Translate func(netip.AddrPort) netip.AddrPort
	Emit      event.Sink
}

const (
	// dialTime bounds one dial: a little more than Linux tries a connection by
	// default (127 s), so that it is the target's kernel that gives up.
	dialTime = 135 * time.Second
	// maxDatagram is the largest UDP payload in bytes (RFC 768 over IPv4).
	maxDatagram = 65507
)

// TCP answers f and carries the connection until its end.
func (r *Router) TCP(ctx context.Context, f TCPFlow) {
	dst := r.Translate(f.Dst())
	far, err := r.dial(ctx, "tcp", dst)
	if err != nil {
		f.Refuse(dialErrno(err))
		r.report("refused", "tcp", dst, err)
		return
	}
	near, err := f.Accept()
	if err != nil { // the program gave up meanwhile
		relay.Reset(far, err)
		return
	}
	conn, ok := near.(relay.Conn)
	if !ok {
		near.Close()
		relay.Reset(far, syscall.EPROTO)
		return
	}
	r.report("connected", "tcp", dst, nil)
	_, _ = relay.Join(ctx, conn, far)
}

func (r *Router) dial(ctx context.Context, network string, dst netip.AddrPort) (relay.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	if r.Rules.Decide(network, dst).Where == rules.Local {
		c, err := (&net.Dialer{}).DialContext(ctx, network, dst.String())
		if err != nil {
			return nil, err
		}
		return c.(relay.Conn), nil
	}
	return r.dialRemote(ctx, protocol.NetworkTCP, dst)
}

// dialRemote opens a stream to dst in the target's network.
func (r *Router) dialRemote(ctx context.Context, network uint8, dst netip.AddrPort) (*link.Stream, error) {
	lane := link.Bulk
	if network == protocol.NetworkUDP && dst.Port() == dnsPort {
		lane = link.Interactive // a lookup never waits behind a transfer
	}
	s, err := r.Link.Open(ctx, lane, &protocol.Dial{Network: network, Addr: dst})
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { s.Reset(syscall.ETIMEDOUT) })
	m, err := s.Receive()
	stop()
	if err == nil {
		a, ok := m.(*protocol.Answer)
		if !ok {
			err = fmt.Errorf("the agent answered a dial with %T: %w", m, syscall.EPROTO)
		} else {
			err = a.Err()
		}
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

const dnsPort = 53

// dialErrno is what connect(2) must return.
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

func (r *Router) report(what, network string, dst netip.AddrPort, err error) {
	e := event.Event{Level: event.Detail, Code: "outgoing-" + what, Flow: "outgoing",
		Text: fmt.Sprintf("%s %v: %s", network, dst, what), Facts: map[string]string{"address": dst.String(), "network": network}}
	if err != nil {
		e.Text += ": " + err.Error()
	}
	r.Emit(e)
}

// UDP carries f until it has been idle or either side ends.
func (r *Router) UDP(ctx context.Context, f UDPFlow) {
	defer f.Close()
	dst := r.Translate(f.Dst())
	if dst.Addr().IsMulticast() || dst.Addr() == broadcast {
		f.Unreachable(syscall.ENETUNREACH)
		r.report("refused", "udp", dst, errors.New("multicast and broadcast do not leave the sandbox"))
		return
	}
	if r.Rules.Decide("udp", dst).Where == rules.Local {
		c, err := (&net.Dialer{}).DialContext(ctx, "udp", dst.String())
		if err != nil {
			f.Unreachable(dialErrno(err))
			return
		}
		localDatagrams(ctx, f, c)
		return
	}
	s, err := r.dialRemote(ctx, protocol.NetworkUDP, dst)
	if err != nil {
		f.Unreachable(dialErrno(err))
		r.report("refused", "udp", dst, err)
		return
	}
	remoteDatagrams(ctx, f, s)
}

var broadcast = netip.MustParseAddr("255.255.255.255")

// remoteDatagrams owns s.
func remoteDatagrams(ctx context.Context, f UDPFlow, s *link.Stream) {
	stop := context.AfterFunc(ctx, func() { s.Close(); f.Close() })
	defer stop()
	back := make(chan struct{})
	go func() {
		defer close(back)
		defer f.Close()
		for {
			m, err := s.Receive()
			d, ok := m.(*protocol.Datagram)
			switch {
			case err != nil || !ok:
				return
			case d.Errno != 0:
				f.Unreachable(d.Errno)
			default:
				if _, err := f.Write(d.Data); err != nil {
					return
				}
			}
		}
	}()
	buf := make([]byte, maxDatagram)
	for {
		n, err := f.Read(buf)
		if err != nil {
			break
		}
		if s.Send(&protocol.Datagram{Data: buf[:n]}) != nil {
			break
		}
	}
	s.Close()
	<-back
}

// localDatagrams owns c.
func localDatagrams(ctx context.Context, f UDPFlow, c net.Conn) {
	stop := context.AfterFunc(ctx, func() { c.Close(); f.Close() })
	defer stop()
	back := make(chan struct{})
	go func() {
		defer close(back)
		defer f.Close()
		buf := make([]byte, maxDatagram)
		for {
			n, err := c.Read(buf)
			var e syscall.Errno
			switch {
			case errors.As(err, &e):
				f.Unreachable(e)
			case err != nil:
				return
			default:
				if _, err := f.Write(buf[:n]); err != nil {
					return
				}
			}
		}
	}()
	buf := make([]byte, maxDatagram)
	for {
		n, err := f.Read(buf)
		if err != nil {
			break
		}
		_, _ = c.Write(buf[:n]) // an ICMP error belongs to the reader
	}
	c.Close()
	<-back
}
