package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

const (
	// maxPending bounds what of one open file is on its way to the target, in
	// bytes: 300 Mbit/s at a round trip of 100 ms; and close(2) does not wait long
	// for it.
	maxPending = 4 << 20
	// perChange is what a change counts besides its data, in bytes.
	perChange = 256
)

// outbox sends the changes of one open file, in order, without waiting for each
// to be done. The first that fails is the last that is done; the next call is
// told.
type outbox struct {
	r   *remote
	key uint64 // of the file

	turn chan struct{} // capacity 1: held by who sends

	mu     sync.Mutex
	stream *link.Stream  // nil: none, or the last one has failed
	sizes  []int         // of what is not answered, oldest first
	total  int           // their sum
	err    error         // of the first change that failed, not told yet
	moved  chan struct{} // closed and made anew when something was answered
}

// newOutbox makes one that begins with s, on which its file was opened, and owns
// it; nil: that is over.
func newOutbox(r *remote, k uint64, s *link.Stream) *outbox {
	b := &outbox{r: r, key: k, turn: make(chan struct{}, 1), moved: make(chan struct{})}
	if s != nil && !b.follow(s) {
		b.stream = nil
	}
	return b
}

// follow takes s, whose answers are received until it is idle; false: the end
// has come.
func (b *outbox) follow(s *link.Stream) bool {
	b.mu.Lock()
	b.stream = s
	b.idle(len(b.sizes) == 0)
	b.mu.Unlock()
	if b.r.run(func() { b.receive(s) }) {
		return true
	}
	s.Close()
	return false
}

// idle says whether nothing is on its way on the stream, if there is one: then
// it ends in a while. For holders of the lock.
func (b *outbox) idle(yes bool) {
	end := time.Time{}
	if yes {
		end = time.Now().Add(idleTime)
	}
	if b.stream != nil {
		_ = b.stream.SetReadDeadline(end) // fails on a closed stream only
	}
}

// rested reports whether s has ended, or may end since nothing is on its way.
func (b *outbox) rested(s *link.Stream) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stream == s && len(b.sizes) > 0 {
		return false
	}
	if b.stream == s {
		b.stream = nil
	}
	return true
}

// send sends m, which carries size bytes. An error is that of m or of a change
// before it that somebody was told was done. The end of calling gives up what
// is on its way.
func (b *outbox) send(calling context.Context, m protocol.Message, size int) error {
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-calling.Done():
		return explain(calling, calling.Err())
	}
	size += perChange
	if err := b.await(calling, func() bool { return b.total == 0 || b.total+size <= maxPending }); err != nil {
		return err
	}
	s, err := b.expect(size)
	if err != nil {
		return err
	}
	if s == nil {
		return b.begin(m)
	}
	stop := context.AfterFunc(calling, func() { b.fail(s, explain(calling, calling.Err())) })
	defer stop()
	if err := s.Send(m); err != nil {
		b.fail(s, explain(calling, err))
		if first := b.told(); first != nil {
			return first
		}
		return explain(calling, err) // somebody else was told why
	}
	return nil
}

// expect counts one more change that is to be answered on the stream, and
// gives that; or the error that was not told yet.
func (b *outbox) expect(size int) (*link.Stream, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.err; err != nil {
		b.err = nil
		return nil, err
	}
	b.sizes = append(b.sizes, size)
	b.total += size
	b.idle(false)
	b.r.mu.Lock()
	b.r.inode(b.key).pending[b] = true
	b.r.mu.Unlock()
	b.r.touch(b.key)
	return b.stream, nil
}

// begin opens a stream with m.
func (b *outbox) begin(m protocol.Message) error {
	s, err := b.r.peer.Open(link.Lasting(b.r.ctx), link.Bulk, m)
	if err == nil {
		if b.follow(s) {
			return nil
		}
		err = b.r.ctx.Err()
	}
	err = explain(b.r.ctx, err)
	b.fail(s, err)
	_ = b.told()
	return err
}

// receive reads the answers on s until its end.
func (b *outbox) receive(s *link.Stream) {
	defer s.Close()
	stop := context.AfterFunc(b.r.ctx, func() { s.Reset(syscall.ECANCELED) })
	defer stop()
	for {
		m, err := s.Receive()
		switch {
		case err != nil && b.rested(s): // nobody has to be told
			return
		case errors.Is(err, os.ErrDeadlineExceeded): // something was sent meanwhile
			continue
		case errors.Is(err, io.EOF):
			err = fmt.Errorf("the agent ended a stream of changes: %w", syscall.EIO)
		}
		if err == nil {
			err = answer(m)
		}
		if err != nil {
			b.fail(s, explain(context.Background(), err))
			return
		}
		b.mu.Lock()
		if b.stream == s && len(b.sizes) > 0 {
			b.answered(1)
		}
		b.mu.Unlock()
	}
}

// answer is what an Answer says.
func answer(m protocol.Message) error {
	a, err := as[*protocol.Answer](m)
	if err != nil {
		return err
	}
	return a.Err()
}

// answered counts the oldest n changes as done. For holders of the lock.
func (b *outbox) answered(n int) {
	b.r.touch(b.key) // before anybody finds it settled
	for _, size := range b.sizes[:n] {
		b.total -= size
	}
	if b.sizes = b.sizes[n:]; len(b.sizes) == 0 {
		b.sizes = nil
		b.idle(true)
		b.r.mu.Lock()
		delete(b.r.inode(b.key).pending, b)
		b.r.mu.Unlock()
	}
	close(b.moved)
	b.moved = make(chan struct{})
}

// fail ends the stream s, with all that is on its way.
func (b *outbox) fail(s *link.Stream, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stream != s { // failed already, or closed
		return
	}
	b.stream = nil
	if b.err == nil {
		b.err = err
	}
	if s != nil {
		_ = s.Reset(syscall.ECANCELED)
	}
	b.answered(len(b.sizes))
}

// told gives the error that nobody was told yet.
func (b *outbox) told() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.err
	b.err = nil
	return err
}

// await waits until ok, which is called with the lock.
func (b *outbox) await(calling context.Context, ok func() bool) error {
	for {
		b.mu.Lock()
		done, moved := ok(), b.moved
		b.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-moved:
		case <-calling.Done():
			return explain(calling, calling.Err())
		}
	}
}

// settle waits until nothing is on its way.
func (b *outbox) settle(ctx context.Context) error {
	calling, done := b.r.bound(ctx)
	defer done()
	return b.await(calling, func() bool { return b.total == 0 })
}

// flush is settle, and tells what has failed.
func (b *outbox) flush(ctx context.Context) error {
	if err := b.settle(ctx); err != nil {
		return err
	}
	return b.told()
}

// close ends the outbox after all that is on its way.
func (b *outbox) close() {
	_ = b.settle(b.r.ctx)
	b.mu.Lock()
	s := b.stream
	b.stream = nil
	b.mu.Unlock()
	if s != nil {
		_ = s.CloseWrite() // the agent ends the other direction, and receive with it
	}
}
