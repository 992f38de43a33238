package netstack

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// echoUDP says every datagram back until the flow ends.
func echoUDP(_ context.Context, f *UDPFlow) {
	buf := make([]byte, 1<<16)
	for {
		n, err := f.Read(buf)
		if err != nil {
			return
		}
		f.Write(buf[:n])
	}
}

func TestUDPConnected(t *testing.T) { bothDevices(t, testUDPConnected) }

func testUDPConnected(t *testing.T) {
	flows := make(chan *UDPFlow, 2)
	w := newWorld(t, Handler{UDP: func(ctx context.Context, f *UDPFlow) {
		flows <- f
		echoUDP(ctx, f)
	}})
	bothFamilies(t, func(t *testing.T, program, peer netip.Addr) {
		largest := 65507 // RFC 768 over IPv4
		if peer.Is6() {
			largest = 65527
			if w.veth {
				largest = 65487 // of one packet; longer datagrams are lost
			}
		}
		to := netip.AddrPortFrom(peer, 7)
		c := w.connect("udp", to)
		buf := make([]byte, 1<<16)
		for _, size := range []int{1, 0, 1400, 9000, 65000, largest} {
			want := make([]byte, size)
			rand.Read(want)
			if _, err := c.Write(want); err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			if n, err := c.Read(buf); err != nil || !bytes.Equal(buf[:n], want) {
				t.Errorf("got %d bytes, %v, want the %d that were sent", n, err, size)
			}
		}
		f := await(t, flows)
		if f.Dst() != to || f.Src() != c.LocalAddr().(*net.UDPAddr).AddrPort() {
			t.Errorf("got a flow from %v to %v, want from %v to %v", f.Src(), f.Dst(), c.LocalAddr(), to)
		}
		if len(flows) != 0 {
			t.Error("one socket and one peer were more than one flow")
		}
	})
}

// QUIC's programs give the kernel many datagrams at once (UDP_SEGMENT, udp(7)).
func TestUDPSegments(t *testing.T) { bothDevices(t, testUDPSegments) }

func testUDPSegments(t *testing.T) {
	const size, count = 1200, 10
	got := make(chan []byte, 2*count)
	w := newWorld(t, Handler{UDP: func(_ context.Context, f *UDPFlow) {
		for range count {
			buf := make([]byte, 1<<16)
			n, err := f.Read(buf)
			if err != nil {
				t.Errorf("read: %v", err)
				return
			}
			got <- buf[:n]
		}
	}})
	bothFamilies(t, func(t *testing.T, _, peer netip.Addr) {
		c := w.connect("udp", netip.AddrPortFrom(peer, 443)).(*net.UDPConn)
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var serr error
		if err := raw.Control(func(fd uintptr) { serr = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) }); err != nil || serr != nil {
			t.Fatal(err, serr)
		}
		data := make([]byte, size*count)
		rand.Read(data)
		if _, err := c.Write(data); err != nil {
			t.Fatal(err)
		}
		for i := range count {
			if b := await(t, got); !bytes.Equal(b, data[i*size:(i+1)*size]) {
				t.Errorf("datagram %d: got %d bytes, not the %d that were sent", i, len(b), size)
			}
		}
	})
}

func TestUDPSeveralPeers(t *testing.T) { bothDevices(t, testUDPSeveralPeers) }

func testUDPSeveralPeers(t *testing.T) {
	w := newWorld(t, Handler{UDP: func(ctx context.Context, f *UDPFlow) {
		if _, err := f.Read(make([]byte, 1<<16)); err == nil {
			fmt.Fprint(f, f.Dst())
		}
	}})
	bothFamilies(t, func(t *testing.T, program, peer netip.Addr) {
		var c net.PacketConn
		w.do(func() (err error) {
			c, err = net.ListenPacket("udp", netip.AddrPortFrom(program, 0).String())
			return err
		})
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		want := map[string]bool{}
		for _, to := range []netip.AddrPort{netip.AddrPortFrom(peer, 1), netip.AddrPortFrom(peer, 2), netip.AddrPortFrom(peer.Next(), 1)} {
			if _, err := c.WriteTo([]byte("who are you"), net.UDPAddrFromAddrPort(to)); err != nil {
				t.Fatal(err)
			}
			want[to.String()] = true
		}
		buf := make([]byte, 1<<16)
		for range len(want) {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				t.Fatal(err)
			}
			if string(buf[:n]) != from.String() || !want[from.String()] {
				t.Errorf("%v says it is %q", from, buf[:n])
			}
			delete(want, from.String())
		}
	})
}

func TestUDPUnreachable(t *testing.T) { bothDevices(t, testUDPUnreachable) }

func testUDPUnreachable(t *testing.T) {
	cases := []struct{ tell, want4, want6 syscall.Errno }{
		{syscall.ECONNREFUSED, syscall.ECONNREFUSED, syscall.ECONNREFUSED},
		{syscall.EHOSTUNREACH, 0, 0}, // no hard error, see icmp_err_convert and udp(7)
		{syscall.ENETUNREACH, 0, 0},
		{syscall.EACCES, syscall.EHOSTUNREACH, syscall.EACCES},
	}
	w := newWorld(t, Handler{UDP: func(ctx context.Context, f *UDPFlow) {
		buf := make([]byte, 1)
		for {
			if _, err := f.Read(buf); err != nil {
				return
			}
			f.Unreachable(cases[f.Dst().Port()-1].tell)
			f.Write(buf) // for who did not hear
		}
	}})
	for i, c := range cases {
		bothFamilies(t, func(t *testing.T, _, peer netip.Addr) {
			want := c.want4
			if peer.Is6() {
				want = c.want6
			}
			conn := w.connect("udp", netip.AddrPortFrom(peer, uint16(1+i)))
			for range 2 {
				if _, err := conn.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				_, err := conn.Read(make([]byte, 1))
				if want == 0 && err != nil || want != 0 && !errors.Is(err, want) {
					t.Errorf("%v: read: got %v, want %v", c.tell, err, want)
				}
				if want == 0 {
					continue
				}
				if _, err := conn.Read(make([]byte, 1)); err != nil {
					t.Errorf("%v: the flow does not go on: %v", c.tell, err)
				}
			}
		})
	}
}

func TestUDPEnd(t *testing.T) {
	type result struct {
		port uint16
		err  error
	}
	results := make(chan result, 3)
	w := newWorld(t, Handler{UDP: func(ctx context.Context, f *UDPFlow) {
		port := f.Dst().Port()
		buf := make([]byte, 1)
		f.Read(buf)
		switch port {
		case 1: // idle
			f.idle = 20 * time.Millisecond
		case 2: // an answer is no idleness
			f.idle = 200 * time.Millisecond
			go func() {
				for range 3 {
					time.Sleep(100 * time.Millisecond)
					f.Write(buf)
				}
				f.Close()
			}()
		case 3:
			time.AfterFunc(20*time.Millisecond, func() { f.Close() })
		}
		_, err := f.Read(buf)
		results <- result{port, err}
	}})
	for port := range uint16(3) {
		if _, err := w.connect("udp", netip.AddrPortFrom(peer4, port+1)).Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		r := await(t, results)
		var ne net.Error
		timeout := errors.As(r.err, &ne) && ne.Timeout()
		if r.port == 1 && !timeout {
			t.Errorf("idle flow: got %v, want a timeout", r.err)
		}
		if r.port != 1 && !errors.Is(r.err, net.ErrClosed) {
			t.Errorf("closed flow %d: got %v, want net.ErrClosed", r.port, r.err)
		}
	}
}

// Lookups that nobody closes must not keep a program from new ones.
func TestUDPTooManyFlows(t *testing.T) {
	const over = 100
	ended := make(chan uint16, over)
	w := newWorld(t, Handler{UDP: func(ctx context.Context, f *UDPFlow) {
		echoUDP(ctx, f)
		if ctx.Err() == nil {
			ended <- f.Dst().Port()
		}
	}})
	var c net.PacketConn
	w.do(func() (err error) {
		c, err = net.ListenPacket("udp4", "10.1.2.3:0")
		return err
	})
	defer c.Close()
	buf := make([]byte, 1)
	ask := func(port int) {
		t.Helper()
		c.SetDeadline(time.Now().Add(patience))
		if _, err := c.WriteTo(buf, &net.UDPAddr{IP: peer4.AsSlice(), Port: port}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.ReadFrom(buf); err != nil {
			t.Fatalf("flow %d: %v", port, err)
		}
	}
	for port := 1; port <= maxUDP+over; port++ {
		ask(port)
		if port%(maxUDP/4) == 0 {
			ask(1) // the first keeps busy
		}
	}
	for range over {
		if port := await(t, ended); port == 1 || port > 1+over {
			t.Errorf("flow %d was ended, want those that had been idle longest", port)
		}
	}
}

// TestDialUDP: a program gets datagrams of a client with its address, and its
// answers come back; one client may have several ports of the program's.
func TestDialUDP(t *testing.T) { bothDevices(t, testDialUDP) }

func testDialUDP(t *testing.T) {
	w := newWorld(t, Handler{UDP: func(_ context.Context, f *UDPFlow) { t.Errorf("a flow of %v to %v", f.Src(), f.Dst()) }})
	bothFamilies(t, func(t *testing.T, program, peer netip.Addr) {
		client := netip.AddrPortFrom(peer, 40123)
		var servers []net.PacketConn
		var near []net.Conn
		for _, port := range []uint16{5300, 5301} {
			var server net.PacketConn
			w.do(func() (err error) {
				server, err = net.ListenPacket("udp", netip.AddrPortFrom(program, port).String())
				return err
			})
			t.Cleanup(func() { server.Close() })
			_ = server.SetDeadline(time.Now().Add(patience))
			c, err := w.stack.DialUDP(client, server.LocalAddr().(*net.UDPAddr).AddrPort())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			_ = c.SetDeadline(time.Now().Add(patience))
			servers, near = append(servers, server), append(near, c)
		}
		buf := make([]byte, 1<<16)
		for i, server := range servers {
			for _, text := range []string{"question", "", strings.Repeat("long ", 13000)} {
				if _, err := near[i].Write([]byte(text)); err != nil {
					t.Fatal(err)
				}
				n, from, err := server.ReadFrom(buf)
				if err != nil || string(buf[:n]) != text || from.String() != client.String() {
					t.Fatalf("the program got %d bytes of %d from %v, %v, want them from %v", n, len(text), from, err, client)
				}
				if _, err := server.WriteTo(buf[:n], from); err != nil {
					t.Fatal(err)
				}
				if n, err = near[i].Read(buf); err != nil || string(buf[:n]) != text {
					t.Fatalf("the answer has %d bytes of %d, %v", n, len(text), err)
				}
			}
		}
	})
}
