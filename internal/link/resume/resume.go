// Package resume makes one lasting byte pipe out of short ones that are lost
// now and then: port-forwards over networks that change, machines that sleep.
//
// The supervisor calls Dial, the agent makes a Server and gives it every short
// pipe that arrives, already sealed. Both get a Pipe, on which nothing is lost
// or doubled when a short pipe is replaced by another: each side keeps what the
// other has not acknowledged and sends it again. When no short pipe can be had
// for the length of the window, the Pipe ends with ErrGone. The bytes on the
// wire are described in docs/protocol.md, part 2.
//
// Short pipes need no deadlines and no half-close, but their Close must end
// calls of Read and Write under way: Pipe.Close waits for them.
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

const (
	// maxRing is how many bytes are kept, at each end, that the other end has
	// not acknowledged. It bounds the throughput to maxRing per round trip:
	// 100 MB/s at 40 ms, more than any port-forward carries there.
	maxRing = 4 << 20

	// Memory is what a Pipe holds at most, in bytes: as much of what has come,
	// and its buffers.
	Memory = 2*maxRing + 1<<20

	// heartbeat is how often each side says that it lives, maxSilent how long
	// a short pipe may be silent: three heartbeats, so that one lost in a busy
	// proxy costs nothing, and the agent gives stolen traffic back in time.
	heartbeat = 2 * time.Second
	maxSilent = 3 * heartbeat

	// tick is how often life and suspends are looked at.
	tick = time.Second

	// DefaultWindow is how long a lost pipe may be resumed: a minute without a
	// network and the way back after it, not a night.
	DefaultWindow = 90 * time.Second

	// helloTime bounds the exchange of hellos on a new short pipe.
	helloTime = 10 * time.Second

	// closeTime bounds the goodbye: a user who pressed Ctrl-C waits for it.
	closeTime = 2 * time.Second
	// aloneTime is the same for a server whose pipe is lost: it can only wait for
	// the other end, and may be killed when it takes long.
	aloneTime = 300 * time.Millisecond

	// ackBytes and ackTime say when consumed bytes are acknowledged for their
	// own sake: seldom enough to cost nothing, often enough that the sender's
	// estimate of the path stays fresh.
	ackBytes = 64 << 10
	ackTime  = 5 * time.Millisecond
	// ackGap lies between two of them at least: on a fast path every frame would
	// have one, which costs both ends and all on the way as much as data does.
	ackGap = 2 * time.Millisecond
)

// Options of a Pipe. The zero value is good.
type Options struct {
	// Window is how long a lost pipe may be resumed; 0 means DefaultWindow. Both
	// ends should agree.
	Window time.Duration
	// OnState is told every change, in order, never twice at the same time. It
	// must neither block nor call the Pipe. The error of Lost is a *SilentError if
	// the loss had begun before. May be nil.
	OnState func(State, error)
	// Fatal reports whether an error of connect, or of the first bytes of its
	// short pipe, makes trying again useless: the agent's pod is deleted, the
	// agent does not know the key. May be nil: everything is tried again. Dial
	// only.
	Fatal func(error) bool
	// Sessions is how many sessions a Server serves at once; 0 means 1.
	Sessions int

	// suspended is how long this machine has slept since some time; tests set it.
	suspended func() time.Duration
}

func (o Options) withDefaults() Options {
	if o.Window <= 0 {
		o.Window = DefaultWindow
	}
	if o.Sessions <= 0 {
		o.Sessions = 1
	}
	if o.suspended == nil {
		o.suspended = suspended
	}
	return o
}

// State of a Pipe.
type State uint8

const (
	// Lost: the short pipe is gone, another is awaited.
	Lost State = iota
	// Back: a new short pipe carries on where the old one ended.
	Back
	// Gone: the Pipe has ended; the error says why.
	Gone
)

func (s State) String() string {
	if s > Gone {
		return fmt.Sprintf("state %d", uint8(s))
	}
	return [...]string{"lost", "back", "gone"}[s]
}

// ErrGone is wrapped by the error of a Pipe that nobody resumed in time.
var ErrGone = errors.New("the link was lost and did not come back")

// ByeError ends a Pipe that the other end closed.
type ByeError struct{ Reason string } // from the other machine: escape it before printing

func (e *ByeError) Error() string {
	if e.Reason == "" {
		return "the other end closed the link"
	}
	return fmt.Sprintf("the other end closed the link: %s", e.Reason)
}

// Codes of a RefusedError.
const (
	RefusedUnknown = 1 // no such session: begin anew
	RefusedEpoch   = 2 // a newer short pipe of this session exists
	RefusedLost    = 3 // bytes that one end needs are not kept any more: begin anew
	RefusedBusy    = 4 // another session is served
	RefusedVersion = 5 // of resuming
)

// RefusedError is the server's answer to a short pipe that it does not take.
type RefusedError struct {
	Code byte
	Text string // from the other machine: escape it before printing
}

func (e *RefusedError) Error() string { return "refused: " + e.Text }

// noEOF is an error that wraps io.EOF, the end of a short pipe, and does not
// say so: who reads the Pipe would take it for its orderly end.
type noEOF struct{ err error }

func (e *noEOF) Error() string        { return e.err.Error() }
func (e *noEOF) Is(target error) bool { return target != io.EOF && errors.Is(e.err, target) }
func (e *noEOF) As(target any) bool   { return errors.As(e.err, target) }

var (
	errClosed   = fmt.Errorf("link: %w", net.ErrClosed)
	errReplaced = errors.New("replaced by a newer pipe")
	errSlept    = fmt.Errorf("no answer within %v", heartbeat)
)

// SilentError is a loss that had begun a while before it was noticed.
type SilentError struct {
	For   time.Duration // until it was noticed
	Slept bool          // it was this end that stood still
	Err   error         // how it was noticed, if not by the silence
}

func (e *SilentError) Error() string {
	if !e.Slept {
		return fmt.Sprintf("nothing heard for %v", e.For.Round(100*time.Millisecond))
	}
	return fmt.Sprintf("this machine slept, or the session was stopped, for %v: %v", e.For.Round(100*time.Millisecond), e.Err)
}

func (e *SilentError) Unwrap() error { return e.Err }

// ID names a session for as long as its Pipe lasts.
type ID [16]byte

// Pipe is the lasting pipe. Its methods may be called concurrently.
type Pipe struct {
	session ID
	opts    Options
	served  bool               // by a Server: the other end makes the short pipes
	start   time.Time          // PING values count from it
	ctx     context.Context    // alive until the Pipe has ended
	cancel  context.CancelFunc // of ctx
	done    chan struct{}      // closed when the Pipe has ended
	wg      sync.WaitGroup     // every goroutine of the Pipe

	mu       sync.Mutex // guards what follows, and the fields of every short
	readable sync.Cond  // in has bytes, or the end has come
	writable sync.Cond  // out has room, or the end has come
	lost     sync.Cond  // cur is nil, or the end has come
	cur      *short     // nil: lost
	epoch    uint64     // the highest known
	in       ring       // received and not consumed
	want     []byte     // of a Read that waits: what comes goes there, not through in
	given    int        // bytes in want
	out      ring       // written and not acknowledged
	next     uint64     // offset after the last byte given to the last short pipe
	told     uint64     // the last ACK said so
	toldAt   time.Duration
	ackLater *time.Timer
	ackAt    time.Duration // when ackLater fires; 0: it does not
	closing  bool          // Close was called
	reason   string
	bye      *ByeError   // the other end's goodbye
	window   *time.Timer // ends a lost Pipe
	cause    error       // why the last short pipe or attempt failed
	absent   away        // while the last short pipe was there
	lostAt   moment      // its loss
	err      error       // why the Pipe ended; nil while it lives
	notes    []note      // states not yet told

	telling sync.Mutex // held while OnState runs
	reading sync.Mutex // held by Read; taken before mu
}

type note struct {
	state State
	err   error
}

func newPipe(session ID, opts Options) *Pipe {
	p := &Pipe{session: session, opts: opts, start: time.Now(), done: make(chan struct{})}
	// The life of the Pipe ends with Close, not with whatever ctx made it.
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.readable.L, p.writable.L, p.lost.L = &p.mu, &p.mu, &p.mu
	p.ackLater = time.AfterFunc(time.Hour, p.ackNow)
	p.ackLater.Stop()
	return p
}

// Read gives bytes in the order in which they were written, across short
// pipes. After the other end's goodbye it gives what is left, then io.EOF;
// after the end for another reason, what is left, then that error.
func (p *Pipe) Read(b []byte) (int, error) {
	p.reading.Lock()
	defer p.reading.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.given > 0:
			n := p.given
			p.given = 0
			p.consumed()
			return n, nil
		case p.closing:
			return 0, fmt.Errorf("read: %w", net.ErrClosed)
		case p.in.n > 0:
			n := p.in.copyFrom(p.in.base, b)
			p.in.discard(p.in.base + uint64(n))
			p.consumed()
			return n, nil
		case p.bye != nil:
			return 0, io.EOF
		case p.err != nil:
			return 0, p.err
		case len(b) == 0:
			return 0, nil
		}
		p.want = b
		p.readable.Wait()
		p.want = nil
	}
}

// consumed sees to it that what was read is acknowledged. mu is held.
func (p *Pipe) consumed() {
	if p.cur == nil || p.cur.ackDue {
		return
	}
	now := time.Since(p.start)
	at := now + ackTime
	if p.in.base-p.told >= ackBytes {
		at = max(now, p.toldAt+ackGap)
	}
	switch {
	case at <= now:
		p.acknowledge()
	case p.ackAt == 0 || at < p.ackAt:
		p.ackAt = at
		p.ackLater.Reset(at - now)
	}
}

// acknowledge has what was read acknowledged now. mu is held.
func (p *Pipe) acknowledge() {
	p.cur.ackDue = true
	p.cur.work.Signal()
}

func (p *Pipe) ackNow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ackAt = 0
	if p.cur != nil && p.in.base > p.told {
		p.acknowledge()
	}
}

// Write takes b over to be sent, now or by a later short pipe. It waits while
// the path below has more than enough, and while the Pipe is lost.
func (p *Pipe) Write(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.closing:
			return n, fmt.Errorf("write: %w", net.ErrClosed)
		case p.bye != nil:
			return n, p.bye
		case p.err != nil:
			return n, p.err
		case n == len(b):
			return n, nil
		}
		if room := p.room(); room > 0 {
			part := b[n:min(len(b), n+room)]
			p.out.append(part)
			n += len(part)
			if p.cur != nil {
				p.cur.work.Signal()
			}
			continue
		}
		p.writable.Wait()
	}
}

// Room is how many bytes Write would take now without a wait.
func (p *Pipe) Room() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.room()
}

// room is how many bytes may be written now: what waits here cannot be
// overtaken by anything more urgent, so it is kept short. mu is held.
func (p *Pipe) room() int {
	ahead := minAhead
	if p.cur != nil {
		ahead = p.cur.pace.ahead()
	}
	return min(maxRing-p.out.n, ahead-int(p.out.end()-p.next))
}

// Close is CloseWithReason without a reason.
func (p *Pipe) Close() error { return p.CloseWithReason("") }

// CloseWithReason says goodbye after all that was written and returns when the
// other end has answered, or after 2 s (0.3 s where the other end would have to
// come back first), and every goroutine is gone. It does not fail.
func (p *Pipe) CloseWithReason(reason string) error {
	p.mu.Lock()
	if p.err == nil && !p.closing {
		p.closing, p.reason = true, reason
		p.in.discard(p.in.end())
		p.wake()
		limit := closeTime
		if p.served && p.cur == nil {
			limit = aloneTime
		}
		timer := time.AfterFunc(limit, func() { p.end(errClosed) })
		defer timer.Stop()
	}
	p.closing = true // reading what is left ends as well
	p.mu.Unlock()
	<-p.done
	p.wg.Wait()
	p.tell()
	return nil
}

// Done is closed when the Pipe has ended.
func (p *Pipe) Done() <-chan struct{} { return p.done }

// Err is why the Pipe has ended: a *ByeError, net.ErrClosed after Close,
// ErrGone, a *RefusedError. It is nil while the Pipe lives.
func (p *Pipe) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Session is the id under which the Pipe is resumed.
func (p *Pipe) Session() ID { return p.session }

// wake makes everyone look again. mu is held.
func (p *Pipe) wake() {
	p.readable.Broadcast()
	p.writable.Broadcast()
	p.lost.Broadcast()
	if p.cur != nil {
		p.cur.work.Signal()
	}
}

// end ends the Pipe for good; only the first call counts.
func (p *Pipe) end(err error) {
	p.mu.Lock()
	p.endLocked(err)
	p.mu.Unlock()
	p.tell()
}

// endLocked is end for who holds mu, and calls tell after.
func (p *Pipe) endLocked(err error) {
	if p.err != nil {
		return
	}
	if errors.Is(err, io.EOF) {
		err = &noEOF{err}
	}
	p.err = err
	p.note(Gone, err)
	p.ackLater.Stop()
	if p.window != nil {
		p.window.Stop()
	}
	if p.cur != nil {
		p.cur.stop()
		p.cur = nil
	}
	p.wake()
	p.cancel()
	close(p.done)
}

// note remembers a state to be told. mu is held.
func (p *Pipe) note(s State, err error) {
	if p.opts.OnState != nil {
		p.notes = append(p.notes, note{s, err})
	}
}

// tell calls OnState for what was noted. mu must not be held.
func (p *Pipe) tell() {
	if p.opts.OnState == nil {
		return
	}
	p.telling.Lock()
	defer p.telling.Unlock()
	for {
		p.mu.Lock()
		notes := p.notes
		p.notes = nil
		p.mu.Unlock()
		if len(notes) == 0 {
			return
		}
		for _, n := range notes {
			p.opts.OnState(n.state, n.err)
		}
	}
}
