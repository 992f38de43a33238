package incoming

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/link"
)

// Peer is the program's side of a connection inside. Its methods may be called
// concurrently.
type Peer interface {
	// Find is called before anything is written, and may be again.
	Find()
	// Unaccepted reports, of a connection that was reset by the other side, whether
	// it ended in the queue of a listener that is gone, so that no program has
	// read anything. It may take a moment, which ends with ctx.
	Unaccepted(ctx context.Context) bool
	// Forget is called at the connection's end.
	Forget()
}

// taken is a connection that the program has, as far as its kernel tells.
// Whatever it ends with, it was not refused; unless it has ended in the queue of
// a listener that is gone.
type taken struct {
	*link.Stream
	ctx  context.Context // of the delivery
	peer Peer            // nil: nobody knows

	begun   atomic.Bool // the client has said something
	settled atomic.Bool // the program has, or the client is gone: it stays taken
}

func (p *Ports) taken(ctx context.Context, s *link.Stream, near net.Conn, at netip.AddrPort) *taken {
	t := &taken{Stream: s, ctx: ctx}
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

func (t *taken) Read(b []byte) (int, error) {
	n, err := t.Stream.Read(b)
	switch {
	case n > 0 && t.peer != nil && !t.begun.Swap(true):
		t.peer.Find()
	case err != nil && !errors.Is(err, io.EOF):
		t.settled.Store(true)
	}
	return n, err
}

func (t *taken) Write(b []byte) (int, error) {
	t.settled.Store(true)
	return t.Stream.Write(b)
}

func (t *taken) CloseWrite() error {
	t.settled.Store(true)
	return t.Stream.CloseWrite()
}

// Reset is that of the stream, but for the errnos that mean a refusal.
func (t *taken) Reset(errno syscall.Errno) error {
	if t.peer != nil && !t.begun.Load() {
		t.peer.Find() // nothing was said yet
	}
	switch {
	case t.peer != nil && !t.settled.Swap(true) && t.peer.Unaccepted(t.ctx):
		errno = syscall.ECONNREFUSED
	case errno == syscall.ECONNREFUSED, errno == syscall.EAGAIN:
		errno = syscall.ECONNRESET
	}
	return t.Stream.Reset(errno)
}
