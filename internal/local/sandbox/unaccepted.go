package sandbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// This file is about connections that end in a listener's queue: the kernel
// makes them, and resets them when the listener ends before the program has
// accepted them. To who has made one that looks as if the program had done it.
//
// The events of sock_diag tell the difference. The kernel takes an unaccepted
// socket's peer away before it destroys it (inet_csk_listen_stop and
// tcp_disconnect in net/ipv4), so that its event names none; one that the
// program has left with something unread still names it. A socket with
// SO_LINGER 0 looks like an unaccepted one, hence the look for the listener.

// fateTime is how long the event of a destroyed socket may take: the kernel
// sends it from a work queue.
const fateTime = 100 * time.Millisecond

// Peer is the program's side of a connection to a listener inside. Its methods
// may be called concurrently.
type Peer struct {
	box       *Box
	from, dst netip.AddrPort
	began     time.Time

	mu     sync.Mutex
	cookie uint64    // 0: not known yet
	absent bool      // it has ended before anything was said to it
	fate   chan bool // whether it has ended without a peer; has room for that
}

// Follow begins to look after the program's side of a connection from one
// address to a listener at another, both as seen by who made it. Forget must be
// called at its end.
func (b *Box) Follow(from, dst netip.AddrPort) *Peer {
	from, dst = b.inside(from), b.inside(dst)
	p := &Peer{box: b, from: from, dst: dst, began: time.Now(), fate: make(chan bool, 1)}
	p.Find()
	return p
}

// Find looks for the program's side again, if it has not been found. It is cheap,
// and is called before anything is said to the program: one that is not there any
// more, nor a listener that could still accept it, has read nothing and never
// will. One whose handshake the kernel has not ended yet counts as found, for the
// socket that it becomes gets its cookie (inet_csk_clone_lock in net/ipv4).
func (p *Peer) Find() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cookie != 0 {
		return
	}
	defer p.box.peers.look()()
	switch s, err := p.box.connection(p.dst, p.from); {
	case err == nil && s.state == stateListen: // which is found in place of a connection that is not there
	case err == nil:
		p.cookie = s.cookie
		p.box.peers.expect(p.cookie, p.fate)
	case errors.Is(err, unix.ENOENT):
		p.absent = !p.box.listens(p.dst)
	}
}

// Unaccepted reports, of a connection that was reset, whether its listener has
// ended before the program accepted it: nobody has read what was written. It
// waits for the kernel to tell, until ctx ends and for fateTime at most, and is
// false when that does not.
func (p *Peer) Unaccepted(ctx context.Context) bool {
	select {
	case alone := <-p.fate:
		return alone && !p.box.listens(p.dst)
	default:
	}
	cookie, absent := p.known()
	if absent {
		return true
	}
	if cookie == 0 || !p.box.peers.ask() {
		return false
	}
	defer p.box.peers.told()
	ctx, cancel := context.WithTimeout(ctx, fateTime)
	defer cancel()
	select {
	case alone := <-p.fate:
		return alone && !p.box.listens(p.dst)
	case <-ctx.Done():
		return false
	}
}

func (p *Peer) known() (cookie uint64, absent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cookie, p.absent
}

// Forget ends what Follow began.
func (p *Peer) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.box.peers.forget(p.cookie)
}

// inside is an address of the device's side as the kernel inside sees it.
func (b *Box) inside(a netip.AddrPort) netip.AddrPort {
	switch v4, v6 := b.Localhost(); a.Addr() {
	case v4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port())
	case v6:
		return netip.AddrPortFrom(netip.IPv6Loopback(), a.Port())
	}
	return a
}

// connection looks at the socket inside that is connected from local to remote.
func (b *Box) connection(local, remote netip.AddrPort) (s socket, err error) {
	b.dumping.Lock()
	defer b.dumping.Unlock()
	err = control(b.files[handoff.Dump], func(fd int) error {
		if err := ask(fd, diagConnection(local, remote)); err != nil {
			return err
		}
		found, _, err := receivePart(fd, make([]byte, 1<<10))
		if err == nil && len(found) != 1 {
			err = errDiag
		}
		if err == nil {
			s = found[0]
		}
		return err
	})
	if err != nil {
		return s, fmt.Errorf("look at a connection inside: %w", err)
	}
	return s, nil
}

// listens reports whether something inside listens where dst leads. An error
// counts as yes.
func (b *Box) listens(dst netip.AddrPort) bool {
	all, err := b.dump(unix.IPPROTO_TCP, stateListen)
	if err != nil {
		return true
	}
	for _, s := range all {
		if ip := s.addr.Addr(); s.addr.Port() == dst.Port() && (ip == dst.Addr().Unmap() || ip.IsUnspecified()) {
			return true
		}
	}
	return false
}

// awaitUnaccepted returns when the end of all that the tree has left in a queue is
// known, where somebody wants to know: later nobody looks at events. The kernel
// closes a process's files after it has let go of the filter, and while a listener
// is there another connection may be in its queue.
func (w *watch) awaitUnaccepted(ctx context.Context) {
	w.awaitClosed(ctx, w.reg.all(unix.IPPROTO_TCP), fateTime)
	w.b.peers.settle(func() ([]socket, error) { return w.b.dump(unix.IPPROTO_TCP, statesConnected...) })
}

// peers are the sockets whose end somebody wants to know.
type peers struct {
	mu      sync.Mutex
	fates   map[uint64]chan<- bool // by cookie
	looking int                    // who may be about to expect something
	passed  map[uint64]bool        // the fates of what ended while somebody looked
	asking  int                    // who wait for an event
	over    bool                   // there are no events any more
	changed sync.Cond              // of mu: fates or asking has, or time is up
}

func newPeers() *peers {
	p := &peers{fates: map[uint64]chan<- bool{}, passed: map[uint64]bool{}}
	p.changed.L = &p.mu
	return p
}

// look is called before a look at a socket, and what it returns when that is
// expected, or not: its end may be told in between.
func (p *peers) look() (done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looking++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.looking--; p.looking == 0 {
			clear(p.passed)
		}
	}
}

// expect wants the fate of a socket; it has room for that.
func (p *peers) expect(cookie uint64, fate chan<- bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if alone, ended := p.passed[cookie]; ended {
		fate <- alone
	} else {
		p.fates[cookie] = fate
	}
}

func (p *peers) forget(cookie uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.fates, cookie)
	p.changed.Broadcast()
}

// destroyed takes an event.
func (p *peers) destroyed(s socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	alone := s.peer == 0
	if p.looking > 0 {
		p.passed[s.cookie] = alone
	}
	if fate := p.fates[s.cookie]; fate != nil {
		fate <- alone
		delete(p.fates, s.cookie)
		p.changed.Broadcast()
	}
}

// ask says that somebody waits for an event, until told; false: there are none.
func (p *peers) ask() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		p.asking++
	}
	return !p.over
}

func (p *peers) told() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asking--
	p.changed.Broadcast()
}

// settle waits until nobody waits, and until all sockets that are not among
// those alive have had their event, fateTime at most; then there are none.
func (p *peers) settle(alive func() ([]socket, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() { p.over = true }()
	known := slices.Collect(maps.Keys(p.fates)) // first: what is made meanwhile is not missing
	there, err := alive()
	if err != nil {
		return
	}
	gone := missing(known, there)
	late := false
	timer := time.AfterFunc(fateTime, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		late = true
		p.changed.Broadcast()
	})
	defer timer.Stop()
	coming := func(cookie uint64) bool { return p.fates[cookie] != nil }
	for !late && (p.asking > 0 || slices.ContainsFunc(gone, coming)) {
		p.changed.Wait()
	}
}
