package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"testing"

	"golang.org/x/sys/unix"
)

// leaveProgram listens and leaves one client as how says, when it is killed at
// the latest.
func leaveProgram(addr, how string) error {
	told := make(chan os.Signal, 1)
	if how == "late" {
		signal.Notify(told, unix.SIGUSR1) // it may come as soon as there is a listener
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	if how == "late" {
		fmt.Println("listens")
		<-told
	}
	if how == "deferred" { // its handshake ends with the client's first word, so Find sees a request only
		if err := deferred(ln.(*net.TCPListener)); err != nil {
			return err
		}
	}
	if how != "queued" && how != "deferred" {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		switch how {
		case "half read":
			_, err = io.ReadFull(c, make([]byte, 1))
		case "refused":
			_, err = io.ReadFull(c, make([]byte, 3))
			_ = c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
		if err != nil {
			return err
		}
	}
	fmt.Println("left:", how)
	wait()
	return nil
}

// deferred returns when ln has a connection whose handshake has taken its time.
func deferred(ln *net.TCPListener) error {
	raw, err := ln.SyscallConn()
	if err != nil {
		return err
	}
	var waited error
	err = raw.Control(func(fd uintptr) {
		waited = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 60)
		fmt.Println("defers")
		for n := 0; waited == nil && n == 0; {
			n, waited = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
			if errors.Is(waited, unix.EINTR) {
				n, waited = 0, nil
			}
		}
	})
	return errors.Join(err, waited)
}

// follow connects, says something, and tells how that ends.
func follow(r *reporter, b *Box, o order) event {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := b.DialLocal(ctx, "tcp", o.Src, o.Dst)
	if err != nil {
		return failed("reset", err)
	}
	defer c.Close()
	p := b.Follow(c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort())
	defer p.Forget()
	if _, err := c.Write([]byte("abc")); err != nil {
		return failed("reset", err)
	}
	r.say(event{Name: "followed"})
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		return event{Name: "reset", Text: fmt.Sprint("not at all: ", err)}
	}
	if p.Unaccepted(ctx) {
		return event{Name: "reset", Text: "unaccepted"}
	}
	return event{Name: "reset", Text: "by the program"}
}

// A connection in the queue of a listener that ends is told from one that the
// program has ended.
func TestUnaccepted(t *testing.T) {
	for _, c := range []struct{ how, want string }{
		{"queued", "unaccepted"}, {"deferred", "unaccepted"}, {"unread", "by the program"}, {"half read", "by the program"}, {"refused", "by the program"},
	} {
		t.Run(c.how, func(t *testing.T) {
			for _, addr := range []string{"127.0.0.1:8120", "[::]:8120"} {
				asBoth(t, func(t *testing.T, uid int) {
					r := start(t, uid, scenario{}.prog(t, "leave", addr, c.how))
					program := r.await("listen").L.PID
					r.order(order{Do: "follow", Dst: netip.MustParseAddrPort("127.0.0.1:8120")})
					r.await("followed")
					r.prints("left: " + c.how)
					if c.how != "refused" {
						_ = unix.Kill(program, unix.SIGKILL)
					}
					if got := r.await("reset").Text; got != c.want {
						t.Errorf("the connection was reset: %s, want %s", got, c.want)
					}
					_ = unix.Kill(program, unix.SIGKILL)
					r.code()
				})
			}
		})
	}
}

// The end of a socket may be told between the look at it and the wish to know.
func TestEndsWhileLooking(t *testing.T) {
	p := newPeers()
	done := p.look()
	for _, s := range []socket{{cookie: 1}, {cookie: 2, peer: 80}} {
		p.destroyed(s)
		fate := make(chan bool, 1)
		p.expect(s.cookie, fate)
		select {
		case alone := <-fate:
			if alone != (s.peer == 0) {
				t.Errorf("%+v ended alone: %v", s, alone)
			}
		default:
			t.Errorf("the end of %+v is lost", s)
		}
	}
	done()
	p.destroyed(socket{cookie: 3})
	if n := len(p.passed); n != 0 {
		t.Errorf("%d ends are kept while nobody looks", n)
	}
}
