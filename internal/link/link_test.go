package link

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirrord-go/mirrord/internal/link/resume"
	"github.com/mirrord-go/mirrord/internal/link/seal"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// dialer makes short pipes.
type dialer func() (a, b end)

func unshaped() (a, b end) { return pair(256<<10, 0, 0) }

// modes are what a link can run over.
var modes = map[string]func(t testing.TB, d dialer) (near, far io.ReadWriteCloser, after func()){
	"memory": func(t testing.TB, d dialer) (near, far io.ReadWriteCloser, after func()) {
		near, far = d()
		return near, far, func() {}
	},
	"resume":      func(t testing.TB, d dialer) (near, far io.ReadWriteCloser, after func()) { return resumed(t, d, false) },
	"resume+seal": func(t testing.TB, d dialer) (near, far io.ReadWriteCloser, after func()) { return resumed(t, d, true) },
}

func resumed(t testing.TB, d dialer, sealed bool) (near, far io.ReadWriteCloser, after func()) {
	t.Helper()
	server := resume.NewServer(resume.Options{})
	ck, _ := seal.NewKey()
	sk, _ := seal.NewKey()
	var wg sync.WaitGroup
	p, err := resume.Dial(t.Context(), func(ctx context.Context) (io.ReadWriteCloser, error) {
		a, b := d()
		wg.Go(func() {
			var rw io.ReadWriteCloser = b
			if sealed {
				var err error
				if rw, err = seal.Server(context.Background(), b, sk, ck.Public().(ed25519.PublicKey)); err != nil {
					return
				}
			}
			_ = server.Attach(context.Background(), rw)
		})
		if sealed {
			return seal.Client(ctx, a, ck, sk.Public().(ed25519.PublicKey))
		}
		return a, nil
	}, resume.Options{})
	if err != nil {
		t.Fatal(err)
	}
	q, err := server.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p, q, func() {
		server.Close()
		wg.Wait()
	}
}

// run runs f over every mode, in a bubble in which time stands still while
// anything happens. A goroutine that is left over fails the test.
func run(t *testing.T, d dialer, f func(t *testing.T, near, far *Conn)) {
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b, after := mode(t, d)
				near, far := New(a, Local, Options{}), New(b, Agent, Options{})
				f(t, near, far)
				near.Close("")
				far.Close("")
				after()
			})
		})
	}
}

func question(path string) protocol.Message { return &protocol.Readlink{Path: path} }

// accept gives the next stream that l's other end opens.
func accept(t *testing.T, l *Conn) *Stream {
	t.Helper()
	s, _, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// opened is both ends of a new stream.
func opened(t *testing.T, near, far *Conn, lane Lane) (a, b *Stream) {
	t.Helper()
	a, err := near.Open(t.Context(), lane, question("/"))
	if err != nil {
		t.Fatal(err)
	}
	b = accept(t, far)
	if b.Lane() != lane {
		t.Errorf("lane %d there, %d here", b.Lane(), lane)
	}
	return a, b
}

func pattern(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestCall(t *testing.T) {
	run(t, unshaped, func(t *testing.T, near, far *Conn) {
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				s, m, err := far.Accept(t.Context())
				if err != nil {
					return
				}
				if _, err := s.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("after the question: %v, want EOF", err)
				}
				switch p := m.(*protocol.Readlink).Path; p {
				case "silent":
				case "busy":
					s.Reset(syscall.EBUSY)
				case "long":
					s.Send(&protocol.Data{Bytes: pattern(1, protocol.MaxData)})
				default:
					s.Send(&protocol.Data{Bytes: []byte(p)})
				}
				s.Close()
			}
		})
		for _, path := range []string{"x", "long", "y"} {
			want := []byte(path)
			if path == "long" {
				want = pattern(1, protocol.MaxData)
			}
			m, err := near.Call(t.Context(), question(path))
			if err != nil {
				t.Fatal(err)
			}
			if got := m.(*protocol.Data).Bytes; !bytes.Equal(got, want) {
				t.Errorf("got %d bytes %.20q, want %d %.20q", len(got), got, len(want), want)
			}
		}
		if _, err := near.Call(t.Context(), question("silent")); !errors.Is(err, syscall.EPROTO) {
			t.Errorf("no reply: %v, want EPROTO", err)
		}
		if _, err := near.Call(t.Context(), question("busy")); !errors.Is(err, syscall.EBUSY) {
			t.Errorf("reset: %v, want EBUSY", err)
		}
		near.Close("done")
		wg.Wait()
	})
}

func TestCallEndsWithItsContext(t *testing.T) {
	run(t, unshaped, func(t *testing.T, near, far *Conn) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := near.Call(ctx, question("/")); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("got %v after %v, want the end of the context", err, time.Since(start))
		}
		synctest.Wait()
		if _, _, err := far.Accept(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the stream is still offered: %v", err)
		}
	})
}

// TestLongOpeningMessage: it needs more than a stream may send unasked.
func TestLongOpeningMessage(t *testing.T) {
	run(t, unshaped, func(t *testing.T, near, far *Conn) {
		for _, n := range []int{minWindow - 100, minWindow, minWindow + 1, 100_000, protocol.MaxMessage - 100} {
			want := pattern(2, n)
			s, err := near.Open(t.Context(), Bulk, &protocol.Data{Bytes: want})
			if err != nil {
				t.Fatal(err)
			}
			_, m, err := far.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := m.(*protocol.Data).Bytes; !bytes.Equal(got, want) {
				t.Errorf("%d bytes arrive as %d others", len(want), len(got))
			}
			s.Close()
		}
	})
}

func TestHalfClose(t *testing.T) {
	run(t, unshaped, func(t *testing.T, near, far *Conn) {
		for _, lane := range []Lane{Interactive, Bulk} {
			a, b := opened(t, near, far, lane)
			want := pattern(3, 3<<20)
			var wg sync.WaitGroup
			wg.Go(func() {
				if n, err := a.Write(want); n != len(want) || err != nil {
					t.Errorf("wrote %d bytes, %v, want %d", n, err, len(want))
				}
				if err := a.CloseWrite(); err != nil {
					t.Error(err)
				}
				if _, err := a.Write(want); err == nil {
					t.Error("write after CloseWrite is accepted")
				}
			})
			got, err := io.ReadAll(b)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes, %v, want %d", len(got), err, len(want))
			}
			wg.Wait()
			if _, err := b.Write([]byte("answer")); err != nil {
				t.Error(err)
			}
			b.Close()
			if got, err := io.ReadAll(a); err != nil || string(got) != "answer" {
				t.Errorf("got %q, %v, want answer", got, err)
			}
			a.Close()
		}
		empty(t, near, far)
	})
}

// used is what a link with memory of its own has taken.
func used(l *Conn) int { return l.memory.Opened.Used() + l.memory.Windows.Used() }

// empty checks that links hold nothing, as soon as what they carried is
// acknowledged too, which a pipe may delay.
func empty(t *testing.T, links ...*Conn) {
	t.Helper()
	time.Sleep(100 * time.Millisecond)
	synctest.Wait()
	for _, l := range links {
		l.mu.Lock()
		if len(l.streams) != 0 || l.opened != [2]int{} {
			t.Errorf("%d streams, %v opened, want none", len(l.streams), l.opened)
		}
		if used := used(l); used != 0 {
			t.Errorf("%d bytes are taken, want none", used)
		}
		l.mu.Unlock()
	}
}

func TestReset(t *testing.T) {
	run(t, unshaped, func(t *testing.T, near, far *Conn) {
		a, b := opened(t, near, far, Bulk)
		blocked := make(chan error)
		go func() {
			_, err := a.Write(make([]byte, 8<<20))
			blocked <- err
		}()
		synctest.Wait()
		b.Reset(syscall.EHOSTUNREACH)
		if err := <-blocked; !errors.Is(err, syscall.EHOSTUNREACH) {
			t.Errorf("write: %v, want EHOSTUNREACH", err)
		}
		for name, s := range map[string]*Stream{"here": b, "there": a} {
			if n, err := s.Read(make([]byte, 10)); n != 0 || !errors.Is(err, syscall.EHOSTUNREACH) {
				t.Errorf("%s: read %d bytes, %v, want EHOSTUNREACH", name, n, err)
			}
			if err := s.CloseWrite(); !errors.Is(err, syscall.EHOSTUNREACH) {
				t.Errorf("%s: CloseWrite: %v, want EHOSTUNREACH", name, err)
			}
			s.Reset(0)
			s.Close()
		}
		// A stream that was reset before it was accepted, or even sent, is none.
		c, err := near.Open(t.Context(), Bulk, question("/"))
		if err != nil {
			t.Fatal(err)
		}
		c.Reset(syscall.EINTR)
		c.Close()
		synctest.Wait() // it may have been sent in time
		x, y := opened(t, near, far, Interactive)
		x.Close()
		y.Close()
		empty(t, near, far)
	})
}

// TestClose: the reply that was written is not lost although the question is
// not read, and whoever goes on asking learns it.
func TestClose(t *testing.T) {
	run(t, unshaped, func(t *testing.T, near, far *Conn) {
		a, b := opened(t, near, far, Bulk)
		asked := make(chan error)
		go func() {
			_, err := a.Write(make([]byte, 8<<20))
			asked <- err
		}()
		synctest.Wait()
		want := pattern(4, 100_000)
		go func() {
			b.Write(want)
			b.Close()
		}()
		if err := <-asked; !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write: %v, want EPIPE", err)
		}
		if got, err := io.ReadAll(a); err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %d bytes, %v, want %d", len(got), err, len(want))
		}
		a.Close()
		if _, err := a.Read(want); err == nil {
			t.Error("read after Close succeeds")
		}
		empty(t, near, far)
	})
}

func TestDeadlines(t *testing.T) {
	run(t, unshaped, func(t *testing.T, near, far *Conn) {
		a, b := opened(t, near, far, Bulk)
		start := time.Now()
		a.SetDeadline(start.Add(time.Second))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("read: %v after %v, want the deadline", err, time.Since(start))
		}
		a.SetDeadline(time.Now().Add(time.Second))
		n, err := a.Write(make([]byte, 8<<20))
		if n == 0 || n == 8<<20 || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 2*time.Second {
			t.Errorf("write: %d bytes, %v after %v, want some and the deadline", n, err, time.Since(start))
		}
		a.SetDeadline(time.Time{})
		go func() {
			time.Sleep(time.Hour)
			a.SetReadDeadline(time.Now()) // wakes a Read under way
		}()
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v, want the deadline", err)
		}
		a.SetDeadline(time.Time{})
		// What was written in time arrives, and nothing else.
		a.CloseWrite()
		if got, err := io.ReadAll(b); err != nil || len(got) != n {
			t.Errorf("got %d bytes, %v, want %d", len(got), err, n)
		}
		b.Close()
		a.Close()
	})
}

func TestSendAndReceive(t *testing.T) {
	run(t, unshaped, func(t *testing.T, near, far *Conn) {
		a, b := opened(t, near, far, Interactive)
		go func() {
			for i := range 2000 {
				if err := a.Send(&protocol.Datagram{Data: pattern(uint64(i), i)}); err != nil {
					t.Error(err)
				}
			}
			a.Write([]byte{200, 1, 3, 1, 2, 3}) // unknown kind
			a.Send(&protocol.Bye{Code: "end"})
			a.Write([]byte{8, 100, 1})
			a.CloseWrite()
		}()
		for i := range 2000 {
			m, err := b.Receive()
			if err != nil {
				t.Fatal(err)
			}
			if got := m.(*protocol.Datagram).Data; !bytes.Equal(got, pattern(uint64(i), i)) {
				t.Fatalf("datagram %d arrives otherwise", i)
			}
		}
		var unknown *protocol.UnknownKindError
		if _, err := b.Receive(); !errors.As(err, &unknown) {
			t.Errorf("got %v, want an unknown kind", err)
		}
		if m, err := b.Receive(); err != nil || m.Kind() != protocol.KindBye {
			t.Errorf("got %v, %v, want a Bye", m, err)
		}
		if _, err := b.Receive(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v, want an unexpected EOF", err)
		}
		if _, err := b.Receive(); err != io.EOF {
			t.Errorf("got %v, want EOF", err)
		}
		a.Close()
		b.Close()
	})
}

// TestManyStreams has 2,000 streams each way at once.
func TestManyStreams(t *testing.T) {
	run(t, unshaped, func(t *testing.T, near, far *Conn) {
		const each = 2000
		var wg, all sync.WaitGroup
		all.Add(2 * each) // nobody ends before all have begun
		echo := func(l *Conn) {
			for range each {
				s, _, err := l.Accept(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				wg.Go(func() {
					io.Copy(s, s)
					s.Close()
				})
			}
		}
		ask := func(l *Conn, i int) {
			s, err := l.Open(t.Context(), Lane(i%2), &protocol.Dial{Addr: netip.MustParseAddrPort("10.0.0.1:80")})
			if err != nil {
				t.Error(err)
				all.Done()
				return
			}
			defer s.Close()
			all.Done()
			all.Wait()
			want := pattern(uint64(i), 1000+i%3000)
			if _, err := s.Write(want); err != nil {
				t.Error(err)
			}
			s.CloseWrite()
			if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, want) {
				t.Errorf("stream %d: got %d bytes, %v, want %d", i, len(got), err, len(want))
			}
		}
		for i, l := range []*Conn{near, far} {
			wg.Go(func() { echo(l) })
			for j := range each {
				wg.Go(func() { ask(l, i*each+j) })
			}
		}
		wg.Wait()
		empty(t, near, far)
	})
}

// TestStalledReader: streams that nobody reads delay no other, and what they
// hold stays within the budget.
func TestStalledReader(t *testing.T) {
	run(t, unshaped, func(t *testing.T, near, far *Conn) {
		var stalled []*Stream
		var wg sync.WaitGroup
		lots := make([]byte, 4<<20)
		for range 1000 {
			a, _ := opened(t, near, far, Bulk)
			stalled = append(stalled, a)
			wg.Go(func() { a.Write(lots) })
		}
		synctest.Wait()
		held := 0
		far.mu.Lock()
		for _, s := range far.streams {
			for c := s.in.head; c != nil; c = c.next {
				held += len(c.b)
			}
		}
		used := used(far)
		far.mu.Unlock()
		if held > used || used > ownStreams+ownWindows {
			t.Errorf("%d bytes held, %d taken, budget %d", held, used, ownStreams+ownWindows)
		}
		t.Logf("%d MiB held by 1000 stalled streams", held>>20)
		a, b := opened(t, near, far, Bulk)
		go func() {
			a.Write(make([]byte, 1<<20))
			a.CloseWrite()
		}()
		if got, err := io.ReadAll(b); err != nil || len(got) != 1<<20 {
			t.Errorf("beside stalled streams: %d bytes, %v", len(got), err)
		}
		for _, s := range stalled {
			s.Reset(0)
			s.Close()
		}
		wg.Wait()
	})
}

func TestOwnLimit(t *testing.T) {
	run(t, unshaped, func(t *testing.T, near, far *Conn) {
		var all []*Stream
		for range maxStreams {
			s, err := near.Open(t.Context(), Interactive, question("/"))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, s)
		}
		if _, err := near.Open(t.Context(), Interactive, question("/")); !errors.Is(err, syscall.EAGAIN) {
			t.Errorf("one too many: %v, want EAGAIN", err)
		}
		all[0].Reset(0)
		if _, err := near.Open(t.Context(), Interactive, question("/")); err != nil {
			t.Errorf("after one has ended: %v", err)
		}
		// The other end's are counted apart, and nothing was refused.
		if _, err := far.Open(t.Context(), Interactive, question("/")); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		far.mu.Lock()
		if n := far.opened[Local]; n != maxStreams {
			t.Errorf("%d streams there, want %d", n, maxStreams)
		}
		far.mu.Unlock()
	})
}

func TestEndOfLink(t *testing.T) {
	tests := []struct {
		name, want string
		end        func(near, far *Conn)
	}{
		{"closed here", "tea time", func(near, far *Conn) { near.Close("tea time") }},
		{"closed there", "tea time", func(near, far *Conn) { far.Close("tea time") }},
		{"pipe ended", "", func(near, far *Conn) { far.pipe.Close() }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			run(t, unshaped, func(t *testing.T, near, far *Conn) {
				a, b := opened(t, near, far, Bulk)
				c, d := opened(t, far, near, Interactive)
				c.Write([]byte("before"))
				c.CloseWrite()
				synctest.Wait()
				var wg sync.WaitGroup
				fails := func(what string, f func() error) {
					wg.Go(func() {
						if err := f(); !errors.Is(err, syscall.ECONNRESET) || !strings.Contains(err.Error(), test.want) {
							t.Errorf("%s: %v, want ECONNRESET and the reason", what, err)
						}
					})
				}
				fails("read", func() error { _, err := a.Read(make([]byte, 1)); return err })
				fails("write", func() error { _, err := a.Write(make([]byte, 8<<20)); return err })
				fails("receive", func() error { _, err := c.Receive(); return err })
				fails("accept", func() error { _, _, err := near.Accept(context.Background()); return err })
				fails("call", func() error { _, err := near.Call(context.Background(), question("/")); return err })
				synctest.Wait()
				test.end(near, far)
				wg.Wait()
				<-near.Done()
				<-far.Done()
				fails("open", func() error { _, err := near.Open(context.Background(), Bulk, question("/")); return err })
				fails("Err", near.Err)
				fails("Err there", far.Err)
				wg.Wait()
				// What had arrived completely is still good.
				if got, err := io.ReadAll(d); err != nil || string(got) != "before" {
					t.Errorf("got %q, %v, want before", got, err)
				}
				for _, s := range []*Stream{a, b, c, d} {
					s.Close()
				}
			})
		})
	}
}

// TestCloseSendsWhatWasWritten first.
func TestCloseSendsWhatWasWritten(t *testing.T) {
	run(t, unshaped, func(t *testing.T, near, far *Conn) {
		a, b := opened(t, near, far, Interactive)
		want := pattern(5, 4000)
		a.Write(want)
		a.Close()
		c, err := near.Open(t.Context(), Bulk, question("last"))
		if err != nil {
			t.Fatal(err)
		}
		c.CloseWrite()
		near.Close("end")
		if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %d bytes, %v, want %d", len(got), err, len(want))
		}
		if _, m, err := far.Accept(t.Context()); err != nil || m.(*protocol.Readlink).Path != "last" {
			t.Errorf("got %v, %v, want the last question", m, err)
		}
	})
}

// TestSmallWritesTravelTogether: a program that writes byte by byte does not
// cost a system call each.
func TestSmallWritesTravelTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, y := pair(1<<20, 1e6, 10*time.Millisecond)
		near, far := New(x, Local, Options{}), New(y, Agent, Options{})
		a, b := opened(t, near, far, Bulk)
		synctest.Wait()
		x.out.mu.Lock()
		before := x.out.writes
		x.out.mu.Unlock()
		for range 1000 {
			if _, err := a.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		a.Close()
		if got, err := io.ReadAll(b); err != nil || len(got) != 1000 {
			t.Errorf("got %d bytes, %v, want 1000", len(got), err)
		}
		b.Close()
		x.out.mu.Lock()
		if n := x.out.writes - before; n > 100 {
			t.Errorf("1000 small writes made %d large ones", n)
		}
		x.out.mu.Unlock()
		near.Close("")
		far.Close("")
	})
}
