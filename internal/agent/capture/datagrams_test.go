package capture_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/capture"
	"github.com/mirrord-go/mirrord/internal/agent/target"
)

// dialUDP makes a socket in the namespace that sends to addr.
func dialUDP(t *testing.T, tg *target.Target, addr string) net.Conn {
	t.Helper()
	var c net.Conn
	if err := tg.Do(func() (err error) { c, err = net.Dial("udp", addr); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestDatagrams: what clients send to a watched port is copied, each client's in
// order and by itself, whether anybody of the target listens or not.
func TestDatagrams(t *testing.T) {
	tg := namespace(t)
	tap, err := capture.OpenDatagrams(tg.Do, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	addrs := []string{"192.0.2.7:53", "[2001:db8::7]:53", "127.0.0.1:53", "[::1]:53"}
	var clients []net.Conn
	for _, addr := range append(addrs, "192.0.2.7:54") {
		clients = append(clients, dialUDP(t, tg, addr))
	}
	say := func(text string) {
		for _, c := range clients {
			_, _ = c.Write([]byte(text)) // an error that the datagram before met does not matter
		}
	}
	say("before")
	say("before") // where the error came
	if err := tap.Add(53); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		say(fmt.Sprint("datagram ", i))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range addrs {
		f, err := tap.Accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		from := -1
		for i, c := range clients {
			if c.LocalAddr().String() == f.RemoteAddr().String() && c.RemoteAddr().String() == f.LocalAddr().String() {
				from = i
			}
		}
		if from < 0 || from == len(addrs) {
			t.Errorf("a copy of %v to %v", f.RemoteAddr(), f.LocalAddr())
		}
		b := make([]byte, 100)
		n, err := f.Read(b)
		if err != nil || !strings.HasPrefix(string(b[:n]), "datagram ") {
			t.Errorf("%q, %v", b[:n], err)
		}
		if _, err := f.Write(b); err == nil {
			t.Error("a copy can be answered")
		}
	}
	if err := tap.Remove(53); err != nil {
		t.Fatal(err)
	}
	say("after")
	if err := tap.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := tap.Accept(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// TestFragments: a datagram that came in pieces is counted as lost.
func TestFragments(t *testing.T) {
	tg := namespace(t)
	tap, err := capture.OpenDatagrams(tg.Do, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	if err := tap.Add(53); err != nil {
		t.Fatal(err)
	}
	c := dialUDP(t, tg, "192.0.2.7:53")
	err = tg.Do(func() error { return exec.Command("ip", "link", "set", "lo", "mtu", "1500").Run() }) // the child has the thread's namespace
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(make([]byte, 4000)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); tap.Lost() == 0; {
		if time.Now().After(deadline) {
			t.Fatal("nothing is counted")
		}
		time.Sleep(time.Millisecond)
	}
}
