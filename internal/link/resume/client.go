package resume

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"time"
)

const (
	// firstBackoff and maxBackoff bound the wait between two attempts: the
	// first loss is mostly a proxy's restart, a network that is away for
	// longer is asked less often, but programs and requests of others wait.
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 2 * time.Second

	// dialTime bounds one attempt: a connection through a dead network says
	// nothing for minutes.
	dialTime = 15 * time.Second
)

// Connect makes a new short pipe to the agent, sealed.
type Connect func(context.Context) (io.ReadWriteCloser, error)

// Dial begins a session: it connects, and connects again by itself whenever
// the short pipe is lost, never twice at a time. An error of the first connect
// and a refusal are returned at once; a short pipe lost before the agent's
// answer is replaced, for as long as the window. ctx bounds Dial, not the Pipe,
// which lives until Close.
func Dial(ctx context.Context, connect Connect, opts Options) (*Pipe, error) {
	var session ID
	_, _ = rand.Read(session[:])
	p := newPipe(session, opts.withDefaults())
	stop := context.AfterFunc(ctx, p.cancel)
	defer stop()
	fail := func(err error) (*Pipe, error) {
		p.end(err)
		p.wg.Wait()
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		return nil, err
	}
	rw, err := connect(p.ctx)
	if err != nil {
		return fail(err)
	}
	until := time.Now().Add(p.opts.Window)
	for wait := firstBackoff; ; wait = min(2*wait, maxBackoff) {
		if err == nil {
			err = p.join(p.ctx, rw, true)
		}
		if err == nil {
			break
		}
		if p.final(err) || time.Now().After(until) || pause(p.ctx, wait) != nil {
			return fail(err)
		}
		rw, err = p.dial(connect)
	}
	if !stop() {
		_ = p.Close()
		return nil, context.Cause(ctx)
	}
	p.wg.Go(func() { p.keep(connect) })
	return p, nil
}

// final reports whether another attempt would end like this one.
func (p *Pipe) final(err error) bool {
	var refused *RefusedError
	return errors.As(err, &refused) || p.opts.Fatal != nil && p.opts.Fatal(err)
}

// keep finds a new short pipe whenever the current one is lost.
func (p *Pipe) keep(connect Connect) {
	for p.waitLost() {
		for wait := firstBackoff; ; wait = min(2*wait, maxBackoff) {
			rw, err := p.dial(connect)
			if err == nil {
				err = p.join(p.ctx, rw, false)
			}
			if err == nil {
				break
			}
			p.mu.Lock()
			p.cause = err
			if p.final(err) {
				if err = p.expired(err); p.closing { // forgotten there means closed
					err = errClosed
				}
				p.endLocked(fmt.Errorf("resume the link: %w", err))
			}
			p.mu.Unlock()
			p.tell()
			if pause(p.ctx, wait) != nil {
				return
			}
		}
	}
}

// waitLost waits for the loss of the short pipe; false means the end.
func (p *Pipe) waitLost() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.cur != nil && p.err == nil {
		p.lost.Wait()
	}
	return p.err == nil
}

func (p *Pipe) dial(connect Connect) (io.ReadWriteCloser, error) {
	ctx, cancel := context.WithTimeout(p.ctx, dialTime)
	defer cancel()
	return connect(ctx)
}

// pause waits for about d, half as much at least: many sessions lose the same
// proxy at the same time.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d/2 + mrand.N(d/2))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// join exchanges hellos on rw, which it owns, and makes it the current short
// pipe.
func (p *Pipe) join(ctx context.Context, rw io.ReadWriteCloser, fresh bool) (err error) {
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { rw.Close() })
	defer func() {
		if !stop() && err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			rw.Close()
		}
	}()

	p.mu.Lock()
	p.epoch++
	h := hello{fresh: fresh, session: p.session, epoch: p.epoch, received: p.in.end()}
	p.mu.Unlock()
	// A refusal by the layer below comes with the first read, so a failed
	// write does not end the attempt.
	_, werr := rw.Write(appendHello(nil, h))
	r := newReader(rw)
	typ, n, err := readHeader(r.Reader)
	if err != nil {
		return fmt.Errorf("wait for the agent's hello: %w", errors.Join(err, werr))
	}
	b, err := readSmall(r.Reader, n)
	if err != nil {
		return fmt.Errorf("read the agent's hello: %w", err)
	}
	w, err := parseAnswer(typ, b)
	if err != nil {
		return err
	}
	if w.epoch != h.epoch {
		return fmt.Errorf("%w: hello of epoch %d, not %d", errProtocol, w.epoch, h.epoch)
	}
	p.mu.Lock()
	defer p.tell()
	defer p.mu.Unlock()
	switch {
	case p.err != nil:
		return p.err
	case w.received < p.out.base || w.received > p.out.end():
		return &RefusedError{Code: RefusedLost, Text: fmt.Sprintf("the agent has %d bytes, kept are %d to %d", w.received, p.out.base, p.out.end())}
	case ctx.Err() != nil:
		return ctx.Err()
	}
	p.attach(rw, r, w.received, nil)
	return nil
}
