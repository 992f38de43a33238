package incoming

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/link"
)

// Peer is the program's side of a connection inside. Its methods may be called
// concurrently.
type Peer interface {
	// Find is called before anything is written, and may be again.
	Find()
	// Place reports whether the connection is in the queue of a listener, where the
	// program can accept it without being told anything, and whether it has accepted it.
	// Neither: nobody can tell.
	Place() (queued, accepted bool)
	// Unaccepted reports, of a connection that was reset by the other side, whether
	// it ended in the queue of a listener that is gone, so that no program has
	// read anything. It may take a moment, which ends with ctx.
	Unaccepted(ctx context.Context) bool
	// Forget is called at the connection's end.
	Forget()
}

// taken is a connection that the program has, as far as its kernel tells.
// Whatever it ends with, it was not refused; unless it has ended in the queue of
// a listener that is gone, or was withdrawn from that of one which accepts nothing.
type taken struct {
	*link.Stream
	ctx     context.Context // of the delivery
	peer    Peer            // nil: nobody knows
	refused func()          // is told that the connection is the target's again

	begun    atomic.Bool // the client has been heard
	fate     atomic.Int32
	admit    func()        // lets the program hear the client; may be called again
	admitted chan struct{} // closed by admit
	end      func()        // closes over; may be called again
	over     chan struct{}
}

// Fates of a taken connection.
const (
	open      = iota
	settled   // the program has said something, or the client is gone: it stays taken
	withdrawn // nothing of the program's is heard any more
)

func (p *Ports) taken(ctx context.Context, s *link.Stream, near net.Conn, at netip.AddrPort, refused func()) *taken {
	t := &taken{Stream: s, ctx: ctx, refused: refused, admitted: make(chan struct{}), over: make(chan struct{})}
	t.admit = sync.OnceFunc(func() { close(t.admitted) })
	t.end = sync.OnceFunc(func() { close(t.over) })
	if p.o.Follow != nil {
		t.peer = p.o.Follow(addrPort(near.LocalAddr()), at)
	}
	return t
}

func (t *taken) forget() {
	if t.peer != nil {
		t.peer.Forget()
	}
}

// withdraw takes the connection from the program; false: it stays taken.
func (t *taken) withdraw() bool { return t.fate.CompareAndSwap(open, withdrawn) }

// stays settles that the connection stays taken; false: it was withdrawn.
func (t *taken) stays() bool {
	if t.fate.CompareAndSwap(open, settled) {
		t.admit()
	}
	return t.fate.Load() == settled
}

// hears waits until the program may hear the client; false: it never will.
func (t *taken) hears() bool {
	select {
	case <-t.admitted:
		return true
	case <-t.over:
		return false
	}
}

// Ready is that of the stream, for package relay: nobody waits with a large buffer
// in hand.
func (t *taken) Ready() int {
	n := t.Stream.Ready()
	if n > 0 {
		t.hears()
	}
	return n
}

func (t *taken) Read(b []byte) (int, error) {
	n, err := t.Stream.Read(b)
	switch {
	case n > 0 && t.peer != nil && !t.begun.Load():
		if !t.hears() {
			return 0, syscall.ECONNRESET
		}
		t.begun.Store(true)
		t.peer.Find()
	case err != nil && !errors.Is(err, io.EOF):
		t.stays()
	}
	return n, err
}

func (t *taken) Write(b []byte) (int, error) {
	if !t.stays() {
		return 0, syscall.ECONNRESET
	}
	return t.Stream.Write(b)
}

func (t *taken) CloseWrite() error {
	if !t.stays() {
		return syscall.ECONNRESET
	}
	return t.Stream.CloseWrite()
}

// Reset is that of the stream, but for the errnos that mean a refusal.
func (t *taken) Reset(errno syscall.Errno) error {
	t.end()
	if t.peer != nil && !t.begun.Load() {
		t.peer.Find() // nothing was said yet
	}
	switch {
	case t.fate.Load() == withdrawn, t.peer != nil && t.fate.CompareAndSwap(open, settled) && t.peer.Unaccepted(t.ctx):
		t.refused()
		errno = syscall.ECONNREFUSED
	case errno == syscall.ECONNREFUSED, errno == syscall.EAGAIN:
		errno = syscall.ECONNRESET
	}
	return t.Stream.Reset(errno)
}
