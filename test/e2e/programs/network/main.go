// Command network makes connections and sends datagrams as programs do, and
// prints what became of each, one line a case: "case: outcome". It says nothing
// that differs from run to run, so that what a session shows can be compared with
// what the pod shows.
//
//	network tcp|udp|odd|ping|join ADDRESS OTHER NOWHERE SELF
//	network lookup NAME...
//
// ADDRESS serves the ports below, OTHER the same as another peer, NOWHERE is an
// address that nobody has a route to, SELF the pod's own.
package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Ports of the servers.
const (
	portSide   = 7000 // on the pod's localhost only
	portEcho   = 7001 // what was sent, until the end of the stream
	portFirst  = 7002 // speaks before it is spoken to
	portReset  = 7003 // resets after the first byte
	portHalf   = 7004 // ends its direction at once, and reads on
	portReport = 7005 // reads a name, and then to the end
	portAsk    = 7006 // tells how that stream ended
	portNobody = 9
)

// patience bounds each wait.
const patience = 10 * time.Second

func main() {
	if len(os.Args) > 2 && os.Args[1] == "lookup" {
		lookup(os.Args[2:])
		return
	}
	if len(os.Args) != 6 {
		fmt.Fprintln(os.Stderr, "usage: network tcp|udp|odd|ping|join ADDRESS OTHER NOWHERE SELF")
		os.Exit(2)
	}
	var at [4]netip.Addr
	for i := range at {
		at[i] = netip.MustParseAddr(os.Args[2+i])
	}
	w := &world{server: at[0], other: at[1], nowhere: at[2], self: at[3]}
	map[string]func(){"tcp": w.tcp, "udp": w.udp, "odd": w.odd, "ping": w.ping, "join": w.join}[os.Args[1]]()
}

// world is where connections go.
type world struct{ server, other, nowhere, self netip.Addr }

// localhost is that of the family.
func (w *world) localhost() netip.Addr {
	if w.server.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

func (w *world) anywhere() netip.Addr {
	if w.server.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// show prints one case.
func show(name string, outcome ...any) {
	text := ""
	for i, o := range outcome {
		if i > 0 {
			text += " "
		}
		if err, ok := o.(error); ok {
			text += errno(err)
		} else {
			text += fmt.Sprint(o)
		}
	}
	fmt.Printf("%s: %s\n", name, text)
}

// errno is an error's number by name.
func errno(err error) string {
	var e unix.Errno
	var ne net.Error
	switch {
	case errors.As(err, &e):
		return unix.ErrnoName(e)
	case errors.As(err, &ne) && ne.Timeout():
		return "timeout"
	}
	return err.Error()
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

func address(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// socket makes one with a bound on each wait.
func socket(a netip.Addr, typ int) int {
	fd, err := unix.Socket(family(a), typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		show("socket", err)
		os.Exit(1)
	}
	limit := unix.NsecToTimeval(int64(patience))
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	return fd
}

// readable waits for something to read, or an error.
func readable(fd int, limit time.Duration) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, int(limit.Milliseconds()))
		if err != unix.EINTR {
			return n > 0
		}
	}
}
