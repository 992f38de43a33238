package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Conn is a connection of the stack: a net.Conn with half-close and reset. Its
// methods may be called concurrently. Errors wrap the errno that a socket of
// the kernel would give.
type Conn struct {
	*gonet.TCPConn
	ep            tcpip.Endpoint
	closed        atomic.Bool
	memory        *Memory
	receive, send int // what its buffers may keep, in bytes
}

// newConn owns ep and the ConnCost that was taken for it. The stack aborts the endpoints that it knows when it
// closes; one that comes later is aborted here.
func (t *Stack) newConn(wq *waiter.Queue, ep tcpip.Endpoint) (net.Conn, error) {
	ep.SocketOptions().SetDelayOption(false)
	c := &Conn{TCPConn: gonet.NewTCPConn(wq, ep), ep: ep, memory: &t.memory,
		receive: lend(t.memory.Buffers, leastReceive, bufferSize), send: lend(t.memory.Buffers, leastSend, bufferSize)}
	ep.SocketOptions().SetReceiveBufferSize(int64(c.receive), true)
	ep.SocketOptions().SetSendBufferSize(int64(c.send), true)
	if t.ctx.Err() != nil {
		c.Abort()
		c.Close()
		return nil, net.ErrClosed
	}
	return c, nil
}

// Abort resets the connection: the program sees ECONNRESET. Close must still
// be called.
func (c *Conn) Abort() { c.ep.Abort() }

// Close is net.Conn's. The program hears all that was written, then the end of
// the stream; or a reset, if it has sent what was not read.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	c.memory.Buffers.Give(c.receive - leastReceive + c.send - leastSend)
	c.memory.Connections.Give(ConnCost)
	return c.TCPConn.Close()
}

// Read is net.Conn's; a reset of the program's is ECONNRESET.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	switch {
	case err != nil && c.closed.Load():
		return n, net.ErrClosed // and not the end of the stream, which gonet takes it for
	case errors.Is(err, io.EOF) && tcp.EndpointState(c.ep.State()) == tcp.StateError:
		// The stack tells an error once, and a write has heard it.
		return n, &net.OpError{Op: "read", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: syscall.ECONNRESET}
	}
	return n, withErrno(err)
}

// Write is net.Conn's.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.TCPConn.Write(p)
	if err != nil && c.closed.Load() {
		return n, net.ErrClosed
	}
	return n, withErrno(err)
}

// Buffered is how many bytes can be read without waiting.
func (c *Conn) Buffered() int {
	n, err := c.ep.GetSockOptInt(tcpip.ReceiveQueueSizeOption)
	if err != nil {
		return 0
	}
	return n
}

// CloseWrite ends the stream to the program, which may go on sending.
func (c *Conn) CloseWrite() error { return withErrno(c.TCPConn.CloseWrite()) }

// CloseRead refuses what the program still sends.
func (c *Conn) CloseRead() error { return withErrno(c.TCPConn.CloseRead()) }

// withErrno gives gonet's text errors the number that they came from.
func withErrno(err error) error {
	var op *net.OpError
	if err == nil || !errors.As(err, &op) || op.Timeout() {
		return err
	}
	for _, e := range []struct {
		terr  tcpip.Error
		errno syscall.Errno
	}{
		{&tcpip.ErrConnectionReset{}, syscall.ECONNRESET},
		{&tcpip.ErrConnectionAborted{}, syscall.ECONNABORTED},
		{&tcpip.ErrAborted{}, syscall.ECONNABORTED},
		{&tcpip.ErrClosedForSend{}, syscall.EPIPE},
		{&tcpip.ErrNotConnected{}, syscall.ENOTCONN},
		{&tcpip.ErrTimeout{}, syscall.ETIMEDOUT},
	} {
		if op.Err.Error() == e.terr.String() {
			op.Err = e.errno
			break
		}
	}
	return op
}

// Dial opens a connection into the sandbox. src may be any address that the
// sandbox's kernel takes from a device, so the program sees the real client.
// src's port is kept unless the stack uses it for the same pair of addresses;
// without an address the stack has none to choose. Errors wrap the errno
// (ECONNREFUSED, EHOSTUNREACH, …), ctx's, or net.ErrClosed after the end of the
// stack. The caller closes the connection, which has the methods of Conn.
func (t *Stack) Dial(ctx context.Context, src, dst netip.AddrPort) (net.Conn, error) {
	src, dst = unmapped(src), unmapped(dst)
	c, err := t.dial(ctx, src, dst)
	if errors.Is(err, syscall.EADDRINUSE) {
		c, err = t.dial(ctx, netip.AddrPortFrom(src.Addr(), 0), dst)
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(dst), Err: err}
	}
	return c, nil
}

func (t *Stack) dial(ctx context.Context, src, dst netip.AddrPort) (net.Conn, error) {
	if src.Addr().BitLen() != dst.Addr().BitLen() || !dst.IsValid() {
		return nil, syscall.EAFNOSUPPORT
	}
	if !t.begin() {
		return nil, net.ErrClosed
	}
	defer t.wg.Done()
	if !t.memory.Connections.Take(ConnCost) {
		return nil, syscall.ENOBUFS
	}
	wq, ep, err := t.connect(ctx, src, dst)
	if err != nil {
		t.memory.Connections.Give(ConnCost)
		return nil, err
	}
	return t.newConn(wq, ep)
}

// connect makes a connected endpoint.
func (t *Stack) connect(ctx context.Context, src, dst netip.AddrPort) (*waiter.Queue, tcpip.Endpoint, error) {
	proto := ipv4.ProtocolNumber
	if dst.Addr().Is6() {
		proto = ipv6.ProtocolNumber
	}
	wq := &waiter.Queue{}
	ep, terr := t.s.NewEndpoint(tcp.ProtocolNumber, proto, wq)
	if terr != nil {
		return nil, nil, toErrno(terr)
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
			return nil, nil, ctx.Err()
		case <-t.ctx.Done():
			ep.Close()
			return nil, nil, net.ErrClosed
		case <-ready:
		}
		terr = ep.LastError()
	}
	if terr != nil {
		ep.Close()
		return nil, nil, toErrno(terr)
	}
	return wq, ep, nil
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

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func full(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFromSlice(a.Addr().AsSlice()), Port: a.Port()}
}
