package files

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// idleTime is how long the stream of an open file, for what is read ahead or for
// changes, stays open with nothing on its way. Its window has grown to what the
// link carries, which a program that computes between its reads should find
// again; and which others should have when it does not come back.
const idleTime = time.Second

// perPiece is what a piece takes on its way besides its data, in bytes, rather
// more than less.
const perPiece = 1 << 10

// errOver is what a piece gets whose inbox has ended before it came. It says
// nothing about the file: who waits for the piece asks for it alone.
var errOver = errors.New("reading ahead has ended")

// inbox is a stream by which the pieces of one open file come, in the order in
// which they are asked for and without waiting for each. Each on a stream of its
// own, they would share the link and be complete at about the same time: the
// program would wait for all, then ask for the next ones all at once, and the
// link would stand still for a round trip.
//
// The file's mu guards it.
type inbox struct {
	handle uint64
	stream *link.Stream // nil: it is being opened
	asked  []*piece     // and not here, oldest first
	due    time.Time    // when the oldest must be here; with none, when the inbox ends
	over   bool
}

// order asks for c; false: the end has come. mu is held.
func (f *remoteFile) order(c *piece) bool {
	b := f.ahead.inbox
	if b != nil {
		b.asked = append(b.asked, c)
		if b.stream != nil {
			b.send(c)
			if len(b.asked) == 1 {
				b.within(f.r.limit)
			}
		}
		return true
	}
	b = &inbox{handle: f.handle, asked: []*piece{c}}
	f.wg.Add(1)
	if !f.r.run(func() { defer f.wg.Done(); f.receive(b, b.request(c)) }) {
		f.wg.Done()
		return false
	}
	f.ahead.inbox = b
	return true
}

func (b *inbox) request(c *piece) *protocol.ReadAt {
	return &protocol.ReadAt{Handle: b.handle, Off: c.number * chunk, N: chunk}
}

// send asks for c. It does not wait: all requests that there may be are few
// enough bytes for the stream to take. If it fails, so does receiving.
func (b *inbox) send(c *piece) {
	b.stream.Expect(len(b.asked) * (chunk + perPiece)) // one behind the other
	_ = b.stream.Send(b.request(c))
}

// within sets the time for what is to happen next.
func (b *inbox) within(d time.Duration) {
	b.due = time.Now().Add(d)
	_ = b.stream.SetReadDeadline(b.due) // fails on a closed stream only
}

// receive opens b's stream with the first request and takes what comes until
// its end.
func (f *remoteFile) receive(b *inbox, first *protocol.ReadAt) {
	s, err := f.r.peer.Open(link.Lasting(f.ctx), link.Bulk, first)
	if err == nil {
		defer s.Close()
		stop := context.AfterFunc(f.ctx, func() { _ = s.Reset(syscall.ECANCELED) })
		defer stop()
	}
	if !f.opened(b, s) {
		return
	}
	for {
		m, err := s.Receive()
		if !f.received(b, m, err) {
			return
		}
	}
}

// opened sends what was asked for while b's stream was being opened; false: it
// could not be, which s says by being nil, or nobody wants it any more.
func (f *remoteFile) opened(b *inbox, s *link.Stream) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s == nil {
		f.leave(b, errOver)
		return false
	}
	b.stream = s
	if b.over {
		_ = s.Reset(syscall.ECANCELED)
		return false
	}
	for _, c := range b.asked[1:] {
		b.send(c)
	}
	b.within(f.r.limit)
	return true
}

// received takes what Receive gave; false: b has ended.
func (f *remoteFile) received(b *inbox, m protocol.Message, err error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case b.over:
		return false
	case errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(b.due): // it was idle, and is not any more
		return true
	case errors.Is(err, os.ErrDeadlineExceeded):
		f.leave(b, syscall.ETIMEDOUT)
		return false
	case err != nil, len(b.asked) == 0:
		f.leave(b, errOver)
		return false
	}
	c := b.asked[0]
	b.asked[0], b.asked = nil, b.asked[1:]
	data, err := pieceOf(m)
	f.arrived(c, data, err)
	if len(b.asked) > 0 {
		b.within(f.r.limit)
	} else {
		b.within(idleTime)
	}
	return true
}

func pieceOf(m protocol.Message) ([]byte, error) {
	d, err := as[*protocol.Data](m)
	if err != nil {
		return nil, err
	}
	return bytesOf(d, chunk)
}

// leave ends b, if that is not nil, with all that is on its way: err is what
// became of the oldest, the others can be asked for again. mu is held.
func (f *remoteFile) leave(b *inbox, err error) {
	if b == nil || b.over {
		return
	}
	b.over, f.ahead.inbox = true, nil
	if b.stream != nil {
		_ = b.stream.Reset(syscall.ECANCELED)
	}
	for _, c := range b.asked {
		f.arrived(c, nil, err)
		if f.ahead.chunks[c.number] == c && err == errOver {
			f.forget(c.number)
		}
		err = errOver
	}
	b.asked = nil
}
