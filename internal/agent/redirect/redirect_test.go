package redirect_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/claims"
	"github.com/mirrord-go/mirrord/internal/agent/redirect"
	"github.com/mirrord-go/mirrord/internal/agent/target"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

// pod is a network namespace with addresses of its own and a server.
type pod struct {
	t *target.Target
}

func newPod(t *testing.T) *pod {
	t.Helper()
	tg, err := target.Open(testnet.Process(t, syscall.CLONE_NEWNET, nil, testnet.Addressed))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tg.Close() })
	return &pod{tg}
}

// serve answers name and the client's address on port, both families.
func (p *pod) serve(t *testing.T, name string, port int) {
	t.Helper()
	err := p.t.Do(func() error {
		ln, err := net.Listen("tcp", fmt.Sprintf("[::]:%d", port))
		if err == nil {
			t.Cleanup(func() { ln.Close() })
			go answerAll(ln.Accept, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func answerAll(accept func() (net.Conn, error), name string) {
	for {
		c, err := accept()
		if err != nil {
			return
		}
		go answerOne(c, name)
	}
}

func answerOne(c net.Conn, name string) {
	defer c.Close()
	peer := netip.MustParseAddrPort(c.RemoteAddr().String()).Addr().Unmap()
	local := netip.MustParseAddrPort(c.LocalAddr().String())
	fmt.Fprintf(c, "%s %v %v", name, peer, netip.AddrPortFrom(local.Addr().Unmap(), local.Port()))
	c.(interface{ CloseWrite() error }).CloseWrite()
	io.Copy(io.Discard, c)
}

// ask connects inside the namespace and reads all.
func (p *pod) ask(addr string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := p.t.Dial(ctx, "tcp", netip.MustParseAddrPort(addr))
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	b, err := io.ReadAll(c)
	return string(b), err
}

// ways are the two mechanisms; each must do the same.
func ways(t *testing.T, f func(t *testing.T, open func(p *pod) (*redirect.Redirect, error))) {
	t.Run("bpf", func(t *testing.T) {
		f(t, func(p *pod) (*redirect.Redirect, error) { return redirect.NewByLookup(p.t, "ann@laptop") })
	})
	t.Run("nftables", func(t *testing.T) {
		f(t, func(p *pod) (*redirect.Redirect, error) { return redirect.NewByNAT(p.t, "ann@laptop") })
	})
}

func steal(t *testing.T, r *redirect.Redirect) {
	t.Helper()
	go answerAll(func() (net.Conn, error) { return r.Accept(t.Context()) }, "agent")
}

func TestOnAndOff(t *testing.T) {
	ways(t, func(t *testing.T, open func(*pod) (*redirect.Redirect, error)) {
		p := newPod(t)
		p.serve(t, "target", 80)
		p.serve(t, "target", 81)
		r, err := open(p)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		steal(t, r)
		check := func(addr, want string) {
			t.Helper()
			if got, err := p.ask(addr); err != nil || got != want {
				t.Errorf("%s answers %q, %v, want %q", addr, got, err, want)
			}
		}
		check("192.0.2.7:80", "target 192.0.2.7 192.0.2.7:80")
		// A connection made before stays with the target.
		old, err := p.t.Dial(t.Context(), "tcp", netip.MustParseAddrPort("192.0.2.7:80"))
		if err != nil {
			t.Fatal(err)
		}
		defer old.Close()
		if err := r.Add(80); err != nil {
			t.Fatal(err)
		}
		for addr, client := range map[string]string{"192.0.2.7:80": "192.0.2.7", "127.0.0.1:80": "127.0.0.1", "[::1]:80": "::1", "[2001:db8::7]:80": "2001:db8::7"} {
			check(addr, "agent "+client+" "+addr)
		}
		check("192.0.2.7:81", "target 192.0.2.7 192.0.2.7:81")
		if b, err := io.ReadAll(old); err != nil || !strings.HasPrefix(string(b), "target") {
			t.Errorf("the older connection says %q, %v", b, err)
		}
		if err := r.Remove(80); err != nil {
			t.Fatal(err)
		}
		check("192.0.2.7:80", "target 192.0.2.7 192.0.2.7:80")
		if err := r.Add(82); err != nil { // nobody in the target listens there
			t.Fatal(err)
		}
		check("192.0.2.7:82", "agent 192.0.2.7 192.0.2.7:82")
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if _, err := p.ask("192.0.2.7:82"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("after the end: %v, want ECONNREFUSED", err)
		}
	})
}

func TestSwitchingLosesNothing(t *testing.T) {
	ways(t, func(t *testing.T, open func(*pod) (*redirect.Redirect, error)) {
		p := newPod(t)
		p.serve(t, "target", 80)
		r, err := open(p)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		steal(t, r)
		stop := make(chan struct{})
		var n, agents atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					got, err := p.ask("192.0.2.7:80")
					if err != nil || !strings.Contains(got, "192.0.2.7:80") {
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
		for range 40 {
			if err := r.Add(80); err != nil {
				t.Fatal(err)
			}
			before := n.Load()
			for n.Load() < before+8 && !t.Failed() {
				time.Sleep(time.Millisecond)
			}
			if err := r.Remove(80); err != nil {
				t.Fatal(err)
			}
		}
		close(stop)
		wg.Wait()
		if agents.Load() == 0 || agents.Load() == n.Load() {
			t.Errorf("%d of %d connections were stolen: the switch does nothing", agents.Load(), n.Load())
		}
	})
}

func TestHeldPort(t *testing.T) {
	p := newPod(t)
	a, err := redirect.New(p.t, redirect.Options{Holder: "ann@laptop"})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := redirect.New(p.t, redirect.Options{Holder: "bob@desk"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := a.Add(80); err != nil {
		t.Fatal(err)
	}
	err = b.Add(80)
	var held *claims.HeldError
	if !errors.As(err, &held) || held.Holder != "ann@laptop" || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v, want: held by ann@laptop", err)
	}
	if err := b.Add(81); err != nil {
		t.Errorf("another port: %v", err)
	}
	if err := a.Remove(80); err != nil {
		t.Fatal(err)
	}
	if err := b.Add(80); err != nil {
		t.Errorf("after the holder let go: %v", err)
	}
}

func TestDirectDialIsRefused(t *testing.T) {
	ways(t, func(t *testing.T, open func(*pod) (*redirect.Redirect, error)) {
		p := newPod(t)
		r, err := open(p)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		steal(t, r)
		for _, a := range r.Addrs() {
			got, err := p.ask(fmt.Sprintf("127.0.0.1:%d", a.Port()))
			if strings.HasPrefix(got, "agent") {
				t.Errorf("the agent's own port answers a stranger: %q, %v", got, err)
			}
		}
	})
}
