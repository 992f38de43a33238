package netstack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// mtu is what the stack may send in one packet: an IPv6 header and the
	// largest payload, more than the device's own MTU, which the kernel heeds in
	// its direction only. So no datagram is ever cut into fragments, whose
	// checksum nobody could leave to the kernel.
	mtu = header.IPv6MinimumSize + header.IPv6MaximumPayloadSize
	// vnetHeader is the length in bytes of struct virtio_net_hdr, which stands
	// before each packet (IFF_VNET_HDR, PACKET_VNET_HDR; linux/virtio_net.h).
	vnetHeader = 10
	// etherHeader is that of the Ethernet header, which follows in a packet
	// socket: destination, source, EtherType (IEEE 802.3, 3.1.1).
	etherHeader = 14
	// largest is a read buffer for any packet with its header.
	largest = 1 << 16
	// smallCopy is the size in bytes up to which a packet is copied into a
	// buffer of its own size: what waits to be read takes at most twice its
	// size, and an ACK does not pin 64 KiB.
	smallCopy = 32 << 10
	// headers is the size in bytes of a piece that the headers of a packet lie in:
	// those of IP and TCP with all their options have 120.
	headers = 128
)

// device is gVisor's view of a TUN descriptor or a packet socket.
type device struct {
	file *os.File
	raw  syscall.RawConn
	disp atomic.Pointer[stack.NetworkDispatcher]
	wg   sync.WaitGroup // the read loop

	take func(pkt []byte) bool // takes a packet that is not the stack's; set before serve

	ring         *ring  // of a packet socket; nil: packets are read
	head4, head6 []byte // what is written before a packet without an offload
}

// newDevice takes over file.
func newDevice(file *os.File, to net.HardwareAddr) (*device, error) {
	defer file.Close()
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("duplicate the device's descriptor: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make the device's descriptor non-blocking: %w", err)
	}
	d := &device{file: os.NewFile(uintptr(fd), "device")} // non-blocking: served by the runtime's poller
	d.head4, d.head6 = heads(to)
	if d.raw, err = d.file.SyscallConn(); err == nil && to != nil {
		d.ring, err = newRing(fd)
	}
	if err != nil {
		d.file.Close()
		return nil, err
	}
	return d, nil
}

// heads are what stands before IP packets of version 4 and 6 without an
// offload, as written to a packet socket that sends to this address, or to a
// TUN if there is none.
func heads(to net.HardwareAddr) (four, six []byte) {
	empty := make([]byte, vnetHeader)
	if to == nil {
		return empty, empty
	}
	// The source stays zero: nobody answers to it.
	empty = append(append(empty, to...), make([]byte, len(to))...)
	return binary.BigEndian.AppendUint16(slices.Clone(empty), unix.ETH_P_IP), binary.BigEndian.AppendUint16(slices.Clone(empty), unix.ETH_P_IPV6)
}

// Attach implements stack.LinkEndpoint.
func (d *device) Attach(disp stack.NetworkDispatcher) {
	if disp == nil {
		d.disp.Store(nil)
		return
	}
	d.disp.Store(&disp)
}

// serve starts the read loop. The stack must be complete: packets may have
// been waiting for long.
func (d *device) serve() { d.wg.Go(d.read) }

// end stops the read loop and closes the descriptor.
func (d *device) end() error {
	err := d.file.Close()
	d.wg.Wait()
	if d.ring != nil {
		err = errors.Join(err, d.ring.close())
	}
	return err
}

func (d *device) read() {
	if d.ring != nil {
		d.readRing()
		return
	}
	view := buffer.NewViewSize(largest)
	for {
		var n int
		var err error
		rerr := d.raw.Read(func(fd uintptr) bool {
			n, err = unix.Read(int(fd), view.AsSlice())
			return err != unix.EAGAIN
		})
		if rerr != nil || n == 0 || err != nil && err != unix.EINTR {
			return
		}
		if n <= vnetHeader {
			continue
		}
		var v *buffer.View
		if n <= smallCopy {
			v = buffer.NewViewWithData(view.AsSlice()[vnetHeader:n])
		} else {
			v, view = view, buffer.NewViewSize(largest)
			v.CapLength(n)
			v.TrimFront(vnetHeader)
		}
		if !d.deliver(v) {
			return
		}
	}
}

// readRing is read for a packet socket.
func (d *device) readRing() {
	for {
		if err := d.raw.Read(func(uintptr) bool { return d.ring.ready() }); err != nil {
			return
		}
		for d.ring.ready() {
			if !d.deliver(d.ring.take()) {
				return
			}
		}
	}
}

// deliver gives the stack a packet, or loses it. It tells whether there is a
// stack.
func (d *device) deliver(v *buffer.View) bool {
	disp := d.disp.Load()
	if disp == nil {
		return false
	}
	if v.Size() == 0 {
		return true
	}
	var proto tcpip.NetworkProtocolNumber
	switch v.AsSlice()[0] >> 4 {
	case 4:
		proto = header.IPv4ProtocolNumber
	case 6:
		proto = header.IPv6ProtocolNumber
	default:
		return true
	}
	if d.take(v.AsSlice()) {
		return true
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: packet(v)})
	(*disp).DeliverNetworkPacket(proto, pkt)
	pkt.DecRef()
	return true
}

// packet puts the headers into a chunk of their own: the stack looks at them while it
// shares the packet with a connection's queue, and copies the chunk that they are in.
func packet(v *buffer.View) buffer.Buffer {
	if v.Size() <= 2*headers {
		return buffer.MakeWithView(v)
	}
	b := buffer.MakeWithData(v.AsSlice()[:headers])
	v.TrimFront(headers)
	_ = b.Append(v)
	return b
}

// WritePackets implements stack.LinkEndpoint.
func (d *device) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	var parts [8][]byte
	for n, pkt := range pkts.AsSlice() {
		ip := pkt.NetworkHeader().Slice()
		var buf [vnetHeader + etherHeader]byte
		head := append(buf[:0], d.head(ip)...)
		if off := checksumOffset(pkt.TransportProtocolNumber); off != 0 {
			head[0] = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM // the kernel trusts the payload then
			binary.NativeEndian.PutUint16(head[6:], uint16(len(head)-vnetHeader+len(ip)))
			binary.NativeEndian.PutUint16(head[8:], off)
			if pkt.TransportProtocolNumber == header.UDPProtocolNumber {
				partialUDP(pkt)
			}
		}
		if err := d.write(append(append(parts[:0], head), pkt.AsSlices()...)); err != nil {
			return n, &tcpip.ErrAborted{}
		}
	}
	return pkts.Len(), nil
}

// partialUDP fills in the checksum's part over the addresses, which gVisor
// leaves at 0: over IPv6 the kernel takes that for no checksum and drops the
// datagram (RFC 8200, 8.1).
func partialUDP(pkt *stack.PacketBuffer) {
	h := header.UDP(pkt.TransportHeader().Slice())
	net := pkt.Network()
	h.SetChecksum(header.PseudoHeaderChecksum(header.UDPProtocolNumber, net.SourceAddress(), net.DestinationAddress(), h.Length()))
}

// head is what is written before an IP packet; it is not to be changed.
func (d *device) head(ip []byte) []byte {
	if ip[0]>>4 == 6 {
		return d.head6
	}
	return d.head4
}

// write sends one packet. A full queue loses it, as a wire would, and so does a
// packet socket what is larger than the device takes (IPv6 beyond 64 KiB).
func (d *device) write(parts [][]byte) (err error) {
	cerr := d.raw.Control(func(fd uintptr) { _, err = unix.Writev(int(fd), parts) })
	if cerr != nil {
		return cerr
	}
	switch err {
	case unix.ENOBUFS, unix.EAGAIN, unix.EIO, unix.EINVAL, unix.EMSGSIZE:
		return nil
	}
	return err
}

// writeRaw sends a complete IP packet with its checksums filled in.
func (d *device) writeRaw(pkt []byte) { _ = d.write([][]byte{d.head(pkt), pkt}) }

func checksumOffset(p tcpip.TransportProtocolNumber) uint16 {
	switch p {
	case header.TCPProtocolNumber:
		return header.TCPChecksumOffset
	case header.UDPProtocolNumber:
		return 6 // RFC 768
	}
	return 0
}

// The rest of stack.LinkEndpoint: a device without a link layer.

func (d *device) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload | stack.CapabilityTXChecksumOffload
}
func (d *device) MTU() uint32                             { return mtu }
func (d *device) SetMTU(uint32)                           {}
func (d *device) MaxHeaderLength() uint16                 { return 0 }
func (d *device) LinkAddress() tcpip.LinkAddress          { return "" }
func (d *device) SetLinkAddress(tcpip.LinkAddress)        {}
func (d *device) IsAttached() bool                        { return d.disp.Load() != nil }
func (d *device) Wait()                                   {}
func (d *device) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (d *device) AddHeader(*stack.PacketBuffer)           {}
func (d *device) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (d *device) Close()                                  {}
func (d *device) SetOnCloseAction(func())                 {}
