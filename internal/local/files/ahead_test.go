package files

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/local/fusefs"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

const (
	// farRate is that of a link of 200 Mbit/s, which carries 1 MB in a round
	// trip, in bytes a second.
	farRate = 200_000_000 / 8
	// ask1 is how much a program reads at once.
	ask1 = 128 << 10
)

// sparse makes files of zeros in a directory, which it gives.
func sparse(t *testing.T, size int64, names ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range names {
		p := filepath.Join(root, name)
		must(t, os.WriteFile(p, nil, 0o644))
		must(t, os.Truncate(p, size))
	}
	return root
}

// opened opens a file that is far.
func (f *far) opened(p string) fusefs.File {
	f.t.Helper()
	n, err := f.find(p)
	must(f.t, err)
	file, err := f.Open(f.t.Context(), p, n.Key, unix.O_RDONLY)
	must(f.t, err)
	return file
}

// inOrder reads what is between from and to, or up to the end.
func inOrder(t *testing.T, file fusefs.File, from, to int64) (got []byte, err error) {
	t.Helper()
	var all bytes.Buffer
	buf := make([]byte, ask1)
	for off := from; off < to; {
		n, err := file.ReadAt(t.Context(), buf[:min(ask1, to-off)], off)
		all.Write(buf[:n])
		if off += int64(n); err != nil || n == 0 {
			return all.Bytes(), err
		}
	}
	return all.Bytes(), nil
}

// TestReadFillsTheLink: reading a file in order takes the time that its bytes
// need.
func TestReadFillsTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 200_000_000
		f := newFarAt(t, sparse(t, size, "file"), farRate, nil)
		file := f.opened("/file")
		defer file.Close()
		began := time.Now()
		buf := make([]byte, ask1)
		for off := 0; off < size; {
			n, err := file.ReadAt(t.Context(), buf, int64(off))
			must(t, err)
			off += n
		}
		took, least := time.Since(began), size*time.Second/farRate
		if share := float64(least) / float64(took); share < 0.95 {
			t.Errorf("it took %v, %.2f of what the link carries", took, share)
		}
	})
}

// TestReadersShareTheLink: of two who read at the same time each gets about a
// half, and a small question is not behind what they have asked for.
func TestReadersShareTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 50_000_000
		f := newFarAt(t, sparse(t, size, "a", "b", "small"), farRate, nil)
		small := f.opened("/small")
		defer small.Close()
		question := func() float64 {
			return trips(func() {
				_, err := small.ReadAt(t.Context(), make([]byte, 4096), rand.Int64N(size/2)+size/4)
				must(t, err)
			})
		}
		question() // the handle
		idle := question()
		var wg sync.WaitGroup
		var ends [2]time.Time
		for i, p := range []string{"/a", "/b"} {
			file := f.opened(p)
			wg.Go(func() {
				defer file.Close()
				got, err := inOrder(t, file, 0, size)
				if err != nil || len(got) != size {
					t.Errorf("%s: %d bytes, %v", p, len(got), err)
				}
				ends[i] = time.Now()
			})
		}
		var busy []float64
		for range 20 {
			time.Sleep(100 * time.Millisecond)
			busy = append(busy, question())
		}
		if worst := slices.Max(busy); worst > 5*idle {
			t.Errorf("4 KiB take %.1f round trips beside what is read in bulk, %.1f without", worst, idle)
		}
		wg.Wait()
		if apart := ends[0].Sub(ends[1]).Abs(); apart > time.Second/2 {
			t.Errorf("one of two who read as much had it %v before the other", apart)
		}
	})
}

// TestSeekIsNotBehind: what was read ahead is not in the way of who goes on
// elsewhere.
func TestSeekIsNotBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, elsewhere = 100_000_000, 256 * chunk
		f := newFarAt(t, sparse(t, size, "file"), farRate, nil)
		file := f.opened("/file")
		defer file.Close()
		_, err := inOrder(t, file, 0, size/2)
		must(t, err)
		if took := trips(func() {
			_, err := inOrder(t, file, elsewhere, elsewhere+2*ask1)
			must(t, err)
		}); took > 3.3 { // two, and what is in the queue of the link
			t.Errorf("going on elsewhere took %.1f round trips", took)
		}
	})
}

// TestReadAheadIsOneConversation: what is read ahead is asked for on one stream,
// in order, before the answers come.
func TestReadAheadIsOneConversation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 8 << 20
		v, want := random(t, size)
		var mu sync.Mutex
		streams := map[*link.Stream]bool{}
		var asked []int64
		waiting := 0
		v.target.on(func(s *link.Stream, m protocol.Message) bool {
			if m, ok := m.(*protocol.ReadAt); ok {
				time.Sleep(10 * time.Millisecond)
				mu.Lock()
				defer mu.Unlock()
				streams[s] = true
				asked = append(asked, m.Off)
				waiting = max(waiting, s.Buffered())
			}
			return false
		})
		got, err := v.content(v.in("/file"))
		if err != nil || got != string(want) {
			t.Errorf("got %d bytes, %v; want the %d there are", len(got), err, len(want))
		}
		if len(streams) != 1 || !slices.IsSorted(asked) || waiting == 0 {
			t.Errorf("%d streams, on which %d bytes of questions waited at most, for what is at %v", len(streams), waiting, asked)
		}
	})
}

// TestAgentOfOneAnswer: an agent that ends the stream behind each answer is read
// from all the same.
func TestAgentOfOneAnswer(t *testing.T) {
	v, want := random(t, 4<<20)
	v.target.on(func(s *link.Stream, m protocol.Message) bool {
		if _, ok := m.(*protocol.ReadAt); !ok {
			return false
		}
		reply, err := v.target.reply(m)
		must(t, err)
		_ = s.Send(reply)
		s.Close()
		return true
	})
	got, err := v.content(v.in("/file"))
	if err != nil || got != string(want) {
		t.Errorf("got %d bytes, %v; want the %d there are", len(got), err, len(want))
	}
}

// TestErrorAtItsPlace: what cannot be read is told with its errno where it is,
// all before and behind it is given, and when it can be read again it is.
func TestErrorAtItsPlace(t *testing.T) {
	const size, bad = 4 << 20, 5 * chunk
	v, want := random(t, size)
	v.target.on(func(s *link.Stream, m protocol.Message) bool {
		if m, ok := m.(*protocol.ReadAt); ok && m.Off <= bad && bad < m.Off+int64(m.N) {
			_ = s.Send(&protocol.Answer{Errno: syscall.EUCLEAN})
			return true
		}
		return false
	})
	file, err := v.openFile(v.in("/file"), unix.O_RDONLY)
	must(t, err)
	defer file.Close()
	for range 2 {
		got, err := inOrder(t, file, 0, size)
		if errno(err) != syscall.EUCLEAN || !bytes.Equal(got, want[:bad]) {
			t.Errorf("%d bytes and %v, want %d and EUCLEAN", len(got), err, bad)
		}
	}
	got, err := inOrder(t, file, bad+chunk, size)
	if err != nil || !bytes.Equal(got, want[bad+chunk:]) {
		t.Errorf("behind it: %d bytes, %v", len(got), err)
	}
	v.target.on(nil)
	if got, err := inOrder(t, file, 0, size); err != nil || !bytes.Equal(got, want) {
		t.Errorf("afterwards: %d bytes, %v", len(got), err)
	}
}

// TestStuckAtOnePlace: a piece that the target's storage never gives ends with
// ETIMEDOUT, and the others are read.
func TestStuckAtOnePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, bad = 4 << 20, 5 * chunk
		v, want := random(t, size)
		free := make(chan struct{})
		v.target.on(func(_ *link.Stream, m protocol.Message) bool {
			if m, ok := m.(*protocol.ReadAt); ok && m.Off <= bad && bad < m.Off+int64(m.N) {
				<-free
			}
			return false
		})
		file, err := v.openFile(v.in("/file"), unix.O_RDONLY)
		must(t, err)
		defer file.Close()
		defer close(free)
		began := time.Now()
		got, err := inOrder(t, file, 0, size)
		if errno(err) != syscall.ETIMEDOUT || !bytes.Equal(got, want[:bad]) {
			t.Errorf("%d bytes and %v, want %d and ETIMEDOUT", len(got), err, bad)
		}
		if took := time.Since(began); took > callTime+time.Second {
			t.Errorf("it took %v", took)
		}
		if got, err := inOrder(t, file, bad+chunk, size); err != nil || !bytes.Equal(got, want[bad+chunk:]) {
			t.Errorf("behind it: %d bytes, %v", len(got), err)
		}
	})
}

// TestLostWhileReadingAhead: a link that comes back late is waited for.
func TestLostWhileReadingAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 4 << 20
		v, want := random(t, size)
		var once sync.Once
		v.target.on(func(_ *link.Stream, m protocol.Message) bool {
			if m, ok := m.(*protocol.ReadAt); ok && m.Off >= size/2 {
				once.Do(func() {
					v.link.SetLost(true)
					time.Sleep(2 * link.BeginTime)
					v.link.SetLost(false)
				})
			}
			return false
		})
		if got, err := v.content(v.in("/file")); err != nil || got != string(want) {
			t.Errorf("got %d bytes, %v; want the %d there are", len(got), err, len(want))
		}
	})
}

// TestFileChangesLengthMeanwhile: what is cut or grows while it is read ahead is
// read to one of its ends, and what is there later is read later.
func TestFileChangesLengthMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, cut = 8 << 20, 5<<20 + 100
		v, want := random(t, size)
		file, err := v.openFile(v.in("/file"), unix.O_RDONLY)
		must(t, err)
		defer file.Close()
		got, err := inOrder(t, file, 0, 1<<20)
		must(t, err)
		must(t, os.Truncate(v.remote(v.in("/file")), cut))
		rest, err := inOrder(t, file, 1<<20, 2*size)
		if got = append(got, rest...); err != nil || len(got) < cut || !bytes.Equal(got[:cut], want[:cut]) {
			t.Errorf("cut: %d bytes, %v, want %d", len(got), err, cut)
		}
		more, err := os.OpenFile(v.remote(v.in("/file")), os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		defer more.Close()
		_, err = more.Write(want[cut:])
		must(t, err)
		time.Sleep(2 * DefaultLife) // until no answer from before is believed
		if _, _, err := file.Stat(t.Context()); err != nil {
			t.Error(err)
		}
		if got, err := inOrder(t, file, cut, 2*size); err != nil || !bytes.Equal(got, want[cut:]) {
			t.Errorf("grown: %d bytes, %v, want %d", len(got), err, size-cut)
		}
	})
}

// TestTwoPlacesOfOneFile: two who read in order by the same descriptor, each
// elsewhere, both read what is there.
func TestTwoPlacesOfOneFile(t *testing.T) {
	const size = 8 << 20
	v, want := random(t, size)
	file, err := v.openFile(v.in("/file"), unix.O_RDONLY)
	must(t, err)
	defer file.Close()
	var wg sync.WaitGroup
	for _, from := range []int64{0, size / 4, size / 2} {
		wg.Go(func() {
			if got, err := inOrder(t, file, from, from+size/2); err != nil || !bytes.Equal(got, want[from:from+size/2]) {
				t.Errorf("from %d: %d bytes, %v", from, len(got), err)
			}
		})
	}
	wg.Wait()
}

// TestReadAheadGivesBack: what has been read is not kept, and a file that is
// closed, or not read any more, keeps neither memory nor a stream.
func TestReadAheadGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 64 << 20
		memory := budget.New(32<<20).Share(32<<20, 32<<20)
		f := newFarAt(t, sparse(t, size, "file"), farRate, func(o *Options) { o.Ahead = memory })
		file := f.opened("/file")
		rf := file.(*remoteFile)
		heap := func() int64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		before := heap()
		buf := make([]byte, ask1)
		for off := int64(0); off < size-8<<20; off += ask1 {
			_, err := file.ReadAt(t.Context(), buf, off)
			must(t, err)
		}
		if kept := heap() - before; kept > 24<<20 {
			t.Errorf("%d MiB are kept of %d that were read", kept>>20, size>>20)
		}
		open := func() bool { rf.mu.Lock(); defer rf.mu.Unlock(); return rf.ahead.inbox != nil }
		if !open() || memory.Used() == 0 {
			t.Error("nothing is read ahead")
		}
		time.Sleep(2 * idleTime)
		if open() {
			t.Error("the stream is kept")
		}
		time.Sleep(waits)
		if used := memory.Used(); used != 0 {
			t.Errorf("%d bytes are kept for who does not read", used)
		}
		if got, err := inOrder(t, file, size-8<<20, size-4<<20); err != nil || len(got) != 4<<20 {
			t.Errorf("later: %d bytes, %v", len(got), err)
		}
		must(t, file.Close()) // in the middle of it
		if used := memory.Used(); used != 0 || len(f.Tree.remote.ahead) != 0 {
			t.Errorf("closed: %d bytes are kept, %d pieces on their way", used, len(f.Tree.remote.ahead))
		}
	})
}
