package netstack

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// UDPFlow is the datagrams between one socket of the program and one peer. It
// ends when it has been idle for a minute (ten seconds for lookups), when too
// many others have been busier, or by Close. Its methods may be called
// concurrently.
type UDPFlow struct {
	t    *Stack
	id   stack.TransportEndpointID
	c    *gonet.UDPConn
	idle time.Duration
	once sync.Once
	at   *list.Element // in t.udp, guarded by t.mu; nil when closed
}

// takeUDP runs in the device's read loop.
func (t *Stack) takeUDP(r *udp.ForwarderRequest) bool {
	f := &UDPFlow{t: t, id: r.ID(), idle: udpIdle}
	if f.id.LocalPort == 53 {
		f.idle = dnsIdle
	}
	if !t.roomForUDP() {
		return true // dropped
	}
	var wq waiter.Queue
	ep, terr := r.CreateEndpoint(&wq)
	if terr != nil {
		t.memory.Datagrams.Give(udpCost)
		return true
	}
	f.c = gonet.NewUDPConn(&wq, ep)
	t.mu.Lock()
	f.at = t.udp.PushBack(f)
	t.mu.Unlock()
	if !t.spawn(func() { t.h.UDP(t.ctx, f); f.Close() }) {
		f.Close()
	}
	return true
}

// roomForUDP takes the memory of one more flow, for which it may end another.
// Flows are made in one goroutine.
func (t *Stack) roomForUDP() bool {
	for {
		t.mu.Lock()
		full := t.udp.Len() >= maxUDP
		longest := t.udp.Front()
		t.mu.Unlock()
		if !full && t.memory.Datagrams.Take(udpCost) {
			return true
		}
		if longest == nil {
			return false
		}
		longest.Value.(*UDPFlow).Close()
	}
}

// Src is the program's end.
func (f *UDPFlow) Src() netip.AddrPort { return addrPort(f.id.RemoteAddress, f.id.RemotePort) }

// Dst is the peer that the program sends to.
func (f *UDPFlow) Dst() netip.AddrPort { return addrPort(f.id.LocalAddress, f.id.LocalPort) }

// extend begins the idle time anew.
func (f *UDPFlow) extend() { _ = f.c.SetReadDeadline(time.Now().Add(f.idle)) }

// touch makes f the one that has been idle shortest.
func (f *UDPFlow) touch() {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	if f.at != nil {
		f.t.udp.MoveToBack(f.at)
	}
}

// Read waits for the program's next datagram. It fails with a timeout when the
// flow has been idle both ways, and with net.ErrClosed after its end.
func (f *UDPFlow) Read(p []byte) (int, error) {
	f.extend()
	n, err := f.c.Read(p)
	if err != nil {
		return n, f.ended(err)
	}
	f.touch()
	return n, nil
}

// Write sends a datagram to the program.
func (f *UDPFlow) Write(p []byte) (int, error) {
	f.extend()
	f.touch()
	n, err := f.c.Write(p)
	return n, f.ended(err)
}

// ended gives the errors of a closed flow their name: gonet reads an end of
// stream there, which datagrams do not have.
func (f *UDPFlow) ended(err error) error {
	if err == nil {
		return nil
	}
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		return err
	}
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	if f.at == nil || f.t.closed {
		return net.ErrClosed
	}
	return err
}

// Unreachable tells the program that errno is what its datagrams meet: on a
// connected socket its next call fails with ECONNREFUSED, EACCES (over IPv4
// EHOSTUNREACH), or nothing: the kernel keeps the passing errors to itself
// (udp(7), IP_RECVERR).
func (f *UDPFlow) Unreachable(errno syscall.Errno) {
	code, _ := icmpFor(errno) // else port unreachable, ECONNREFUSED
	if errno == syscall.ETIMEDOUT {
		code = icmpHost
	}
	h := make(header.UDP, header.UDPMinimumSize)
	h.Encode(&header.UDPFields{SrcPort: f.id.RemotePort, DstPort: f.id.LocalPort, Length: header.UDPMinimumSize})
	quote := append(ipHeader(f.id.RemoteAddress, f.id.LocalAddress, len(h)), h...)
	f.t.device.unreachable(f.id.RemoteAddress, f.id.LocalAddress, quote, code)
}

// Close ends the flow. The program's next datagram begins a new one.
func (f *UDPFlow) Close() error {
	err := net.ErrClosed
	f.once.Do(func() {
		f.t.mu.Lock()
		f.t.udp.Remove(f.at)
		f.at = nil
		f.t.mu.Unlock()
		err = f.c.Close()
		f.t.memory.Datagrams.Give(udpCost)
	})
	return err
}

// datagrams is a UDP socket of the stack that is connected to one of the
// sandbox's.
type datagrams struct {
	*gonet.UDPConn
	t    *Stack
	once sync.Once
}

// DialUDP makes a socket that is connected to one in the sandbox, with the
// program seeing src, as in Dial. It does not show whether anybody has that port.
// EADDRINUSE: the program has sent to src from there itself. The caller closes it.
func (t *Stack) DialUDP(src, dst netip.AddrPort) (net.Conn, error) {
	c, err := t.dialUDP(unmapped(src), unmapped(dst))
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "udp", Addr: net.UDPAddrFromAddrPort(dst), Err: err}
	}
	return c, nil
}

func (t *Stack) dialUDP(src, dst netip.AddrPort) (net.Conn, error) {
	if src.Addr().BitLen() != dst.Addr().BitLen() || !dst.IsValid() {
		return nil, syscall.EAFNOSUPPORT
	}
	if !t.begin() {
		return nil, net.ErrClosed
	}
	defer t.wg.Done()
	if !t.memory.Datagrams.Take(udpCost) {
		return nil, syscall.ENOBUFS
	}
	proto := ipv4.ProtocolNumber
	if dst.Addr().Is6() {
		proto = ipv6.ProtocolNumber
	}
	wq := &waiter.Queue{}
	ep, terr := t.s.NewEndpoint(udp.ProtocolNumber, proto, wq)
	if terr == nil {
		ep.SocketOptions().SetReusePort(true) // one client's port towards several servers
		if terr = ep.Bind(full(src)); terr == nil {
			terr = ep.Connect(full(dst))
		}
		if terr != nil {
			ep.Close()
		}
	}
	if terr != nil {
		t.memory.Datagrams.Give(udpCost)
		return nil, toErrno(terr)
	}
	return &datagrams{UDPConn: gonet.NewUDPConn(wq, ep), t: t}, nil
}

// Close ends the socket.
func (d *datagrams) Close() error {
	err := net.ErrClosed
	d.once.Do(func() {
		err = d.UDPConn.Close()
		d.t.memory.Datagrams.Give(udpCost)
	})
	return err
}
