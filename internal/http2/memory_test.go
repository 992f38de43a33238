package http2

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/mirrord-go/mirrord/internal/budget"
)

// Without memory a connection's window stays as it was, and what is held in it.
func TestFlowWithoutMemory(t *testing.T) {
	st := newStageWith(t, budget.New(10*streamCost).Share(0, budget.All))
	defer st.end()
	st.client.raw(Preface)
	st.client.say(func(f *xhttp2.Framer) { _ = f.WriteSettings() })
	st.orig().greet()
	st.client.told()
	for id := uint32(1); id < 9; id += 2 {
		st.client.ask(id, "/a", false)
	}
	sent := 0
	for id := uint32(1); id < 9; id += 2 {
		st.client.data(id, strings.Repeat("x", 16<<10-1), false)
		sent += 16<<10 - 1
	}
	st.client.tells("the client", "")
	if st.client.data(1, "more", false); st.client.err == nil {
		t.Error("more than the connection's window is taken")
	}
}

// Without memory a reply that the server has made is passed on all the same, and its
// trailers.
func TestRepliesWithoutMemory(t *testing.T) {
	st := begun(t)
	defer st.end()
	st.client.ask(1, "/a", false)
	st.orig().told()
	held := st.memory.Free()
	if !st.memory.Take(held) {
		t.Fatal("memory cannot be taken")
	}
	defer st.memory.Give(held)
	st.client.head(1, true, "t", "u")
	st.orig().tells("the original", "HEADERS 1 END t=u")
	long := strings.Repeat("x", spare/2)
	st.orig().head(1, false, ":status", "200", "a", long)
	st.orig().head(1, true, "grpc-status", "0")
	st.client.tells("the client", "HEADERS 1 :status=200 a="+long+"\nHEADERS 1 END grpc-status=0")
	if st.memory.Used() != held {
		t.Errorf("%d bytes are held, want %d", st.memory.Used(), held)
	}
}

// One connection takes only so much for what waits.
func TestMemoryOfOneConnection(t *testing.T) {
	st := begun(t)
	defer st.end()
	full := strings.Repeat("x", 16<<10-1)
	for id := uint32(1); id < 200 && st.hop.client.window >= len(full); id += 2 { // nobody takes anything
		st.client.ask(id, "/local", false)
		st.client.data(id, full, false)
	}
	if got := st.hop.client.extra; got != maxExtra {
		t.Errorf("%d bytes are taken, want %d", got, maxExtra)
	}
}

// A window that was not opened for want of memory is opened when there is some, though
// nothing more is said on the connection. Who looks for memory is told once.
func TestWindowsOpenWithMemory(t *testing.T) {
	st := begun(t)
	defer st.end()
	for id := uint32(1); id < 9; id += 2 {
		st.client.ask(id, "/local", false)
	}
	held := st.memory.Free()
	st.memory.Take(held)
	for id := uint32(1); id < 9; id += 2 {
		st.client.data(id, strings.Repeat("x", 16<<10-1), false)
	}
	st.client.tells("the client", "")
	if n := st.starved.Load(); n != 1 {
		t.Errorf("memory was asked for %d times, want 1", n)
	}
	st.hop.Fed() // somebody else was faster
	st.client.tells("the client, while there is no memory,", "")
	if n := st.starved.Load(); n != 2 {
		t.Errorf("memory was asked for %d times, want 2", n)
	}
	st.memory.Give(held)
	st.hop.Fed()
	st.client.tells("the client", "WINDOW 0 65532")
	if n := st.starved.Load(); n != 2 {
		t.Errorf("memory was asked for %d times, want 2", n)
	}
}

// Replies whose headers are longer than what a stream has for them are passed on
// without memory as well, as far as a server's reserve goes.
func TestLongRepliesWithoutMemory(t *testing.T) {
	st := begun(t)
	defer st.end()
	for id := uint32(1); id < 11; id += 2 {
		st.client.ask(id, "/a", true)
	}
	st.orig().told()
	held := st.memory.Free()
	st.memory.Take(held)
	defer st.memory.Give(held)
	long := strings.Repeat("x", reserve/3)
	for range 2 { // what has gone on is free again
		for id := uint32(1); id < 5; id += 2 {
			st.orig().head(id, false, ":status", "103", "a", long)
		}
		st.client.tells("the client", "HEADERS 1 :status=103 a="+long+"\nHEADERS 3 :status=103 a="+long)
	}
	st.orig().head(1, false, ":status", "200", "a", long)
	st.client.say(func(f *xhttp2.Framer) { _ = f.WriteRSTStream(1, xhttp2.ErrCodeCancel) }) // nor is it lost by that
	st.orig().head(3, false, ":status", "200", "a", long)
	st.orig().head(3, true, "grpc-status", "0", "grpc-message", long)
	st.client.tells("the client", "HEADERS 3 :status=200 a="+long+"\nHEADERS 3 END grpc-status=0 grpc-message="+long)
	for id := uint32(5); id < 11; id += 2 { // more at once than it may be
		st.orig().head(id, true, ":status", "200", "a", long)
	}
	if got := st.client.told(); !strings.HasPrefix(got, "HEADERS 5 END :status=200") || !strings.Contains(got, "\nDATA 9 END mirrord: the reply's header is too long, or there is no memory for it") {
		t.Errorf("the client is told …%s", got[max(0, len(got)-100):])
	}
	if st.orig().p.kept != 0 {
		t.Errorf("%d bytes of the reserve are held", st.orig().p.kept)
	}
}

// A program that takes nothing keeps the requests of others back for a moment only,
// when there is no memory for what it leaves.
func TestProgramThatTakesNothing(t *testing.T) {
	full := strings.Repeat("x", 16<<10-1)
	stuck := func(t *testing.T, other string) *stage {
		st := begun(t)
		st.client.ask(1, other, false)
		for id := uint32(3); id < 9; id += 2 {
			st.client.ask(id, "/local", false)
		}
		held := st.memory.Free() - Chunk + 1 // some streams go
		st.memory.Take(held)
		t.Cleanup(func() { st.memory.Give(held); st.end(); st.hop.Wait() })
		st.client.data(3, full, false)
		for range 3 {
			st.client.data(5, full, false)
		}
		st.client.data(7, "xxx", false)
		if st.client.err != nil || st.hop.client.window != 0 {
			t.Fatalf("the window is %d, %v", st.hop.client.window, st.client.err)
		}
		return st
	}
	const gone = "HEADERS 5 :status=502"
	t.Run("others wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			st := stuck(t, "/a")
			local := st.server("local")
			st.client.tells("the client", "")
			time.Sleep(2 * stallTime)
			synctest.Wait()
			got := st.client.told()
			if !strings.HasPrefix(got, "WINDOW 0 49149\n"+gone) || !strings.HasSuffix(got, "RST 5 NO_ERROR") || strings.Contains(got, "HEADERS 3") {
				t.Errorf("the client is told %q", got)
			}
			local.greet()
			st.client.data(1, full, true)
			if got := st.orig().told(); !strings.Contains(got, "DATA 1 END 16383 bytes") {
				t.Errorf("the original is told %q", got)
			}
		})
	})
	t.Run("a request that comes later waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			st := stuck(t, "/local/too")
			time.Sleep(10 * stallTime)
			st.client.tells("the client, while nobody else waits,", "")
			st.client.ask(9, "/a", true) // nor does this one
			time.Sleep(10 * stallTime)
			st.client.tells("the client, while nobody else waits,", "")
			st.client.ask(11, "/a", false)
			time.Sleep(2 * stallTime)
			if got := st.client.told(); !strings.Contains(got, gone) {
				t.Errorf("the client is told %q", got)
			}
		})
	})
	t.Run("it goes on in time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			st := stuck(t, "/a")
			local := st.server("local")
			local.greet()
			local.told()
			time.Sleep(2 * stallTime)
			if got := st.client.told(); strings.Contains(got, "502") || !strings.Contains(got, "WINDOW 0 ") {
				t.Errorf("the client is told %q", got)
			}
		})
	})
	t.Run("with another one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			st := begun(t)
			st.client.ask(1, "/a", false)
			st.client.ask(3, "/local", false)
			st.client.ask(5, "/guest", false)
			held := st.memory.Free() - Chunk + 1
			st.memory.Take(held)
			defer func() { st.memory.Give(held); st.end(); st.hop.Wait() }()
			for _, id := range []uint32{3, 5, 5} {
				st.client.data(id, full, false)
			}
			st.client.data(3, full[:16000], false)
			st.hop.mu.Lock() // a timer runs
			closed, window := st.hop.closed(), st.hop.client.window
			st.hop.mu.Unlock()
			if st.client.err != nil || !closed {
				t.Fatalf("the window is %d, %v", window, st.client.err)
			}
			time.Sleep(2 * stallTime)
			synctest.Wait()
			if got := st.client.told(); !strings.Contains(got, "HEADERS 5 :status=502") || strings.Contains(got, "HEADERS 3") {
				t.Errorf("the client is told %q", got)
			}
		})
	})
	t.Run("it leaves all that a connection may", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			st := begun(t)
			defer st.end()
			st.client.ask(1, "/a", false)
			for id := uint32(3); st.hop.client.window > 0; id += 2 {
				st.client.ask(id, "/local", false)
				for n := window; n > 0 && st.hop.client.window > 0; {
					k := min(n, maxFrame-1, st.hop.client.window)
					st.client.data(id, strings.Repeat("x", k), false)
					n -= k
				}
				if st.client.err != nil || id > 100 {
					t.Fatalf("after stream %d: %v", id, st.client.err)
				}
			}
			st.client.told()
			time.Sleep(2 * stallTime)
			if got := st.client.told(); strings.Count(got, ":status=502") != 1 || !strings.Contains(got, "WINDOW 0 ") {
				t.Errorf("the client is told %q", got)
			}
		})
	})
	t.Run("it is the target's own server", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			st := begun(t)
			st.client.ask(1, "/local", false)
			held := st.memory.Free() - Chunk + 1
			st.memory.Take(held)
			defer func() { st.memory.Give(held); st.end() }()
			for id := uint32(3); id < 11; id += 2 {
				st.client.ask(id, "/a", false)
				st.client.data(id, full, false)
			}
			st.client.told()
			time.Sleep(10 * stallTime)
			st.client.tells("the client", "")
		})
	})
}

// What the timer of a body has begun ends before the hop's owner goes on.
func TestTimersAreWaitedFor(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	h := New(Options{
		Connect: func(*Peer) {},
		Route: func(q *Request) Verdict {
			if q.Asked {
				close(asked)
				<-release
				return Verdict{}
			}
			return Verdict{Wait: true, Size: 10, Time: time.Millisecond}
		},
	})
	client := newEnd(t, h.Client())
	client.raw(Preface)
	client.say(func(f *xhttp2.Framer) { _ = f.WriteSettings() })
	client.ask(1, "/a", false)
	<-asked
	h.Close()
	done := make(chan struct{})
	go func() { h.Wait(); close(done) }()
	select {
	case <-done:
		t.Error("it is not waited for")
	case <-time.After(20 * time.Millisecond):
	}
	close(release)
	<-done
}
