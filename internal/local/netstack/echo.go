package netstack

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const (
	// maxEchoes bounds the programs and addresses that are pinged at a time; the
	// requests of more are lost.
	maxEchoes = 256
	// echoQueue is how many requests may wait to be read; more are lost.
	echoQueue = 16
	// maxEcho is the largest request that is carried, in bytes of ICMP: the largest
	// payload of IPv4. ping(8) sends 64 unless told.
	maxEcho = 1<<16 - 1 - header.IPv4MinimumSize
	// echoCost is what a flow is counted as, in bytes, besides the requests that
	// wait: its handler's buffer for one of any length, and stacks.
	echoCost = 72 << 10
	// echoIdle is how long a flow lives without a request: longer than the pause
	// between two of ping(8).
	echoIdle = 10 * time.Second
	// echoHeader is that of an echo message in both families, in bytes: type, code,
	// checksum, identifier, sequence number (RFC 792, RFC 4443).
	echoHeader = header.ICMPv4MinimumSize
)

// echoID tells flows apart: by program, address and identifier, which is that
// of a socket or chosen by the program.
type echoID struct {
	program, peer tcpip.Address
	id            uint16
}

// EchoFlow is the ICMP echo requests of one program to one address, and their
// replies. It ends when nothing has been asked for some time, or by Close. Its
// methods may be called concurrently.
type EchoFlow struct {
	t        *Stack
	id       echoID
	requests chan []byte // ICMP messages
	done     chan struct{}
	once     sync.Once

	mu    sync.Mutex
	last  []byte // IP and ICMP header of the last request
	ended bool   // nothing goes into requests any more
}

// takeEcho takes a packet if it is an echo request. Nobody has asked the
// target's network yet whether the address answers: a reply would be a lie, and
// silence one as well. It runs in the device's read loop.
func (t *Stack) takeEcho(pkt []byte) bool {
	id, ip, ok := echoRequest(pkt)
	if !ok {
		return inFragments(pkt)
	}
	if t.h.Echo == nil {
		t.device.unreachable(id.program, id.peer, pkt[:ip+echoHeader], icmpProhibited)
		return true
	}
	if len(pkt)-ip > maxEcho || inFragments(pkt) {
		return true // lost
	}
	t.mu.Lock()
	f := t.echoes[id]
	made := f == nil && len(t.echoes) < maxEchoes && t.memory.Datagrams.Take(echoCost)
	if made {
		f = &EchoFlow{t: t, id: id, requests: make(chan []byte, echoQueue), done: make(chan struct{})}
		t.echoes[id] = f
	}
	t.mu.Unlock()
	if f == nil {
		return true // lost
	}
	f.ask(pkt, ip)
	if made && !t.spawn(func() { t.h.Echo(t.ctx, f); f.Close() }) {
		f.Close()
	}
	return true
}

// ask queues the request of a packet, if there is room; else it is lost.
func (f *EchoFlow) ask(pkt []byte, ip int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = append([]byte(nil), pkt[:ip+echoHeader]...)
	if f.ended || !f.t.memory.Datagrams.Take(len(pkt)-ip) {
		return
	}
	select {
	case f.requests <- append([]byte(nil), pkt[ip:]...):
	default:
		f.t.memory.Datagrams.Give(len(pkt) - ip)
	}
}

// echoRequest tells whose request a packet is, and the length of its IP header.
func echoRequest(pkt []byte) (id echoID, ipHeader int, ok bool) {
	if ip := header.IPv4(pkt); pkt[0]>>4 == 4 {
		if !ip.IsValid(len(pkt)) || ip.TransportProtocol() != header.ICMPv4ProtocolNumber || ip.FragmentOffset() != 0 {
			return id, 0, false
		}
		h := header.ICMPv4(ip.Payload())
		if len(h) < echoHeader || h.Type() != header.ICMPv4Echo {
			return id, 0, false
		}
		return echoID{ip.SourceAddress(), ip.DestinationAddress(), h.Ident()}, int(ip.HeaderLength()), true
	}
	ip := header.IPv6(pkt)
	if !ip.IsValid(len(pkt)) || ip.TransportProtocol() != header.ICMPv6ProtocolNumber {
		return id, 0, false
	}
	h := header.ICMPv6(ip.Payload())
	if len(h) < header.ICMPv6EchoMinimumSize || h.Type() != header.ICMPv6EchoRequest {
		return id, 0, false
	}
	return echoID{ip.SourceAddress(), ip.DestinationAddress(), h.Ident()}, header.IPv6MinimumSize, true
}

// inFragments reports whether a packet is a part of an ICMP message that is
// longer than the device's MTU. The stack would put them together, and answer.
func inFragments(pkt []byte) bool {
	if pkt[0]>>4 == 4 {
		ip := header.IPv4(pkt)
		return ip.IsValid(len(pkt)) && ip.TransportProtocol() == header.ICMPv4ProtocolNumber && (ip.FragmentOffset() != 0 || ip.More())
	}
	ip := header.IPv6(pkt)
	return ip.IsValid(len(pkt)) && ip.TransportProtocol() == header.IPv6FragmentHeader && len(ip.Payload()) > 0 && ip.Payload()[0] == uint8(header.ICMPv6ProtocolNumber)
}

// Src is the program's address; the port is 0.
func (f *EchoFlow) Src() netip.AddrPort { return addrPort(f.id.program, 0) }

// Dst is the address that is asked; the port is 0.
func (f *EchoFlow) Dst() netip.AddrPort { return addrPort(f.id.peer, 0) }

// Read waits for the program's next request and gives the whole ICMP message.
// It fails with a timeout when there has been none for long, and with
// net.ErrClosed after the flow's end.
func (f *EchoFlow) Read(p []byte) (int, error) {
	idle := time.NewTimer(echoIdle)
	defer idle.Stop()
	select {
	case m := <-f.requests:
		f.t.memory.Datagrams.Give(len(m))
		return copy(p, m), nil
	case <-f.done:
		return 0, net.ErrClosed
	case <-f.t.ctx.Done():
		return 0, net.ErrClosed
	case <-idle.C:
		return 0, os.ErrDeadlineExceeded
	}
}

// Write gives the program a reply: an ICMP message whose identifier and
// checksum are put right. What is no echo reply is dropped.
func (f *EchoFlow) Write(p []byte) (int, error) {
	select {
	case <-f.done:
		return 0, net.ErrClosed
	default:
	}
	four := f.id.peer.Len() == header.IPv4AddressSize
	want := byte(header.ICMPv6EchoReply)
	if four {
		want = byte(header.ICMPv4EchoReply)
	}
	if len(p) < echoHeader || len(p) > maxEcho || p[0] != want {
		return len(p), nil
	}
	f.t.device.writeRaw(f.reply(p, four))
	return len(p), nil
}

// reply is the packet with message p.
func (f *EchoFlow) reply(p []byte, four bool) []byte {
	const identAt, checksumAt = 4, 2
	var pkt, message []byte
	if four {
		pkt = append(make([]byte, header.IPv4MinimumSize), p...)
		ip := header.IPv4(pkt)
		ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(pkt)), TTL: 64, Protocol: uint8(header.ICMPv4ProtocolNumber),
			SrcAddr: f.id.peer, DstAddr: f.id.program})
		ip.SetChecksum(^ip.CalculateChecksum())
		message = pkt[header.IPv4MinimumSize:]
	} else {
		pkt = append(make([]byte, header.IPv6MinimumSize), p...)
		header.IPv6(pkt).Encode(&header.IPv6Fields{PayloadLength: uint16(len(p)), HopLimit: 64,
			TransportProtocol: header.ICMPv6ProtocolNumber, SrcAddr: f.id.peer, DstAddr: f.id.program})
		message = pkt[header.IPv6MinimumSize:]
	}
	binary.BigEndian.PutUint16(message[identAt:], f.id.id)
	binary.BigEndian.PutUint16(message[checksumAt:], 0)
	if four {
		h := header.ICMPv4(message)
		h.SetChecksum(header.ICMPv4Checksum(h, 0))
	} else {
		h := header.ICMPv6(message)
		h.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: h, Src: f.id.peer, Dst: f.id.program}))
	}
	return pkt
}

// Unreachable tells the program that errno is what its last request met.
func (f *EchoFlow) Unreachable(errno syscall.Errno) {
	code, _ := icmpFor(errno)
	if code == icmpPort { // nothing has a port here
		code = icmpHost
	}
	f.mu.Lock()
	last := f.last
	f.mu.Unlock()
	f.t.device.unreachable(f.id.program, f.id.peer, last, code)
}

// Close ends the flow. The program's next request begins a new one.
func (f *EchoFlow) Close() error {
	err := net.ErrClosed
	f.once.Do(func() {
		f.t.mu.Lock()
		delete(f.t.echoes, f.id)
		f.t.mu.Unlock()
		close(f.done)
		f.mu.Lock()
		f.ended = true
		f.mu.Unlock()
		held := echoCost
		for len(f.requests) > 0 {
			select {
			case m := <-f.requests:
				held += len(m)
			default: // its reader has it
			}
		}
		f.t.memory.Datagrams.Give(held)
		err = nil
	})
	return err
}
