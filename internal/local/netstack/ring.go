package netstack

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
)

// The ring of a packet socket (PACKET_RX_RING, kernel
// Documentation/networking/packet_mmap.rst). The socket's own queue is bounded
// by net.core.rmem_max, by default six packets of 64 KiB: several uploads at
// once lost most of theirs.
const (
	// ringFrame is the room in bytes of one packet: header, addresses, the
	// virtio_net_hdr and the largest packet of IP.
	ringFrame = 65664
	// ringBlock in bytes is what the kernel allocates at once.
	ringBlock = 1 << 20
	// ringBlocks of them hold 255 packets, half of what waits before a TUN.
	ringBlocks = 17
)

// ring is where the kernel puts packets, one after another.
type ring struct {
	memory []byte
	next   int // packet, from 0
}

// newRing gives a packet socket its ring. What waits in the socket is lost.
func newRing(fd int) (*ring, error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2); err != nil {
		return nil, fmt.Errorf("version of the packet ring: %w", err)
	}
	const frames = ringBlock / ringFrame * ringBlocks
	req := unix.TpacketReq{Block_size: ringBlock, Block_nr: ringBlocks, Frame_size: ringFrame, Frame_nr: frames}
	if err := unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return nil, fmt.Errorf("make the packet ring: %w", err)
	}
	memory, err := unix.Mmap(fd, 0, ringBlock*ringBlocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the packet ring: %w", err)
	}
	return &ring{memory: memory}, nil
}

// frame is the next packet's room.
func (r *ring) frame() []byte {
	const perBlock = ringBlock / ringFrame
	at := r.next/perBlock*ringBlock + r.next%perBlock*ringFrame
	return r.memory[at : at+ringFrame : at+ringFrame]
}

func header2(frame []byte) *unix.Tpacket2Hdr { return (*unix.Tpacket2Hdr)(unsafe.Pointer(&frame[0])) }

// ready tells whether there is a packet.
func (r *ring) ready() bool {
	return atomic.LoadUint32(&header2(r.frame()).Status)&unix.TP_STATUS_USER != 0
}

// take copies the packet that is ready, without what stands before its IP
// header, and gives its room back to the kernel.
func (r *ring) take() *buffer.View {
	frame := r.frame()
	h := header2(frame)
	v := buffer.NewViewWithData(frame[h.Net : uint32(h.Mac)+h.Snaplen])
	atomic.StoreUint32(&h.Status, unix.TP_STATUS_KERNEL)
	r.next = (r.next + 1) % (ringBlock / ringFrame * ringBlocks)
	return v
}

func (r *ring) close() error { return unix.Munmap(r.memory) }
