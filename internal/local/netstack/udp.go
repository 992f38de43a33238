package netstack

import (
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// UDPFlow is the datagrams between one socket of the program and one peer. It
// ends when it has been idle for a minute (ten seconds for lookups), or by
// Close. Read may be called concurrently with the others.
type UDPFlow struct {
	t    *Stack
	id   stack.TransportEndpointID
	c    *gonet.UDPConn
	idle time.Duration
	once sync.Once
}

// takeUDP runs in the device's read loop.
func (t *Stack) takeUDP(r *udp.ForwarderRequest) bool {
	t.mu.Lock()
	room := t.udp < maxUDP
	if room {
		t.udp++
	}
	t.mu.Unlock()
	if !room {
		return true // dropped
	}
	f := &UDPFlow{t: t, id: r.ID(), idle: udpIdle}
	if f.id.LocalPort == 53 {
		f.idle = dnsIdle
	}
	var wq waiter.Queue
	ep, terr := r.CreateEndpoint(&wq)
	if terr != nil {
		t.udpEnded()
		return true
	}
	f.c = gonet.NewUDPConn(&wq, ep)
	if !t.spawn(func() { t.h.UDP(t.ctx, f); f.Close() }) {
		f.Close()
	}
	return true
}

func (t *Stack) udpEnded() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.udp--
}

// Src is the program's end.
func (f *UDPFlow) Src() netip.AddrPort { return addrPort(f.id.RemoteAddress, f.id.RemotePort) }

// Dst is the peer that the program sends to.
func (f *UDPFlow) Dst() netip.AddrPort { return addrPort(f.id.LocalAddress, f.id.LocalPort) }

// Read waits for the program's next datagram. It fails with a timeout when the
// flow has been idle both ways.
func (f *UDPFlow) Read(p []byte) (int, error) {
	_ = f.c.SetReadDeadline(time.Now().Add(f.idle))
	return f.c.Read(p)
}

// Write sends a datagram to the program.
func (f *UDPFlow) Write(p []byte) (int, error) {
	_ = f.c.SetReadDeadline(time.Now().Add(f.idle))
	return f.c.Write(p)
}

// Unreachable tells the program that errno is what its datagrams meet: on a
// connected socket its next call fails with it.
func (f *UDPFlow) Unreachable(errno syscall.Errno) {
	code := icmpPort
	switch errno {
	case syscall.EHOSTUNREACH, syscall.EHOSTDOWN, syscall.ETIMEDOUT:
		code = icmpHost
	case syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT, syscall.EINVAL:
		code = icmpNet
	case syscall.EACCES, syscall.EPERM:
		code = icmpProhibited
	}
	h := make(header.UDP, header.UDPMinimumSize)
	h.Encode(&header.UDPFields{SrcPort: f.id.RemotePort, DstPort: f.id.LocalPort, Length: header.UDPMinimumSize})
	f.t.unreachable(f.id, append(ipHeader(f.id.RemoteAddress, f.id.LocalAddress, len(h)), h...), code)
}

// Close ends the flow. The program's next datagram begins a new one.
func (f *UDPFlow) Close() error {
	err := net.ErrClosed
	f.once.Do(func() {
		err = f.c.Close()
		f.t.udpEnded()
	})
	return err
}
