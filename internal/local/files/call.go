package files

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// How the agent is asked: for how long, and what its answers and their absence
// mean to a program.

const (
	// patience is how long a process that got a signal still waits for the
	// answer that is on its way. Ordinary signals (a child's end, a timer) then
	// go unnoticed, as on a local disk; whoever wants to end the process waits
	// no longer than this.
	patience = time.Second
	// callTime bounds a call, or afterLoss beyond what a lost link may take to
	// come back: only an agent that is stuck meets them.
	callTime  = 90 * time.Second
	afterLoss = 30 * time.Second
)

// patient gives a context that outlives ctx by the patience, and ends with r.
// It has the values of ctx. The caller calls done.
func (r *remote) patient(ctx context.Context) (_ context.Context, done func()) {
	lasting, cancel := context.WithCancelCause(valued{r.ctx, ctx})
	var mu sync.Mutex
	var timer *time.Timer
	ended := false
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		if !ended {
			timer = time.AfterFunc(patience, func() { cancel(syscall.EINTR) })
		}
	})
	return lasting, func() {
		stop()
		mu.Lock()
		defer mu.Unlock()
		ended = true
		if timer != nil {
			timer.Stop()
		}
		cancel(nil)
	}
}

// valued is a context with the values of another as well. Its own come first:
// package context finds by one of them whose end it has.
type valued struct {
	context.Context
	values context.Context
}

func (v valued) Value(key any) any {
	if found := v.Context.Value(key); found != nil {
		return found
	}
	return v.values.Value(key)
}

// bound gives the context of a call. The caller calls done.
func (r *remote) bound(ctx context.Context) (_ context.Context, done func()) {
	lasting, end := r.patient(ctx)
	calling, cancel := context.WithTimeoutCause(lasting, r.limit, syscall.ETIMEDOUT)
	return calling, func() { cancel(); end() }
}

// call asks one question and gives the reply if it is a T. The end of ctx is a
// signal.
func call[T protocol.Message](ctx context.Context, r *remote, m protocol.Message) (T, error) {
	calling, done := r.bound(ctx)
	defer done()
	return ask[T](calling, r, m)
}

// ask is call that ends at once with calling.
func ask[T protocol.Message](calling context.Context, r *remote, m protocol.Message) (T, error) {
	got, err := r.peer.Call(calling, m)
	if err != nil {
		var none T
		return none, explain(calling, err)
	}
	return as[T](got)
}

// as tells the expected reply from a refusal.
func as[T protocol.Message](m protocol.Message) (T, error) {
	switch m := m.(type) {
	case T:
		return m, nil
	case *protocol.Answer:
		var none T
		if err := m.Err(); errors.Is(err, syscall.EBADF) {
			return none, fmt.Errorf("opened before the target was replaced: %w", syscall.ESTALE)
		} else if err != nil {
			return none, err
		}
	}
	var none T
	return none, fmt.Errorf("the agent answered with %T instead of %T: %w", m, none, syscall.EIO)
}

// explain gives the error of a call the errno that a program expects of a
// disk: a lost link is EIO, not a reset connection.
func explain(calling context.Context, err error) error {
	var errno syscall.Errno
	var closed *link.ClosedError
	switch {
	case calling.Err() != nil && errors.As(context.Cause(calling), &errno):
		return fmt.Errorf("ask the agent: %w", errno)
	case calling.Err() != nil:
		return fmt.Errorf("the session has ended: %w", syscall.EIO)
	case errors.Is(err, link.ErrLost):
		return errLost
	case errors.As(err, &closed):
		return fmt.Errorf("%v: %w", err, syscall.EIO)
	}
	return err
}

// read reads from a handle; fewer than n bytes are the last ones. The end of
// ctx is a signal. Large answers go with the bulk of the link, so that they hold
// up no question. The file is open: it waits for a lost link.
func (r *remote) read(ctx context.Context, handle uint64, off int64, n int) ([]byte, error) {
	calling, done := r.bound(link.Lasting(ctx))
	defer done()
	const small = 64 << 10 // bytes
	m := &protocol.ReadAt{Handle: handle, Off: off, N: uint32(n)}
	way := askBulk
	if n <= small {
		way = ask[*protocol.Data]
	}
	d, err := way(calling, r, m)
	if err != nil {
		return nil, err
	}
	return bytesOf(d, n)
}

// bytesOf is what an answer to a ReadAt of n bytes has.
func bytesOf(d *protocol.Data, n int) ([]byte, error) {
	if len(d.Bytes) > n {
		return nil, fmt.Errorf("the agent sent %d bytes for %d: %w", len(d.Bytes), n, syscall.EIO)
	}
	return d.Bytes, nil
}

// askBulk is ask for a large answer.
func askBulk(calling context.Context, r *remote, m protocol.Message) (*protocol.Data, error) {
	s, err := r.peer.Open(calling, link.Bulk, m)
	if err != nil {
		return nil, explain(calling, err)
	}
	defer s.Close()
	stop := context.AfterFunc(calling, func() { s.Reset(syscall.ECANCELED) })
	defer stop()
	reply, err := s.Receive()
	if err != nil {
		return nil, explain(calling, err)
	}
	return as[*protocol.Data](reply)
}

// closeHandle does not wait for the answer: nobody could do anything about it.
func (r *remote) closeHandle(handle uint64) {
	s, err := r.peer.Open(link.Lasting(r.ctx), link.Interactive, &protocol.CloseHandle{Handle: handle})
	if err == nil {
		s.Close()
	}
}
