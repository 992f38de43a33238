package redirect_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	"github.com/mirrord-go/mirrord/internal/agent/redirect"
	"github.com/mirrord-go/mirrord/internal/agent/target"
	"github.com/mirrord-go/mirrord/internal/relay"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

// Addresses of newNet's pod and client.
const (
	pod4, pod6       = "198.51.100.2", "2001:db8:1::2"
	client4, client6 = "198.51.100.1", "2001:db8:1::1"
)

// newNet is a pod and a client, joined by a cable. The pod drops what comes in
// by an interface that it would not answer by.
func newNet(t testing.TB) (p *pod, client *pod) {
	t.Helper()
	open := func(script string) (*pod, int) {
		pid := testnet.Process(t, syscall.CLONE_NEWNET, nil, script)
		tg, err := target.Open(pid)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tg.Close() })
		return &pod{tg}, pid
	}
	strict := ""
	for _, dev := range []string{"all", "default", "lo"} {
		strict += fmt.Sprintf("echo 1 >/proc/sys/net/ipv4/conf/%s/rp_filter; ", dev)
	}
	up := func(v4, v6 string) string {
		return fmt.Sprintf("ip link set lo up; ip addr add %s/24 dev eth0; ip -6 addr add %s/64 dev eth0 nodad; echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad; ip link set eth0 up", v4, v6)
	}
	p, pid := open(strict + "true")
	client, _ = open(fmt.Sprintf("ip link add eth0 type veth peer name eth0 netns %d; ", pid) + up(client4, client6))
	ready := "until ip link show eth0 | grep -q 'state UP' && ip -6 route get %s 2>&1 | grep -q ^local; do :; done"
	p.run(t, up(pod4, pod6)+"; "+fmt.Sprintf(ready, pod6))
	client.run(t, fmt.Sprintf(ready, client6))
	return p, client
}

// run runs a script inside the namespace.
func (p *pod) run(t testing.TB, script string) {
	t.Helper()
	err := p.t.Do(func() error { // the child has the namespace of the thread
		out, err := exec.Command("sh", "-c", script).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", script, err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// listen serves like serve, on one address, with control called on the socket.
func (p *pod) listen(t testing.TB, name, network, addr string, control func(fd int) error) net.Listener {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) (err error) {
		if control == nil {
			return nil
		}
		return errors.Join(rc.Control(func(fd uintptr) { err = control(int(fd)) }), err)
	}}
	var ln net.Listener
	err := p.t.Do(func() (err error) {
		ln, err = lc.Listen(context.Background(), network, addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); answerAll(ln.Accept, name) }()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln
}

// passOn hands every stolen connection to the original. It ends with r.
func passOn(t testing.TB, r *redirect.Redirect) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := r.Accept(ctx)
			if err != nil {
				return
			}
			wg.Go(func() {
				o, err := r.Original(ctx, c)
				if err != nil {
					t.Log(err)
					relay.Reset(c.(relay.Conn), err)
					return
				}
				_, _ = relay.Join(ctx, nil, c.(relay.Conn), o.(relay.Conn))
			})
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
}

func opened(t testing.TB, p *pod, open func(*pod) (*redirect.Redirect, error), ports ...uint16) *redirect.Redirect {
	t.Helper()
	r, err := open(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	for _, port := range ports {
		if err := r.Add(port); err != nil {
			t.Fatal(err)
		}
	}
	return r
}
