package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
	"github.com/mirrord-go/mirrord/internal/local/sandbox/route"
	"github.com/mirrord-go/mirrord/internal/nft"
)

// SetLocal makes a port of the sandbox's localhost and own addresses the
// program's own (on), or the pod's. proto is unix.IPPROTO_TCP or IPPROTO_UDP.
// Watch does it for what the program listens on. Setting it again is no error.
func (b *Box) SetLocal(proto int, port uint16, on bool) error {
	if b.routed {
		return b.routeLocal(uint8(proto), port, on)
	}
	set := nft.Set{Table: nft.Table{Name: handoff.Table}, Name: handoff.SetTCP, Key: nft.TypePort}
	if proto == unix.IPPROTO_UDP {
		set.Name = handoff.SetUDP
	}
	if on {
		return b.nft.Apply(set.Add(nft.Port(port)))
	}
	if err := b.nft.Apply(set.Delete(nft.Port(port))); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// routeLocal is SetLocal by routing rules, one for what goes to the port and
// one for what it answers.
func (b *Box) routeLocal(proto uint8, port uint16, on bool) error {
	b.ports.Lock()
	defer b.ports.Unlock()
	return control(b.files[handoff.NFT], func(fd int) error {
		r := route.On(fd)
		for _, u := range []route.Rule{{Dport: port}, {Sport: port}} {
			u.Priority, u.Table, u.Proto = handoff.RulePort, unix.RT_TABLE_LOCAL, proto
			change, done := r.AddRule, error(unix.EEXIST)
			if !on {
				change, done = r.DeleteRule, unix.ENOENT
			}
			if err := change(u); err != nil && !errors.Is(err, done) {
				return fmt.Errorf("route port %d: %w", port, err)
			}
		}
		return nil
	})
}

// Socket makes a socket inside the sandbox's network namespace: family
// unix.AF_INET or AF_INET6, type SOCK_STREAM or SOCK_DGRAM. What it sends to
// localhost or the pod's own addresses stays in the sandbox. It is in
// non-blocking mode. The caller closes it.
func (b *Box) Socket(family, typ int) (*os.File, error) {
	f, err := b.helper.request(family, typ)
	if err != nil {
		return nil, err
	}
	if err := control(f, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, handoff.Mark) }); err != nil {
		f.Close()
		return nil, fmt.Errorf("mark a socket inside: %w", err)
	}
	return f, nil
}

// DialLocal connects a socket of the sandbox's namespace, of network tcp or udp, to
// dst, a listener there. Src may be any address that the kernel has inside (127/8, ::1, the
// pod's own), with port 0 for any; the zero value leaves it to the kernel. The
// errno of connect(2) is in the error.
func (b *Box) DialLocal(ctx context.Context, network string, src, dst netip.AddrPort) (net.Conn, error) {
	c, err := b.dialLocal(ctx, network, src, dst)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("connect to %s inside: %w", dst, err)
	}
	return c, nil
}

func (b *Box) dialLocal(ctx context.Context, network string, src, dst netip.AddrPort) (net.Conn, error) {
	family, typ := unix.AF_INET, unix.SOCK_STREAM
	if dst.Addr().Is6() {
		family = unix.AF_INET6
	}
	if network == "udp" {
		typ = unix.SOCK_DGRAM
	}
	f, err := b.Socket(family, typ)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if src.IsValid() && !(src.Addr().IsUnspecified() && src.Port() == 0) {
		if err := control(f, func(fd int) error { return unix.Bind(fd, sockaddr(src)) }); err != nil {
			return nil, fmt.Errorf("from %s: %w", src, err)
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err = control(f, func(fd int) error { return unix.Connect(fd, sockaddr(dst)) })
	if errors.Is(err, unix.EINPROGRESS) {
		err = connected(f)
	}
	if err != nil {
		return nil, err
	}
	return net.FileConn(f)
}

// connected waits for the result of a connect(2) in progress.
func connected(f *os.File) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = rc.Write(func(fd uintptr) bool {
		var p []unix.PollFd
		p = append(p, unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT})
		if n, err := unix.Poll(p, 0); n == 0 || err != nil {
			return false
		}
		errno, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if result = err; err == nil && errno != 0 {
			result = syscall.Errno(errno)
		}
		return true
	})
	return errors.Join(err, result)
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// addrPort is the zero value for other families.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}
