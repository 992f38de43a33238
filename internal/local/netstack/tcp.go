package netstack

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// TCPFlow is a connection attempt of the program. One of Accept and Refuse is
// to be called, by the handler's goroutine; when it returns without,
// the attempt is refused with a reset.
type TCPFlow struct {
	t        *Stack
	r        *tcp.ForwarderRequest
	id       stack.TransportEndpointID
	answered bool
	accepted bool // the memory is the connection's
}

// Src is the program's end.
func (f *TCPFlow) Src() netip.AddrPort { return addrPort(f.id.RemoteAddress, f.id.RemotePort) }

// Dst is what the program connects to.
func (f *TCPFlow) Dst() netip.AddrPort { return addrPort(f.id.LocalAddress, f.id.LocalPort) }

// takeSegment sees each segment that belongs to no connection, in the device's
// read loop. It tells whether it took it; the stack resets the others.
func (t *Stack) takeSegment(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := header.TCP(pkt.TransportHeader().Slice())
	if len(h) < header.TCPMinimumSize || h.Flags()&(header.TCPFlagSyn|header.TCPFlagAck) != header.TCPFlagSyn {
		return false
	}
	quote := append(append([]byte(nil), pkt.NetworkHeader().Slice()...), h[:header.TCPMinimumSize]...)
	t.mu.Lock()
	_, waiting := t.attempts[id]
	room := len(t.attempts) < maxDialing
	if waiting || room {
		t.attempts[id] = quote // of the latest: the program may have begun anew from the same port
	}
	t.mu.Unlock()
	if waiting || !room {
		return true
	}
	if t.forwarder.HandlePacket(id, pkt) {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.attempts, id)
	return false
}

// takeTCP runs for every connection attempt, in a goroutine of the forwarder.
func (t *Stack) takeTCP(r *tcp.ForwarderRequest) {
	f := &TCPFlow{t: t, r: r, id: r.ID()}
	if !t.memory.Connections.Take(ConnCost) {
		f.complete(false) // silence: the program's kernel asks again
		return
	}
	serve := func() {
		t.h.TCP(t.ctx, f)
		if !f.answered {
			f.Refuse(syscall.ECONNREFUSED)
		}
		if !f.accepted {
			t.memory.Connections.Give(ConnCost)
		}
	}
	if !t.spawn(serve) {
		t.memory.Connections.Give(ConnCost)
		f.complete(true)
	}
}

// complete ends the attempt and gives its headers to quote. The program may
// answer a reset with its next attempt from the same port at once: it waits
// for the lock, and then finds room here and in the forwarder.
func (f *TCPFlow) complete(reset bool) []byte {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	quote := f.t.attempts[f.id]
	delete(f.t.attempts, f.id)
	f.r.Complete(reset)
	return quote
}

// Accept completes the program's handshake. The connection has the methods of
// Conn. It fails when the program has given up meanwhile, and with
// net.ErrClosed after the end of the stack.
func (f *TCPFlow) Accept() (net.Conn, error) {
	f.answered = true
	var wq waiter.Queue
	finished, woken := make(chan struct{}), make(chan struct{})
	stop := context.AfterFunc(f.t.ctx, func() {
		defer close(woken)
		wake(&wq, finished)
	})
	ep, terr := f.r.CreateEndpoint(&wq)
	close(finished)
	if !stop() {
		<-woken
	}
	f.complete(false)
	if terr != nil {
		if f.t.ctx.Err() != nil {
			return nil, net.ErrClosed
		}
		return nil, syscall.ECONNABORTED
	}
	f.accepted = true
	return f.t.newConn(&wq, ep)
}

// wake ends a handshake that waits in CreateEndpoint. The closed stack would
// let it wait for its last retransmission, as it reads no packets any more. The
// queue has an entry as soon as CreateEndpoint has begun.
func wake(wq *waiter.Queue, finished <-chan struct{}) {
	for wq.IsEmpty() {
		select {
		case <-finished:
			return
		default:
			runtime.Gosched()
		}
	}
	wq.Notify(waiter.WritableEvents)
}

// Refuse makes the program's connect fail with errno, as closely as packets
// can say it: EHOSTUNREACH, ENETUNREACH and EACCES by ICMP (over IPv4 EACCES
// becomes EHOSTUNREACH), ETIMEDOUT by silence, anything else by a reset, which
// is ECONNREFUSED. After silence a program whose kernel is more patient asks
// again, and that is another attempt.
func (f *TCPFlow) Refuse(errno syscall.Errno) {
	f.answered = true
	if errno == syscall.ETIMEDOUT {
		f.complete(false)
		return
	}
	code, ok := icmpFor(errno)
	quote := f.complete(!ok)
	if ok && quote != nil {
		f.t.device.unreachable(f.id.RemoteAddress, f.id.LocalAddress, quote, code)
	}
}

func addrPort(a tcpip.Address, port uint16) netip.AddrPort {
	ip, _ := netip.AddrFromSlice(a.AsSlice())
	return netip.AddrPortFrom(ip, port)
}
