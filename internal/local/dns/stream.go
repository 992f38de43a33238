package dns

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/relay"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// TCPFlow is a connection attempt of the program to a name server.
type TCPFlow interface {
	Src() netip.AddrPort
	Dst() netip.AddrPort
	Accept() (net.Conn, error)
	Refuse(errno syscall.Errno)
}

// TCP lets carry carry f where the decision says, and answers those lookups
// on the connection that are this machine's. When carry returns, the
// connection must be closed.
func (n *Names) TCP(ctx context.Context, f TCPFlow, carry func(context.Context, TCPFlow, rules.Decision)) {
	d := n.decision()
	limit, cancel := context.WithCancel(ctx)
	a := &attempt{TCPFlow: f, n: n, ctx: limit, remote: d.Where == rules.Remote}
	carry(ctx, a, d)
	cancel()
	if a.split != nil {
		a.split.wait()
	}
}

// attempt puts this room between the program and what carries its connection.
type attempt struct {
	TCPFlow
	n      *Names
	ctx    context.Context // of the answers
	remote bool
	split  *splitStream // the accepted connection, if it is one
}

// Accept completes the program's connect.
func (a *attempt) Accept() (net.Conn, error) {
	c, err := a.TCPFlow.Accept()
	if err != nil {
		return c, err
	}
	conn, ok := c.(closeWriter)
	if !ok {
		return c, nil
	}
	w := watchedStream{conn, a.n, a.remote, nil, false}
	if !a.n.o.Rules.Filtered() {
		return &w, nil
	}
	a.split = &splitStream{watchedStream: w, ctx: a.ctx, in: bufio.NewReader(conn)}
	a.split.idle.L = &a.split.mu
	return a.split, nil
}

// closeWriter is a connection whose directions end separately.
type closeWriter interface {
	net.Conn
	CloseWrite() error
}

// watchedStream learns from the answers, as they pass. Whether it is DNS at
// all is not known.
type watchedStream struct {
	closeWriter
	n      *Names
	remote bool
	heard  []byte // of a message that is not whole yet
	deaf   bool   // this is no DNS
}

// Write gives the program answers, which are learned before it can act on them.
// Where not all of p can be written nothing follows, so that is no harm.
func (w *watchedStream) Write(p []byte) (int, error) {
	if !w.deaf {
		w.heard = append(w.heard, p...)
		whole := messages(w.heard, func(m []byte) {
			w.n.learn(m, w.remote)
			w.n.tell(m, side(w.remote), time.Time{})
			// The bit that says response: whoever speaks otherwise speaks something else.
			w.deaf = w.deaf || len(m) < 3 || m[2]&0x80 == 0
		})
		if w.heard = w.heard[whole:]; len(w.heard) == 0 || w.deaf {
			w.heard = nil
		}
	}
	return w.closeWriter.Write(p)
}

// messages calls each with the whole messages at the beginning of b, and gives
// their length.
func messages(b []byte, each func(message []byte)) (whole int) {
	for {
		rest := b[whole:]
		if len(rest) < 2 || len(rest) < 2+int(binary.BigEndian.Uint16(rest)) {
			return whole
		}
		end := 2 + int(binary.BigEndian.Uint16(rest))
		each(rest[2:end])
		whole += end
	}
}

// Reset ends the connection with an error.
func (w *watchedStream) Reset(errno syscall.Errno) error {
	relay.Reset(w.closeWriter, errno)
	return nil
}

// splitStream keeps the lookups that are this machine's for itself, and puts
// their answers between the others.
type splitStream struct {
	watchedStream
	ctx context.Context // of the answers

	in    *bufio.Reader // from the program
	ready []byte        // read, to be given on
	err   error         // after ready

	mu      sync.Mutex // guards what follows, and writing to the program
	idle    sync.Cond  // pending is 0
	out     []byte     // of a message for the program that is not whole yet
	pending int        // answers being made
	ended   bool       // the program hears nothing more
}

// Read gives the bytes of messages that are not this machine's to answer.
func (s *splitStream) Read(p []byte) (int, error) {
	for len(s.ready) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		if s.ready, s.err = readMessage(s.in); s.err != nil {
			continue
		}
		l, ok := s.n.mine(s.ready[2:], false)
		if !ok {
			break
		}
		s.ready = nil
		select {
		case s.n.slots <- struct{}{}:
			s.begin(l)
		case <-s.ctx.Done():
			s.err = context.Cause(s.ctx)
		}
	}
	k := copy(p, s.ready)
	s.ready = s.ready[k:]
	return k, nil
}

// readMessage gives a message with its length in front. With an error, it
// gives what there is of one.
func readMessage(r io.Reader) ([]byte, error) {
	var length [2]byte
	if k, err := io.ReadFull(r, length[:]); err != nil {
		return length[:k], ending(err)
	}
	b := make([]byte, 2+int(binary.BigEndian.Uint16(length[:])))
	copy(b, length[:])
	k, err := io.ReadFull(r, b[2:])
	return b[:2+k], ending(err)
}

// ending is err, where the end of the stream is no surprise.
func ending(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	return err
}

// begin answers l; its slot is freed then.
func (s *splitStream) begin(l lookup) {
	s.mu.Lock()
	s.pending++
	s.mu.Unlock()
	go func() { // wait waits for it
		reply := s.n.answer(s.ctx, l)
		<-s.n.slots
		s.mu.Lock()
		defer s.mu.Unlock()
		if reply != nil && !s.ended {
			_, _ = s.closeWriter.Write(framed(reply)) // the other direction learns of a lost connection
		}
		if s.pending--; s.pending == 0 {
			s.idle.Broadcast()
		}
	}()
}

// Write gives the program the messages that are whole, and keeps the rest.
func (s *splitStream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = append(s.out, p...)
	whole := messages(s.out, func(m []byte) {
		s.n.learn(m, s.remote)
		s.n.tell(m, side(s.remote), time.Time{})
	})
	if whole > 0 {
		if _, err := s.closeWriter.Write(s.out[:whole]); err != nil {
			return 0, err
		}
	}
	if s.out = s.out[whole:]; len(s.out) == 0 {
		s.out = nil
	}
	return len(p), nil
}

// CloseWrite ends the answers when those of this machine have been given.
func (s *splitStream) CloseWrite() error {
	s.wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	if len(s.out) > 0 {
		if _, err := s.closeWriter.Write(s.out); err != nil {
			return err
		}
		s.out = nil
	}
	return s.closeWriter.CloseWrite()
}

// wait waits for the answers being made.
func (s *splitStream) wait() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.pending > 0 {
		s.idle.Wait()
	}
}
