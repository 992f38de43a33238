package link

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// raw is a peer that writes frames by hand, as local's end.
type raw struct {
	t *testing.T
	end
}

func (r raw) open(id uint64, flags byte, data []byte) {
	b := appendHeader(nil, header{typ: typeOpen, flags: flags, n: 4 + len(data), stream: id})
	b = binary.BigEndian.AppendUint32(b, 1<<20)
	r.Write(append(b, data...))
}

// next reads the next frame that is not a PING.
func (r raw) next() (header, []byte) {
	r.t.Helper()
	for {
		b := make([]byte, headerSize)
		if _, err := io.ReadFull(r, b); err != nil {
			r.t.Fatal(err)
		}
		h := parseHeader(b)
		p := make([]byte, h.n)
		io.ReadFull(r, p)
		if h.typ != typePing {
			return h, p
		}
	}
}

func byHand(t *testing.T, f func(t *testing.T, r raw, l *Conn)) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(8<<20, 0, 0)
		l := New(b, Agent, Options{})
		f(t, raw{t, a}, l)
		a.Close()
		l.Close("")
	})
}

func message(m protocol.Message) []byte { return protocol.Append(nil, m) }

func TestOpeningsThatAreRefused(t *testing.T) {
	long := binary.AppendUvarint([]byte{byte(protocol.KindData)}, 2<<20)
	tests := []struct {
		name  string
		flags byte
		data  []byte
		want  syscall.Errno
	}{
		{"unknown kind", flagFin, []byte{200, 3, 1, 0}, syscall.ENOSYS},
		{"malformed", flagFin, []byte{byte(protocol.KindDial), 2, 0xff, 0xff}, syscall.EPROTO},
		{"cut short", flagFin, []byte{byte(protocol.KindDial), 20, 1}, syscall.EPROTO},
		{"empty", flagFin, nil, syscall.EPROTO},
		{"too long", 0, long, syscall.EMSGSIZE},
		{"endless number", 0, bytes.Repeat([]byte{0xff}, 30), syscall.EPROTO},
	}
	byHand(t, func(t *testing.T, r raw, l *Conn) {
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				s, m, err := l.Accept(context.Background())
				if err != nil {
					return
				}
				if m.Kind() != protocol.KindReadlink {
					t.Errorf("a bad opening was accepted as %T", m)
				}
				s.Close()
			}
		})
		id := uint64(1)
		for _, test := range tests {
			r.open(id, test.flags, test.data)
			h, p := r.next()
			if h.typ != typeReset || h.stream != id || syscall.Errno(binary.BigEndian.Uint32(p)) != test.want {
				t.Errorf("%s: answer is %+v %x, want a reset with %d", test.name, h, p, test.want)
			}
			id += 2
		}
		r.open(id, flagFin, message(question("/"))) // the link lives
		if h, _ := r.next(); h.typ != typeData || h.flags != flagFin {
			t.Errorf("answer is %+v, want an end", h)
		}
		r.Close()
		wg.Wait()
	})
}

func TestTooManyStreams(t *testing.T) {
	byHand(t, func(t *testing.T, r raw, l *Conn) {
		const more = 1000
		m := message(question("/"))
		for i := range uint64(maxStreams + more) {
			r.open(1+2*i, 0, m)
		}
		for i := range uint64(more) {
			h, p := r.next()
			if h.typ != typeReset || h.stream != 1+2*(maxStreams+i) || syscall.Errno(binary.BigEndian.Uint32(p)) != syscall.EAGAIN {
				t.Fatalf("answer is %+v %x, want EAGAIN for stream %d", h, p, 1+2*(maxStreams+i))
			}
		}
		for range maxStreams {
			accept(t, l).Close()
		}
		if l.Err() != nil {
			t.Errorf("the link ended: %v", l.Err())
		}
		go io.Copy(io.Discard, r)
	})
}

// TestBudgetExhausted: long first messages that never come are refused before
// they could need more than there is.
func TestBudgetExhausted(t *testing.T) {
	byHand(t, func(t *testing.T, r raw, l *Conn) {
		claim := binary.AppendUvarint([]byte{byte(protocol.KindData)}, protocol.MaxMessage)
		for i := range uint64(200) {
			r.open(1+2*i, 0, claim)
		}
		synctest.Wait()
		l.mu.Lock()
		windows := 0
		for _, s := range l.streams {
			windows += s.window
		}
		if free := l.memory.Windows.Free(); free < 0 || windows > ownStreams+ownWindows || len(l.streams) < 20 || len(l.streams) > 100 {
			t.Errorf("%d streams with windows of %d bytes, %d to lend", len(l.streams), windows, free)
		}
		l.mu.Unlock()
		go io.Copy(io.Discard, r)
	})
}

// TestMessagesInUse: what Receive has taken from the windows is bounded as well,
// and comes free with the next Receive, Reset or Close.
func TestMessagesInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := unshaped()
		local, agent := New(a, Local, Options{}), New(b, Agent, Options{})
		const streams, size = 100, 1 << 20 / 2
		var held, most atomic.Int64
		next := make(chan struct{})
		var wg sync.WaitGroup
		for range streams {
			wg.Go(func() {
				s, err := local.Open(t.Context(), Bulk, &protocol.Stat{})
				if err != nil {
					t.Error(err)
					return
				}
				defer s.Close()
				_ = s.Send(&protocol.Data{Bytes: make([]byte, size)})
				_, _ = s.Receive()
			})
			wg.Go(func() {
				s, _, err := agent.Accept(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				defer s.Close()
				if _, err := s.Receive(); err != nil {
					t.Error(err)
				}
				most.Store(max(most.Load(), held.Add(1)))
				<-next // the message is in use
				held.Add(-1)
			})
		}
		for range streams {
			synctest.Wait()
			if n := held.Load(); n > maxMessages/size || n == 0 {
				t.Fatalf("%d messages of %d bytes are in use", n, size)
			}
			next <- struct{}{}
		}
		wg.Wait()
		if most.Load() < maxMessages/size-1 {
			t.Errorf("only %d messages were in use at a time", most.Load())
		}
		// Who waits in vain is told of the end of the link, and of a deadline.
		agent.mu.Lock()
		agent.messages = maxMessages
		agent.mu.Unlock()
		for _, end := range []func(*Stream){
			func(s *Stream) { _ = s.SetReadDeadline(time.Now().Add(time.Second)) },
			func(s *Stream) { _ = s.Reset(syscall.ECANCELED) },
			func(s *Stream) { s.Close() },
			func(*Stream) { local.Close("") },
		} {
			s, err := local.Open(t.Context(), Bulk, &protocol.Stat{})
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() { _ = s.Send(&protocol.Data{Bytes: make([]byte, size)}); s.Close() })
			at, _, err := agent.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			failed := make(chan error, 1)
			go func() { _, err := at.Receive(); failed <- err }()
			synctest.Wait()
			end(at)
			if err := <-failed; err == nil {
				t.Error("received beyond the bound")
			}
			at.Close()
		}
		agent.Close("")
		local.Close("")
		wg.Wait()
	})
}

func TestUnknownFramesAreSkipped(t *testing.T) {
	byHand(t, func(t *testing.T, r raw, l *Conn) {
		r.Write(append(appendHeader(nil, header{typ: 77, flags: 9, n: 60000, stream: 99}), make([]byte, 60000)...))
		r.open(1, flagFin|0xf0, message(question("/")))
		accept(t, l).Close()
		r.Write(appendToken(nil, typePing, 42))
		for {
			h, p := r.next()
			if h.typ == typePong {
				if binary.BigEndian.Uint64(p) != 42 {
					t.Errorf("pong of %x", p)
				}
				return
			}
		}
	})
}

func TestViolationsEndTheLink(t *testing.T) {
	open := func(id uint64, n int) []byte {
		b := appendHeader(nil, header{typ: typeOpen, n: 4 + n, stream: id})
		return append(b, make([]byte, 4+n)...)
	}
	tests := map[string][]byte{
		"data for no stream":    appendHeader(nil, header{typ: typeData, stream: 1}),
		"data on the link":      appendHeader(nil, header{typ: typeData, stream: 0}),
		"id of the other role":  open(2, 0),
		"id again":              append(open(3, 0), open(3, 0)...),
		"huge id":               open(1<<63+1, 0),
		"short open":            appendHeader(nil, header{typ: typeOpen, stream: 1}),
		"beyond first window":   open(1, minWindow+1),
		"long data":             appendHeader(nil, header{typ: typeData, n: maxPayload + 1, stream: 1}),
		"long reset":            appendHeader(nil, header{typ: typeReset, n: 5000, stream: 1}),
		"short ping":            append(appendHeader(nil, header{typ: typePing, n: 7}), make([]byte, 7)...),
		"window overflows":      append(open(1, 0), appendNumber(nil, typeWindow, 1, 1<<31)...),
		"window too often":      append(open(1, 0), bytes.Repeat(appendNumber(nil, typeWindow, 1, 1<<29), 3)...),
		"short window":          append(open(1, 0), appendHeader(nil, header{typ: typeWindow, stream: 1})...),
		"end without a goodbye": {},
	}
	for name, bad := range tests {
		t.Run(name, func(t *testing.T) {
			byHand(t, func(t *testing.T, r raw, l *Conn) {
				r.Write(bad)
				if len(bad) == 0 {
					r.Close()
				}
				<-l.Done()
				if err := l.Err(); !errors.Is(err, syscall.ECONNRESET) || len(bad) > 0 && !errors.Is(err, errProtocol) {
					t.Errorf("ended with %v, want a violation", err)
				}
			})
		})
	}
}

func TestGoAway(t *testing.T) {
	byHand(t, func(t *testing.T, r raw, l *Conn) {
		r.Write(appendGoAway(nil, uint32(syscall.ESHUTDOWN), strings.Repeat("x", 5000)))
		<-l.Done()
		var closed *ClosedError
		if err := l.Err(); !errors.As(err, &closed) || !closed.Remote || len(closed.Reason) != maxReason || !errors.Is(err, syscall.ESHUTDOWN) {
			t.Errorf("ended with %v", err)
		}
	})
}

// FuzzReceive feeds a link with arbitrary bytes, some of them well-formed
// frames: it must neither panic nor hold more than its budget.
func FuzzReceive(f *testing.F) {
	m := message(question("/"))
	open := append(binary.BigEndian.AppendUint32(appendHeader(nil, header{typ: typeOpen, n: 4 + len(m), stream: 1}), 1000), m...)
	f.Add(open)
	f.Add(append(open, appendNumber(nil, typeWindow, 1, 500)...))
	f.Add(append(open, appendNumber(nil, typeReset, 1, 5)...))
	f.Add(append(open, appendHeader(nil, header{typ: typeStop, stream: 1})...))
	f.Add(append(open, appendHeader(nil, header{typ: typeData, flags: flagFin, stream: 1})...))
	f.Add(appendToken(appendToken(nil, typePing, 7), typePong, 8))
	f.Add(appendGoAway(nil, 0, "bye"))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, y := pair(1<<20, 0, 0)
		l := New(y, Agent, Options{})
		var wg sync.WaitGroup
		wg.Go(func() { io.Copy(io.Discard, x) })
		wg.Go(func() {
			for {
				s, _, err := l.Accept(context.Background())
				if err != nil {
					return
				}
				s.Write([]byte("answer"))
				s.Close()
			}
		})
		x.Write(b)
		x.out.set(func() { x.out.closed = true })
		<-l.Done()
		l.Close("")
		wg.Wait()
		l.mu.Lock()
		defer l.mu.Unlock()
		if used := used(l); used != 0 || len(l.streams) > maxStreams {
			t.Errorf("%d bytes are taken after the end, %d streams", used, len(l.streams))
		}
	})
}

// TestCutsBelowStreams has streams with known content on a link whose short
// pipes are cut again and again.
func TestCutsBelowStreams(t *testing.T) {
	for seed := range uint64(5) {
		for _, name := range []string{"resume", "resume+seal"} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := rand.New(rand.NewPCG(seed, 9))
					x, y, after := modes[name](t, func() (a, b end) {
						a, b = pair(64<<10, 20e6, 0)
						n := int64(20_000 + r.IntN(2_000_000))
						a.in.left, a.out.left = n, n/2
						return a, b
					})
					near, far := New(x, Local, Options{}), New(y, Agent, Options{})
					var wg sync.WaitGroup
					for i := range 20 {
						wg.Go(func() {
							s, err := near.Open(t.Context(), Lane(i%2), question("/"))
							if err != nil {
								t.Error(err)
								return
							}
							defer s.Close()
							want := pattern(uint64(i), 400_000)
							wg.Go(func() {
								s.Write(want)
								s.CloseWrite()
							})
							if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, want) {
								t.Errorf("stream %d: got %d bytes, %v, want %d", i, len(got), err, len(want))
							}
						})
						wg.Go(func() {
							s := accept(t, far)
							io.Copy(s, s)
							s.Close()
						})
					}
					wg.Wait()
					empty(t, near, far)
					near.Close("")
					far.Close("")
					after()
				})
			})
		}
	}
}

// TestAllocations pins the copy path: a data frame costs no memory of its own.
func TestAllocations(t *testing.T) {
	x, y := tcpPair(t)
	near, far := New(x, Local, Options{}), New(y, Agent, Options{})
	defer far.Close("")
	defer near.Close("")
	a, b := opened(t, near, far, Bulk)
	for _, n := range []int{100, maxPayload} {
		buf := make([]byte, n)
		got := testing.AllocsPerRun(1000, func() {
			if _, err := a.Write(buf); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(b, buf); err != nil {
				t.Fatal(err)
			}
		})
		// Nothing by itself; pools are emptied by the collector now and then.
		if got > 0.5 {
			t.Errorf("%d bytes cost %v allocations, want none", n, got)
		}
	}
	a.Close()
	b.Close()
}

// TestMemoryIsShared: a stream without memory is refused like one too many, on
// either side, and no kind of stream takes what another has for sure.
func TestMemoryIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		total := budget.New(16 * StreamCost)
		m := Memory{Interactive: total.Share(2*StreamCost, budget.All), Opened: total.Share(3*StreamCost, budget.All),
			Accepted: total.Share(4*StreamCost, budget.All), Windows: total.Share(0, StreamCost)}
		a, b := unshaped()
		local, agent := New(a, Local, Options{}), New(b, Agent, Options{Memory: m})
		m.Windows.Take(StreamCost) // elsewhere in the process
		var opened []*Stream
		ask := func(c *Conn, lane Lane) error {
			s, err := c.Open(t.Context(), lane, &protocol.Stat{})
			if err != nil {
				return err
			}
			opened = append(opened, s)
			synctest.Wait()
			c.mu.Lock()
			defer c.mu.Unlock()
			return s.reset
		}
		count := func(c *Conn, lane Lane) (n int) {
			for {
				if err := ask(c, lane); err != nil {
					if !errors.Is(err, syscall.EAGAIN) {
						t.Errorf("got %v, want EAGAIN", err)
					}
					return n
				}
				n++
			}
		}
		for _, c := range []struct {
			name string
			c    *Conn
			lane Lane
			want int
		}{
			{"accepted ones have theirs and what is common", local, Bulk, 4 + 6},
			{"opened ones have theirs", agent, Bulk, 3},
			{"interactive ones have theirs", local, Interactive, 2},
		} {
			if got := count(c.c, c.lane); got != c.want {
				t.Errorf("%s: %d, want %d", c.name, got, c.want)
			}
		}
		opened[0].Reset(0)
		synctest.Wait()
		if got := count(local, Bulk); got != 1 {
			t.Errorf("after the end of one there are %d places, want 1", got)
		}
		agent.Close("")
		local.Close("")
		if got := m.Interactive.Used() + m.Opened.Used() + m.Accepted.Used(); got != 0 {
			t.Errorf("%d bytes are taken after the end of the link", got)
		}
		for _, s := range opened {
			s.Close()
		}
	})
}
