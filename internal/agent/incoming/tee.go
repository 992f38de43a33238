package incoming

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/relay"
)

// This file is about ports that are copied by the stealing path: each connection
// goes to the original, and local gets a copy of what its client says.

// Copy is a copy of a connection, which is read while it is made, by one reader.
// Its Close ends a Read.
type Copy interface {
	net.Conn
	// Push adds what the client has said, and takes it over. It does not wait: it
	// fails with net.ErrClosed where the reader has ended the copy, and where there is
	// no room.
	Push(data []byte) error
	// Finish says what the reader gets behind that. The first call counts.
	Finish(err error)
}

// tee is a connection that is passed on. Nobody waits for the copy: one for which
// there is no room ends, and another begins with the next request, as it does
// where local has ended its own.
type tee struct {
	*conn
	hub *Hub
	ctx context.Context // of the session
	wg  sync.WaitGroup  // of copies

	to      Copy        // nil: there is none; only used by who reads
	ignored atomic.Bool // it is not understood: there will be none any more
}

// tee owns c.
func (h *Hub) tee(ctx context.Context, c *conn) {
	to, err := h.original(ctx, c)
	if err != nil { // nobody has got anything
		relay.Reset(c, err)
		return
	}
	t := &tee{conn: c, hub: h, ctx: ctx}
	defer t.wg.Wait()
	t.begin(false)
	longer, cancel := outlast(ctx, always)
	defer cancel()
	if _, err = relay.Join(longer, h.o.Memory.Relayed, to, t); err == nil {
		err = io.EOF
	}
	t.finish(err)
}

// begin begins a copy, if there is room; middle: of what comes from now on.
func (t *tee) begin(middle bool) {
	room := t.hub.o.Memory.Connections[t.key.mode]
	if !room.Take(splitCost) {
		t.hub.missed.Add(1)
		return
	}
	t.to = t.hub.o.Copy(t.peer, t.local)
	c := &conn{Conn: understood{t.to, t}, key: t.key, peer: t.peer, local: t.local, teed: true, middle: middle}
	t.wg.Go(func() {
		defer room.Give(splitCost)
		defer c.Close()
		t.hub.copy(t.ctx, c, t.hub.rule(c.key))
	})
}

// understood is a copy that tells when it is not.
type understood struct {
	Copy
	of *tee
}

// Ignore is for conn.ignore.
func (u understood) Ignore() { u.of.ignored.Store(true) }

// Read is who passes the connection on.
func (t *tee) Read(p []byte) (int, error) {
	n, err := t.conn.Read(p)
	if n > 0 {
		t.say(bytes.Clone(p[:n]))
	}
	if err != nil {
		t.finish(err)
	}
	return n, err
}

// say gives the copy what the client has said.
func (t *tee) say(data []byte) {
	fresh := Begins(data)
	if t.to != nil {
		err := t.to.Push(data)
		if err == nil {
			return
		}
		t.finish(io.ErrUnexpectedEOF)
		if !t.ignored.Load() && !(fresh && errors.Is(err, net.ErrClosed)) {
			t.hub.missed.Add(1)
			return
		}
	}
	if !fresh || t.ignored.Load() {
		return
	}
	if t.begin(true); t.to != nil && t.to.Push(data) != nil {
		t.finish(io.ErrUnexpectedEOF)
		t.hub.missed.Add(1)
	}
}

// finish ends the copy, in order if err is io.EOF.
func (t *tee) finish(err error) {
	if t.to == nil {
		return
	}
	if !errors.Is(err, io.EOF) {
		err = syscall.ECONNRESET
	}
	t.to.Finish(err)
	t.to = nil
}
