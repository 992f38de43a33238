package resume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// lab is a Server and what connects to it; tests change how.
type lab struct {
	t      *testing.T
	server *Server

	mu      sync.Mutex
	make    func(n int) (a, b end, err error) // of the n-th short pipe, from 1
	n       int
	dialing int
	pipes   []end // the client's ends
}

func newLab(t *testing.T, opts Options) *lab {
	l := &lab{t: t, server: NewServer(opts)}
	l.make = func(int) (a, b end, err error) {
		a, b = pair(64<<10, -1, -1)
		return a, b, nil
	}
	return l
}

func (l *lab) connect(ctx context.Context) (io.ReadWriteCloser, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n++
	if l.dialing++; l.dialing > 1 {
		l.t.Error("two attempts at the same time")
	}
	defer func() { l.dialing-- }()
	a, b, err := l.make(l.n)
	if err != nil {
		return nil, err
	}
	l.pipes = append(l.pipes, a)
	go l.server.Attach(context.Background(), b)
	return a, nil
}

// current is the client's end of the last short pipe.
func (l *lab) current() end {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pipes[len(l.pipes)-1]
}

func (l *lab) set(f func(n int) (a, b end, err error)) {
	l.mu.Lock()
	l.make = f
	l.mu.Unlock()
}

// session dials and accepts.
func (l *lab) session(opts Options) (near, far *Pipe) {
	l.t.Helper()
	near, err := Dial(l.t.Context(), l.connect, opts)
	if err != nil {
		l.t.Fatal(err)
	}
	far, err = l.server.Accept(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	return near, far
}

// pattern is a byte stream in which every place is recognizable.
func pattern(seed byte, n int) []byte {
	r := rand.New(rand.NewChaCha8([32]byte{seed}))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// TestCuts cuts the short pipe again and again at random places, in the middle
// of frames and of hellos: not one byte may be lost or doubled.
func TestCuts(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { cuts(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func cuts(t *testing.T, r *rand.Rand) {
	const total = 1 << 20
	l := newLab(t, Options{Window: 24 * time.Hour}) // bad luck is not the point
	l.set(func(n int) (a, b end, err error) {
		if n > 1 && r.IntN(10) == 0 {
			return a, b, errors.New("no network")
		}
		max := int64(1) << (6 + r.IntN(14))
		a, b = pair(1+r.IntN(100_000), 1+r.Int64N(max), 1+r.Int64N(max))
		return a, b, nil
	})
	states := record{}
	near, far := l.session(Options{OnState: states.add, Window: 24 * time.Hour})
	up, down := pattern(1, total), pattern(2, total)
	var wg sync.WaitGroup
	write := func(p *Pipe, b []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 2))
		for len(b) > 0 {
			n := min(len(b), 1+r.IntN(1<<(1+r.IntN(17))))
			if _, err := p.Write(b[:n]); err != nil {
				t.Errorf("write: %v", err)
				return
			}
			b = b[n:]
		}
	}
	read := func(p *Pipe, want []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 3))
		buf := make([]byte, 1<<17)
		for at := 0; at < len(want); {
			n, err := p.Read(buf[:1+r.IntN(1<<(1+r.IntN(16)))])
			if err != nil {
				t.Errorf("read: %v", err)
				return
			}
			if at+n > len(want) || !bytes.Equal(buf[:n], want[at:at+n]) {
				t.Errorf("bytes at %d differ", at)
				return
			}
			at += n
		}
	}
	wg.Go(func() { write(near, up, 6) })
	wg.Go(func() { write(far, down, 7) })
	wg.Go(func() { read(far, up, 8) })
	wg.Go(func() { read(near, down, 9) })
	wg.Wait()
	l.set(func(int) (a, b end, err error) { a, b = pair(1000, -1, -1); return a, b, nil })
	if err := near.CloseWithReason("done"); err != nil {
		t.Error(err)
	}
	if n, err := far.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after the goodbye: %d bytes, %v, want EOF", n, err)
	}
	var bye *ByeError
	<-far.Done() // a moment after the goodbye
	if !errors.As(far.Err(), &bye) || bye.Reason != "done" {
		t.Errorf("far end ended with %v, want the reason", far.Err())
	}
	far.Close()
	l.server.Close()
	if l.n < 2 {
		t.Errorf("%d short pipes: nothing was cut", l.n)
	}
	states.check(t)
}

// record remembers states.
type record struct {
	mu  sync.Mutex
	all []State
	err error
}

func (r *record) add(s State, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all, r.err = append(r.all, s), err
}

func (r *record) get() []State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

// check demands lost, back, lost, back, …, gone.
func (r *record) check(t *testing.T) {
	t.Helper()
	all := r.get()
	for i, s := range all {
		want := State(i % 2)
		if i == len(all)-1 {
			want = Gone
		}
		if s != want {
			t.Fatalf("states %v: number %d is %v, want %v", all, i, s, want)
		}
	}
}

func TestNobodyComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		serverStates, clientStates := record{}, record{}
		l := newLab(t, Options{OnState: serverStates.add})
		near, far := l.session(Options{OnState: clientStates.add})
		if _, err := near.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		noNetwork := errors.New("no network")
		l.set(func(int) (a, b end, err error) { return a, b, noNetwork })
		start := time.Now()
		l.current().Close()
		<-near.Done()
		<-far.Done()
		if took := time.Since(start); took < DefaultWindow || took > DefaultWindow+time.Second {
			t.Errorf("given up after %v, want %v", took, DefaultWindow)
		}
		if l.n < 40 || l.n > 100 {
			t.Errorf("%d attempts in %v, want some 60", l.n, DefaultWindow)
		}
		if err := near.Err(); !errors.Is(err, ErrGone) || !errors.Is(err, noNetwork) {
			t.Errorf("client ends with %v, want %v with its cause", err, ErrGone)
		}
		if err := far.Err(); !errors.Is(err, ErrGone) {
			t.Errorf("server ends with %v, want %v", err, ErrGone)
		}
		// What had arrived can still be read.
		b := make([]byte, 10)
		if n, err := far.Read(b); string(b[:n]) != "hello" || err != nil {
			t.Errorf("got %q, %v, want hello", b[:n], err)
		}
		if _, err := far.Read(b); !errors.Is(err, ErrGone) {
			t.Errorf("then %v, want %v", err, ErrGone)
		}
		if _, err := near.Write(b); !errors.Is(err, ErrGone) {
			t.Errorf("write: %v, want %v", err, ErrGone)
		}
		near.Close()
		far.Close()
		l.server.Close()
		for name, r := range map[string]*record{"client": &clientStates, "server": &serverStates} {
			if got, want := r.get(), []State{Lost, Gone}; !slices.Equal(got, want) {
				t.Errorf("%s' states are %v, want %v", name, got, want)
			}
		}
	})
}

func TestSilenceIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		states := record{}
		l := newLab(t, Options{})
		near, far := l.session(Options{OnState: states.add})
		time.Sleep(time.Minute) // heartbeats keep it
		if got := states.get(); len(got) != 0 {
			t.Fatalf("an idle pipe is %v", got)
		}
		c := l.current()
		c.in.set(func(w *wire) { w.frozen = true })
		c.out.set(func(w *wire) { w.frozen = true })
		start := time.Now()
		for len(states.get()) < 2 {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(start); took < 4*time.Second || took > 7*time.Second {
			t.Errorf("back after %v, want some 6 s", took)
		}
		exchange(t, near, far)
		near.Close()
		far.Close()
		l.server.Close()
	})
}

func exchange(t *testing.T, a, b *Pipe) {
	t.Helper()
	for _, p := range [][2]*Pipe{{a, b}, {b, a}} {
		if _, err := p[0].Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 4)
		if _, err := io.ReadFull(p[1], got); err != nil || string(got) != "ping" {
			t.Fatalf("got %q, %v, want ping", got, err)
		}
	}
}

func TestSuspendIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var slept time.Duration
		states := record{}
		l := newLab(t, Options{suspended: func() time.Duration { return 0 }})
		near, far := l.session(Options{OnState: states.add, suspended: func() time.Duration {
			mu.Lock()
			defer mu.Unlock()
			return slept
		}})
		sleep := func() {
			mu.Lock()
			slept += time.Hour
			mu.Unlock()
		}
		sleep() // the pipe survives it
		time.Sleep(10 * time.Second)
		if got := states.get(); len(got) != 0 {
			t.Fatalf("a living pipe is %v after a suspend", got)
		}
		c := l.current()
		c.in.set(func(w *wire) { w.frozen = true })
		start := time.Now()
		sleep()
		for len(states.get()) < 2 {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(start); took > 3500*time.Millisecond {
			t.Errorf("back %v after a suspend, want less than 3.5 s", took)
		}
		exchange(t, near, far)
		near.Close()
		far.Close()
		l.server.Close()
	})
}

// Who stood still while the other end gave up learns from the loss for how long,
// also if that is seen before anything else.
func TestStandingStillIsTold(t *testing.T) {
	for _, c := range []struct {
		name  string
		sleep time.Duration
		wait  time.Duration // from waking to the loss
		want  time.Duration // 0: nothing is told of it
	}{
		{"lost at once", time.Hour, 0, time.Hour},
		{"lost when an answer was asked for", time.Hour, 1500 * time.Millisecond, time.Hour},
		{"lost after an answer", time.Hour, 3500 * time.Millisecond, 0},
		{"a nap", 2 * time.Second, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var slept atomic.Int64
				var mu sync.Mutex
				var lost []error
				l := newLab(t, Options{suspended: func() time.Duration { return 0 }})
				near, far := l.session(Options{suspended: func() time.Duration { return time.Duration(slept.Load()) }, OnState: func(s State, err error) {
					mu.Lock()
					defer mu.Unlock()
					if s == Lost {
						lost = append(lost, err)
					}
				}})
				time.Sleep(2500 * time.Millisecond)
				current := l.current()
				if c.wait > 0 && c.want > 0 { // nothing comes
					current.in.set(func(w *wire) { w.frozen = true })
				}
				slept.Store(int64(c.sleep))
				time.Sleep(c.wait)
				current.Close()
				synctest.Wait()
				near.Close()
				far.Close()
				l.server.Close()
				var silent *SilentError
				switch {
				case len(lost) != 1:
					t.Fatalf("lost with %v, want one loss", lost)
				case errors.As(lost[0], &silent) != (c.want > 0):
					t.Errorf("lost with %#v", lost[0])
				case c.want > 0 && (!silent.Slept || silent.For < c.want || silent.For > c.want+tick+c.wait):
					t.Errorf("stood still for %v, want %v", silent.For, c.want)
				}
			})
		})
	}
}

// TestFencing: a newer short pipe ends the older one, and an older one cannot
// come back.
func TestFencing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, Options{})
		near, far := l.session(Options{})
		exchange(t, near, far)
		old := l.current()

		// The agent sees a newer epoch while the old pipe looks alive.
		a, b := pair(1000, -1, -1)
		attached := make(chan error, 1)
		go func() { attached <- l.server.Attach(t.Context(), b) }()
		a.Write(appendHello(nil, hello{session: near.session, epoch: 2, received: 4}))
		if err := <-attached; err != nil {
			t.Fatal(err)
		}
		got := make([]byte, headerSize+17)
		if _, err := io.ReadFull(a, got); err != nil || got[0] != typeWelcome {
			t.Fatalf("answer %x, %v, want a welcome", got, err)
		}
		synctest.Wait()
		if _, err := old.in.Read(got); err == nil {
			t.Error("the older pipe is still open")
		}

		// The client has lost its pipe and comes with epoch 2, which is over.
		<-near.Done()
		var refused *RefusedError
		if !errors.As(near.Err(), &refused) || refused.Code != RefusedEpoch {
			t.Errorf("the fenced client ends with %v, want a refusal", near.Err())
		}
		a.Close()
		near.Close()
		far.Close()
		l.server.Close()
	})
}

func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, Options{})
		near, far := l.session(Options{})
		exchange(t, near, far)
		tests := []struct {
			name string
			h    hello
			code byte
		}{
			{"unknown", hello{session: ID{1}, epoch: 1}, RefusedUnknown},
			{"busy", hello{session: ID{1}, epoch: 1, fresh: true}, RefusedBusy},
			{"old epoch", hello{session: near.session, epoch: 1, received: 4}, RefusedEpoch},
			{"bytes never sent", hello{session: near.session, epoch: 9, received: 5}, RefusedLost},
			{"bytes not kept", hello{session: near.session, epoch: 9, received: 1}, RefusedLost},
		}
		time.Sleep(time.Second) // everything is acknowledged
		for _, test := range tests {
			a, b := pair(1000, -1, -1)
			done := make(chan error, 1)
			go func() { done <- l.server.Attach(t.Context(), b) }()
			a.Write(appendHello(nil, test.h))
			r := newReader(a)
			typ, n, err := readHeader(r.Reader)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := readSmall(r.Reader, n)
			_, err = parseAnswer(typ, body)
			var refused *RefusedError
			if !errors.As(err, &refused) || refused.Code != test.code {
				t.Errorf("%s: answer %v, want code %d", test.name, err, test.code)
			}
			if err := <-done; !errors.As(err, &refused) {
				t.Errorf("%s: Attach gives %v, want a refusal", test.name, err)
			}
		}
		exchange(t, near, far) // undisturbed
		near.Close()
		far.Close()

		// The agent has forgotten the session, a new one may begin.
		near, far = l.session(Options{})
		exchange(t, near, far)
		l.server.Close()
		near.Close()
	})
}

// Releases that resume in another way refuse each other, and do not try again.
func TestAnotherVersion(t *testing.T) {
	t.Run("local", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t, Options{})
			a, b := pair(1000, -1, -1)
			done := make(chan error, 1)
			go func() { done <- l.server.Attach(t.Context(), b) }()
			newer := appendHello(nil, hello{session: ID{1}, epoch: 1, fresh: true})
			newer[headerSize+len(magic)]++
			a.Write(newer)
			r := newReader(a)
			typ, n, err := readHeader(r.Reader)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := readSmall(r.Reader, n)
			_, err = parseAnswer(typ, body)
			if refused, ok := errors.AsType[*RefusedError](err); !ok || refused.Code != RefusedVersion {
				t.Errorf("the answer is %v, want code %d", err, RefusedVersion)
			}
			if refused, ok := errors.AsType[*RefusedError](<-done); !ok || refused.Code != RefusedVersion {
				t.Errorf("Attach gives %v, want code %d", refused, RefusedVersion)
			}
			l.server.Close()
		})
	})
	t.Run("agent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tries := 0
			_, err := Dial(t.Context(), func(context.Context) (io.ReadWriteCloser, error) {
				tries++
				a, b := pair(1000, -1, -1)
				newer := appendWelcome(nil, welcome{epoch: 1})
				newer[headerSize]++
				b.Write(newer)
				return a, nil
			}, Options{})
			if refused, ok := errors.AsType[*RefusedError](err); !ok || refused.Code != RefusedVersion || tries != 1 {
				t.Errorf("Dial gives %v after %d tries, want code %d after 1", err, tries, RefusedVersion)
			}
		})
	})
}

func TestAgentForgot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, Options{})
		near, far := l.session(Options{})
		exchange(t, near, far)
		// The agent is replaced by another.
		other := NewServer(Options{})
		l.mu.Lock()
		first := l.server
		l.server = other
		l.mu.Unlock()
		l.current().Close()
		<-near.Done()
		var refused *RefusedError
		if !errors.As(near.Err(), &refused) || refused.Code != RefusedUnknown {
			t.Errorf("client ends with %v, want a refusal", near.Err())
		}
		near.Close()
		far.Close()
		first.Close()
		other.Close()
	})
}

func TestFatalErrorEndsTheSearch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, Options{})
		deleted := errors.New("the pod is deleted")
		near, far := l.session(Options{Fatal: func(err error) bool { return errors.Is(err, deleted) }})
		l.set(func(int) (a, b end, err error) { return a, b, deleted })
		start := time.Now()
		l.current().Close()
		<-near.Done()
		if !errors.Is(near.Err(), deleted) || time.Since(start) > time.Second {
			t.Errorf("ended with %v after %v, want %v at once", near.Err(), time.Since(start), deleted)
		}
		near.Close()
		far.Close()
		l.server.Close()
	})
}

func TestDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, Options{})
		// The first error of connect is the caller's.
		nothing := errors.New("no agent")
		l.set(func(int) (a, b end, err error) { return a, b, nothing })
		if _, err := Dial(t.Context(), l.connect, Options{}); !errors.Is(err, nothing) || l.n != 1 {
			t.Errorf("got %v after %d attempts, want %v after 1", err, l.n, nothing)
		}
		// A pipe that dies in the hellos is tried again, as the same session.
		l.n = 0
		l.set(func(n int) (a, b end, err error) {
			left := int64(-1)
			if n <= 2 {
				left = 20
			}
			a, b = pair(1000, -1, left)
			return a, b, nil
		})
		near, far := l.session(Options{})
		exchange(t, near, far)
		if l.n != 3 {
			t.Errorf("%d attempts, want 3", l.n)
		}
		near.Close()
		far.Close()
		// Unless the caller knows that it is of no use.
		l.n = 0
		l.set(func(int) (a, b end, err error) { a, b = pair(1000, -1, 20); return a, b, nil })
		_, err := Dial(t.Context(), l.connect, Options{Fatal: func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }})
		if !errors.Is(err, io.ErrUnexpectedEOF) || l.n != 1 {
			t.Errorf("got %v after %d attempts, want the first error", err, l.n)
		}
		// An agent that says nothing does not hold a caller who gives up.
		l.set(func(int) (a, b end, err error) {
			a, b = pair(1000, -1, -1)
			a.in.frozen = true
			return a, b, nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		if _, err := Dial(ctx, l.connect, Options{}); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 4*time.Second {
			t.Errorf("got %v after %v, want the end of the context", err, time.Since(start))
		}
		l.server.Close()
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, Options{})
		near, far := l.session(Options{})
		want := pattern(3, 1<<20)
		go near.Write(want)
		synctest.Wait()
		// Both at once, with unread bytes; neither waits for its bound.
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { near.CloseWithReason("bye") })
		wg.Go(func() { far.Close() })
		wg.Wait()
		if took := time.Since(start); took > time.Second {
			t.Errorf("closing took %v", took)
		}
		for _, p := range []*Pipe{near, far} {
			// The other's goodbye may have come before it could begin to close.
			var bye *ByeError
			if !errors.Is(p.Err(), net.ErrClosed) && !errors.As(p.Err(), &bye) {
				t.Errorf("ended with %v, want %v", p.Err(), net.ErrClosed)
			}
			if _, err := p.Read(want); !errors.Is(err, net.ErrClosed) {
				t.Errorf("read: %v, want %v", err, net.ErrClosed)
			}
		}

		// The goodbye comes after all that was written, also if the other end
		// is slow.
		near, far = l.session(Options{})
		wg.Go(func() {
			if _, err := near.Write(want); err != nil {
				t.Error(err)
			}
			near.CloseWithReason("bye")
		})
		got, err := io.ReadAll(far)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %d bytes, %v, want %d", len(got), err, len(want))
		}
		wg.Wait()
		if err := far.Err(); !strings.Contains(err.Error(), "bye") {
			t.Errorf("ended with %v, want the reason", err)
		}
		if _, err := far.Write(want); err == nil {
			t.Error("write after the goodbye is accepted")
		}
		far.Close()

		// Without anyone there it takes its bound and no longer.
		near, far = l.session(Options{})
		l.set(func(int) (a, b end, err error) { return a, b, errors.New("no network") })
		l.current().Close()
		synctest.Wait()
		start = time.Now()
		near.Close()
		if took := time.Since(start); took != closeTime {
			t.Errorf("closing took %v, want %v", took, closeTime)
		}
		start = time.Now()
		far.Close()
		if took := time.Since(start); took != aloneTime {
			t.Errorf("closing there took %v, want %v", took, aloneTime)
		}
		l.server.Close()
	})
}

// TestFullRing: a writer waits when nobody reads, life goes on beside.
func TestFullRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		states := record{}
		l := newLab(t, Options{})
		near, far := l.session(Options{OnState: states.add})
		want := pattern(4, maxRing+5<<20)
		done := make(chan struct{})
		go func() {
			near.Write(want)
			close(done)
		}()
		time.Sleep(time.Minute)
		select {
		case <-done:
			t.Fatal("a writer did not wait for a reader")
		default:
		}
		near.mu.Lock()
		held := near.out.n
		near.mu.Unlock()
		if held > maxRing || len(states.get()) > 0 {
			t.Errorf("%d bytes held, states %v, want at most %d and none", held, states.get(), maxRing)
		}
		// Also across a cut.
		l.current().Close()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("got other bytes than were written, %v", err)
		}
		<-done
		// Idle, it gives the memory back.
		time.Sleep(10 * time.Second)
		for _, p := range []*Pipe{near, far} {
			p.mu.Lock()
			if n := len(p.in.buf) + len(p.out.buf); n > 2*smallRing {
				t.Errorf("an idle pipe holds %d bytes", n)
			}
			p.mu.Unlock()
		}
		near.Close()
		far.Close()
		l.server.Close()
	})
}

func TestViolations(t *testing.T) {
	data := func(o uint64, b []byte) []byte {
		f := appendHeader(nil, typeData, 8+len(b))
		f = append(f, 0, 0, 0, 0, 0, 0, 0, byte(o))
		return append(f, b...)
	}
	tests := map[string][]byte{
		"offset ahead":       data(1, []byte("x")),
		"empty data":         data(0, nil),
		"ack of nothing":     appendNumber(nil, typeAck, 1),
		"short ack":          {typeAck, 0, 0, 1, 0},
		"long data":          {typeData, 0xff, 0xff, 0xff},
		"long bye":           {typeBye, 1, 0, 0},
		"second hello":       appendHello(nil, hello{epoch: 3}),
		"bye with no offset": {typeBye, 0, 0, 0},
		"bye too early":      appendBye(nil, 5, ""),
	}
	for name, bad := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewServer(Options{})
				a, b := pair(1<<20, -1, -1)
				go s.Attach(t.Context(), b)
				a.Write(appendHello(nil, hello{fresh: true, session: ID{1}, epoch: 1}))
				p, err := s.Accept(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				a.Write([]byte{200, 0, 0, 3, 1, 2, 3}) // unknown: skipped
				a.Write(bad)
				synctest.Wait()
				p.mu.Lock()
				alive, cause := p.cur != nil, p.cause
				p.mu.Unlock()
				if alive || !errors.Is(cause, errProtocol) {
					t.Errorf("the short pipe lives: %v, cause %v, want it ended", alive, cause)
				}
				if p.Err() != nil {
					t.Errorf("the session ended: %v", p.Err())
				}
				s.Close()
			})
		})
	}
}

// The end of the last short pipe is not the end of the lasting one.
func TestEndIsNoEOF(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, Options{})
		near, far := l.session(Options{Window: time.Second})
		gone := fmt.Errorf("nobody there: %w", io.EOF)
		l.set(func(int) (a, b end, err error) { return a, b, gone })
		l.current().Close()
		<-near.Done()
		<-far.Done()
		for name, p := range map[string]*Pipe{"client": near, "server": far} {
			if _, err := p.Read(make([]byte, 1)); !errors.Is(err, ErrGone) || errors.Is(err, io.EOF) {
				t.Errorf("reading the %s's ends with %v, want %v and no EOF", name, err, ErrGone)
			}
			p.Close()
		}
		l.server.Close()
	})
}
