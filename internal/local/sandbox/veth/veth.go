// Package veth makes a network device out of a veth pair and a packet socket,
// where there is no TUN.
//
// Init calls it in the fresh namespaces of a sandbox; it needs CAP_SYS_ADMIN,
// CAP_NET_ADMIN and CAP_NET_RAW in the user namespace that owns them, and no
// device file. Errors wrap the kernel's errno and say which part is missing.
package veth

import (
	"crypto/rand"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/route"
)

const (
	// MTU is the most that such a device takes (ETH_MAX_MTU), in bytes. The kernel
	// drops what comes for it beyond that (is_skb_forwardable), and the largest
	// datagram of IPv4 must come through.
	MTU = 65535
	// queue is wanted for packets that wait to be read, in bytes; the kernel gives
	// net.core.rmem_max at most. What does not fit is lost, and sent again.
	queue = 8 << 20

	// IFLA_AF_SPEC/AF_INET6/IFLA_INET6_ADDR_GEN_MODE: no link-local address
	inet6AddrGenMode, addrGenNone = 8, 1
)

// Open makes the device name, which is down, in the caller's network
// namespace. The packet socket is bound to its other end, which lies in a
// namespace of its own, where no program meets it, and which lives as long as
// the socket. The device is gone with either.
//
// As from a TUN each packet comes, and is to be sent, after a virtio_net_hdr
// (PACKET_VNET_HDR); then follows an Ethernet header, which is to name address.
// Checksums of TCP and UDP are left out in both directions. The socket is
// non-blocking; the caller closes it.
//
// The thread leaves its network namespace meanwhile: it must be the caller's
// alone, and not be used further if it could not return, which is an error.
func Open(name string) (sock int, address net.HardwareAddr, err error) {
	here, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, nil, err
	}
	defer unix.Close(here)
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return -1, nil, fmt.Errorf("make a network namespace: %w", err)
	}
	sock, address, err = connect(name, here)
	if back := unix.Setns(here, unix.CLONE_NEWNET); err == nil && back != nil {
		unix.Close(sock)
		return -1, nil, fmt.Errorf("return to the network namespace: %w", back)
	}
	return sock, address, err
}

// connect makes a pair with the device in namespace ns, and the other end
// here, with the socket on it.
func connect(name string, ns int) (sock int, address net.HardwareAddr, err error) {
	const far = "far"
	address = make(net.HardwareAddr, 6)
	_, _ = rand.Read(address)            // never fails
	address[0] = address[0]&^0b11 | 0b10 // of one station, chosen by software (IEEE 802, 8.4.2)
	fd, err := route.Socket()
	if err != nil {
		return -1, nil, err
	}
	defer unix.Close(fd)
	r := route.On(fd)
	if err := r.AddVeth(far, MTU, route.Veth{Name: name, Namespace: ns, MTU: MTU, Address: address}); err != nil {
		return -1, nil, fmt.Errorf("make a veth pair: %w", err)
	}
	dev, err := net.InterfaceByName(far)
	if err != nil {
		return -1, nil, err
	}
	// Nobody speaks here but the socket. Without IPv6 there is nothing to silence.
	_ = r.SetLink(dev.Index, 0, route.Nested(unix.IFLA_AF_SPEC, route.Nested(unix.AF_INET6, route.Attr(inet6AddrGenMode, []byte{addrGenNone}))))
	if err := r.SetLink(dev.Index, unix.IFF_UP); err != nil {
		return -1, nil, fmt.Errorf("veth up: %w", err)
	}
	if sock, err = listen(dev.Index); err != nil {
		return -1, nil, fmt.Errorf("open a packet socket: %w", err)
	}
	return sock, address, nil
}

// listen gives a socket for all packets that arrive at an interface.
func listen(index int) (int, error) {
	// Protocol 0: nothing arrives before all is set.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, queue)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, queue)
	for _, option := range []int{unix.PACKET_VNET_HDR, unix.PACKET_IGNORE_OUTGOING} {
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_PACKET, option, 1)
		}
	}
	if err == nil {
		all := uint16(unix.ETH_P_ALL)<<8 | unix.ETH_P_ALL>>8 // in network order
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index})
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
