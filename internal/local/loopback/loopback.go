// Package loopback opens ports of this machine for its own programs only: on
// 127.0.0.1 and on ::1, since "localhost" may be either.
//
// It opens ports and does nothing else; whoever calls it owns them.
package loopback

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"
)

// Port is an open one: a net.Listener, or Packets.
type Port interface {
	Addr() net.Addr
	Close() error
}

// Packets is an open port of UDP.
type Packets struct{ net.PacketConn }

// Addr is its own address.
func (p Packets) Addr() net.Addr { return p.LocalAddr() }

// Listen opens port, or for 0 a free one, in both families; open is net.Listen in
// the product. A family that this machine has not is left out. The error says that
// the port cannot be had, or is somebody else's in one of the families; the
// listeners that could be opened come with it, and are to be closed.
func Listen(open func(network, address string) (net.Listener, error), port uint16) ([]net.Listener, error) {
	return both(func(address string) (net.Listener, error) { return open("tcp", address) }, port)
}

// ListenPacket is Listen for UDP; open is net.ListenPacket in the product.
func ListenPacket(open func(network, address string) (net.PacketConn, error), port uint16) ([]Packets, error) {
	return both(func(address string) (Packets, error) {
		c, err := open("udp", address)
		return Packets{c}, err
	}, port)
}

func both[T Port](open func(address string) (T, error), port uint16) (all []T, err error) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		want := port
		if want == 0 && len(all) > 0 { // the second family follows the first's number
			want = number(all[0])
		}
		ln, lerr := open(net.JoinHostPort(host, strconv.Itoa(int(want))))
		switch {
		case lerr == nil:
			all = append(all, ln)
		case port == 0 && len(all) > 0: // one family of a free number will do
		case errors.Is(lerr, syscall.EADDRINUSE), errors.Is(lerr, syscall.EACCES), err == nil && len(all) == 0:
			err = lerr
		}
	}
	if len(all) > 0 && !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EACCES) {
		err = nil // only a family is missing
	}
	return all, err
}

func number(ln Port) uint16 {
	at, err := netip.ParseAddrPort(ln.Addr().String())
	if err != nil {
		return 0
	}
	return at.Port()
}
