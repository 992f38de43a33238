package netstack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// silence is how long a flow refused with ETIMEDOUT stays unanswered: Linux
// gives up a connection attempt after 127 s (tcp_syn_retries 6, tcp(7)).
const silence = 140 * time.Second

// TCPFlow is a connection attempt of the program. Exactly one of Accept and
// Refuse must be called.
type TCPFlow struct {
	t   *Stack
	r   *tcp.ForwarderRequest
	id  stack.TransportEndpointID
	syn []byte
}

// Src is the program's end.
func (f *TCPFlow) Src() netip.AddrPort { return addrPort(f.id.RemoteAddress, f.id.RemotePort) }

// Dst is what the program connects to.
func (f *TCPFlow) Dst() netip.AddrPort { return addrPort(f.id.LocalAddress, f.id.LocalPort) }

// rememberSYN keeps the headers of a SYN for an ICMP error that may follow.
func (t *Stack) rememberSYN(id stack.TransportEndpointID, pkt *stack.PacketBuffer) {
	h := header.TCP(pkt.TransportHeader().Slice())
	if len(h) < header.TCPMinimumSize || h.Flags()&(header.TCPFlagSyn|header.TCPFlagAck) != header.TCPFlagSyn {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.syns) >= 2*maxDialing { // those that the forwarder did not take
		clear(t.syns)
	}
	t.syns[id] = append(append([]byte(nil), pkt.NetworkHeader().Slice()...), h[:header.TCPMinimumSize]...)
}

func (t *Stack) takeSYN(id stack.TransportEndpointID) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.syns[id]
	delete(t.syns, id)
	return q
}

// takeTCP runs for every connection attempt, in a goroutine of the forwarder.
func (t *Stack) takeTCP(r *tcp.ForwarderRequest) {
	f := &TCPFlow{t: t, r: r, id: r.ID()}
	f.syn = t.takeSYN(f.id)
	if !t.spawn(func() { t.h.TCP(t.ctx, f) }) {
		r.Complete(true)
	}
}

// Accept completes the program's handshake. The connection has the methods of
// Conn. It fails when the program has given up meanwhile.
func (f *TCPFlow) Accept() (net.Conn, error) {
	var wq waiter.Queue
	ep, terr := f.r.CreateEndpoint(&wq)
	f.r.Complete(false)
	if terr != nil {
		return nil, syscall.ECONNABORTED
	}
	return newConn(&wq, ep), nil
}

// Refuse makes the program's connect fail with errno, as closely as packets
// can say it: EHOSTUNREACH, ENETUNREACH and EACCES by ICMP, ETIMEDOUT by
// silence, anything else by a reset, which is ECONNREFUSED.
func (f *TCPFlow) Refuse(errno syscall.Errno) {
	switch errno {
	case syscall.EHOSTUNREACH, syscall.EHOSTDOWN:
		f.t.unreachable(f.id, f.syn, icmpHost)
	case syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT, syscall.EINVAL:
		f.t.unreachable(f.id, f.syn, icmpNet)
	case syscall.EACCES, syscall.EPERM:
		f.t.unreachable(f.id, f.syn, icmpProhibited)
	case syscall.ETIMEDOUT:
		// The place in the forwarder keeps retransmissions from dialing again.
		timer := time.NewTimer(silence)
		f.t.spawn(func() {
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-f.t.ctx.Done():
			}
			f.r.Complete(false)
		})
		return
	default:
		f.r.Complete(true)
		return
	}
	f.r.Complete(false)
}

// Conn is a connection of the stack: a net.Conn with half-close and reset.
type Conn struct {
	*gonet.TCPConn
	ep   tcpip.Endpoint
	once sync.Once
}

func newConn(wq *waiter.Queue, ep tcpip.Endpoint) *Conn {
	ep.SocketOptions().SetDelayOption(false)
	return &Conn{TCPConn: gonet.NewTCPConn(wq, ep), ep: ep}
}

// Abort resets the connection: the program sees ECONNRESET.
func (c *Conn) Abort() { c.once.Do(c.ep.Abort) }

// Read is net.Conn's; a reset of the program's is ECONNRESET.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	return n, c.errno(err)
}

// Write is net.Conn's.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.TCPConn.Write(p)
	return n, c.errno(err)
}

// errno gives gonet's text errors the number that they came from.
func (c *Conn) errno(err error) error {
	var op *net.OpError
	if err == nil || !errors.As(err, &op) || op.Timeout() {
		return err
	}
	switch op.Err.Error() {
	case (&tcpip.ErrConnectionReset{}).String():
		op.Err = syscall.ECONNRESET
	case (&tcpip.ErrConnectionAborted{}).String(), (&tcpip.ErrAborted{}).String():
		op.Err = syscall.ECONNABORTED
	case (&tcpip.ErrClosedForSend{}).String():
		op.Err = syscall.EPIPE
	case (&tcpip.ErrTimeout{}).String():
		op.Err = syscall.ETIMEDOUT
	}
	return op
}

// Dial opens a connection into the sandbox. src may be any address that the
// sandbox's kernel takes from a device, so the program sees the real client.
// src's port is kept unless the stack uses it for the same pair of addresses.
// Errors wrap the errno (ECONNREFUSED, EHOSTUNREACH, …) or are ctx's.
func (t *Stack) Dial(ctx context.Context, src, dst netip.AddrPort) (net.Conn, error) {
	c, err := t.dial(ctx, src, dst)
	if errors.Is(err, syscall.EADDRINUSE) {
		c, err = t.dial(ctx, netip.AddrPortFrom(src.Addr(), 0), dst)
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(dst), Err: err}
	}
	return c, nil
}

func (t *Stack) dial(ctx context.Context, src, dst netip.AddrPort) (*Conn, error) {
	proto := ipv4.ProtocolNumber
	if dst.Addr().Is6() {
		proto = ipv6.ProtocolNumber
	}
	var wq waiter.Queue
	ep, terr := t.s.NewEndpoint(tcp.ProtocolNumber, proto, &wq)
	if terr != nil {
		return nil, toErrno(terr)
	}
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	ep.SocketOptions().SetReusePort(true) // one client's port towards several servers
	if terr = ep.Bind(full(src)); terr == nil {
		terr = ep.Connect(full(dst))
	}
	if _, ok := terr.(*tcpip.ErrConnectStarted); ok {
		select {
		case <-ctx.Done():
			ep.Close()
			return nil, ctx.Err()
		case <-t.ctx.Done():
			ep.Close()
			return nil, net.ErrClosed
		case <-ready:
		}
		terr = ep.LastError()
	}
	if terr != nil {
		ep.Close()
		return nil, toErrno(terr)
	}
	return newConn(&wq, ep), nil
}

// toErrno is the number of a stack's error.
func toErrno(err tcpip.Error) error {
	switch err.(type) {
	case *tcpip.ErrConnectionRefused:
		return syscall.ECONNREFUSED
	case *tcpip.ErrPortInUse, *tcpip.ErrBadLocalAddress: // the latter when the four-tuple is taken
		return syscall.EADDRINUSE
	case *tcpip.ErrHostUnreachable, *tcpip.ErrHostDown:
		return syscall.EHOSTUNREACH
	case *tcpip.ErrNetworkUnreachable:
		return syscall.ENETUNREACH
	case *tcpip.ErrTimeout:
		return syscall.ETIMEDOUT
	case *tcpip.ErrConnectionReset, *tcpip.ErrConnectionAborted, *tcpip.ErrAborted:
		return syscall.ECONNRESET
	}
	return errors.New(err.String())
}

func full(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFromSlice(a.Addr().AsSlice()), Port: a.Port()}
}

func addrPort(a tcpip.Address, port uint16) netip.AddrPort {
	ip, _ := netip.AddrFromSlice(a.AsSlice())
	return netip.AddrPortFrom(ip, port)
}
