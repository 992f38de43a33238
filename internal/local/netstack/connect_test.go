package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// rawSocket is a program's TCP socket with its connect in two steps.
type rawSocket struct {
	t  testing.TB
	fd int
}

func (w *world) socket(peer netip.Addr, flags int) *rawSocket {
	w.t.Helper()
	s := &rawSocket{t: w.t}
	family := unix.AF_INET
	if peer.Is6() {
		family = unix.AF_INET6
	}
	w.do(func() (err error) {
		s.fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|flags, 0)
		return err
	})
	w.t.Cleanup(s.close)
	return s
}

func (s *rawSocket) close() {
	if s.fd >= 0 {
		unix.Close(s.fd)
	}
	s.fd = -1
}

func (s *rawSocket) connect(to netip.AddrPort) error {
	for {
		err := unix.Connect(s.fd, sockaddr(to))
		if err == unix.EINTR { // it goes on; a second call waits for it
			continue
		}
		return err
	}
}

// writable tells whether the connect is over within a time.
func (s *rawSocket) writable(within time.Duration) bool {
	end := time.Now().Add(within)
	for {
		p := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(p, int(max(0, time.Until(end).Milliseconds())))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			s.t.Fatal(err)
		}
		return n > 0
	}
}

// result is what a program finds out after a non-blocking connect.
//
// Over IPv4 the kernel wakes the program before it stores the ICMP error
// (ip_icmp_error before tcp_done_with_error, tcp_v4_err in net/ipv4/tcp_ipv4.c),
// so that SO_ERROR may still be 0: ask again until there is a peer, as Go's
// package net does.
func (s *rawSocket) result() error {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if !s.writable(patience) {
			break
		}
		e, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil {
			s.t.Fatal(err)
		}
		if e != 0 {
			return syscall.Errno(e)
		}
		if _, err := unix.Getpeername(s.fd); err == nil {
			return nil
		}
	}
	s.t.Fatal("connect does not end")
	return nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is6() {
		return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	}
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

func TestConnectTellsTheTruth(t *testing.T) { bothDevices(t, testConnectTellsTheTruth) }

func testConnectTellsTheTruth(t *testing.T) {
	cases := []struct {
		refuse         syscall.Errno // 0: accepted
		want4, want6   error
		handlerForgets bool
	}{
		{refuse: 0},
		{refuse: syscall.ECONNREFUSED, want4: syscall.ECONNREFUSED, want6: syscall.ECONNREFUSED},
		{refuse: syscall.EHOSTUNREACH, want4: syscall.EHOSTUNREACH, want6: syscall.EHOSTUNREACH},
		{refuse: syscall.ENETUNREACH, want4: syscall.ENETUNREACH, want6: syscall.ENETUNREACH},
		{refuse: syscall.EAFNOSUPPORT, want4: syscall.ENETUNREACH, want6: syscall.ENETUNREACH},
		{refuse: syscall.EACCES, want4: syscall.EHOSTUNREACH, want6: syscall.EACCES},
		{refuse: syscall.ECONNRESET, want4: syscall.ECONNREFUSED, want6: syscall.ECONNREFUSED},
		{handlerForgets: true, want4: syscall.ECONNREFUSED, want6: syscall.ECONNREFUSED},
	}
	accepted := make(chan struct{}, 4) // both families, both ways
	w := newWorld(t, Handler{TCP: func(ctx context.Context, f *TCPFlow) {
		c := cases[f.Dst().Port()-1000]
		switch {
		case c.handlerForgets:
		case c.refuse != 0:
			f.Refuse(c.refuse)
		default:
			c, err := f.Accept()
			if err != nil {
				t.Errorf("accept: %v", err)
				return
			}
			accepted <- struct{}{}
			<-ctx.Done()
			c.Close()
		}
	}})
	for i, c := range cases {
		bothFamilies(t, func(t *testing.T, program, peer netip.Addr) {
			want := c.want4
			if peer.Is6() {
				want = c.want6
			}
			to := netip.AddrPortFrom(peer, uint16(1000+i))
			name := fmt.Sprint(c.refuse)
			if got := w.socket(peer, 0).connect(to); !same(got, want) {
				t.Errorf("%s: blocking connect: got %v, want %v", name, got, want)
			}
			s := w.socket(peer, unix.SOCK_NONBLOCK)
			if err := s.connect(to); err != unix.EINPROGRESS {
				t.Fatalf("%s: non-blocking connect: got %v, want EINPROGRESS", name, err)
			}
			if got := s.result(); !same(got, want) {
				t.Errorf("%s: result of a non-blocking connect: got %v, want %v", name, got, want)
			}
		})
	}
	for range cap(accepted) {
		await(t, accepted)
	}
	w.stack.mu.Lock()
	defer w.stack.mu.Unlock()
	if n := len(w.stack.attempts); n != 0 {
		t.Errorf("%d attempts are remembered after their answer", n)
	}
}

func same(got, want error) bool { return got == want || want != nil && errors.Is(got, want) }

// Silence is the answer. Whose kernel is more patient asks again, and may
// reach by then who did not answer before.
func TestConnectTimesOut(t *testing.T) {
	t.Parallel()
	var dialed atomic.Int32
	w := newWorld(t, Handler{TCP: func(ctx context.Context, f *TCPFlow) {
		dialed.Add(1)
		f.Refuse(syscall.ETIMEDOUT)
	}})
	s := w.socket(peer4, 0)
	// One retransmission after a second, the end two seconds later at most.
	if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_SYNCNT, 1); err != nil {
		t.Fatal(err)
	}
	if got := s.connect(netip.AddrPortFrom(peer4, 80)); got != syscall.ETIMEDOUT {
		t.Errorf("connect: got %v, want ETIMEDOUT", got)
	}
	if n := dialed.Load(); n < 2 {
		t.Errorf("dialed %d times, want once for each SYN", n)
	}
}

func TestConnectWaitsForTheDial(t *testing.T) { bothDevices(t, testConnectWaitsForTheDial) }

func testConnectWaitsForTheDial(t *testing.T) {
	bothFamilies(t, func(t *testing.T, program, peer netip.Addr) {
		flows, release, accepted := make(chan *TCPFlow, 1), make(chan struct{}), make(chan error, 1)
		w := newWorld(t, Handler{TCP: func(ctx context.Context, f *TCPFlow) {
			flows <- f
			<-release
			c, err := f.Accept()
			if err == nil {
				c.Close()
			}
			accepted <- err
		}})
		to := netip.AddrPortFrom(peer, 80)
		s := w.socket(peer, unix.SOCK_NONBLOCK)
		if err := s.connect(to); err != unix.EINPROGRESS {
			t.Fatalf("non-blocking connect: got %v, want EINPROGRESS", err)
		}
		f := await(t, flows)
		if s.writable(50 * time.Millisecond) {
			t.Error("connect ended before the dial did")
		}
		if f.Dst() != to || f.Src().Addr() != program {
			t.Errorf("got a flow from %v to %v, want from %v to %v", f.Src(), f.Dst(), program, to)
		}
		close(release)
		if err := s.result(); err != nil {
			t.Errorf("connect: got %v, want success", err)
		}
		if err := await(t, accepted); err != nil {
			t.Errorf("accept: %v", err)
		}
	})
}

func TestProgramGivesUp(t *testing.T) {
	flows, release, result := make(chan *TCPFlow, 1), make(chan struct{}), make(chan error, 1)
	w := newWorld(t, Handler{TCP: func(ctx context.Context, f *TCPFlow) {
		flows <- f
		<-release
		_, err := f.Accept()
		result <- err
	}})
	s := w.socket(peer4, unix.SOCK_NONBLOCK)
	if err := s.connect(netip.AddrPortFrom(peer4, 80)); err != unix.EINPROGRESS {
		t.Fatalf("non-blocking connect: got %v, want EINPROGRESS", err)
	}
	await(t, flows)
	s.close()
	close(release)
	if err := await(t, result); !errors.Is(err, syscall.ECONNABORTED) {
		t.Errorf("accept: got %v, want ECONNABORTED", err)
	}
}

// A program may use its port again at once, after the peer has closed first.
func TestSamePortAgain(t *testing.T) { bothDevices(t, testSamePortAgain) }

func testSamePortAgain(t *testing.T) {
	bothFamilies(t, func(t *testing.T, program, peer netip.Addr) {
		w := newWorld(t, Handler{TCP: func(ctx context.Context, f *TCPFlow) {
			c, err := f.Accept()
			if err != nil {
				t.Errorf("accept: %v", err)
				return
			}
			_ = c.(*Conn).CloseWrite()
			_, _ = c.Read(make([]byte, 1)) // the program's end
			c.Close()
		}})
		for range 3 {
			// Both ends of the last one need a moment for the last ACK and its timer.
			for limit := time.Now().Add(patience); len(w.stack.s.RegisteredEndpoints()) > 0; time.Sleep(time.Millisecond) {
				if time.Now().After(limit) {
					t.Fatal("the stack keeps the port")
				}
			}
			begin := time.Now()
			c, err := w.dial("tcp", 4321, netip.AddrPortFrom(peer, 80))
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took > 900*time.Millisecond {
				t.Errorf("connect took %v: its first SYN was not answered", took)
			}
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("got a byte, want the end of the stream")
			}
			c.Close()
		}
	})
}

func TestManyAtOnce(t *testing.T) { bothDevices(t, testManyAtOnce) }

func testManyAtOnce(t *testing.T) {
	const many = 200
	w := newWorld(t, Handler{TCP: echo(t)})
	conns := make(chan net.Conn, many)
	for i := range many {
		go func() {
			peer := peer4
			if i%2 == 1 {
				peer = peer6
			}
			c, err := w.dial("tcp", 0, netip.AddrPortFrom(peer, 80))
			if err != nil {
				t.Error(err)
			}
			conns <- c
		}()
	}
	var all []net.Conn
	for range many { // all are open at the same time
		if c := await(t, conns); c != nil {
			all = append(all, c)
			defer c.Close()
		}
	}
	for i, c := range all {
		fmt.Fprintf(c, "%08d", i)
	}
	for i, c := range all {
		var got [8]byte
		if _, err := c.Read(got[:]); err != nil || string(got[:]) != fmt.Sprintf("%08d", i) {
			t.Errorf("connection %d: got %q, %v", i, got, err)
		}
	}
}
