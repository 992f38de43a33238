//go:build !linux

package ping

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// Dial is for Linux: elsewhere there are no sockets for echo requests.
func Dial(a netip.Addr, _ func(domain, typ, protocol int) (int, error)) (net.Conn, error) {
	return nil, fmt.Errorf("make a socket for echo requests to %v: %w", a, syscall.EACCES)
}

// Socket is for Linux.
func Socket(int, int, int) (int, error) { return 0, syscall.EACCES }

// Drain has nothing to do: there is no queue of errors.
func Drain(syscall.Conn) {}
