// Package netstack turns the packets of a sandbox's network device into flows
// with addresses, and opens connections into the sandbox.
//
// The session gives it the device's descriptor, a TUN or a packet socket, and two
// handlers. It is a user-space
// TCP/IP stack (gVisor's) that answers for every address: each connection
// attempt of the program becomes a TCPFlow that waits for its answer, each UDP
// 5-tuple a UDPFlow. It touches nothing but the descriptor and needs no
// privilege. Packets are trusted no further than a network's: what does not
// parse is dropped.
//
// Hazards. An ICMP error must quote the exact sequence number of the SYN, or
// the kernel ignores it: SYN headers are remembered until their flow is
// answered. Silence is the only way to make connect fail with ETIMEDOUT: when, the
// program's kernel decides (tcp_syn_retries of the sandbox). Over IPv4 Linux wakes the program a moment before it stores an ICMP
// error, so SO_ERROR may be 0 once more, as with any router's. Checksums of
// TCP and UDP are neither filled in nor verified: packets never leave this
// machine's memory (virtio_net_hdr, NEEDS_CSUM). The stack would answer ICMP
// echo for every address: requests are taken in front of it.
package netstack

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

const (
	nic = 1
	// maxDialing bounds connection attempts that wait for their answer; more
	// are dropped, and the program's kernel sends its SYN again.
	maxDialing = 4096
	// maxUDP bounds UDP flows; one more ends the one that has been idle longest,
	// as address translators do. Nothing tells when the program has closed its
	// socket, and each lookup is a flow. They are fewer than the link has streams:
	// with more, a new connection would fail for flows that nobody uses any more.
	maxUDP = 2048
	// udpIdle is how long a UDP flow lives without a datagram either way;
	// lookups are over sooner.
	udpIdle, dnsIdle = 60 * time.Second, 10 * time.Second
	// bufferMin, bufferSize and bufferMax are the limits in bytes of a
	// connection's receive and send buffers, filled only by data in flight. On a
	// path through memory a large fixed window costs nothing and saves the
	// learning; with many connections each gets less (memory.go).
	bufferMin, bufferSize, bufferMax = 4 << 10, 1 << 20, 4 << 20
	// timeWait is none: no packet wanders on a path through memory, and the
	// stack would leave the next connection from the same port unanswered.
	timeWait = 0
)

// Handler answers flows. Each call has a goroutine of its own; ctx ends with
// the stack.
type Handler struct {
	TCP func(ctx context.Context, f *TCPFlow)
	UDP func(ctx context.Context, f *UDPFlow)
	// Echo is for ICMP echo requests. nil: they are answered "prohibited".
	Echo func(ctx context.Context, f *EchoFlow)
	// Stray is told of packets that nobody carries. It runs in the device's read
	// loop: it must not wait. Optional.
	Stray func(Stray)
}

// Stack is the network of one sandbox. Its methods may be called concurrently.
type Stack struct {
	s         *stack.Stack
	device    *device
	forwarder *tcp.Forwarder
	h         Handler
	memory    Memory
	ctx       context.Context // alive until Close
	cancel    context.CancelFunc
	close     func() error   // end, once
	wg        sync.WaitGroup // handlers and dials

	mu       sync.Mutex                           // guards what follows
	attempts map[stack.TransportEndpointID][]byte // connections that wait for their answer: headers of the SYN
	udp      list.List                            // of *UDPFlow; the front has been idle longest
	echoes   map[echoID]*EchoFlow
	closed   bool
}

// New takes over device and serves it until Close. It closes device when it
// fails, too. That is a TUN opened with IFF_TUN|IFF_NO_PI|IFF_VNET_HDR and
// TUN_F_CSUM, or, with an address, a packet socket (SOCK_RAW, PACKET_VNET_HDR) on
// the other end of a veth pair: the address is that of the program's end, which
// must not send more than one segment in a packet (IFLA_GSO_MAX_SEGS).
func New(device *os.File, address net.HardwareAddr, h Handler, memory Memory) (*Stack, error) {
	d, err := newDevice(device, address)
	if err != nil {
		return nil, err
	}
	t := &Stack{device: d, h: h, memory: memory, attempts: map[stack.TransportEndpointID][]byte{}, echoes: map[echoID]*EchoFlow{}}
	d.take = func(pkt []byte) bool { return t.takeStray(pkt) || t.takeEcho(pkt) }
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.close = sync.OnceValue(t.end)
	t.s = stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{
			// Where routes bring the sandbox's localhost here, it comes as 127.0.0.0/8.
			ipv4.NewProtocolWithOptions(ipv4.Options{AllowExternalLoopbackTraffic: true}), ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	if err := t.configure(); err != nil {
		t.cancel()
		_ = d.end()
		t.s.Destroy()
		return nil, fmt.Errorf("set up the network stack: %w", err)
	}
	d.serve()
	return t, nil
}

func (t *Stack) configure() error {
	sack := tcpip.TCPSACKEnabled(true)
	moderate := tcpip.TCPModerateReceiveBufferOption(false)
	delay := tcpip.TCPDelayEnabled(false)
	recovery := tcpip.TCPRecovery(0) // RACK's timers cost throughput, and nothing reorders here
	congestion := tcpip.CongestionControlOption("reno")
	linger := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	for _, o := range []tcpip.SettableTransportProtocolOption{
		&sack, &moderate, &delay, &recovery, &congestion, &linger,
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: bufferMin, Default: bufferSize, Max: bufferMax},
		&tcpip.TCPSendBufferSizeRangeOption{Min: bufferMin, Default: bufferSize, Max: bufferMax},
	} {
		if terr := t.s.SetTransportProtocolOption(tcp.ProtocolNumber, o); terr != nil {
			return errors.New(terr.String())
		}
	}
	t.forwarder = tcp.NewForwarder(t.s, bufferSize, maxDialing, t.takeTCP)
	t.s.SetTransportProtocolHandler(tcp.ProtocolNumber, t.takeSegment)
	t.s.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(t.s, t.takeUDP).HandlePacket)
	if terr := t.s.CreateNIC(nic, t.device); terr != nil {
		return errors.New(terr.String())
	}
	// The stack answers for every address and sends from every address.
	t.s.SetPromiscuousMode(nic, true)
	t.s.SetSpoofing(nic, true)
	t.s.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nic},
		{Destination: header.IPv6EmptySubnet, NIC: nic},
	})
	return nil
}

// begin tells whether the stack is open, and keeps Close waiting until
// wg.Done if so.
func (t *Stack) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Add(1)
	return true
}

// spawn runs f unless the stack is closed.
func (t *Stack) spawn(f func()) bool {
	if !t.begin() {
		return false
	}
	go func() {
		defer t.wg.Done()
		f()
	}()
	return true
}

// Close resets every connection, those of Dial too, ends every flow, and
// returns when all handlers have returned.
func (t *Stack) Close() error { return t.close() }

func (t *Stack) end() error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
	t.s.Close() // aborts the endpoints, so that handlers see errors
	t.wg.Wait()
	err := t.device.end()
	t.s.Destroy()
	return err
}
