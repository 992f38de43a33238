package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func (w *world) tcp() {
	at := func(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }
	for _, c := range []struct {
		name string
		to   netip.AddrPort
	}{
		{"open port", at(w.server, portEcho)}, {"closed port", at(w.server, portNobody)}, {"no route", at(w.nowhere, 80)},
		{"sidecar", at(w.localhost(), portSide)}, {"closed port of localhost", at(w.localhost(), portNobody)}, {"sidecar by the unspecified address", at(w.anywhere(), portSide)},
		{"closed port of its own address", at(w.self, portNobody)}, {"port 0", at(w.server, 0)},
	} {
		show("connect, "+c.name, connect(c.to))
		show("connect without waiting, "+c.name, connectLater(c.to))
	}
	w.names()
	w.streams()
	w.ends()
	w.options()
}

// connect is a blocking connect(2).
func connect(to netip.AddrPort) any {
	fd := socket(to.Addr(), unix.SOCK_STREAM)
	defer unix.Close(fd)
	if err := unix.Connect(fd, sockaddr(to)); err != nil {
		return err
	}
	return "connected"
}

// connectLater is a connect(2) that does not wait: its result is SO_ERROR.
func connectLater(to netip.AddrPort) any {
	fd := socket(to.Addr(), unix.SOCK_STREAM|unix.SOCK_NONBLOCK)
	defer unix.Close(fd)
	err := unix.Connect(fd, sockaddr(to))
	if err != unix.EINPROGRESS {
		if err == nil {
			return "connected"
		}
		return err
	}
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	if _, err := unix.Poll(p, int(patience.Milliseconds())); err != nil {
		return err
	}
	e, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		return err
	case e != 0:
		return unix.Errno(e)
	}
	// The result is told once; then it is connected, or not.
	if _, err := unix.Getpeername(fd); err != nil {
		return err
	}
	return "connected"
}

// dial connects; the connection must succeed.
func dial(to netip.AddrPort) *net.TCPConn {
	c, err := net.DialTimeout("tcp", to.String(), patience)
	if err != nil {
		show("dial "+to.String(), err)
		return nil
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// names are what a socket says of its ends.
func (w *world) names() {
	for _, c := range []struct {
		name string
		to   netip.AddrPort
	}{{"another host", netip.AddrPortFrom(w.server, portEcho)}, {"localhost", netip.AddrPortFrom(w.localhost(), portSide)}} {
		fd := socket(c.to.Addr(), unix.SOCK_STREAM)
		err := unix.Connect(fd, sockaddr(c.to))
		local, _ := unix.Getsockname(fd)
		peer, _ := unix.Getpeername(fd)
		unix.Close(fd)
		show("names of a connection to "+c.name, err, address(local).Addr(), address(peer))
	}
	fd := socket(w.self, unix.SOCK_STREAM)
	defer unix.Close(fd)
	bound := unix.Bind(fd, sockaddr(netip.AddrPortFrom(w.self, 0)))
	err := unix.Connect(fd, sockaddr(netip.AddrPortFrom(w.server, portEcho)))
	local, _ := unix.Getsockname(fd)
	show("bound to its own address before", bound, err, address(local).Addr())
	if w.server.Is4() { // as Java does it
		c, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IP(netip.AddrFrom16(w.server.As16()).AsSlice()), Port: portEcho})
		if err == nil {
			c.Close()
		}
		show("a mapped address", err)
	}
}

func (w *world) streams() {
	if c := dial(netip.AddrPortFrom(w.server, portFirst)); c != nil {
		b := make([]byte, 6)
		_, err := io.ReadFull(c, b)
		show("the server speaks first", fmt.Sprintf("%q", b), err)
		c.Close()
	}
	if c := dial(netip.AddrPortFrom(w.server, portEcho)); c != nil {
		text := strings.Repeat("0123456789", 100_000)
		go func() {
			_, _ = io.WriteString(c, text)
			_ = c.CloseWrite()
		}()
		b, err := io.ReadAll(c)
		show("half-close by the program", string(b) == text, err)
		c.Close()
	}
	if c := dial(netip.AddrPortFrom(w.server, portHalf)); c != nil {
		fmt.Fprintln(c, "half")
		b, err := io.ReadAll(c)
		show("half-close by the server", fmt.Sprintf("%q", b), err)
		time.Sleep(50 * time.Millisecond) // the stream's end is there: what follows is sent after it
		n, err := io.WriteString(c, "still heard\n")
		show("what is sent after it", n, err)
		c.Close()
		show("and what the server got", w.ended("half"))
	}
}

// ended asks how the stream with a name ended on the server's side.
func (w *world) ended(name string) any {
	c := dial(netip.AddrPortFrom(w.server, portAsk))
	if c == nil {
		return "no answer"
	}
	defer c.Close()
	fmt.Fprintln(c, name)
	b, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	return strings.TrimSpace(string(b))
}

func (w *world) ends() {
	if c := dial(netip.AddrPortFrom(w.server, portReset)); c != nil {
		_, err := io.WriteString(c, "x")
		b, rerr := io.ReadAll(c)
		show("a reset by the server", err, len(b), rerr)
		_, err = io.WriteString(c, "y")
		show("writing after it", err)
		c.Close()
	}
	for _, how := range []string{"reset", "close", "half-close"} {
		c := dial(netip.AddrPortFrom(w.server, portReport))
		if c == nil {
			continue
		}
		fmt.Fprintln(c, how)
		fmt.Fprint(c, "data")
		switch how {
		case "reset":
			time.Sleep(200 * time.Millisecond) // a reset overtakes what is on its way, in the pod too
			_ = c.SetLinger(0)
		case "half-close":
			_ = c.CloseWrite()
			_, _ = io.ReadAll(c)
		}
		c.Close()
		show("what the server sees of a "+how, w.ended(how))
	}
	// The server is told of an end that it is not asked about: it has sent what
	// nobody reads.
	if c := dial(netip.AddrPortFrom(w.server, portFirst)); c != nil {
		time.Sleep(100 * time.Millisecond)
		show("close with unread data", c.Close())
	}
}

// options are what a program may set, and what it reads then.
func (w *world) options() {
	fd := socket(w.server, unix.SOCK_STREAM)
	defer unix.Close(fd)
	for _, o := range []struct {
		name          string
		level, option int
		value         int
	}{
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1}, {"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 1},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 1}, {"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 2},
		{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}, {"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 4000},
		{"SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
	} {
		err := unix.SetsockoptInt(fd, o.level, o.option, o.value)
		got, gerr := unix.GetsockoptInt(fd, o.level, o.option)
		show("option "+o.name, err, got, gerr)
	}
	err := unix.Connect(fd, sockaddr(netip.AddrPortFrom(w.server, portEcho)))
	time.Sleep(3500 * time.Millisecond) // three keepalive probes, of which two may go unanswered
	_, werr := unix.Write(fd, []byte("alive"))
	b := make([]byte, 16)
	n, rerr := unix.Read(fd, b)
	show("an idle connection that is kept alive", err, werr, string(b[:max(n, 0)]), rerr)
}
