package capture

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// blockSize and blocks make a ring of 8 MiB: 10 ms of traffic at 6 Gbit/s,
	// a tenth of what an agent may use in all.
	blockSize, blocks = 1 << 19, 16
	// frameSize only has to divide blockSize in TPACKET_V3.
	frameSize = 2048
	// retireTime is how long the kernel waits with a block that is not full, in
	// milliseconds.
	retireTime = 4
	// wholePacket is what the filter says for "keep all": more than any packet.
	wholePacket = 1 << 18
)

// ring is a TPACKET_V3 receive ring (Documentation/networking/packet_mmap.rst):
// the kernel writes packets into shared memory.
type ring struct {
	fd   int
	but  Marks
	mem  []byte
	wake *os.File // eventfd that ends read
	once sync.Once
}

// openRing makes a ring in the calling thread's network namespace. Until watch
// it sees nothing.
func openRing(but Marks) (_ *ring, err error) {
	// Protocol 0: nothing arrives before filter and ring are there and bind
	// names the protocol. SOCK_DGRAM: packets begin at the IP header on every
	// kind of interface.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	r := &ring{fd: fd, but: but}
	defer func() {
		if err != nil {
			_ = r.close()
		}
	}()
	if err := r.watch(nil); err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return nil, fmt.Errorf("ignore outgoing packets: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return nil, fmt.Errorf("packet version 3: %w", err)
	}
	req := unix.TpacketReq3{Block_size: blockSize, Block_nr: blocks, Frame_size: frameSize,
		Frame_nr: blockSize / frameSize * blocks, Retire_blk_tov: retireTime}
	if err := unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return nil, fmt.Errorf("packet ring: %w", err)
	}
	if r.mem, err = unix.Mmap(fd, 0, blockSize*blocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map the packet ring: %w", err)
	}
	efd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	r.wake = os.NewFile(uintptr(efd), "wake")
	const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8 // network byte order
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all}); err != nil {
		return nil, fmt.Errorf("bind the packet socket: %w", err)
	}
	return r, nil
}

// watch replaces the kernel's filter: from now on, TCP packets to these ports.
func (r *ring) watch(ports []uint16) error {
	prog := append(r.but.Except(), filter(unix.IPPROTO_TCP, ports)...)
	return os.NewSyscallError("attach the packet filter",
		unix.SetsockoptSockFprog(r.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}))
}

// Except begins a filter that takes no packet with such a mark.
func (m Marks) Except() []unix.SockFilter {
	if m.Mask == 0 {
		return nil
	}
	const mark = 1<<32 - 0x1000 + 20 // SKF_AD_OFF + SKF_AD_MARK, linux/filter.h
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: mark},
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: m.Mask},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: m.Value, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
}

// filter accepts packets of a protocol to the ports: of IPv4 without later
// fragments, IPv6 without extension headers.
func filter(protocol uint32, ports []uint16) []unix.SockFilter {
	const (
		loadByte  = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
		loadHalf  = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS
		loadAtX   = unix.BPF_LD | unix.BPF_H | unix.BPF_IND
		headerLen = unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH
		and       = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
		equal     = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		anySet    = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		jump      = unix.BPF_JMP | unix.BPF_JA
		ret       = unix.BPF_RET | unix.BPF_K
	)
	prog := []unix.SockFilter{
		0:  {Code: loadByte, K: 0},
		1:  {Code: and, K: 0xf0},
		2:  {Code: equal, K: 0x40, Jf: 7},      // IPv4, else 10
		3:  {Code: loadByte, K: 9},             // protocol
		4:  {Code: equal, K: protocol, Jf: 10}, // else 15
		5:  {Code: loadHalf, K: 6},             // fragment offset
		6:  {Code: anySet, K: 0x1fff, Jt: 8},   // a later fragment: 15
		7:  {Code: headerLen, K: 0},            //
		8:  {Code: loadAtX, K: 2},              // destination port
		9:  {Code: jump, K: 6},                 // 16
		10: {Code: equal, K: 0x60, Jf: 4},      // IPv6, else 15
		11: {Code: loadByte, K: 6},             // next header
		12: {Code: equal, K: protocol, Jf: 2},  // else 15
		13: {Code: loadHalf, K: 42},            // destination port
		14: {Code: jump, K: 1},                 // 16
		15: {Code: ret, K: 0},
	}
	for i, p := range ports {
		prog = append(prog, unix.SockFilter{Code: equal, K: uint32(p), Jt: uint8(len(ports) - i)})
	}
	return append(prog, unix.SockFilter{Code: ret, K: 0}, unix.SockFilter{Code: ret, K: wholePacket})
}

// read hands every packet, from the IP header on, to handle, until stop, and
// whether it came by the loopback interface. The memory is the kernel's again when
// handle returns.
func (r *ring) read(handle func(pkt []byte, loops bool)) error {
	for n := 0; ; n = (n + 1) % blocks {
		block := r.mem[n*blockSize : (n+1)*blockSize]
		desc := (*unix.TpacketBlockDesc)(unsafe.Pointer(&block[0]))
		head := (*unix.TpacketHdrV1)(unsafe.Pointer(&desc.Hdr[0]))
		for atomic.LoadUint32(&head.Block_status)&unix.TP_STATUS_USER == 0 {
			p := []unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN | unix.POLLERR}, {Fd: int32(r.wake.Fd()), Events: unix.POLLIN}}
			if _, err := unix.Poll(p, -1); err != nil && err != unix.EINTR {
				return err
			}
			if p[1].Revents != 0 {
				return nil
			}
		}
		off := head.Offset_to_first_pkt
		for range head.Num_pkts {
			pkt := (*unix.Tpacket3Hdr)(unsafe.Pointer(&block[off]))
			start := off + uint32(pkt.Net)
			// Behind the header, aligned, is where the packet came in (packet_mmap.rst).
			from := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&block[off+unix.SizeofTpacket3Hdr]))
			handle(block[start:start+pkt.Snaplen], from.Hatype == unix.ARPHRD_LOOPBACK)
			off += pkt.Next_offset
		}
		atomic.StoreUint32(&head.Block_status, unix.TP_STATUS_KERNEL)
	}
}

// stop ends read.
func (r *ring) stop() { _, _ = r.wake.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// dropped is the number of packets since the last call that the ring had no
// room for.
func (r *ring) dropped() int64 {
	s, err := unix.GetsockoptTpacketStatsV3(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0
	}
	return int64(s.Drops)
}

// close lets the memory go; read must have ended.
func (r *ring) close() (err error) {
	r.once.Do(func() {
		if r.mem != nil {
			_ = unix.Munmap(r.mem)
		}
		if r.wake != nil {
			r.wake.Close()
		}
		err = unix.Close(r.fd)
	})
	return err
}
