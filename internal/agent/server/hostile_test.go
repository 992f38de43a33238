package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/claims"
	"github.com/mirrord-go/mirrord/internal/agent/target"
	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/link/resume"
	"github.com/mirrord-go/mirrord/internal/link/seal"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

// works fails the test unless the session answers.
func works(t *testing.T, l *link.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	m, err := l.Call(ctx, &protocol.Stat{Path: "/"})
	if _, ok := m.(*protocol.Attr); err != nil || !ok {
		t.Errorf("the session is answered %T, %v", m, err)
	}
}

// recorded remembers what is written to a connection.
type recorded struct {
	net.Conn
	mu  sync.Mutex
	out bytes.Buffer
}

func (r *recorded) Write(b []byte) (int, error) {
	r.mu.Lock()
	r.out.Write(b)
	r.mu.Unlock()
	return r.Conn.Write(b)
}

func (r *recorded) said() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.out.Bytes())
}

// TestReplay: whoever has recorded all that a session said, to the last byte of
// its hello and its questions, gets nothing by saying it again, neither while
// the session lives nor when its pipe is lost.
func TestReplay(t *testing.T) {
	a := start(t, target.Self)
	var first *recorded
	var lost atomic.Bool
	pipe, err := resume.Dial(t.Context(), func(ctx context.Context) (io.ReadWriteCloser, error) {
		if lost.Load() {
			return nil, errors.New("no way")
		}
		c, err := net.Dial("tcp", a.address)
		if err != nil {
			return nil, err
		}
		first = &recorded{Conn: c}
		return seal.Client(ctx, first, a.session, a.key)
	}, resume.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := link.New(pipe, link.Local, link.Options{})
	defer l.Close("test")
	works(t, l)
	replay := func() {
		t.Helper()
		c, err := net.Dial("tcp", a.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(handshakeTime + 5*time.Second))
		_, _ = c.Write(first.said())
		_ = c.(*net.TCPConn).CloseWrite()
		// The agent's half of a handshake, then nothing: no answer of a session.
		if b, _ := io.ReadAll(c); len(b) > 4096 {
			t.Errorf("a replay was answered with %d bytes", len(b))
		}
	}
	replay()
	works(t, l)
	lost.Store(true)
	first.Conn.Close()
	replay()
	lost.Store(false)
	works(t, l) // back
}

// TestGuessedSession: the id of a session opens nothing without its key, and a
// stranger with it does not disturb.
func TestGuessedSession(t *testing.T) {
	a := start(t, target.Self)
	l, _, _ := a.join()
	stranger, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		pipe, err := resume.Dial(t.Context(), func(ctx context.Context) (io.ReadWriteCloser, error) {
			return a.connect(ctx, stranger, a.key)
		}, resume.Options{Fatal: func(err error) bool { return errors.Is(err, seal.ErrRefused) }})
		if !errors.Is(err, seal.ErrRefused) {
			t.Errorf("a stranger: %v, %v", pipe, err)
		}
	}
	works(t, l)
}

// TestManyStrangers: strangers who connect and say nothing cost the agent a
// bounded number of descriptors, and the session that lives through them goes on.
func TestManyStrangers(t *testing.T) {
	a := start(t, target.Self)
	l, _, _ := a.join()
	for range 500 {
		c, err := net.Dial("tcp", a.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	works(t, l)
}

// TestFloodOfDials: a client that dials without end gets as many connections as
// there may be streams, or memory, then EAGAIN; and the session goes on.
func TestFloodOfDials(t *testing.T) {
	a := start(t, target.Self)
	l, _, _ := a.join()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var accepted []net.Conn
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			accepted = append(accepted, c)
		}
	})
	to := netip.MustParseAddrPort(ln.Addr().String())
	refused := 0
	var streams []*link.Stream
	for range 100_000 {
		s, err := l.Open(t.Context(), link.Bulk, &protocol.Dial{Network: protocol.NetworkTCP, Addr: to})
		switch {
		case err == nil:
			streams = append(streams, s)
		case errors.Is(err, syscall.EAGAIN):
			refused++
		default:
			t.Fatal(err)
		}
	}
	connected := 0
	for _, s := range streams {
		m, err := s.Receive()
		answer, ok := m.(*protocol.Answer)
		switch {
		case err == nil && ok && answer.Err() == nil:
			connected++
		case errors.Is(err, syscall.EAGAIN), ok && answer.Errno == syscall.EAGAIN:
			refused++ // by the agent
		}
		s.Close()
	}
	if connected == 0 || connected > 3000 || refused < 97_000 {
		t.Errorf("%d connected, %d refused", connected, refused)
	}
	ln.Close()
	wg.Wait()
	for _, c := range accepted {
		c.Close()
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) { // until the agent has closed them too
		_, err := l.Open(t.Context(), link.Interactive, &protocol.Hello{})
		if err == nil || time.Now().After(end) {
			break
		}
	}
	works(t, l)
}

// TestClaimsAreForAgents: a client that means harm cannot speak to other sessions'
// agents by way of its own, whom they would believe.
func TestClaimsAreForAgents(t *testing.T) {
	pid := testnet.Process(t, syscall.CLONE_NEWNET, nil, "ip link set lo up")
	a := start(t, func() (*target.Target, error) {
		in, err := target.Open(pid)
		if err == nil {
			err = in.Personate()
		}
		return in, err
	})
	in, err := target.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	claim, err := claims.Take(in, claims.TCP, 80, "ana@laptop", func(c net.Conn) { c.Close() })
	if err != nil {
		t.Fatal(err)
	}
	defer claim.Release()
	var other net.Listener
	if err := in.Do(func() (err error) { other, err = net.Listen("unix", "@mirrord-clai"); return err }); err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	l, _, _ := a.join()
	for name, want := range map[string]syscall.Errno{"\x00mirrord-claim-tcp-80": syscall.ECONNREFUSED, "\x00mirrord-clai": 0} {
		s, err := l.Open(t.Context(), link.Bulk, &protocol.Dial{Network: protocol.NetworkUnix, Name: name})
		if err != nil {
			t.Fatal(err)
		}
		m, err := s.Receive()
		if answer, ok := m.(*protocol.Answer); err != nil || !ok || answer.Errno != want {
			t.Errorf("%q: answered %+v, %v, want %v", name, m, err, want)
		}
		s.Close()
	}
}

// TestAnswersNobodyReads: environments that a client asks for and does not read take
// no more memory than there is set aside, and the session goes on.
func TestAnswersNobodyReads(t *testing.T) {
	pid := testnet.Process(t, syscall.CLONE_NEWUTS, append(large(9), "PATH="+os.Getenv("PATH")), "true")
	a := start(t, func() (*target.Target, error) { return target.Open(pid) })
	pipe, err := resume.Dial(t.Context(), func(ctx context.Context) (io.ReadWriteCloser, error) {
		return a.connect(ctx, a.session, a.key)
	}, resume.Options{})
	if err != nil {
		t.Fatal(err)
	}
	windows := budget.New(0).Share(0, 0) // it lets the agent send next to nothing
	l := link.New(pipe, link.Local, link.Options{Memory: link.Memory{Windows: windows}})
	t.Cleanup(func() { l.Close("test") })
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for range 400 {
		s, err := l.Open(t.Context(), link.Interactive, &protocol.EnvRequest{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
	}
	used := int64(0)
	for end := time.Now().Add(2 * time.Second); used < 96<<20 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		used = heap() - before
	}
	if used > 96<<20 {
		t.Errorf("400 answers of 900 KB hold %d MiB", used>>20)
	}
	if m, err := l.Call(t.Context(), &protocol.CountsRequest{}); err != nil || m.Kind() != protocol.KindCounts {
		t.Errorf("the session is answered %T, %v", m, err)
	}
}

// TestOddTarget: what a target says of itself passes as it is, bounded; what is
// larger than a message is an error that says so.
func TestOddTarget(t *testing.T) {
	odd := "\x1b]0;owned\x07\nline\u202e"
	for name, c := range map[string]struct {
		env    []string
		errno  syscall.Errno
		atMost int
	}{
		"escape codes":        {[]string{"ODD=" + odd, "=none", "no value", odd + "=x"}, 0, 4096},
		"nearly a megabyte":   {large(9), 0, 1 << 20},
		"more than a message": {large(14), syscall.E2BIG, 0},
	} {
		t.Run(name, func(t *testing.T) {
			pid := testnet.Process(t, syscall.CLONE_NEWUTS, append(c.env, "PATH="+os.Getenv("PATH")), "hostname odd-host")
			a := start(t, func() (*target.Target, error) { return target.Open(pid) })
			l, _, _ := a.join()
			m, err := l.Call(t.Context(), &protocol.EnvRequest{})
			if err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) {
			case *protocol.Env:
				if c.errno != 0 || len(strings.Join(m.Vars, "")) > c.atMost {
					t.Errorf("%d bytes", len(strings.Join(m.Vars, "")))
				}
				for _, v := range m.Vars {
					if strings.Index(v, "=") < 1 {
						t.Errorf("%q has no name", v)
					}
				}
			case *protocol.Answer:
				if m.Errno != c.errno || m.Errno == 0 {
					t.Errorf("answered with %v %q", m.Errno, m.Text)
				}
			}
			works(t, l)
		})
	}
}

// large is an environment of n times 100 KB.
func large(n int) (list []string) {
	for i := range n {
		list = append(list, "LARGE"+string(rune('A'+i))+"="+strings.Repeat("x", 100_000))
	}
	return list
}
