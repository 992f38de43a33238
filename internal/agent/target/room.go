package target

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/ping"
)

// room is a thread inside a network namespace that makes sockets on request: a
// socket stays in the namespace that it was made in.
type room struct {
	work  chan func()
	once  sync.Once     // closes quit
	quit  chan struct{} // closed by close
	ended chan struct{} // closed when the thread's goroutine has ended
}

// newRoom enters ns, which is not needed where it is the caller's own.
func newRoom(ns *os.File) (*room, error) {
	r := &room{work: make(chan func()), quit: make(chan struct{}), ended: make(chan struct{})}
	ready := make(chan error, 1)
	go func() {
		defer close(r.ended)
		runtime.LockOSThread()
		if same(ns, "net") {
			runtime.UnlockOSThread()
		} else { // never unlocked: the thread ends with this goroutine
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				ready <- fmt.Errorf("enter the target's network namespace: %w", err)
				return
			}
		}
		ready <- nil
		for {
			select {
			case f := <-r.work:
				f()
			case <-r.quit:
				return
			}
		}
	}()
	if err := <-ready; err != nil {
		<-r.ended
		return nil, err
	}
	return r, nil
}

// do runs f in the room. f must not block: everyone waits for it.
func (r *room) do(f func() error) (err error) {
	done := make(chan struct{})
	select {
	case r.work <- func() { err = f(); close(done) }:
		<-done
		return err
	case <-r.quit:
		return net.ErrClosed
	}
}

func (r *room) close() {
	r.once.Do(func() { close(r.quit) })
	<-r.ended
}

// Socket makes a non-blocking socket in the target's network namespace. The
// caller closes it.
func (t *Target) Socket(domain, typ, protocol int) (fd int, err error) {
	err = t.room.do(func() error {
		fd, err = unix.Socket(domain, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
		return err
	})
	return fd, err
}

// Do runs f on the thread inside the target's network namespace. f must be
// quick and must not start goroutines that need the namespace.
func (t *Target) Do(f func() error) error { return t.room.do(f) }

// Dial connects from the target's network; network is "tcp", "udp" or "ping",
// for ICMP echo. Errors wrap the errno of the target's kernel. Connections of a
// session may not have all of the target's local ports: beyond their share it
// fails with ErrPorts.
func (t *Target) Dial(ctx context.Context, network string, a netip.AddrPort) (net.Conn, error) {
	if network == "ping" { // takes no port
		return ping.Dial(a.Addr(), t.Socket)
	}
	return t.ports.dial(network, a, func() (net.Conn, error) {
		if network == "udp" {
			return t.dialUDP(a)
		}
		return t.DialWith(ctx, network, a, func(int) error { return nil })
	})
}

// DialWith is Dial for the agent's own needs, which count no ports, with prepare called on the socket before it connects. Its
// error ends the attempt and is wrapped. The connection is a *net.TCPConn.
func (t *Target) DialWith(ctx context.Context, network string, a netip.AddrPort, prepare func(fd int) error) (net.Conn, error) {
	c, err := t.dial(ctx, network, a, prepare)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(a), Err: err}
	}
	return c, nil
}

func (t *Target) dial(ctx context.Context, network string, a netip.AddrPort, prepare func(fd int) error) (net.Conn, error) {
	domain, to := address(a)
	fd, err := t.socket(kind{domain, unix.SOCK_STREAM})
	if err != nil {
		return nil, err
	}
	if err := prepare(fd); err != nil {
		unix.Close(fd)
		return nil, err
	}
	err = unix.Connect(fd, to)
	f := os.NewFile(uintptr(fd), "socket") // non-blocking: served by the runtime's poller
	defer f.Close()
	if errors.Is(err, unix.EINPROGRESS) {
		err = connected(ctx, f)
	}
	if err != nil {
		return nil, err
	}
	c, err := net.FileConn(f)
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetNoDelay(true)
	}
	return c, err
}

// address is a in the kernel's form.
func address(a netip.AddrPort) (domain int, to unix.Sockaddr) {
	if ip := a.Addr().Unmap(); ip.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Addr: ip.As4(), Port: int(a.Port())}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// socket gives one out of the stock, or a new one.
func (t *Target) socket(k kind) (int, error) {
	if fd, ok := t.stock.take(k); ok {
		return fd, nil
	}
	fd, err := t.Socket(k.domain, k.typ, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	return fd, nil
}

// sockets makes up to n of a kind for the stock.
func (t *Target) sockets(k kind, n int) (fds []int) {
	_ = t.room.do(func() error {
		for range n {
			fd, err := unix.Socket(k.domain, k.typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				return err // whoever dials is told
			}
			fds = append(fds, fd)
		}
		return nil
	})
	return fds
}

// connected waits for the end of a connection attempt.
func connected(ctx context.Context, f *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = rc.Write(func(fd uintptr) bool {
		e, gerr := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		switch {
		case gerr != nil:
			result = gerr
		case e != 0:
			result = unix.Errno(e)
		default: // no error: connected, or not yet
			_, perr := unix.Getpeername(int(fd))
			return perr == nil
		}
		return true
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(err, result)
}

// Handle calls f with a descriptor of the target's network namespace.
func (t *Target) Handle(f func(fd int) error) error {
	rc, err := t.NetNS.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := rc.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}
