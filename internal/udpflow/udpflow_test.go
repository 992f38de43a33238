package udpflow

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/datagram"
	"github.com/mirrord-go/mirrord/internal/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

var (
	server = netip.MustParseAddrPort("10.0.0.1:53")
	one    = netip.MustParseAddrPort("10.0.0.2:4000")
	other  = netip.MustParseAddrPort("10.0.0.3:4000")
)

func read(t *testing.T, c net.Conn) string {
	t.Helper()
	b := make([]byte, datagram.Max)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func accept(t *testing.T, table *Table) net.Conn {
	t.Helper()
	c, err := table.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestFlows: each client has a flow of its own, with its datagrams in order, and
// its answers come from the address that it sent to.
func TestFlows(t *testing.T) {
	var answered []string
	table := New(Options{Idle: time.Minute, Max: 10, Answer: func(from, client netip.AddrPort, p []byte) error {
		answered = append(answered, fmt.Sprint(from, client, string(p)))
		return nil
	}})
	defer table.Close()
	b := []byte("a1")
	table.Deliver(one, server, b)
	copy(b, "xx") // the caller's again
	table.Deliver(other, server, []byte("b1"))
	table.Deliver(one, server, []byte("a2"))
	table.Deliver(one, server, nil)
	first, second := accept(t, table), accept(t, table)
	if first.RemoteAddr().String() != one.String() || first.LocalAddr().String() != server.String() || second.RemoteAddr().String() != other.String() {
		t.Errorf("flows of %v and %v to %v", first.RemoteAddr(), second.RemoteAddr(), first.LocalAddr())
	}
	for _, want := range []string{"a1", "a2", ""} {
		if got := read(t, first); got != want {
			t.Errorf("read %q, want %q", got, want)
		}
	}
	if got := read(t, second); got != "b1" {
		t.Errorf("read %q", got)
	}
	if _, err := second.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprint(server, other, "answer"); len(answered) != 1 || answered[0] != want {
		t.Errorf("answered %q, want %q", answered, want)
	}
	second.Close()
	if _, err := second.Write(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after the end: %v", err)
	}
	table.Deliver(other, server, []byte("b2"))
	if got := read(t, accept(t, table)); got != "b2" {
		t.Errorf("a flow after its end: %q", got)
	}
}

// TestIdle: a flow lives as long as something is said either way.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := New(Options{Idle: time.Minute, Max: 10, Answer: func(_, _ netip.AddrPort, _ []byte) error { return nil }})
		defer table.Close()
		table.Deliver(one, server, []byte("a"))
		f := accept(t, table)
		read(t, f)
		began := time.Now()
		go func() {
			for range 3 {
				time.Sleep(50 * time.Second)
				_, _ = f.Write(nil)
			}
		}()
		_, err := f.Read(make([]byte, 10))
		if took := time.Since(began); !errors.Is(err, io.EOF) || took != 210*time.Second {
			t.Errorf("ended after %v: %v", took, err)
		}
	})
}

// TestBounds: too many flows end the one that has been idle longest, too many
// datagrams are dropped and counted, and no memory stays taken.
func TestBounds(t *testing.T) {
	b := budget.New(1 << 20)
	held := b.Share(0, 1<<20)
	table := New(Options{Idle: time.Minute, Max: 2, Held: held})
	third := netip.MustParseAddrPort("10.0.0.4:4000")
	table.Deliver(one, server, []byte("a"))
	table.Deliver(other, server, []byte("b"))
	table.Deliver(one, server, []byte("a"))
	table.Deliver(third, server, []byte("c"))
	first, second := accept(t, table), accept(t, table)
	if _, err := second.Read(make([]byte, 9)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the one that was idle longest: %v", err)
	}
	if got := read(t, first); got != "a" {
		t.Errorf("the busier one: %q", got)
	}
	if lost := table.Lost(); lost != 1 {
		t.Errorf("%d lost, want the one that waited", lost)
	}
	large := bytes.Repeat([]byte("x"), 10000)
	for range 2 * maxQueued {
		table.Deliver(third, server, large)
	}
	if lost := table.Lost(); lost < maxQueued {
		t.Errorf("%d lost", lost)
	}
	if _, err := first.Write(nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("an answer of a copy: %v", err)
	}
	table.Forget(1)
	if first.(*Flow).at == nil {
		t.Error("a flow to another port has ended")
	}
	table.Forget(server.Port())
	if first.(*Flow).at != nil {
		t.Error("the flow goes on")
	}
	table.Close()
	table.Close()
	table.Deliver(one, server, []byte("a"))
	if _, err := table.Accept(t.Context()); err == nil { // what was not accepted may come, ended
		_, err = table.Accept(t.Context())
	}
	if used := held.Used(); used != 0 {
		t.Errorf("%d bytes are still taken", used)
	}
}
