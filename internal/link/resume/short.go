package resume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// short is one short pipe after its hellos. Its fields are guarded by the
// Pipe's mu where nothing else is said.
type short struct {
	p  *Pipe
	rw io.ReadWriteCloser
	r  *reader // of rw

	work    sync.Cond // for the sender: something to send, or dead
	dead    bool
	quit    chan struct{} // closed with dead
	greet   []byte        // the server's WELCOME, sent before anything else
	pace    pace
	pongDue bool
	token   uint64 // of the latest PING; a flood of them is answered once
	pingDue bool
	ackDue  bool
	byeSent bool // composed; nothing is sent after it
	byeOut  bool // written
}

// attach makes rw the current short pipe, whose other end has received so many
// bytes, and starts serving it; greet is sent first. mu is held; out has been
// checked to hold what follows received.
func (p *Pipe) attach(rw io.ReadWriteCloser, r *reader, received uint64, greet []byte) {
	s := &short{p: p, rw: rw, r: r, quit: make(chan struct{}), greet: greet, pingDue: true, ackDue: true}
	s.work.L = &p.mu
	again := p.cur != nil || p.window != nil
	if p.cur != nil {
		p.note(Lost, errReplaced)
		p.cur.stop()
	}
	if p.window != nil {
		p.window.Stop()
		p.window = nil
	}
	if again {
		p.note(Back, nil)
	}
	p.cur, p.next, p.told, p.absent = s, received, 0, away{ran: p.now()}
	p.wg.Go(s.receive)
	p.wg.Go(s.send)
	p.wg.Go(s.watch)
	p.wake()
}

// stop ends s's goroutines and closes its pipe. mu is held.
func (s *short) stop() {
	if s.dead {
		return
	}
	s.dead = true
	close(s.quit)
	s.work.Broadcast()
	s.p.wg.Go(func() { s.rw.Close() }) // may take its time, and mu is held
}

// lose says that s is of no use any more.
func (p *Pipe) lose(s *short, err error) {
	p.mu.Lock()
	if p.cur != s {
		p.mu.Unlock()
		return
	}
	p.cur, p.cause, p.lostAt = nil, err, p.now()
	p.absent.tick(p.lostAt) // it may be the first that we do after an absence
	s.stop()
	switch {
	case p.bye != nil: // our answer to it may be lost, the goodbye is not
		p.endLocked(p.bye)
	case p.closing && s.byeOut && errors.Is(err, io.EOF): // an answer enough
		p.endLocked(errClosed)
	default:
		if d := p.absent.lasted(p.lostAt); d >= maxSilent {
			err = &SilentError{For: d, Slept: true, Err: err}
		}
		p.note(Lost, err)
		p.window = time.AfterFunc(p.opts.Window, p.giveUp)
		p.wake()
	}
	p.mu.Unlock()
	p.tell()
}

// giveUp ends the Pipe if it is still lost.
func (p *Pipe) giveUp() {
	p.mu.Lock()
	if p.cur == nil && p.err == nil && p.window != nil {
		p.endLocked(fmt.Errorf("%w within %v: %w", ErrGone, p.opts.Window, p.cause))
	}
	p.mu.Unlock()
	p.tell()
}

// receive is the goroutine that reads s.
func (s *short) receive() { s.p.lose(s, readFrames(s.r.Reader, s)) }

// data, ack, ping, pong and bye implement events for receive.

func (s *short) data(o uint64, b []byte) error {
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.cur != s:
		return errReplaced
	case o != p.in.end():
		return fmt.Errorf("%w: data with offset %d, not %d", errProtocol, o, p.in.end())
	case p.in.n+len(b) > maxRing:
		return fmt.Errorf("%w: more than %d bytes without acknowledgement", errProtocol, maxRing)
	}
	p.put(b)
	if p.closing { // nobody reads
		p.in.discard(p.in.end())
		p.consumed()
		return nil
	}
	p.readable.Signal()
	return nil
}

// put gives b to a Read that waits, as far as it has room, and keeps the rest. mu
// is held.
func (p *Pipe) put(b []byte) {
	if p.in.n == 0 && p.given < len(p.want) {
		n := copy(p.want[p.given:], b)
		p.given += n
		p.in.base += uint64(n)
		b = b[n:]
	}
	p.in.append(b)
}

func (s *short) ack(o uint64) error {
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.cur != s:
		return errReplaced
	case o > p.next:
		return fmt.Errorf("%w: acknowledges %d bytes of %d", errProtocol, o, p.next)
	case o <= p.out.base: // late, or the first on this pipe
		return nil
	}
	p.out.discard(o)
	now := time.Since(p.start)
	s.pace.ack(o, now)
	if s.pace.probe(p.flight(), now) {
		s.pingDue = true
	}
	s.work.Signal()
	p.writable.Broadcast()
	return nil
}

func (s *short) ping(v uint64) error {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.pongDue, s.token = true, v
	s.work.Signal()
	// Heartbeats come also when nothing else does: a good time to give back.
	if s.p.cur == s {
		s.p.in.shrink()
		s.p.out.shrink()
	}
	return nil
}

func (s *short) pong(v uint64) error {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if s.p.cur == s {
		s.p.absent.answered(s.p.start.Add(time.Duration(v)))
	}
	s.pace.pong(time.Duration(v), time.Since(s.p.start), s.p.flight())
	s.work.Signal()
	return nil
}

func (s *short) bye(sent uint64, text string) error {
	p := s.p
	p.mu.Lock()
	defer p.tell()
	defer p.mu.Unlock()
	switch {
	case p.cur != s:
		return errReplaced
	case sent != p.in.end():
		return fmt.Errorf("%w: goodbye after %d bytes of %d", errProtocol, p.in.end(), sent)
	}
	p.bye = &ByeError{Reason: text}
	p.farewell(s)
	p.wake()
	return nil
}

// farewell ends the Pipe when both goodbyes have been said. mu is held.
func (p *Pipe) farewell(s *short) {
	switch {
	case p.bye == nil || !s.byeOut:
	case p.closing:
		p.endLocked(errClosed)
	default:
		p.endLocked(p.bye)
	}
}

// flight is how many bytes are in flight. mu is held.
func (p *Pipe) flight() int { return int(p.next - p.out.base) }

// send is the goroutine that writes s.
func (s *short) send() {
	p := s.p
	buf := make([]byte, 0, maxData+256) // one DATA frame and all others at once
	for {
		p.mu.Lock()
		for !s.dead && !s.due() {
			s.work.Wait()
		}
		if s.dead {
			p.mu.Unlock()
			return
		}
		buf = s.compose(buf[:0])
		p.mu.Unlock()
		if _, err := s.rw.Write(buf); err != nil {
			p.lose(s, err)
			return
		}
		p.mu.Lock()
		s.byeOut = s.byeSent
		p.farewell(s)
		p.mu.Unlock()
		p.tell()
	}
}

// due reports whether there is something to send. mu is held.
func (s *short) due() bool {
	return !s.byeSent && (s.greet != nil || s.pongDue || s.pingDue || s.ackDue || s.sendable() > 0 || s.byeDue())
}

// sendable is how many bytes may be sent now. mu is held.
func (s *short) sendable() int {
	p := s.p
	if p.bye != nil { // nobody reads them
		return 0
	}
	waiting, flight := int(p.out.end()-p.next), p.flight()
	whole := min(waiting, s.pace.quantum())
	n := min(whole, s.pace.limit()-flight)
	// Not in crumbs: a little later there is room for more.
	if n <= 0 || n < min(whole, minFlight/2) && flight > 0 {
		return 0
	}
	return n
}

// byeDue reports whether the goodbye comes next. mu is held.
func (s *short) byeDue() bool {
	return s.p.bye != nil || s.p.closing && s.p.next == s.p.out.end()
}

// compose appends what is due to buf. mu is held.
func (s *short) compose(buf []byte) []byte {
	p := s.p
	now := time.Since(p.start)
	buf = append(buf, s.greet...)
	s.greet = nil
	if s.pongDue {
		buf = appendNumber(buf, typePong, s.token)
		s.pongDue = false
	}
	if s.pingDue {
		buf = appendNumber(buf, typePing, uint64(now))
		s.pingDue = false
	}
	if s.ackDue || p.in.base > p.told {
		buf = appendNumber(buf, typeAck, p.in.base)
		p.told, p.toldAt, s.ackDue = p.in.base, now, false
	}
	if n := s.sendable(); n > 0 {
		buf = appendHeader(buf, typeData, 8+n)
		buf = binary.BigEndian.AppendUint64(buf, p.next)
		p.out.copyFrom(p.next, buf[len(buf):len(buf)+n])
		buf = buf[:len(buf)+n]
		p.next += uint64(n)
		s.pace.sent(p.next, p.out.base, p.next < p.out.end(), now)
		p.writable.Broadcast()
	}
	if s.byeDue() {
		buf = appendBye(buf, p.next, p.reason)
		s.byeSent = true
	}
	return buf
}

// watch is the goroutine that judges whether s lives.
func (s *short) watch() {
	p := s.p
	t := time.NewTimer(tick)
	defer t.Stop()
	beaten := time.Now()
	var probed time.Time // when an answer was asked for after a suspend; zero: not
	for {
		select {
		case <-s.quit:
			return
		case <-t.C:
		}
		now, heard := time.Now(), s.r.heard()
		// Not a tick late: while a pipe is silent and not lost, others wait for it.
		t.Reset(min(tick, max(maxSilent-now.Sub(heard), 0)))
		if p.ran(s) {
			probed = now
			s.beat()
		}
		switch {
		case now.Sub(heard) >= maxSilent:
			p.lose(s, &SilentError{For: now.Sub(heard)})
		case probed.IsZero():
		case heard.After(probed):
			probed = time.Time{}
		case now.Sub(probed) >= heartbeat:
			p.lose(s, errSlept)
		}
		if now.Sub(beaten) >= heartbeat {
			beaten = now
			s.beat()
		}
	}
}

// beat asks the other end for a sign of life.
func (s *short) beat() {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.pingDue = true
	s.work.Signal()
}
