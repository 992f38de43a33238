package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	agent "github.com/mirrord-go/mirrord/internal/agent/files"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/local/fusefs"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// Here the agent's own half answers, over a link that takes its time: what a
// program waits for is counted in round trips. The clock is not the real one, so
// that nothing else takes any.

const roundTrip = 40 * time.Millisecond

// far is a view of a directory of this machine, at /far, that is a round trip
// away.
type far struct {
	*Tree
	t     testing.TB
	back  atomic.Int64 // bytes that came from the agent
	asked atomic.Int64 // writes towards it
	names map[string]time.Time
	none  map[string]time.Time
	nodes map[string]fusefs.Node
}

// lagging is one end of a pipe on which everything takes its time.
type lagging struct {
	net.Conn
	lag   time.Duration
	rate  int       // bytes a second; 0: no limit
	free  time.Time // when all that was written has left
	wg    sync.WaitGroup
	wrote func(n int)

	mu     sync.Mutex // guards the sending and the closing of out
	out    chan late
	closed bool
}

type late struct {
	at time.Time
	b  []byte
}

func newLagging(c net.Conn, lag time.Duration, rate int, wrote func(n int)) *lagging {
	l := &lagging{Conn: c, lag: lag, rate: rate, out: make(chan late, 1<<16), wrote: wrote}
	l.wg.Go(func() {
		for p := range l.out {
			time.Sleep(time.Until(p.at))
			if _, err := c.Write(p.b); err != nil {
				for range l.out {
				}
				return
			}
		}
	})
	return l
}

func (l *lagging) Write(p []byte) (int, error) {
	l.wrote(len(p))
	now := time.Now()
	if l.free.Before(now) {
		l.free = now
	}
	if l.rate > 0 {
		l.free = l.free.Add(time.Duration(len(p)) * time.Second / time.Duration(l.rate))
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return 0, io.ErrClosedPipe
	}
	l.out <- late{l.free.Add(l.lag), append([]byte(nil), p...)} // it has room for all that a test sends
	l.mu.Unlock()
	const queue = 20 * time.Millisecond // then who writes is held up
	time.Sleep(time.Until(l.free.Add(-queue)))
	return len(p), nil
}

func (l *lagging) Close() error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.out)
	}
	l.mu.Unlock()
	return l.Conn.Close()
}

// newFar shows root at /far.
func newFar(t testing.TB, root string, set func(o *Options)) *far {
	t.Helper()
	return newFarAt(t, root, 0, set)
}

// newFarAt is newFar over a link that carries so many bytes a second each way.
func newFarAt(t testing.TB, root string, rate int, set func(o *Options)) *far {
	t.Helper()
	dir, err := os.Open(root)
	must(t, err)
	server, err := agent.New(dir, agent.As{}, agent.Memory{})
	must(t, err)
	f := &far{t: t, names: map[string]time.Time{}, none: map[string]time.Time{}, nodes: map[string]fusefs.Node{}}
	a, b := net.Pipe()
	near := newLagging(a, roundTrip/2, rate, func(int) { f.asked.Add(1) })
	away := newLagging(b, roundTrip/2, rate, func(n int) { f.back.Add(int64(n)) })
	local, remote := link.New(near, link.Local, link.Options{}), link.New(away, link.Agent, link.Options{})
	o := Options{Life: DefaultLife, Peer: local, Rules: ruled(t, rules.FilesOptions{}, rules.Places{})}
	if set != nil {
		set(&o)
	}
	f.Tree = New(o)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			s, m, err := remote.Accept(ctx)
			if err != nil {
				return
			}
			wg.Go(func() {
				if !server.Serve(ctx, s, m) {
					s.Reset(syscall.ENOSYS)
					s.Close()
				}
			})
		}
	})
	t.Cleanup(func() {
		f.Tree.Close()
		local.Close("")
		cancel()
		remote.Close("")
		near.Close()
		away.Close()
		wg.Wait()
		near.wg.Wait()
		away.wg.Wait()
		server.Close()
		dir.Close()
	})
	return f
}

// What follows does what the kernel does for a program: it looks up each name on
// the way, and remembers for as long as it may.

func (f *far) find(p string) (fusefs.Node, error) {
	for i := 1; i <= len(p); i++ {
		if i < len(p) && p[i] != '/' {
			continue
		}
		at := p[:i]
		now := time.Now()
		if now.Before(f.none[at]) {
			return fusefs.Node{}, syscall.ENOENT
		}
		if now.Before(f.names[at]) {
			continue
		}
		n, err := f.Lookup(f.t.Context(), at)
		if errors.Is(err, syscall.ENOENT) {
			f.none[at] = time.Now().Add(n.Keep)
			delete(f.names, at)
		}
		if err != nil {
			return n, err
		}
		f.remember(at, n)
	}
	return f.nodes[p], nil
}

func (f *far) remember(p string, n fusefs.Node) {
	f.names[p], f.nodes[p] = time.Now().Add(n.Keep), n
	delete(f.none, p)
}

func (f *far) read(p string) (string, error) {
	for range 2 {
		n, err := f.find(p)
		if err != nil {
			return "", err
		}
		file, err := f.Open(f.t.Context(), p, n.Key, unix.O_RDONLY)
		if errors.Is(err, syscall.ESTALE) {
			f.names[p] = time.Time{}
			continue
		}
		if err != nil {
			return "", err
		}
		defer file.Close()
		b := make([]byte, n.Attr.Size+1)
		got, err := file.ReadAt(f.t.Context(), b, 0)
		return string(b[:got]), err
	}
	return "", syscall.ESTALE
}

func (f *far) list(p string) []string {
	f.t.Helper()
	_, err := f.find(p)
	must(f.t, err)
	all, err := f.List(f.t.Context(), p)
	must(f.t, err)
	var names []string
	for _, e := range all {
		names = append(names, e.Name)
		if e.Node.Attr.Mode&unix.S_IFMT != 0 {
			f.remember(path.Join(p, e.Name), e.Node)
		}
	}
	return names
}

// walk lists all below p and reads every file; it gives how many there are.
func (f *far) walk(p string) (files int) {
	f.t.Helper()
	for _, name := range f.list(p) {
		c := path.Join(p, name)
		n, err := f.find(c)
		must(f.t, err)
		if n.Attr.Mode&unix.S_IFMT == unix.S_IFDIR {
			files += f.walk(c)
			continue
		}
		got, err := f.read(c)
		if err != nil || got != fourKiB(name) {
			f.t.Fatalf("%s: %d bytes, %v", c, len(got), err)
		}
		files++
	}
	return files
}

// trips gives how many round trips do waits for.
func trips(do func()) float64 {
	began := time.Now()
	do()
	return float64(time.Since(began)) / float64(roundTrip)
}

// fourKiB is what the file of that name holds.
func fourKiB(name string) string { return strings.Repeat(name+"\n", 1+4096/(len(name)+1))[:4096] }

// fill makes n files in a directory of root.
func fill(t testing.TB, root, dir string, n int) {
	t.Helper()
	for i := range n {
		name := fmt.Sprintf("f%04d", i)
		write(t, filepath.Join(root, "far", dir, name), fourKiB(name))
	}
}

// aged waits until what was made is old enough for its times to tell of any
// change (see the agent's settled): the kernel's clock decides, nothing else.
func aged(t testing.TB) {
	t.Helper()
	time.Sleep(2100 * time.Millisecond)
}

func TestRoundTrips(t *testing.T) {
	root := t.TempDir()
	fill(t, root, "one", 1000)
	for i := range 10 {
		fill(t, root, fmt.Sprintf("ten/d%d", i), 100)
		fill(t, root, fmt.Sprintf("deep/a%d/b/c", i), 1)
		fill(t, root, fmt.Sprintf("deep/a%d/x", i), 300)
	}
	for i := range 200 {
		write(t, filepath.Join(root, "far/lib/pkg", fmt.Sprintf("mod%03d.mod", i)), fourKiB("m"))
	}
	write(t, filepath.Join(root, "far/lib/pkg/__init__.mod"), "")
	aged(t)
	forget := DefaultLife + time.Millisecond

	for _, c := range []struct {
		name       string
		do         func(t *testing.T, f *far)
		cold, warm float64 // at most; warm is after all was forgotten
		now        float64 // at once again
	}{
		{"a small file, deep", func(t *testing.T, f *far) {
			if got, err := f.read("/far/deep/a7/b/c/f0000"); got != fourKiB("f0000") || err != nil {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		}, 1.3, 1.3, 0},
		{"walk one directory", func(t *testing.T, f *far) {
			if n := f.walk("/far/one"); n != 1000 {
				t.Errorf("%d files", n)
			}
		}, 12, 3, 0},
		{"walk ten directories", func(t *testing.T, f *far) {
			if n := f.walk("/far/ten"); n != 1000 {
				t.Errorf("%d files", n)
			}
		}, 40, 6, 0},
		{"import a package", func(t *testing.T, f *far) {
			names := map[string]bool{}
			for _, n := range f.list("/far/lib/pkg") {
				names[n] = true
			}
			for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(200) {
				for _, missing := range []string{"mod%03d", "mod%03d.so", "__cache__/mod%03d.modc"} {
					if _, err := f.find("/far/lib/pkg/" + fmt.Sprintf(missing, i)); !errors.Is(err, syscall.ENOENT) {
						t.Fatalf("what is not there: %v", err)
					}
				}
				if got, err := f.read(fmt.Sprintf("/far/lib/pkg/mod%03d.mod", i)); len(got) != 4096 || err != nil {
					t.Fatalf("%d bytes, %v", len(got), err)
				}
			}
		}, 10, 3, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFar(t, root, nil)
				cold := trips(func() { c.do(t, f) })
				now := trips(func() { c.do(t, f) })
				back := f.back.Load()
				time.Sleep(forget)
				warm := trips(func() { c.do(t, f) })
				t.Logf("%.2f round trips and %d KiB, %.2f at once again, %.2f and %d KiB later", cold, back>>10, now, warm, (f.back.Load()-back)>>10)
				if cold > c.cold || warm > c.warm || now > c.now {
					t.Errorf("%.2f round trips, %.2f at once again, %.2f later; want at most %.1f, %.1f and %.1f", cold, now, warm, c.cold, c.now, c.warm)
				}
			})
		})
	}
}

var _ io.Closer = (*lagging)(nil)

// TestRandomAccess: who opens files here and there in a big tree waits no longer
// than without surveys, and the link carries little more than is used.
func TestRandomAccess(t *testing.T) {
	root := t.TempDir()
	fill(t, root, "flat", 9000)
	for i := range 60 {
		fill(t, root, fmt.Sprintf("wide/d%02d", i), 100)
	}
	aged(t)
	pick := rand.New(rand.NewPCG(3, 4))
	for name, one := range map[string]func() string{
		"one large directory":      func() string { return fmt.Sprintf("/far/flat/f%04d", pick.IntN(9000)) },
		"many directories":         func() string { return fmt.Sprintf("/far/wide/d%02d/f%04d", pick.IntN(60), pick.IntN(100)) },
		"names that are not there": func() string { return fmt.Sprintf("/far/wide/d%02d/%d", pick.IntN(60), pick.IntN(100)) },
	} {
		t.Run(name, func(t *testing.T) {
			var plain, plainKiB float64
			for _, surveys := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					f := newFar(t, root, nil)
					f.Tree.remote.old = !surveys
					const opens = 150
					took := trips(func() {
						for range opens {
							p := one()
							got, err := f.read(p)
							if err != nil && !errors.Is(err, syscall.ENOENT) || err == nil && got != fourKiB(path.Base(p)) {
								t.Fatalf("%s: %d bytes, %v", p, len(got), err)
							}
						}
					})
					kib := float64(f.back.Load() >> 10)
					t.Logf("surveys %v: %.1f round trips, %.0f KiB", surveys, took, kib)
					if !surveys {
						plain, plainKiB = took, kib
						return
					}
					if took > plain*1.02 {
						t.Errorf("%.1f round trips, without surveys %.1f", took, plain)
					}
					// What may be in vain: maxSpare, spareRate, and as much as is saved.
					seconds := took * roundTrip.Seconds()
					if most := plainKiB + maxSpare>>10 + spareRate>>10*seconds + max(0, plain-took)*(worth+4096)/1024; kib > most {
						t.Errorf("%.0f KiB came, without surveys %.0f; want at most %.0f", kib, plainKiB, most)
					}
				})
			}
		})
	}
}

// TestSlowWalk: what becomes too old on the way is brought up to date by the
// directory, not by the file.
func TestSlowWalk(t *testing.T) {
	root := t.TempDir()
	fill(t, root, "dir", 1000)
	aged(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFar(t, root, nil)
		const pause = 7 * time.Millisecond
		rest := 0.0
		took := trips(func() {
			for _, name := range f.list("/far/dir") {
				rest += trips(func() { time.Sleep(pause) })
				if got, err := f.read("/far/dir/" + name); got != fourKiB(name) || err != nil {
					t.Fatalf("%s: %d bytes, %v", name, len(got), err)
				}
			}
		})
		lives := rest * float64(roundTrip) / float64(DefaultLife)
		if took -= rest; took > 12+3*lives {
			t.Errorf("%.1f round trips, in %.0f lives of what is remembered", took, lives)
		}
		t.Logf("%.1f round trips in %.0f lives", took, lives)
	})
}

// TestSmallAmongLarge: large directories keep nobody from small ones beside
// them, also when another one is wanted later.
func TestSmallAmongLarge(t *testing.T) {
	root := t.TempDir()
	for i := range 9 {
		for j := range 1000 {
			write(t, filepath.Join(root, fmt.Sprintf("far/large/%d/%d", i, j)), "")
		}
		write(t, filepath.Join(root, fmt.Sprintf("far/small/%d/file", i)), fourKiB("file"))
	}
	aged(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFar(t, root, nil)
		for i := range 9 {
			if took := trips(func() { f.read(fmt.Sprintf("/far/small/%d/file", i)) }); took > 1 {
				t.Errorf("file %d: %.2f round trips", i, took)
			}
			time.Sleep(DefaultLife + time.Millisecond)
		}
	})
}
