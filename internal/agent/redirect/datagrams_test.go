package redirect_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/claims"
	"github.com/mirrord-go/mirrord/internal/agent/redirect"
)

// echo answers datagrams on a port of p with name, the client and what it said.
func (p *pod) echo(t *testing.T, name, network string, port int) {
	t.Helper()
	err := p.t.Do(func() error {
		c, err := net.ListenPacket(network, fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		done := make(chan struct{})
		t.Cleanup(func() { c.Close(); <-done })
		go func() {
			defer close(done)
			b := make([]byte, 1<<16)
			for {
				n, client, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = c.WriteTo(answerTo(name, client, b[:n]), client)
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func answerTo(name string, client net.Addr, said []byte) []byte {
	at := netip.MustParseAddrPort(client.String())
	return fmt.Appendf(nil, "%s %v %s", name, at.Addr().Unmap().WithZone(""), said)
}

// socket makes a socket inside p that sends to addr.
func (p *pod) socket(t *testing.T, addr string) (c net.Conn) {
	t.Helper()
	if err := p.t.Do(func() (err error) { c, err = net.Dial("udp", addr); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// say sends a datagram from inside p and gives the answer, which must come from
// where it was sent to.
func (p *pod) say(t *testing.T, addr, text string) (string, error) {
	t.Helper()
	c := p.socket(t, addr)
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte(text)); err != nil {
		return "", err
	}
	b := make([]byte, 1<<16)
	n, err := c.Read(b)
	return string(b[:n]), err
}

// agentAnswers answers all flows.
func agentAnswers(t *testing.T, d *redirect.Datagrams) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			f, err := d.Accept(ctx)
			if err != nil {
				return
			}
			wg.Go(func() {
				b := make([]byte, 1<<16)
				for {
					n, err := f.Read(b)
					if err != nil {
						return
					}
					if _, err := f.Write(answerTo("agent", f.RemoteAddr(), b[:n])); err != nil {
						t.Error(err)
					}
				}
			})
		}
	})
	t.Cleanup(func() { cancel(); d.Close(); wg.Wait() })
}

// TestDatagrams: what clients in the pod and elsewhere send comes to the agent
// while it has the port, and to the target before and after; the answers come
// from where they asked, of any length.
func TestDatagrams(t *testing.T) {
	p, client := newNet(t)
	p.echo(t, "target", "udp", 53)
	p.echo(t, "target", "udp4", 54)
	d, err := redirect.NewDatagrams(p.t, "ann@laptop", nil)
	if err != nil {
		t.Fatal(err)
	}
	agentAnswers(t, d)
	long := strings.Repeat("long ", 1500) // more than a packet on the cable
	asks := []struct {
		from     *pod
		to, seen string
		said     string
	}{
		{client, pod4 + ":53", client4, "a"},
		{client, "[" + pod6 + "]:53", client6, "a"},
		{client, pod4 + ":54", client4, ""},
		{client, pod4 + ":53", client4, long},
		{client, "[" + pod6 + "]:53", client6, long},
		{p, "127.0.0.1:53", "127.0.0.1", "a"},
		{p, "[::1]:53", "::1", "a"},
		{p, pod4 + ":53", pod4, "a"},
	}
	all := func(who string) {
		t.Helper()
		for _, a := range asks {
			want := fmt.Sprintf("%s %s %s", who, a.seen, a.said)
			if got, err := a.from.say(t, a.to, a.said); err != nil || got != want {
				t.Errorf("%s, asked by %s: %.40q (%d bytes), %v, want %.40q", a.to, a.seen, got, len(got), err, want)
			}
		}
	}
	all("target")
	for _, port := range []uint16{53, 54} {
		if err := d.Add(port); err != nil {
			t.Fatal(err)
		}
	}
	all("agent")
	own := p.socket(t, fmt.Sprintf("127.0.0.1:%d", redirect.OwnPort(d)))
	if _, err := own.Write([]byte("a")); err != nil {
		t.Fatal(err)
	}
	all("agent") // so it has come
	_ = own.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := own.Read(make([]byte, 10)); err == nil {
		t.Errorf("our own port answers with %d bytes", n)
	}
	if err := errors.Join(d.Remove(53), d.Remove(54)); err != nil {
		t.Fatal(err)
	}
	all("target")
}

// TestDatagramsOfOne: a client's datagrams are one flow, in order, and TCP on the
// same port is not touched.
func TestDatagramsOfOne(t *testing.T) {
	p, client := newNet(t)
	p.serve(t, "target", 53)
	d, err := redirect.NewDatagrams(p.t, "ann@laptop", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Add(53); err != nil {
		t.Fatal(err)
	}
	c := client.socket(t, pod4+":53")
	for i := range 20 {
		if _, err := fmt.Fprint(c, i); err != nil {
			t.Fatal(err)
		}
	}
	f, err := d.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if f.RemoteAddr().String() != c.LocalAddr().String() || f.LocalAddr().String() != pod4+":53" {
		t.Errorf("a flow of %v to %v", f.RemoteAddr(), f.LocalAddr())
	}
	b := make([]byte, 100)
	for i := range 20 {
		n, err := f.Read(b)
		if err != nil || string(b[:n]) != fmt.Sprint(i) {
			t.Fatalf("datagram %d: %q, %v", i, b[:n], err)
		}
	}
	if got, err := client.ask(pod4 + ":53"); err != nil || !strings.HasPrefix(got, "target ") {
		t.Errorf("TCP: %q, %v", got, err)
	}
	if n := d.Lost(); n != 0 {
		t.Errorf("%d lost", n)
	}
}

// TestDatagramsHeld: a port is one session's, of each network by itself.
func TestDatagramsHeld(t *testing.T) {
	p := newPod(t)
	first, err := redirect.NewDatagrams(p.t, "ann@laptop", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := redirect.NewDatagrams(p.t, "bob@laptop", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	tcp := opened(t, p, func(p *pod) (*redirect.Redirect, error) { return redirect.NewByLookup(p.t, "bob@laptop") })
	if err := errors.Join(first.Add(53), first.Add(53), tcp.Add(53)); err != nil {
		t.Fatal(err)
	}
	var held *claims.HeldError
	if err := second.Add(53); !errors.As(err, &held) || held.Error() != "UDP port 53 is held by ann@laptop" {
		t.Errorf("a second session: %v", err)
	}
	if err := errors.Join(first.Close(), second.Add(53)); err != nil {
		t.Error(err)
	}
	if err := first.Add(54); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// TestDatagramsTogether: two sessions have a port each of one target.
func TestDatagramsTogether(t *testing.T) {
	p, client := newNet(t)
	for _, port := range []int{53, 54, 55} {
		p.echo(t, "target", "udp", port)
	}
	for _, port := range []uint16{53, 54} {
		d, err := redirect.NewDatagrams(p.t, fmt.Sprint(port), nil)
		if err != nil {
			t.Fatal(err)
		}
		agentAnswers(t, d)
		if err := d.Add(port); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, port := range []int{53, 54, 55} {
		answer, err := client.say(t, fmt.Sprintf("%s:%d", pod4, port), "x")
		if err != nil {
			t.Error(err)
		}
		who, _, _ := bytes.Cut([]byte(answer), []byte(" "))
		got = append(got, string(who))
	}
	if want := []string{"agent", "agent", "target"}; !slices.Equal(got, want) {
		t.Errorf("answered by %v, want %v", got, want)
	}
}
