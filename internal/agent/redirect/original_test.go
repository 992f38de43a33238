package redirect_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/agent/redirect"
	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/nft"
	"github.com/mirrord-go/mirrord/internal/relay"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

func TestOriginalSeesTheClient(t *testing.T) {
	ways(t, func(t *testing.T, open func(*pod) (*redirect.Redirect, error)) {
		leak.Check(t)
		p, client := newNet(t)
		p.listen(t, "all", "tcp", ":80", nil)
		p.listen(t, "own", "tcp4", pod4+":81", nil)
		p.listen(t, "lo", "tcp4", "127.0.0.1:82", nil)
		p.listen(t, "lo6", "tcp6", "[::1]:83", nil)
		for i := range 3 {
			p.listen(t, fmt.Sprint("group", i), "tcp4", ":84", func(fd int) error {
				return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			})
		}
		r := opened(t, p, open, 80, 81, 82, 83, 84, 85)
		before := 0
		if strings.HasSuffix(t.Name(), "nftables") {
			before = 1 // for the stealing
		}
		if err := p.t.Do(tablesAre(before)); err != nil {
			t.Error("before the first: ", err)
		}
		passOn(t, r)
		for _, c := range []struct {
			from     *pod
			to, want string
			wantErr  error
		}{
			{from: p, to: "127.0.0.1:80", want: "all 127.0.0.1 127.0.0.1:80"}, // the first needs no translation
			{from: client, to: pod4 + ":80", want: "all " + client4 + " " + pod4 + ":80"},
			{from: client, to: "[" + pod6 + "]:80", want: "all " + client6 + " [" + pod6 + "]:80"},
			{from: client, to: pod4 + ":81", want: "own " + client4 + " " + pod4 + ":81"},
			{from: client, to: pod4 + ":84", want: "group"},
			{from: p, to: "127.0.0.5:80", want: "all 127.0.0.1 127.0.0.5:80"},
			{from: p, to: "[::1]:80", want: "all ::1 [::1]:80"},
			{from: p, to: pod4 + ":80", want: "all " + pod4 + " " + pod4 + ":80"},
			{from: p, to: "[" + pod6 + "]:80", want: "all " + pod6 + " [" + pod6 + "]:80"},
			{from: p, to: "127.0.0.1:82", want: "lo 127.0.0.1 127.0.0.1:82"},
			{from: p, to: "[::1]:83", want: "lo6 ::1 [::1]:83"},
			{from: client, to: pod4 + ":82", wantErr: syscall.ECONNRESET}, // the original listens on loopback
			{from: client, to: pod4 + ":85", wantErr: syscall.ECONNRESET}, // nobody listens
		} {
			for range 3 {
				got, err := c.from.ask(c.to)
				if !errors.Is(err, c.wantErr) || !strings.HasPrefix(got, c.want) {
					t.Errorf("%s answers %q, %v, want %q, %v", c.to, got, err, c.want, c.wantErr)
				}
			}
		}
		if yes, err := r.KeepsClient(); !yes || err != nil {
			t.Errorf("KeepsClient: got %v, %v, want true", yes, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := p.t.Do(tablesAre(0)); err != nil {
			t.Error("after Close: ", err)
		}
	})
}

// tablesAre fails if the thread's namespace has more tables of agents.
func tablesAre(atMost int) func() error {
	return func() error {
		for i := range 4 {
			c, _, err := nft.OwnedTable(fmt.Sprintf("mirrord-agent-%d", i))
			if err == nil {
				c.Close()
			} else if i >= atMost {
				return fmt.Errorf("table %d is there: %w", i, err)
			}
		}
		return nil
	}
}

// A client that speaks MPTCP falls back to TCP with the agent, and so does a
// server that listens with it.
func TestOriginalOfMPTCP(t *testing.T) {
	ways(t, func(t *testing.T, open func(*pod) (*redirect.Redirect, error)) {
		p, client := newNet(t)
		var ln net.Listener
		err := p.t.Do(func() (err error) {
			lc := net.ListenConfig{}
			lc.SetMultipathTCP(true)
			ln, err = lc.Listen(context.Background(), "tcp", ":80")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		go answerAll(ln.Accept, "target")
		r := opened(t, p, open)
		passOn(t, r)
		ask := func() string {
			t.Helper()
			var fd int
			err := client.t.Do(func() (err error) {
				fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			f := os.NewFile(uintptr(fd), "mptcp")
			defer f.Close()
			if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: netip.MustParseAddr(pod4).As4(), Port: 80}); err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(f)
			if err != nil {
				t.Error(err)
			}
			return string(b)
		}
		want := "target " + client4 + " " + pod4 + ":80"
		if got := ask(); got != want {
			t.Errorf("before: got %q, want %q", got, want)
		}
		if err := r.Add(80); err != nil {
			t.Fatal(err)
		}
		if got := ask(); got != want {
			t.Errorf("passed on: got %q, want %q", got, want)
		}
	})
}

func TestRefusedOriginal(t *testing.T) {
	ways(t, func(t *testing.T, open func(*pod) (*redirect.Redirect, error)) {
		p, _ := newNet(t)
		r := opened(t, p, open, 80)
		for _, c := range [][2]string{
			{client4 + ":5", pod4 + ":80"}, {"[" + client6 + "]:5", "[" + pod6 + "]:80"}, {"127.0.0.1:5", "127.0.0.1:80"}, {"[::1]:5", "[::1]:80"},
		} {
			_, err := r.DialOriginal(t.Context(), netip.MustParseAddrPort(c[0]), netip.MustParseAddrPort(c[1]))
			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("nobody at %s: got %v, want ECONNREFUSED", c[1], err)
			}
		}
		// Nothing takes what waits in a full queue.
		p.t.Do(func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				t.Cleanup(func() { unix.Close(fd) })
				err = errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Port: 90}), unix.Listen(fd, 0))
			}
			if err != nil {
				t.Error(err)
			}
			return nil
		})
		var err error
		var waiting []net.Conn
		for range 3 {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 600*time.Millisecond, syscall.ETIMEDOUT)
			var c net.Conn
			c, err = r.DialOriginal(ctx, netip.MustParseAddrPort(client4+":5"), netip.MustParseAddrPort(pod4+":90"))
			cancel()
			if err != nil {
				break
			}
			waiting = append(waiting, c)
		}
		for _, c := range waiting {
			c.Close()
		}
		if !errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("a server that is full: got %v, want ETIMEDOUT", err)
		}
		a, _ := testnet.Pair(t)
		if _, err := r.Original(t.Context(), a); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("a connection that was not stolen: got %v, want EINVAL", err)
		}
		r.Close()
		if _, err := r.DialOriginal(t.Context(), netip.MustParseAddrPort(client4+":5"), netip.MustParseAddrPort(pod4+":80")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: got %v, want net.ErrClosed", err)
		}
	})
}

// Switching under load, with half of the stolen connections passed on.
func TestSwitchingAndPassingLosesNothing(t *testing.T) {
	ways(t, func(t *testing.T, open func(*pod) (*redirect.Redirect, error)) {
		leak.Check(t)
		p, client := newNet(t)
		p.listen(t, "target", "tcp", ":80", nil)
		r := opened(t, p, open)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		asking, enough := context.WithCancel(ctx)
		defer enough()
		var serving, load sync.WaitGroup
		var passed atomic.Int64
		serving.Go(func() {
			for n := 0; ; n++ {
				c, err := r.Accept(ctx)
				if err != nil {
					return
				}
				if n%2 == 0 {
					serving.Go(func() { answerOne(c, "agent") })
					continue
				}
				passed.Add(1)
				serving.Go(func() {
					o, err := r.Original(ctx, c)
					if err != nil {
						t.Error(err)
						c.Close()
						return
					}
					_, _ = relay.Join(ctx, nil, c.(relay.Conn), o.(relay.Conn))
				})
			}
		})
		var n, agents atomic.Int64
		for i := range 6 {
			from, to, want := client, pod4+":80", client4
			switch i % 3 {
			case 1:
				to, want = "["+pod6+"]:80", client6
			case 2:
				from, to, want = p, "127.0.0.1:80", "127.0.0.1"
			}
			load.Go(func() {
				for asking.Err() == nil {
					got, err := from.ask(to)
					if err != nil || !strings.HasSuffix(got, " "+want+" "+to) {
						t.Errorf("got %q, %v", got, err)
						return
					}
					n.Add(1)
					if strings.HasPrefix(got, "agent") {
						agents.Add(1)
					}
				}
			})
		}
		for range 60 {
			if err := r.Add(80); err != nil {
				t.Fatal(err)
			}
			await(t, &n, 10)
			if err := r.Remove(80); err != nil {
				t.Fatal(err)
			}
			await(t, &n, 2)
		}
		enough()
		load.Wait() // what was asked last is answered as well
		cancel()
		serving.Wait()
		if agents.Load() == 0 || passed.Load() == 0 {
			t.Errorf("%d connections, %d answered by the agent, %d passed on: want some of each", n.Load(), agents.Load(), passed.Load())
		}
		t.Logf("%d connections, %d answered by the agent, %d passed on", n.Load(), agents.Load(), passed.Load())
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

// await waits until n has grown by more.
func await(t *testing.T, n *atomic.Int64, more int64) {
	for end := n.Load() + more; n.Load() < end && !t.Failed(); {
		time.Sleep(time.Millisecond)
	}
}

// A client's own connection is not disturbed by ours from the same port.
func TestClash(t *testing.T) {
	ways(t, func(t *testing.T, open func(*pod) (*redirect.Redirect, error)) {
		for _, blind := range []bool{false, true} {
			t.Run(fmt.Sprintf("blind=%v", blind), func(t *testing.T) {
				p, client := newNet(t)
				ln := p.listen(t, "target", "tcp", ":80", nil)
				ln.Close() // of this one only the address is wanted
				held := make(chan net.Conn, 1)
				err := p.t.Do(func() error {
					ln, err := net.Listen("tcp4", ":80")
					if err == nil {
						go func() { c, _ := ln.Accept(); held <- c; answerAll(ln.Accept, "target") }()
						t.Cleanup(func() { ln.Close() })
					}
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				r := opened(t, p, open)
				// The very port that is given out first.
				old, err := client.t.DialWith(t.Context(), "tcp", netip.MustParseAddrPort(pod4+":80"), func(fd int) error {
					return unix.Bind(fd, &unix.SockaddrInet4{Port: int(redirect.FirstPorts(r)[0])})
				})
				if err != nil {
					t.Fatal(err)
				}
				defer old.Close()
				far := <-held
				defer far.Close()
				if err := r.Add(80); err != nil {
					t.Fatal(err)
				}
				if blind { // the translation finds the clash, if it has seen the old one
					redirect.Blind(r)
					redirect.SetUp(r)
					ping(t, old, far)
				}
				passOn(t, r)
				begin := time.Now()
				if got, err := client.ask(pod4 + ":80"); err != nil || got != "target "+client4+" "+pod4+":80" {
					t.Errorf("passed on: %q, %v", got, err)
				}
				if d := time.Since(begin); !blind && d > 300*time.Millisecond {
					t.Errorf("it took %v: the clash was not seen", d)
				}
				ping(t, old, far)
			})
		}
	})
}

// A client that has connections from all the ports that are tried is served,
// without its address, and that is said.
func TestBusyClient(t *testing.T) {
	p, client := newNet(t)
	ln := p.listen(t, "target", "tcp", ":80", nil)
	r := opened(t, p, func(p *pod) (*redirect.Redirect, error) {
		return redirect.New(p.t, redirect.Options{Holder: "ann@laptop"})
	})
	defer ln.Close() // before those that it serves
	hold := func(ports []uint16) {
		for _, port := range ports {
			c, err := client.t.DialWith(t.Context(), "tcp", netip.MustParseAddrPort(pod4+":80"), func(fd int) error {
				return unix.Bind(fd, &unix.SockaddrInet4{Port: int(port)})
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
		}
	}
	all := redirect.FirstPorts(r)[:3*redirect.MaxClashes]
	hold(all[:100])
	if err := r.Add(80); err != nil {
		t.Fatal(err)
	}
	passOn(t, r)
	if got, err := client.ask(pod4 + ":80"); err != nil || got != "target "+client4+" "+pod4+":80" {
		t.Errorf("100 ports are taken: got %q, %v", got, err)
	}
	if yes, err := r.KeepsClient(); !yes {
		t.Errorf("KeepsClient: got no, %v", err)
	}
	if err := r.Remove(80); err != nil {
		t.Fatal(err)
	}
	hold(all[100:])
	if err := r.Add(80); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got, err := client.ask(pod4 + ":80"); err != nil || !strings.HasPrefix(got, "target ") {
			t.Errorf("%d ports are taken: got %q, %v", len(all), got, err)
		}
	}
	if yes, err := r.KeepsClient(); yes || err == nil {
		t.Errorf("KeepsClient: got %v, %v, want false and why", yes, err)
	}
}

// ping sends a word from a to b and back.
func ping(t *testing.T, a, b net.Conn) {
	t.Helper()
	for _, c := range [][2]net.Conn{{a, b}, {b, a}} {
		buf := make([]byte, 4)
		c[1].SetReadDeadline(time.Now().Add(3 * time.Second))
		if _, err := c[0].Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c[1], buf); err != nil {
			t.Fatal("the older connection broke: ", err)
		}
	}
}

// 2,000 connections at once, and from ports that other clients had.
func TestManyOriginals(t *testing.T) {
	ways(t, func(t *testing.T, open func(*pod) (*redirect.Redirect, error)) {
		leak.Check(t)
		p, _ := newNet(t)
		ln := p.listen(t, "unused", "tcp", ":0", nil)
		ln.Close()
		var far sync.Map
		var accepted atomic.Int64
		p.t.Do(func() error {
			ln, err := net.Listen("tcp", ":80")
			if err != nil {
				t.Error(err)
				return nil
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					far.Store(c.RemoteAddr().String(), c)
					accepted.Add(1)
				}
			}()
			t.Cleanup(func() { ln.Close(); <-done })
			return nil
		})
		r := opened(t, p, open, 80)
		const conns, clients = 2000, 400 // more blocks of ports than there are
		var wg sync.WaitGroup
		var all [conns]net.Conn
		for w := range 16 {
			wg.Go(func() {
				for i := w; i < conns; i += 16 {
					client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113 + byte(i%clients/200), byte(i % 200)}), 5)
					c, err := r.DialOriginal(t.Context(), client, netip.MustParseAddrPort(pod4+":80"))
					if err != nil {
						t.Errorf("connection %d: %v", i, err)
						return
					}
					all[i] = c
				}
			})
		}
		p.run(t, "ip route add default via "+client4)
		wg.Wait()
		for end := time.Now().Add(5 * time.Second); accepted.Load() < conns && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		per := map[netip.Addr]int{}
		far.Range(func(k, v any) bool {
			per[netip.MustParseAddrPort(k.(string)).Addr().Unmap()]++
			v.(net.Conn).Close()
			return true
		})
		if len(per) != clients {
			t.Errorf("the server saw %d clients, want %d", len(per), clients)
		}
		for a, n := range per {
			if n != conns/clients {
				t.Errorf("the server saw %d connections of %v, want %d", n, a, conns/clients)
			}
		}
		for _, c := range all {
			if c != nil {
				c.Close()
			}
		}
		r.Close()
	})
}

// Without nftables the original sees the target itself, and that is said.
func TestWithoutTranslation(t *testing.T) {
	p, client := newNet(t)
	p.listen(t, "target", "tcp", ":80", nil)
	r := opened(t, p, func(p *pod) (*redirect.Redirect, error) { return redirect.NewByLookup(p.t, "ann@laptop") }, 80)
	redirect.NoTranslation(r, syscall.EPROTONOSUPPORT)
	passOn(t, r)
	for to, want := range map[string]string{pod4 + ":80": pod4, "[" + pod6 + "]:80": pod6} {
		for range 3 {
			if got, err := client.ask(to); err != nil || got != "target "+want+" "+to {
				t.Errorf("got %q, %v, want the client %s", got, err, want)
			}
		}
	}
	if got, err := p.ask("[::1]:80"); err != nil || got != "target ::1 [::1]:80" {
		t.Errorf("got %q, %v, want the client ::1", got, err)
	}
	if yes, err := r.KeepsClient(); yes || !errors.Is(err, syscall.EPROTONOSUPPORT) {
		t.Errorf("KeepsClient: got %v, %v, want false and why", yes, err)
	}
}

// The answer to a link-local address cannot come back over lo.
func TestLinkLocalClient(t *testing.T) {
	ways(t, func(t *testing.T, open func(*pod) (*redirect.Redirect, error)) {
		p, client := newNet(t)
		p.listen(t, "target", "tcp", ":80", nil)
		r := opened(t, p, open, 80)
		passOn(t, r)
		p.run(t, "ip -6 addr add fe80::2/64 dev eth0 nodad")
		client.run(t, "ip -6 addr add fe80::1/64 dev eth0 nodad")
		var scope uint32
		client.t.Do(func() error {
			i, err := net.InterfaceByName("eth0")
			if err == nil {
				scope = uint32(i.Index)
			}
			return err
		})
		var fd int
		err := client.t.Do(func() (err error) {
			fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "socket")
		defer f.Close()
		if err := unix.Connect(fd, &unix.SockaddrInet6{Addr: netip.MustParseAddr("fe80::2").As16(), Port: 80, ZoneId: scope}); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(f)
		if err != nil || !strings.HasPrefix(string(b), "target fe80::2") {
			t.Errorf("got %q, %v, want the target's own address", b, err)
		}
		if yes, err := r.KeepsClient(); yes || !errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Errorf("KeepsClient: got %v, %v, want false and why", yes, err)
		}
	})
}

// Two agents of one target use the same ports for different clients.
func TestTwoAgents(t *testing.T) {
	ways(t, func(t *testing.T, open func(*pod) (*redirect.Redirect, error)) {
		p, client := newNet(t)
		p.listen(t, "target", "tcp", ":80", nil)
		p.listen(t, "target", "tcp", ":81", nil)
		passOn(t, opened(t, p, open, 80))
		passOn(t, opened(t, p, open, 81))
		client.run(t, "ip addr add 198.51.100.9/24 dev eth0")
		for range 3 {
			for from, to := range map[string]string{client4: pod4 + ":80", "198.51.100.9": pod4 + ":81"} {
				c, err := client.t.DialWith(t.Context(), "tcp", netip.MustParseAddrPort(to), func(fd int) error {
					return unix.Bind(fd, &unix.SockaddrInet4{Addr: netip.MustParseAddr(from).As4()})
				})
				if err != nil {
					t.Fatal(err)
				}
				c.SetDeadline(time.Now().Add(3 * time.Second))
				b, err := io.ReadAll(c)
				if want := "target " + from + " " + to; err != nil || string(b) != want {
					t.Errorf("got %q, %v, want %q", b, err, want)
				}
				c.Close()
			}
		}
	})
}
