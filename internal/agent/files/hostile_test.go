package files

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/agent/threadpool"
	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// A client with the session's own key that means harm, and a target that does.

// heap is how many bytes this process uses now.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestAnswersNobodyReads: a client that asks for everything at once and reads
// nothing gets no more memory than there is set aside, holds up no small
// question, and is told EAGAIN.
func TestAnswersNobodyReads(t *testing.T) {
	root := tempRoot(t)
	must(t, os.WriteFile(filepath.Join(root, "big"), make([]byte, 2*maxRead), 0o644))
	c := serve(t, root, As{})
	before := heap()
	o := get[*protocol.Opened](c, &protocol.Open{Path: "/big"})
	c.at.answerTime = time.Second
	var streams []*link.Stream
	for range 2000 {
		s, err := c.l.Open(t.Context(), link.Bulk, &protocol.ReadAt{Handle: o.Handle, N: maxRead})
		must(t, err)
		defer s.Close()
		streams = append(streams, s)
	}
	for range 100 {
		began := time.Now()
		get[*protocol.Attr](c, &protocol.Stat{Path: "/big"})
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("a small question took %v", took)
		}
	}
	refused := 0
	for i, s := range streams {
		if i < 10 {
			continue // never read
		}
		if m, err := s.Receive(); err == nil {
			if a, ok := m.(*protocol.Answer); ok && a.Errno == syscall.EAGAIN {
				refused++
			}
		}
		s.Close()
		if i == 20 {
			// The windows of this end are in here, too: at most 96 MiB by its budget.
			if used := heap() - before; used > 256<<20 {
				t.Errorf("%d MiB are in use", used>>20)
			}
		}
	}
	if refused == 0 {
		t.Error("all 2,000 answers of 512 KiB were made")
	}
	if d := get[*protocol.Data](c, &protocol.ReadAt{Handle: o.Handle, N: maxRead}); len(d.Bytes) != maxRead {
		t.Errorf("afterwards: %d bytes", len(d.Bytes))
	}
}

// TestAgentIsNoFile: where the target's process list holds the agent as well, a
// client cannot write the agent's own memory, whoever the agent is.
func TestAgentIsNoFile(t *testing.T) {
	root := tempRoot(t)
	proc := filepath.Join(root, "proc")
	must(t, os.Mkdir(proc, 0o755))
	must(t, unix.Mount("proc", proc, "proc", 0, ""))
	t.Cleanup(func() { unix.Unmount(proc, unix.MNT_DETACH) }) // after the server, which has handles
	c := serve(t, root, As{})
	for _, p := range []string{"/proc/self/mem", fmt.Sprintf("/proc/%d/mem", os.Getpid()), "/proc/thread-self/mem", "/proc/self/oom_score_adj"} {
		for _, flags := range []uint32{unix.O_RDWR, unix.O_WRONLY, unix.O_TRUNC, unix.O_WRONLY | unix.O_CREAT} {
			if _, err := c.ask(&protocol.Open{Path: p, Flags: flags}); !errors.Is(err, syscall.EACCES) {
				t.Errorf("%s with flags %#o: got %v, want %v", p, flags, err, syscall.EACCES)
			}
		}
		if _, err := c.ask(&protocol.SetAttr{Path: p, What: protocol.SetSize}); err == nil {
			t.Errorf("%s was cut", p)
		}
	}
	get[*protocol.Opened](c, &protocol.Open{Path: "/proc/self/status"})
}

// TestListingsNobodyReads: listings of a large directory that are not read wait,
// and hold no thread.
func TestListingsNobodyReads(t *testing.T) {
	root := tempRoot(t)
	for i := range 3000 {
		must(t, os.WriteFile(filepath.Join(root, fmt.Sprintf("%0250d", i)), nil, 0o644))
	}
	c := serve(t, root, As{})
	before := heap()
	for range 200 {
		s, err := c.l.Open(t.Context(), link.Interactive, &protocol.ReadDir{Path: "/"})
		must(t, err)
		defer s.Close()
	}
	if all, _, err := c.list("/"); err != nil || len(all) != 3000 {
		t.Errorf("one more: %d names, %v", len(all), err)
	}
	if used := heap() - before; used > 160<<20 {
		t.Errorf("%d MiB are in use", used>>20)
	}
}

// TestAnswersAreCounted: room for an answer is taken before it is made, as much as
// a target that means harm can make of it.
func TestAnswersAreCounted(t *testing.T) {
	for _, m := range []protocol.Message{&protocol.Stat{}, &protocol.Open{}, &protocol.ReadAt{N: 1}, &protocol.ReadDir{}, &protocol.Readlink{},
		&protocol.GetXattr{}, &protocol.ListXattr{}, &protocol.Make{}, &protocol.SetAttr{}} {
		share := budget.New(1<<20).Share(0, budget.All)
		s := &Server{memory: Memory{Questions: share, Reads: share}, answerTime: time.Second}
		leave, err := s.room(t.Context(), m)
		must(t, err)
		if used := share.Used(); used < times*protocol.MaxXattr {
			t.Errorf("%T: %d bytes are taken, an answer may hold %d", m, used, times*protocol.MaxXattr)
		}
		if leave(); share.Used() != 0 {
			t.Errorf("%T: %d bytes are not given back", m, share.Used())
		}
	}
	root := tempRoot(t)
	for i := range 300 {
		must(t, os.Symlink(strings.Repeat("x", 4000), filepath.Join(root, fmt.Sprintf("%0200d", i))))
	}
	dir, err := os.Open(root)
	must(t, err)
	defer dir.Close()
	for all := 0; ; {
		batch, err := entries(dir)
		must(t, err)
		size := 0
		for _, e := range batch {
			size += perName + len(e.Name) + len(e.Attr.Link)
		}
		if size > answerCost {
			t.Fatalf("a message of a listing holds %d bytes, and %d are taken for it", size, answerCost)
		}
		if all += len(batch); len(batch) == 0 {
			if all != 300 {
				t.Errorf("%d names", all)
			}
			break
		}
	}
}

// TestFloodOfOpens: a hundred thousand opens end at the bound, and the handles
// are there again when they are closed.
func TestFloodOfOpens(t *testing.T) {
	root := tempRoot(t)
	write(t, filepath.Join(root, "file"), "x")
	c := serve(t, root, As{})
	const opens = 100_000
	var mu sync.Mutex
	var handles []uint64
	refusals := 0
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range opens / 50 {
				o, err := c.at.open(&protocol.Open{Path: "/file"})
				mu.Lock()
				switch {
				case err == nil:
					handles = append(handles, o.Handle)
				case errors.Is(err, syscall.ENFILE):
					refusals++
				default:
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(handles) != maxHandles || refusals != opens-maxHandles {
		t.Errorf("%d handles, %d refused", len(handles), refusals)
	}
	for _, h := range handles {
		if _, err := c.at.closeHandle(&protocol.CloseHandle{Handle: h}); err != nil {
			t.Fatal(err)
		}
	}
	get[*protocol.Opened](c, &protocol.Open{Path: "/file"})
}

// TestGiantNames: what no file system has is refused by the kernel's own errno.
func TestGiantNames(t *testing.T) {
	c := serve(t, tempRoot(t), As{})
	for _, p := range []string{"/" + strings.Repeat("x", 256), strings.Repeat("/x", 3000), "/" + strings.Repeat("y", 500_000)} {
		for _, m := range []protocol.Message{&protocol.Stat{Path: p}, &protocol.Open{Path: p}, &protocol.Readlink{Path: p}, &protocol.Make{Path: p, Mode: unix.S_IFDIR}, &protocol.Rename{Old: p, New: p}} {
			if _, err := c.ask(m); !errors.Is(err, syscall.ENAMETOOLONG) && !errors.Is(err, syscall.ENOENT) {
				t.Errorf("%T with %d bytes: %v", m, len(p), err)
			}
		}
	}
	if _, err := c.ask(&protocol.Make{Path: "/l", Mode: unix.S_IFLNK, Text: strings.Repeat("z", 500_000)}); !errors.Is(err, syscall.ENAMETOOLONG) {
		t.Errorf("a giant link: %v", err)
	}
}

// TestDeepAndLooping: chains of links are walked as far as the kernel walks
// them, directories as deep as a path can say.
func TestDeepAndLooping(t *testing.T) {
	root := tempRoot(t)
	write(t, filepath.Join(root, "end"), "x")
	must(t, os.Symlink("end", filepath.Join(root, "l0")))
	for i := range 60 {
		must(t, os.Symlink(fmt.Sprintf("l%d", i), filepath.Join(root, fmt.Sprintf("l%d", i+1))))
	}
	must(t, os.Symlink("loop", filepath.Join(root, "loop")))
	must(t, os.Symlink("b", filepath.Join(root, "a")))
	must(t, os.Symlink("a/x", filepath.Join(root, "b")))
	must(t, os.Symlink(".", filepath.Join(root, "dot")))
	deep := root
	for range 500 {
		deep += "/d"
	}
	must(t, os.MkdirAll(deep, 0o755))
	c := serve(t, root, As{})
	for p, want := range map[string]error{
		"/l39": nil, "/l45": syscall.ELOOP, "/loop": syscall.ELOOP, "/a": syscall.ELOOP, "/loop/x": syscall.ELOOP,
		strings.Repeat("/dot", 30) + "/end": nil, strings.Repeat("/dot", 100) + "/end": syscall.ELOOP,
	} {
		if _, err := c.ask(&protocol.Open{Path: p}); !errors.Is(err, want) {
			t.Errorf("%.40s: %v, want %v", p, err, want)
		}
	}
	if _, _, err := c.list(strings.Repeat("/d", 500)); err != nil {
		t.Errorf("500 directories deep: %v", err)
	}
}

// TestOddNames: names with newlines, escape codes and bytes that are no text
// are names like others.
func TestOddNames(t *testing.T) {
	root := tempRoot(t)
	odd := []string{"a\nb", "\x1b]0;x\x07", "\xff\xfe", "\u202etxt", " ", "-rf", "\r"}
	for _, n := range odd {
		write(t, filepath.Join(root, n), n)
	}
	c := serve(t, root, As{})
	all, _, err := c.list("/")
	if err != nil || len(all) != len(odd) {
		t.Errorf("listed %d of %d: %v", len(all), len(odd), err)
	}
	for _, e := range all {
		if o := get[*protocol.Opened](c, &protocol.Open{Path: "/" + e.Name, Prefetch: 100}); string(o.Data) != e.Name {
			t.Errorf("%q has %q", e.Name, o.Data)
		}
	}
}

// TestNothingThatHangs: what would block whoever opens it is not opened.
func TestNothingThatHangs(t *testing.T) {
	root := tempRoot(t)
	must(t, unix.Mkfifo(filepath.Join(root, "fifo"), 0o666))
	must(t, unix.Mknod(filepath.Join(root, "tty"), unix.S_IFCHR|0o666, int(unix.Mkdev(5, 0))))
	must(t, unix.Mknod(filepath.Join(root, "disk"), unix.S_IFBLK|0o666, int(unix.Mkdev(7, 0))))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(root, "socket")}))
	c := serve(t, root, As{})
	for _, p := range []string{"/fifo", "/tty", "/disk", "/socket"} {
		for _, flags := range []uint32{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC} {
			if _, err := c.ask(&protocol.Open{Path: p, Flags: flags}); !errors.Is(err, syscall.ENXIO) {
				t.Errorf("%s with %#x: %v, want ENXIO", p, flags, err)
			}
		}
		if a := get[*protocol.Attr](c, &protocol.Stat{Path: p, Follow: true, Prefetch: 1000}); a.HasData {
			t.Errorf("%s has content", p)
		}
		if err := c.err(&protocol.SetAttr{Path: p, What: protocol.SetSize, Size: 1}); err == nil {
			t.Errorf("%s was truncated", p)
		}
	}
	for _, mode := range []uint32{unix.S_IFCHR | 0o666, unix.S_IFBLK | 0o666} {
		if err := c.err(&protocol.Make{Path: "/made", Mode: mode}); !errors.Is(err, syscall.EPERM) {
			t.Errorf("a device can be made: %v", err)
		}
	}
}

// TestFileThatGrowsAndShrinks: a reader gets what is there, never what is not,
// and comes to an end.
func TestFileThatGrowsAndShrinks(t *testing.T) {
	root := tempRoot(t)
	p := filepath.Join(root, "file")
	write(t, p, strings.Repeat("x", 1000))
	c := serve(t, root, As{})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			_ = os.Truncate(p, int64(i%7)*300)
		}
	})
	o := get[*protocol.Opened](c, &protocol.Open{Path: "/file"})
	for range 500 {
		a := get[*protocol.Attr](c, &protocol.Stat{Path: "/file", Prefetch: 4096})
		if a.HasData && uint64(len(a.Data)) != a.Size {
			t.Fatalf("%d bytes of a file with %d", len(a.Data), a.Size)
		}
		if d := get[*protocol.Data](c, &protocol.ReadAt{Handle: o.Handle, N: 4096}); len(d.Bytes) > 2100 {
			t.Fatalf("%d bytes", len(d.Bytes))
		}
	}
	cancel()
	wg.Wait()
}

// TestRacingLinks: while the target exchanges a directory with a link out of
// it, nothing outside is read or listed.
func TestRacingLinks(t *testing.T) {
	outside := tempRoot(t)
	root := filepath.Join(outside, "root")
	write(t, filepath.Join(outside, "victim"), "outside")
	write(t, filepath.Join(root, "swap", "victim"), "inside")
	must(t, os.Symlink(outside, filepath.Join(root, "swap2")))
	must(t, os.Symlink("../..", filepath.Join(root, "up")))
	write(t, filepath.Join(root, "file"), "inside")
	must(t, os.Symlink("../victim", filepath.Join(root, "file2")))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, pair := range [][2]string{{"swap", "swap2"}, {"file", "file2"}} {
		wg.Go(func() {
			for ctx.Err() == nil {
				_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(root, pair[0]), unix.AT_FDCWD, filepath.Join(root, pair[1]), unix.RENAME_EXCHANGE)
			}
		})
	}
	c := serve(t, root, As{})
	inside := 0
	for range 1000 {
		for _, p := range []string{"/swap/victim", "/file", "/up/swap/victim"} {
			if m, err := c.ask(&protocol.Stat{Path: p, Follow: true, Prefetch: 100}); err == nil {
				if a := m.(*protocol.Attr); a.HasData && string(a.Data) != "inside" {
					t.Fatalf("%s: read %q", p, a.Data)
				}
				inside++
			}
			if m, err := c.ask(&protocol.Open{Path: p, Prefetch: 100}); err == nil {
				if o := m.(*protocol.Opened); string(o.Data) != "inside" {
					t.Fatalf("%s: opened %q", p, o.Data)
				}
			}
		}
		all, _, _ := c.list("/swap")
		for _, e := range all {
			if e.Name == "root" {
				t.Fatal("what is outside was listed")
			}
		}
	}
	cancel()
	wg.Wait()
	if inside == 0 {
		t.Error("nothing was ever there")
	}
}

// TestCloseWithHangingStorage: a request that the target's storage never
// answers does not keep the agent.
func TestCloseWithHangingStorage(t *testing.T) {
	dir, err := os.Open(tempRoot(t))
	must(t, err)
	defer dir.Close()
	s, err := New(dir, As{}, Memory{})
	must(t, err)
	asked, answered := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.pool.Do(context.Background(), func() { close(asked); <-answered }) })
	<-asked
	must(t, s.pool.Do(t.Context(), func() {})) // the other threads work
	began := time.Now()
	if err := s.Close(); !errors.Is(err, syscall.ETIMEDOUT) || time.Since(began) > 2*threadpool.EndTime {
		t.Errorf("Close: %v after %v", err, time.Since(began))
	}
	close(answered)
	wg.Wait()
	must(t, s.Close())
}

// FuzzServe: requests of any content are answered, change nothing outside of
// the root, and make no device.
func FuzzServe(f *testing.F) {
	for _, m := range []protocol.Message{
		&protocol.Open{Path: "/file", Flags: unix.O_RDWR | unix.O_CREAT, Mode: 0o644, Prefetch: 10}, &protocol.ReadAt{Handle: 1, N: 100}, &protocol.ReadDir{Path: "/up"},
		&protocol.Make{Path: "/up/x", Mode: unix.S_IFCHR | 0o666}, &protocol.Make{Path: "/new", Old: "/up/victim"}, &protocol.Rename{Old: "/file", New: "/up/y", Flags: 1},
		&protocol.Rename{Old: "/file", New: "/device", Flags: unix.RENAME_WHITEOUT},
		&protocol.SetAttr{Path: "/up/victim", What: ^uint32(0), Mode: 0o777, Size: 1 << 40}, &protocol.Remove{Path: "/../victim"}, &protocol.Readlink{Path: "/up"},
		&protocol.WriteAt{Handle: 1, Off: 1 << 40, Data: []byte("x")}, &protocol.Statfs{Path: "/"}, &protocol.Stat{Path: "//x/../file", Follow: true, Prefetch: 1 << 30},
		&protocol.Survey{Path: "/", Bytes: 1 << 30, Content: 1 << 30, Depth: 1 << 30}, &protocol.Survey{Path: "/up", Names: []string{"../victim", "victim"}, Bytes: 1 << 16},
	} {
		f.Add(protocol.Append(nil, m))
	}
	outside := f.TempDir()
	root := filepath.Join(outside, "root")
	if err := errors.Join(os.Mkdir(root, 0o755), os.WriteFile(filepath.Join(outside, "victim"), []byte("untouched"), 0o600), os.Symlink("..", filepath.Join(root, "up"))); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := protocol.Parse(b)
		if err != nil {
			return
		}
		c := serve(t, root, As{Umask: 0o022})
		if _, err := c.ask(&protocol.Open{Path: "/file", Flags: unix.O_RDWR | unix.O_CREAT, Mode: 0o644}); err != nil && !errors.Is(err, syscall.EISDIR) && !errors.Is(err, syscall.ENXIO) && !errors.Is(err, syscall.ELOOP) && !errors.Is(err, syscall.EEXIST) {
			t.Fatal(err)
		}
		s, err := c.l.Open(t.Context(), link.Interactive, m)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := s.Receive(); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%T %+v is not answered", m, m)
		}
		s.Close()
		if v, err := os.ReadFile(filepath.Join(outside, "victim")); err != nil || string(v) != "untouched" {
			t.Fatalf("%T %+v: the file outside is %q, %v", m, m, v, err)
		}
		if fi, err := os.Stat(filepath.Join(outside, "victim")); err != nil || fi.Mode() != 0o600 {
			t.Fatalf("%T %+v: the file outside is %v", m, m, fi.Mode())
		}
		if list, _ := os.ReadDir(outside); len(list) != 2 {
			t.Fatalf("%T %+v: outside is %v", m, m, list)
		}
		all, _ := os.ReadDir(root)
		for _, e := range all { // small again for the next
			if e.Type()&os.ModeDevice != 0 {
				t.Errorf("%T %+v made a device", m, m)
			}
			if e.Name() != "up" {
				_ = os.RemoveAll(filepath.Join(root, e.Name()))
			}
		}
		if _, err := os.Lstat(filepath.Join(root, "up")); err != nil {
			_ = os.Symlink("..", filepath.Join(root, "up"))
		}
	})
}
