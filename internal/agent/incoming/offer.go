package incoming

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/relay"
)

// This file is about what local refuses: connections that come when the
// program, its listener or the session has just ended, and the port is not back
// with the target yet. They are those of the next session that wants them, or the
// original's.

// maxKept is how many bytes of what its client says are kept for one
// connection, until local has said a word: a request with the longest head
// that common servers take, or a shorter one and a small body.
const maxKept = 16 << 10

// refused reports whether err, with which reading a stream began, says for
// certain that no program has got the connection: local found nobody to give it
// to, had no room for it, or said goodbye, before which it ends every stream
// that it has taken (docs/protocol-messages.md, Incoming).
func refused(err error) bool {
	var reset *link.ResetError
	var closed *link.ClosedError
	switch {
	case errors.As(err, &reset):
		return reset.Remote && (reset.Errno == syscall.ECONNREFUSED || reset.Errno == syscall.EAGAIN)
	case errors.As(err, &closed):
		return closed.Remote && closed.Cause == nil
	}
	return false
}

// offer is a connection that is offered to local: a stream, and as soon as local
// has refused that, a stream to another session or a connection to the original,
// which has been told all that was written to the first. It takes one reader and
// one writer; the reader finds out, so there must be one. Other methods may be
// called at any time.
type offer struct {
	hub   *Hub
	ctx   context.Context // of the session
	conn  *conn
	moved func() // is told before the original is heard; may be nil
	// next gives another session that may have what was said, each once, nil being
	// this agent's own; false: there is none. passed is told before that is heard.
	// nil: there are no others.
	next   func(said []byte) (to *guest, ok bool)
	passed func(to *guest)

	counted atomic.Bool // local has said something, or its refusal is counted

	mu      sync.Mutex
	cond    sync.Cond // of mu: something below has changed
	stream  *link.Stream
	kept    []byte // what was written; nothing more when whole is false
	fin     bool   // and that was all
	whole   bool   // nothing was heard, and all that was written is kept
	refused bool   // and local has refused it: the writer waits for who is next
	to      relay.Conn
	leaving bool // the session has ended, and the link has not
	over    bool // closed, or reset
}

// offer offers c to local, or to a guest in its place.
func (h *Hub) offer(ctx context.Context, c *conn, to *guest) (*offer, error) {
	s, err := h.open(ctx, c, to)
	if err != nil {
		return nil, err
	}
	o := &offer{hub: h, ctx: ctx, conn: c, stream: s, whole: h.o.Original != nil}
	o.cond.L = &o.mu
	return o, nil
}

// local reports whether local has the connection, or may have it.
func (o *offer) local() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.refused
}

// Read reads what is said by local, or by the original in its place.
func (o *offer) Read(p []byte) (int, error) {
	for {
		o.mu.Lock()
		to, s := o.to, o.stream
		o.mu.Unlock()
		if to != nil {
			return to.Read(p)
		}
		n, err := s.Read(p)
		switch {
		case err == nil || !refused(err):
			return o.heard(n, err)
		case o.move():
		default:
			if !o.counted.Swap(true) {
				o.hub.refused.Add(1)
			}
			return o.heard(n, err)
		}
	}
}

// heard tells that local has said something, or has ended the stream.
func (o *offer) heard(n int, err error) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop()
	if n > 0 {
		o.counted.Store(true)
	}
	if o.leaving && (n > 0 || errors.Is(err, io.EOF)) {
		return 0, syscall.ECONNRESET // too late
	}
	return n, err
}

// drop forgets what is kept: it will not be needed. mu is held.
func (o *offer) drop() {
	o.hub.o.Memory.Kept.Give(len(o.kept))
	o.kept, o.whole = nil, false
	o.cond.Broadcast()
}

// keep keeps p, or gives up. mu is held.
func (o *offer) keep(p []byte) {
	switch {
	case !o.whole:
	case len(o.kept)+len(p) > maxKept || !o.hub.o.Memory.Kept.Take(len(p)):
		o.drop()
	default:
		o.kept = append(o.kept, p...)
	}
}

// move gives the connection to the next session that wants it, or to the original;
// false: it cannot.
func (o *offer) move() bool {
	o.mu.Lock()
	if !o.whole || o.over {
		o.mu.Unlock()
		return false
	}
	o.refused = true // from now on nothing is added
	o.cond.Broadcast()
	said, fin, old := o.kept, o.fin, o.stream
	o.mu.Unlock()
	switch passed, err := o.pass(said, fin); {
	case err != nil: // who was asked may have heard something
		o.stand()
		return false
	case passed:
		old.Close()
		return true
	}
	to, err := o.hub.original(o.ctx, o.conn)
	if err == nil {
		err = replay(to, said, fin)
	}
	o.mu.Lock()
	moved := err == nil && !o.over
	if moved {
		o.drop()
		o.to = to
	}
	o.mu.Unlock()
	if !moved {
		o.stand()
		if to != nil {
			relay.Reset(to, syscall.ECONNRESET)
		}
		return false
	}
	old.Close()
	o.hub.returned.Add(1)
	if o.moved != nil {
		o.moved()
	}
	return true
}

// stand ends a move in vain: the refusal stands.
func (o *offer) stand() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.refused = false
	o.drop()
}

// pass gives the connection to the next session that wants it and does not refuse
// it while it is told what the client has said; false: there is none.
func (o *offer) pass(said []byte, fin bool) (bool, error) {
	for o.next != nil {
		to, ok := o.next(said)
		if !ok {
			break
		}
		s, err := o.hub.open(o.ctx, o.conn, to)
		if err != nil {
			continue
		}
		err = replay(s, said, fin)
		if err == nil {
			o.passed(to)
			err = o.become(s, to)
		}
		if err == nil {
			return true, nil
		}
		_ = s.Reset(syscall.ECONNRESET) // nothing where it was that who refused
		s.Close()
		if !refused(err) {
			return false, err
		}
	}
	return false, nil
}

// become makes s, which has been told all that is kept, the stream. It fails when
// nobody needs one any more.
func (o *offer) become(s *link.Stream, of *guest) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over || o.leaving && of == nil {
		return net.ErrClosed
	}
	o.stream, o.refused, o.leaving = s, false, false
	o.cond.Broadcast()
	return nil
}

// replay tells who is next what local was told.
func replay(to relay.Conn, said []byte, fin bool) error {
	if d, ok := to.(interface{ SetWriteDeadline(time.Time) error }); ok {
		_ = d.SetWriteDeadline(time.Now().Add(graceTime))
		defer d.SetWriteDeadline(time.Time{})
	}
	if _, err := to.Write(said); err != nil {
		return fmt.Errorf("replay what the client has said: %w", err)
	}
	if fin {
		return to.CloseWrite()
	}
	return nil
}

// settled waits for the end of a move, and gives the original if it has the
// connection. If not, note is called before it can get it, and the stream is given.
func (o *offer) settled(note func()) (relay.Conn, *link.Stream) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.refused && o.to == nil && !o.over {
		o.cond.Wait()
	}
	if o.to == nil {
		note()
	}
	return o.to, o.stream
}

// spared reports whether err, of writing to s, is none: what was written is kept,
// and the reader has found that local refuses it, and who is next is told.
func (o *offer) spared(s *link.Stream, err error) bool {
	if err == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for refused(err) && o.whole && !o.refused && o.stream == s {
		o.cond.Wait()
	}
	return o.refused || o.to != nil || o.stream != s
}

// Write writes to whoever has the connection.
func (o *offer) Write(p []byte) (int, error) {
	to, s := o.settled(func() { o.keep(p) })
	if to != nil {
		return to.Write(p)
	}
	n, err := s.Write(p)
	if o.spared(s, err) {
		return len(p), nil
	}
	return n, err
}

// CloseWrite ends what is written.
func (o *offer) CloseWrite() error {
	to, s := o.settled(func() { o.fin = true })
	if to != nil {
		return to.CloseWrite()
	}
	err := s.CloseWrite()
	if o.spared(s, err) {
		return nil
	}
	return err
}

// Buffered is how many bytes can be read without waiting, as far as that is
// known, for package relay.
func (o *offer) Buffered() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.to != nil {
		return 0
	}
	return o.stream.Buffered()
}

// Reset ends both directions with errno, whoever has the connection.
func (o *offer) Reset(errno syscall.Errno) error {
	to, s := o.end()
	if to != nil {
		relay.Reset(to, errno)
	}
	return s.Reset(errno)
}

// Close closes the connection.
func (o *offer) Close() error {
	to, s := o.end()
	err := s.Close()
	if to != nil {
		err = to.Close()
	}
	return err
}

func (o *offer) end() (relay.Conn, *link.Stream) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over = true
	o.drop()
	return o.to, o.stream
}

// leave tells that the session has ended, and reports whether the connection may
// go on for a moment: the original has it, or the reader is about to find out
// who does, with an error if that is local. Where the link has ended, what local
// has said before that is still to be read.
func (o *offer) leave() bool {
	if o.hub.o.Link.Err() != nil {
		return true
	}
	o.mu.Lock()
	o.leaving = true
	goesOn, s := o.refused || o.whole, o.stream
	o.mu.Unlock()
	if goesOn {
		_ = s.Reset(syscall.ECONNRESET) // nothing where the link has ended, and has said how
	}
	return goesOn
}
