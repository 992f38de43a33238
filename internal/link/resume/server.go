package resume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Server gives every short pipe that arrives to the session that it belongs
// to. Its methods may be called concurrently.
type Server struct {
	opts  Options
	fresh chan *Pipe    // new sessions, for Accept; as long as opts.Sessions
	quit  chan struct{} // closed by Close

	mu       sync.Mutex // guards what follows; taken before a Pipe's mu
	sessions map[ID]*Pipe
	closed   bool
}

// NewServer makes a Server. Close it.
func NewServer(opts Options) *Server {
	opts = opts.withDefaults()
	return &Server{opts: opts, fresh: make(chan *Pipe, opts.Sessions), quit: make(chan struct{}), sessions: map[ID]*Pipe{}}
}

// Accept waits for a new session, which the caller owns and closes.
func (s *Server) Accept(ctx context.Context) (*Pipe, error) {
	select {
	case p := <-s.fresh:
		return p, nil
	case <-s.quit:
		return nil, fmt.Errorf("accept a session: %w", net.ErrClosed)
	case <-ctx.Done():
		return nil, fmt.Errorf("accept a session: %w", context.Cause(ctx))
	}
}

// Attach takes rw, a new short pipe, which it owns: it reads the client's
// hello, for at most 10 s, and gives rw to the session that this names, or
// refuses it. It returns as soon as the session has the pipe. ctx bounds
// Attach only.
func (s *Server) Attach(ctx context.Context, rw io.ReadWriteCloser) error {
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { rw.Close() })
	defer stop()
	r := newReader(rw)
	h, err := readHello(r)
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = s.admit(h, rw, r)
	}
	if err == nil {
		return nil
	}
	var refused *RefusedError
	if errors.As(err, &refused) {
		// Bounded as the hello was: the client may not read.
		late := time.AfterFunc(helloTime, func() { rw.Close() })
		_, _ = rw.Write(appendRefused(nil, refused))
		late.Stop()
	}
	rw.Close()
	return fmt.Errorf("attach a pipe: %w", err)
}

func readHello(r *reader) (hello, error) {
	typ, n, err := readHeader(r.Reader)
	if err != nil {
		return hello{}, fmt.Errorf("wait for the client's hello: %w", err)
	}
	if typ != typeHello {
		return hello{}, fmt.Errorf("%w: frame of type %d instead of a hello", errProtocol, typ)
	}
	b, err := readSmall(r.Reader, n)
	if err != nil {
		return hello{}, fmt.Errorf("read the client's hello: %w", err)
	}
	return parseHello(b)
}

// admit gives rw to its session. It does not close rw.
func (s *Server) admit(h hello, rw io.ReadWriteCloser, r *reader) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, p := range s.sessions {
		if p.ctx.Err() != nil { // ended, and forget is late
			delete(s.sessions, id)
		}
	}
	p := s.sessions[h.session]
	isNew := p == nil
	switch {
	case s.closed:
		return net.ErrClosed
	case isNew && !h.fresh:
		return &RefusedError{RefusedUnknown, "the session is not known here: it has ended, or this is another agent"}
	case isNew && len(s.sessions) >= s.opts.Sessions:
		return &RefusedError{RefusedBusy, "another session is being served"}
	case isNew:
		p = newPipe(h.session, s.opts)
		p.served = true
	}
	if err := p.take(h, rw, r); err != nil {
		if isNew {
			p.end(err)
		}
		return err
	}
	if !isNew {
		return nil
	}
	s.sessions[h.session] = p
	context.AfterFunc(p.ctx, func() { s.forget(p) })
	select {
	case s.fresh <- p:
	default: // sessions that ended before anyone accepted them fill the queue
		p.end(errors.New("nobody accepts sessions here"))
	}
	return nil
}

func (s *Server) forget(p *Pipe) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[p.session] == p {
		delete(s.sessions, p.session)
	}
}

// take makes rw the short pipe of h's epoch, and ends an older one.
func (p *Pipe) take(h hello, rw io.ReadWriteCloser, r *reader) error {
	p.mu.Lock()
	defer p.tell()
	defer p.mu.Unlock()
	switch {
	case p.err != nil:
		return &RefusedError{RefusedUnknown, "the session has just ended"}
	case h.epoch <= p.epoch:
		return &RefusedError{RefusedEpoch, fmt.Sprintf("epoch %d is over, this is %d", h.epoch, p.epoch)}
	case h.received < p.out.base || h.received > p.out.end():
		return &RefusedError{RefusedLost, fmt.Sprintf("the client has %d bytes, kept are %d to %d", h.received, p.out.base, p.out.end())}
	}
	p.epoch = h.epoch
	p.attach(rw, r, h.received, appendWelcome(nil, welcome{epoch: h.epoch, received: p.in.end()}))
	return nil
}

// Close closes every session and refuses what comes later.
func (s *Server) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.quit)
	}
	var pipes []*Pipe
	for _, p := range s.sessions {
		pipes = append(pipes, p)
	}
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, p := range pipes {
		wg.Go(func() { _ = p.Close() })
	}
	wg.Wait()
	return nil
}
