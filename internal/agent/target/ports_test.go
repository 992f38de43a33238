package target

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirrord-go/mirrord/internal/testnet"
)

// A session's connections leave the target half of its local ports, for each
// destination and for UDP.
func TestPortsAreShared(t *testing.T) {
	pid := testnet.Process(t, syscall.CLONE_NEWNET, nil, "echo '40000 40009' > /proc/sys/net/ipv4/ip_local_port_range; "+testnet.Addressed)
	tg, err := Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer tg.Close()
	tg.ports.wait = 0
	listen := func() (ln net.Listener, a netip.AddrPort) {
		t.Helper()
		err := tg.Do(func() (err error) {
			lc := net.ListenConfig{}
			lc.SetMultipathTCP(false)
			ln, err = lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		return ln, netip.MustParseAddrPort(ln.Addr().String())
	}
	ln, a := listen()
	_, other := listen()
	dial := func(network string, a netip.AddrPort) (net.Conn, error) {
		c, err := tg.Dial(t.Context(), network, a)
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
		return c, err
	}
	const share = 5
	var all []net.Conn
	for range share {
		c, err := dial("tcp", a)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	if c, err := dial("tcp", a); !errors.Is(err, ErrPorts) || !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("beyond the share: %v, %v", c, err)
	}
	if _, err := dial("tcp", other); err != nil {
		t.Errorf("to another destination: %v", err)
	}
	for range share {
		if _, err := dial("udp", a); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := dial("udp", other); !errors.Is(err, ErrPorts) {
		t.Errorf("UDP beyond the share: %v", err)
	}
	// The target itself still reaches it.
	if c, err := tg.DialWith(t.Context(), "tcp", a, func(int) error { return nil }); err != nil {
		t.Errorf("the target's own connection: %v", err)
	} else {
		c.Close()
	}
	// The port of one that the server closes first is free at once.
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	tg.ports.wait = time.Hour
	if _, err := all[0].Read(make([]byte, 1)); err == nil {
		t.Error("the server has closed, and something came")
	}
	all[0].Close()
	if _, err := dial("tcp", a); err != nil {
		t.Errorf("after the server's close: %v", err)
	}
	all[1].(*tcpPort).SetLinger(0)
	all[1].Close()
	if _, err := dial("tcp", a); err != nil {
		t.Errorf("after a reset: %v", err)
	}
	all[2].Close() // first: the kernel keeps the port
	if _, err := dial("tcp", a); !errors.Is(err, ErrPorts) {
		t.Errorf("while the kernel keeps the port: %v", err)
	}
}

// A failed attempt costs nothing, and a port that the kernel kept comes back.
func TestPortsComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPorts(2)
		a := netip.MustParseAddrPort("192.0.2.1:80")
		for range 3 {
			if _, err := p.dial("tcp", a, func() (net.Conn, error) { return nil, syscall.ECONNREFUSED }); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Fatal(err)
			}
		}
		c, err := p.dial("tcp", a, func() (net.Conn, error) { return &net.TCPConn{}, nil })
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		c.Close()
		none := func() (net.Conn, error) { return nil, syscall.ECONNREFUSED }
		if _, err := p.dial("tcp", a, none); !errors.Is(err, ErrPorts) {
			t.Errorf("at once: %v", err)
		}
		time.Sleep(timeWait + time.Second)
		if _, err := p.dial("tcp", a, none); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a minute later: %v", err)
		}
	})
}
