package capture

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/agent/packet"
	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/udpflow"
)

const (
	// datagramBuffer is how much waits in the kernel, in bytes, as it counts them.
	datagramBuffer = 4 << 20
	// udpHeader is what stands before the payload, in bytes (RFC 768).
	udpHeader = 8
	// datagramIdle is how long a client's datagrams are one copy with nothing
	// said, and maxDatagramFlows how many of those there are.
	datagramIdle     = time.Minute
	maxDatagramFlows = 1024
)

// Datagrams copies the datagrams that clients send to a target's UDP ports, each
// client's as one read-only connection (*udpflow.Flow). What came in fragments is
// not put together: it is counted as lost.
type Datagrams struct {
	f     *os.File
	flows *udpflow.Table
	wg    sync.WaitGroup

	mu    sync.Mutex // guards what follows
	ports []uint16
	parts int64 // datagrams of which only a fragment came
	drops int64 // packets that the kernel had no room for
}

// OpenDatagrams makes a tap in the namespace that do runs functions in. It sees
// nothing until the first Add. What waits for readers is taken from held.
func OpenDatagrams(do func(func() error) error, held *budget.Share) (*Datagrams, error) {
	d := &Datagrams{flows: udpflow.New(udpflow.Options{Idle: datagramIdle, Max: maxDatagramFlows, Held: held})}
	err := do(func() error {
		// See openRing. A plain socket: there is no ring to be filled by bulk.
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("packet socket: %w", err)
		}
		d.f = os.NewFile(uintptr(fd), "packets")
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, datagramBuffer) // as much as is allowed
		if err := d.watch(nil); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			return os.NewSyscallError("ignore outgoing packets", err)
		}
		const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8 // network byte order
		return os.NewSyscallError("bind the packet socket", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all}))
	})
	if err != nil {
		if d.f != nil {
			d.f.Close()
		}
		return nil, fmt.Errorf("capture in the target's network: %w", err)
	}
	d.wg.Go(d.receive)
	return d, nil
}

// watch replaces the kernel's filter.
func (d *Datagrams) watch(ports []uint16) error {
	prog := filter(unix.IPPROTO_UDP, ports)
	return d.control(func(fd int) error {
		return os.NewSyscallError("attach the packet filter",
			unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}))
	})
}

func (d *Datagrams) control(f func(fd int) error) error {
	rc, err := d.f.SyscallConn()
	if err != nil {
		return err
	}
	return errors.Join(rc.Control(func(fd uintptr) { err = f(int(fd)) }), err)
}

// receive copies what comes until the socket is closed.
func (d *Datagrams) receive() {
	rc, err := d.f.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, wholePacket)
	for {
		n := 0
		waited := rc.Read(func(fd uintptr) bool {
			n, err = unix.Read(int(fd), buf)
			return err != unix.EAGAIN && err != unix.EINTR
		})
		switch {
		case waited != nil:
			return
		case err != nil: // an interface went down
			continue
		}
		client, local, payload, whole := datagram(buf[:n])
		if !whole {
			d.mu.Lock()
			d.parts++
			d.mu.Unlock()
			continue
		}
		d.flows.Deliver(client, local, payload)
	}
}

// datagram reads a packet; false: it is a part of one.
func datagram(b []byte) (client, local netip.AddrPort, payload []byte, whole bool) {
	client, local, udp, ok := packet.Cut(b, syscall.IPPROTO_UDP, udpHeader)
	if !ok {
		return client, local, nil, false
	}
	n := int(udp[4])<<8 | int(udp[5])
	if n < udpHeader || n > len(udp) {
		return client, local, nil, false
	}
	return client, local, udp[udpHeader:n], true
}

// Add watches port: datagrams that come after its return are copied.
func (d *Datagrams) Add(port uint16) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if slices.Contains(d.ports, port) {
		return nil
	}
	if len(d.ports) >= maxPorts {
		return fmt.Errorf("watch UDP port %d: %d ports are watched already: %w", port, maxPorts, unix.ENOSPC)
	}
	ports := append(slices.Clone(d.ports), port)
	if err := d.watch(ports); err != nil {
		return fmt.Errorf("watch UDP port %d: %w", port, err)
	}
	d.ports = ports
	return nil
}

// Remove ends the copies of port.
func (d *Datagrams) Remove(port uint16) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	ports := slices.DeleteFunc(slices.Clone(d.ports), func(p uint16) bool { return p == port })
	if len(ports) == len(d.ports) {
		return nil
	}
	d.ports = ports
	d.flows.Forget(port)
	return d.watch(ports)
}

// Accept waits for the next client's copy. After Close it fails with
// net.ErrClosed.
func (d *Datagrams) Accept(ctx context.Context) (net.Conn, error) { return d.flows.Accept(ctx) }

// Lost is how many datagrams were not copied.
func (d *Datagrams) Lost() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.control(func(fd int) error {
		if s, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			d.drops += int64(s.Drops) // since the last call
		}
		return nil
	})
	return d.drops + d.parts + d.flows.Lost()
}

// Close ends every copy.
func (d *Datagrams) Close() error {
	err := d.f.Close()
	d.wg.Wait()
	d.flows.Close()
	return err
}
