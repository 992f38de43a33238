package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRegistry(t *testing.T) {
	var log []string
	r := newRegistry(func(proto int, port uint16, on bool) error {
		if port == 99 {
			return unix.ENOSPC
		}
		log = append(log, fmt.Sprintf("%d/%d %v", proto, port, on))
		return nil
	})
	tcp := func(port uint16) Listener {
		return Listener{Proto: unix.IPPROTO_TCP, Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), port)}
	}
	a, fresh, err := r.add(1, tcp(80))
	if err != nil || !fresh {
		t.Fatalf("first: got fresh %v, %v", fresh, err)
	}
	if _, fresh, _ := r.add(1, tcp(80)); fresh {
		t.Error("the same socket again is fresh")
	}
	b, _, _ := r.add(2, tcp(80)) // SO_REUSEPORT
	if a.ID == b.ID {
		t.Error("two sockets have one ID")
	}
	if r.settle(1, a, nil) {
		t.Error("settle tells of an end that was not")
	}
	if err := a.wait(context.Background()); err != nil {
		t.Error(err)
	}
	// The second is refused: forgotten, the port stays with the first.
	r.settle(2, b, unix.EADDRINUSE)
	if err := b.wait(context.Background()); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("refused: got %v, want EADDRINUSE", err)
	}
	if r.knows(2) || r.destroyed(2) != nil {
		t.Error("a refused socket is still known")
	}
	// Destroyed while its hook runs: told by settle, once.
	c, _, _ := r.add(3, tcp(81))
	if r.destroyed(3) != nil {
		t.Error("the end is told before the hook has returned")
	}
	if !r.settle(3, c, nil) {
		t.Error("the end is not told after the hook has returned")
	}
	if got := missing(r.cookies(unix.IPPROTO_TCP), []socket{{cookie: 5}}); len(got) != 1 || got[0] != 1 {
		t.Errorf("missing: got %v, want [1]", got)
	}
	if e := r.destroyed(1); e == nil || e.ID != a.ID {
		t.Errorf("destroyed: got %v, want %v", e, a)
	}
	if r.destroyed(1) != nil {
		t.Error("destroyed twice")
	}
	if _, _, err := r.add(9, tcp(99)); !errors.Is(err, unix.ENOSPC) || r.knows(9) {
		t.Errorf("a port that cannot be made local: got %v, want ENOSPC", err)
	}
	want := "[6/80 true 6/81 true 6/81 false 6/80 false]"
	if got := fmt.Sprint(log); got != want {
		t.Errorf("ports: got %s, want %s", got, want)
	}
}
