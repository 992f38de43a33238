package target

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirrord-go/mirrord/internal/testnet"
)

// A session's connections leave the target half of its local ports, for each
// destination and for UDP.
func TestPortsAreShared(t *testing.T) {
	pid := testnet.Process(t, syscall.CLONE_NEWNET, nil, "echo '40000 40019' > /proc/sys/net/ipv4/ip_local_port_range; "+testnet.Addressed)
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
	const share = 10
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

// However many sessions there are on a target, each with an agent of its own, a
// quarter of the ports stays free.
func TestSessionsShareThePorts(t *testing.T) {
	pid := testnet.Process(t, syscall.CLONE_NEWNET, nil, "echo '40000 40039' > /proc/sys/net/ipv4/ip_local_port_range; "+testnet.Addressed)
	var agents []*Target
	for range 3 {
		tg, err := Open(pid)
		if err != nil {
			t.Fatal(err)
		}
		defer tg.Close()
		agents = append(agents, tg)
	}
	var a netip.AddrPort
	err := agents[0].Do(func() error {
		lc := net.ListenConfig{}
		lc.SetMultipathTCP(false)
		ln, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:7000")
		if err == nil {
			t.Cleanup(func() { ln.Close() })
			a = netip.MustParseAddrPort(ln.Addr().String())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"tcp", "udp"} {
		made := 0
		var all []net.Conn
		for refused := 0; refused < len(agents); {
			refused = 0
			for _, tg := range agents {
				c, err := tg.Dial(t.Context(), network, a)
				switch {
				case err == nil:
					made++
					all = append(all, c)
				case errors.Is(err, ErrPorts):
					refused++
				default:
					t.Fatalf("%s: after %d: %v", network, made, err)
				}
			}
		}
		const ports, reserve = 40, 10
		if made != ports-reserve {
			t.Errorf("%s: %d connections of %d agents were made, want %d of %d ports", network, made, len(agents), ports-reserve, ports)
		}
		// The target itself still has some.
		own := func() (net.Conn, error) {
			return agents[0].DialWith(t.Context(), network, a, func(int) error { return nil })
		}
		if network == "udp" {
			own = func() (net.Conn, error) { return agents[0].dialUDP(a) }
		}
		if c, err := own(); err != nil {
			t.Errorf("%s: the target's own connection: %v", network, err)
		} else {
			c.Close()
		}
		for _, c := range all {
			if l, ok := c.(interface{ SetLinger(int) error }); ok {
				_ = l.SetLinger(0)
			}
			c.Close()
		}
		agents[0].ports.looks = map[string]*look{} // as after lookTime
		if c, err := agents[0].Dial(t.Context(), network, a); err != nil {
			t.Errorf("%s: when they have ended: %v", network, err)
		} else {
			c.Close()
		}
	}
}

func TestParseSockets(t *testing.T) {
	const text = "sockets: used 31\nTCP: inuse 4 orphan 9 tw 2 alloc 702 mem 129\nUDP: inuse 3 mem 0\nUDPLITE: inuse 7\nTCP6: inuse 1\nUDP6: inuse\nTCP: inuse -5 tw x\n"
	for network, want := range map[string]int{"tcp": 7, "udp": 3, "raw": 0} {
		if got := parseSockstat(network, text); got != want {
			t.Errorf("%s: %d, want %d", network, got, want)
		}
	}
	for line, want := range map[string]int{
		"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000": 8080,
		" 131: 00000000000000000000000001000000:9C40 0000:0000":  40000,
		"  sl  local_address rem_address   st":                   -1,
		"":                                                       -1,
		"  0: 0100007F:123456 0":                                 -1,
	} {
		got, ok := parseSocket(line)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %d, want %d", line, got, want)
		}
	}
}

// A failed attempt costs nothing, and a port that the kernel kept comes back.
func TestPortsComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPorts(portRange{1, 2}, func(string) (int, error) { return 0, nil })
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

// init keeps the main thread to the tests' main, as the agent does: /proc/self
// shows its namespaces, and it could become the thread of a room.
func init() { runtime.LockOSThread() }
