package redirect

import (
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// kernel is a translation table that accepts what the kernel would.
type kernel struct {
	t       *testing.T
	clients map[uint16]netip.Addr
	changes int
	refuse  error
}

func (k *kernel) enter(out, in []lease) error {
	k.changes++
	if k.refuse != nil {
		return k.refuse
	}
	for _, l := range out {
		if k.clients[l.port] != l.client {
			k.t.Errorf("port %d is taken out for %v, it is %v's", l.port, l.client, k.clients[l.port])
		}
		delete(k.clients, l.port)
	}
	for _, l := range in {
		if have, ok := k.clients[l.port]; ok {
			k.t.Errorf("port %d is entered for %v, it is %v's", l.port, l.client, have)
		}
		k.clients[l.port] = l.client
	}
	return nil
}

func TestPorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &kernel{t: t, clients: map[uint16]netip.Addr{}}
		p := newPorts(k.enter)
		ann, bob := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
		taken := map[uint16]bool{}
		take := func(client netip.Addr) lease {
			t.Helper()
			l, err := p.take(client)
			if err != nil {
				t.Fatal(err)
			}
			if l.client != client || k.clients[l.port] != client || taken[l.port] || l.port < firstPort || l.port > lastPort {
				t.Fatalf("%v got %v, which the kernel has for %v", client, l, k.clients[l.port])
			}
			taken[l.port] = true
			return l
		}
		put := func(l lease) { delete(taken, l.port); p.put(l) }

		first := take(ann)
		for range portBlock - 1 {
			take(ann)
		}
		if k.changes != 1 {
			t.Errorf("%d ports took %d changes, want 1", portBlock, k.changes)
		}
		take(bob)
		put(first)
		if l := take(ann); l.port == first.port {
			t.Errorf("port %d has not rested", l.port)
		}
		time.Sleep(portRest)
		before := k.changes
		var block []lease
		for range portBlock {
			block = append(block, take(ann))
		}
		if block[portBlock-1].port != first.port || k.changes != before {
			t.Errorf("after its rest port %d is not taken again, %d changes", first.port, k.changes-before)
		}

		// Until there are no more. Bob has 63 that he does not use.
		n := 0
		for len(p.rest) > 0 || len(p.free[ann]) > 0 {
			take(ann)
			n++
		}
		before = k.changes
		for range portBlock - 1 {
			take(ann)
		}
		if k.changes != before+1 {
			t.Errorf("bob's ports took %d changes, want 1", k.changes-before)
		}
		if _, err := p.take(ann); !errors.Is(err, unix.EADDRNOTAVAIL) {
			t.Errorf("all are taken: got %v, want EADDRNOTAVAIL", err)
		}
		// One that has not rested is better than none.
		put(block[0])
		if l := take(ann); l.port != block[0].port {
			t.Errorf("got port %d, want %d", l.port, block[0].port)
		}

		// A change that fails loses no port.
		put(block[1])
		k.refuse = unix.ENOMEM
		if _, err := p.take(bob); !errors.Is(err, unix.ENOMEM) {
			t.Errorf("got %v, want ENOMEM", err)
		}
		k.refuse = nil
		if l := take(bob); l.port != block[1].port {
			t.Errorf("got port %d, want %d", l.port, block[1].port)
		}
		if len(taken) != lastPort-firstPort+1 {
			t.Errorf("%d ports are taken, want all", len(taken))
		}
		for port := range taken {
			put(lease{port: port, client: k.clients[port]})
		}
		if len(p.free) != 2 {
			t.Errorf("ports of %d clients are kept, want 2", len(p.free))
		}
		for range lastPort - firstPort + 1 {
			take(netip.Addr{})
		}
		if len(p.free) != 0 {
			t.Errorf("clients who have nothing are kept: %d", len(p.free))
		}
	})
}
