package files

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/local/fusefs"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// random gives a view with a remote file of size random bytes.
func random(t *testing.T, size int) (*view, []byte) {
	v := newView(t, nil)
	want := make([]byte, size)
	rand.Read(want)
	v.has(nil, map[string]string{"/file": string(want)})
	return v, want
}

func TestReadAhead(t *testing.T) {
	const size = 20<<20 + 12345
	v, want := random(t, size)
	got, err := v.content(v.in("/file"))
	if err != nil || got != string(want) {
		t.Errorf("got %d bytes, %v; want the %d there are", len(got), err, len(want))
	}
	// Each piece once, and the end of the file perhaps twice.
	if n := v.target.count("ReadAt", ""); n > size/chunk+4 {
		t.Errorf("%d reads of %d KiB for %d MiB", n, chunk>>10, size>>20)
	}
	f, err := v.openFile(v.in("/file"), unix.O_RDONLY)
	must(t, err)
	defer f.Close()
	// Several at once, a little out of order, as the kernel reads ahead.
	var wg sync.WaitGroup
	const piece = 128 << 10
	for i := range 64 {
		wg.Go(func() {
			buf := make([]byte, piece)
			off := int64(i^1) * piece
			if n, err := f.ReadAt(t.Context(), buf, off); n != piece || err != nil || !bytes.Equal(buf, want[off:off+piece]) {
				t.Errorf("at %d: %d bytes, %v", off, n, err)
			}
		})
	}
	wg.Wait()
	// Here and there, and behind the end.
	for _, off := range []int64{size - 10, 17, size/2 + 1, 5 << 20, size, size + 100, 0} {
		buf := make([]byte, 5000)
		n, err := f.ReadAt(t.Context(), buf, off)
		if wantN := min(max(size-off, 0), 5000); int64(n) != wantN || err != nil || off < size && !bytes.Equal(buf[:n], want[off:off+wantN]) {
			t.Errorf("at %d: %d bytes, %v, want %d", off, n, err, wantN)
		}
	}
}

// TestEndIsNotAskedFor: what ends within a piece is known to be the end, also of a
// read beyond it, as the kernel's last one is.
func TestEndIsNotAskedFor(t *testing.T) {
	const size = 3*chunk + 12345
	v, want := random(t, size)
	f, err := v.openFile(v.in("/file"), unix.O_RDONLY)
	must(t, err)
	defer f.Close()
	buf := make([]byte, size/4096*4096+4096)
	if n, err := f.ReadAt(t.Context(), buf, 0); err != nil || !bytes.Equal(buf[:n], want) {
		t.Errorf("got %d bytes, %v, want %d", n, err, size)
	}
	if n := v.target.count("ReadAt", ""); n != 4 {
		t.Errorf("asked for %d pieces of a file of 4", n)
	}
}

// TestSmallFileIsOneQuestion: the content came with the lookup.
func TestSmallFileIsOneQuestion(t *testing.T) {
	v := newView(t, nil)
	v.has(nil, map[string]string{"/small": "content"})
	for range 3 {
		if got, err := v.content(v.in("/small")); got != "content" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if n := v.target.count("Stat", v.in("/small")); n != 1 || v.target.count("Open", "") != 0 || v.target.count("ReadAt", "") != 0 {
		t.Errorf("asked: %v", v.target.asked)
	}
}

// TestSizeless: a file that says that it is empty and has content is read to
// its end, and the kernel is told to ask for that.
func TestSizeless(t *testing.T) {
	v := newView(t, nil)
	v.has(nil, map[string]string{"/status": "", "/empty": ""})
	content := strings.Repeat("line\n", 100_000)
	v.target.on(func(s *link.Stream, m protocol.Message) bool {
		switch m := m.(type) {
		case *protocol.Open:
			f, err := v.target.at(m.Path, unix.O_RDONLY)
			if err != nil || !strings.HasSuffix(m.Path, "/status") {
				return false
			}
			defer f.Close()
			return s.Send(&protocol.Opened{Handle: 7777, Attr: v.target.attr(int(f.Fd())), Data: []byte(content[:m.Prefetch])}) == nil
		case *protocol.Stat:
			f, err := v.target.at(m.Path, unix.O_RDONLY)
			if err != nil || !strings.HasSuffix(m.Path, "/status") {
				return false
			}
			defer f.Close()
			a := v.target.attr(int(f.Fd()))
			return s.Send(&a) == nil
		case *protocol.ReadAt:
			off := min(int(m.Off), len(content))
			return s.Send(&protocol.Data{Bytes: []byte(content[off:min(off+int(m.N), len(content))])}) == nil
		}
		return false
	})
	for p, want := range map[string]string{"/status": content, "/empty": ""} {
		f, err := v.openFile(v.in(p), unix.O_RDONLY)
		must(t, err)
		if got := f.(fusefs.Sizeless).Sizeless(); got != (want != "") {
			t.Errorf("%s: sizeless is %v", p, got)
		}
		if got, err := v.all(f); got != want || err != nil {
			t.Errorf("%s: %d bytes, %v, want %d", p, len(got), err, len(want))
		}
		f.Close()
	}
}

// TestSlowLink: what is on its way for longer than it is remembered is not
// asked for again.
func TestSlowLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 8 << 20
		v, want := random(t, size)
		var mu sync.Mutex
		var free time.Time // when the wire has passed on what was asked for
		v.target.on(func(_ *link.Stream, m protocol.Message) bool {
			if _, ok := m.(*protocol.ReadAt); ok { // 1 MiB/s
				mu.Lock()
				if now := time.Now(); free.Before(now) {
					free = now
				}
				free = free.Add(chunk * time.Second / (1 << 20))
				wait := time.Until(free)
				mu.Unlock()
				time.Sleep(wait)
			}
			return false
		})
		start := time.Now()
		got, err := v.content(v.in("/file"))
		if err != nil || got != string(want) {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
		if n := v.target.count("ReadAt", ""); n > size/chunk+2 {
			t.Errorf("%d pieces were asked for, there are %d", n, size/chunk)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("it took %v, the link needs 8 s", took)
		}
	})
}

// TestSlowReader: a program that takes its time does not have the file sent
// again and again.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 8 << 20
		v, _ := random(t, size)
		f, err := v.openFile(v.in("/file"), unix.O_RDONLY)
		must(t, err)
		defer f.Close()
		const piece = 128 << 10
		for off := int64(0); off < size; off += piece {
			_, err := f.ReadAt(t.Context(), make([]byte, piece), off)
			must(t, err)
			time.Sleep(DefaultLife / 3)
		}
		if n := v.target.count("ReadAt", ""); n > 3*size/chunk {
			t.Errorf("%d pieces were asked for, there are %d", n, size/chunk)
		}
	})
}

// TestIdleFileKeepsNothing: thousands of open files must not hold what was read
// ahead for each.
func TestIdleFileKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, _ := random(t, 4<<20)
		f, err := v.openFile(v.in("/file"), unix.O_RDONLY)
		must(t, err)
		defer f.Close()
		for off := int64(0); off < 1<<20; off += 1 << 17 {
			_, err := f.ReadAt(t.Context(), make([]byte, 1<<17), off)
			must(t, err)
		}
		rf := f.(*remoteFile)
		held := func() int { rf.mu.Lock(); defer rf.mu.Unlock(); return len(rf.ahead.chunks) }
		if held() == 0 {
			t.Error("nothing was read ahead")
		}
		time.Sleep(2 * waits)
		if n := held(); n != 0 || len(v.Tree.remote.ahead) != 0 {
			t.Errorf("%d pieces are kept, %d on their way", n, len(v.Tree.remote.ahead))
		}
	})
}

// TestInterrupt: a signal ends a call after the patience, and not before.
func TestInterrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, want := random(t, 1<<20)
		ctx, signal := context.WithCancel(t.Context())
		f, err := v.openFile(v.in("/file"), unix.O_RDONLY)
		must(t, err)
		silent := make(chan struct{})
		v.target.on(func(*link.Stream, protocol.Message) bool { <-silent; return true })
		time.AfterFunc(5*time.Second, signal)
		for name, call := range map[string]func() error{
			"lookup": func() error { _, err := v.Lookup(ctx, v.in("/x")); return err },
			"list":   func() error { _, err := v.List(ctx, v.base); return err },
			"open":   func() error { _, err := v.Open(ctx, v.in("/file"), sideKey(sideRemote), unix.O_RDONLY); return err },
			"read":   func() error { _, err := f.ReadAt(ctx, make([]byte, chunk), 2*chunk); return err },
			"small read": func() error {
				_, err := f.ReadAt(ctx, make([]byte, 4096), 900<<10)
				return err
			},
		} {
			start, limit := time.Now(), patience
			if ctx.Err() == nil {
				limit += 5 * time.Second
			}
			if err := call(); errno(err) != syscall.EINTR || time.Since(start) != limit {
				t.Errorf("%s: %v after %v, want EINTR after %v", name, err, time.Since(start), limit)
			}
		}
		// What comes in time is taken.
		v.target.on(func(*link.Stream, protocol.Message) bool { time.Sleep(patience / 2); return false })
		if n, err := v.Lookup(ctx, v.in("/file")); err != nil || n.Attr.Size != 1<<20 {
			t.Errorf("an answer in time: %+v, %v", n, err)
		}
		buf := make([]byte, 1000)
		if n, err := f.ReadAt(ctx, buf, 1000); n != 1000 || err != nil || !bytes.Equal(buf, want[1000:2000]) {
			t.Errorf("bytes in time: %d, %v", n, err)
		}
		// Without a signal the wait has an end as well.
		v.target.on(func(*link.Stream, protocol.Message) bool { <-silent; return true })
		start := time.Now()
		if _, err := v.Lookup(t.Context(), v.in("/y")); errno(err) != syscall.ETIMEDOUT || time.Since(start) != callTime {
			t.Errorf("%v after %v, want ETIMEDOUT after %v", err, time.Since(start), callTime)
		}
		close(silent)
		f.Close()
	})
}

// TestCopyIsInterrupted: a long copy does not outlast a signal because each of
// its pieces comes in time.
func TestCopyIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, _ := random(t, 16<<20)
		v.target.on(func(_ *link.Stream, m protocol.Message) bool {
			if r, ok := m.(*protocol.ReadAt); ok {
				time.Sleep(time.Duration(r.Off/chunk) * time.Second / 2)
			}
			return false
		})
		ctx, signal := context.WithCancel(t.Context())
		time.AfterFunc(3*time.Second, signal)
		n, err := v.Lookup(ctx, v.in("/file"))
		must(t, err)
		start := time.Now()
		if _, err := v.Open(ctx, v.in("/file"), n.Key, unix.O_RDWR); errno(err) != syscall.EINTR || time.Since(start) > 3*time.Second+2*patience {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if got := names(t, v.base); len(got) != 0 {
			t.Errorf("left over: %v", got)
		}
	})
}

// TestLinkGone: no waiting, and the errno of a broken disk.
func TestLinkGone(t *testing.T) {
	v, _ := random(t, 8<<20)
	v.has(nil, map[string]string{"/small": "content"})
	f, err := v.openFile(v.in("/file"), unix.O_RDONLY)
	must(t, err)
	defer f.Close()
	small, err := v.openFile(v.in("/small"), unix.O_RDONLY)
	must(t, err)
	defer small.Close()
	hanging := make(chan struct{})
	gone := make(chan struct{})
	v.target.on(func(s *link.Stream, m protocol.Message) bool {
		if m, ok := m.(*protocol.Stat); ok && strings.HasSuffix(m.Path, "hangs") {
			close(hanging)
			<-gone
			return true
		}
		return false
	})
	done := make(chan error)
	go func() { _, err := v.Lookup(t.Context(), v.in("/hangs")); done <- err }()
	<-hanging
	v.link.Close("gone")
	start := time.Now()
	errs := map[string]error{"call under way": <-done}
	close(gone)
	_, errs["lookup"] = v.Lookup(t.Context(), v.in("/other"))
	_, errs["list"] = v.List(t.Context(), v.base)
	_, errs["read"] = f.ReadAt(t.Context(), make([]byte, 1<<17), 6<<20)
	_, errs["read in order"] = f.ReadAt(t.Context(), make([]byte, 1<<17), 0)
	_, errs["statfs"] = v.Tree.Statfs(t.Context(), v.base)
	for name, err := range errs {
		if errno(err) != syscall.EIO {
			t.Errorf("%s: %v, want EIO", name, err)
		}
	}
	if took := time.Since(start); took > time.Second/2 {
		t.Errorf("it took %v to notice", took)
	}
	// A small file whose content is old by now must not pretend.
	rf := small.(*remoteFile)
	rf.mu.Lock()
	rf.headAt = rf.headAt.Add(-2 * DefaultLife)
	rf.mu.Unlock()
	if _, err := small.ReadAt(t.Context(), make([]byte, 7), 0); errno(err) != syscall.EIO {
		t.Errorf("old content: %v, want EIO", err)
	}
}

// TestReplacedFile: who has a file open keeps it; who opens it anew gets the
// new one, also within the time that things are remembered.
func TestReplacedFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, want := random(t, 1<<20)
		v.has(nil, map[string]string{"/small": "old", "/removed": "old", "/grows": "one"})
		replace := func(p, content string) {
			write(t, v.remote(v.in(p+".new")), content)
			must(t, os.Rename(v.remote(v.in(p+".new")), v.remote(v.in(p))))
		}
		file, err := v.openFile(v.in("/file"), unix.O_RDONLY)
		must(t, err)
		small, err := v.openFile(v.in("/small"), unix.O_RDONLY)
		must(t, err)
		removed, err := v.openFile(v.in("/removed"), unix.O_RDONLY)
		must(t, err)
		grows, err := v.openFile(v.in("/grows"), unix.O_RDONLY)
		must(t, err)
		replace("/file", strings.Repeat("n", 2<<20))
		replace("/small", "new")
		must(t, os.Remove(v.remote(v.in("/removed"))))
		write(t, v.remote(v.in("/grows")), "one two")

		// The path was remembered a moment ago: the open tells, not the lookup.
		if got, err := v.content(v.in("/file")); len(got) != 2<<20 || err != nil {
			t.Errorf("opened anew: %d bytes, %v", len(got), err)
		}
		time.Sleep(2 * DefaultLife)
		if got, err := v.content(v.in("/small")); got != "new" || err != nil {
			t.Errorf("opened anew: %q, %v", got, err)
		}
		for range 2 {
			if got, err := v.all(file); got != string(want) || err != nil {
				t.Errorf("open before: %d bytes, %v", len(got), err)
			}
			if got, err := v.all(small); got != "old" || err != nil {
				t.Errorf("open before: %q, %v", got, err)
			}
			if got, err := v.all(removed); got != "old" || err != nil {
				t.Errorf("removed: %q, %v", got, err)
			}
			if got, err := v.all(grows); got != "one two" || err != nil {
				t.Errorf("grown: %q, %v", got, err)
			}
			if a, _, err := file.Stat(t.Context()); a.Size != 1<<20 || err != nil {
				t.Errorf("size of what is open: %d, %v", a.Size, err)
			}
			if a, _, err := grows.Stat(t.Context()); a.Size != 7 || err != nil {
				t.Errorf("size of what has grown: %d, %v", a.Size, err)
			}
			time.Sleep(2 * DefaultLife)
		}
		for _, f := range []interface{ Close() error }{file, small, removed, grows} {
			f.Close()
		}
		synctest.Wait()
		if n := v.target.open(); n != 0 {
			t.Errorf("%d handles are open in the target", n)
		}
	})
}

// TestChangedFile: once the kernel was told of a change, by whatever way, it
// gets no bytes from before.
func TestChangedFile(t *testing.T) {
	for name, tell := range map[string]func(v *view) error{
		"lookup":  func(v *view) error { _, err := v.Lookup(v.t.Context(), v.in("/file")); return err },
		"listing": func(v *view) error { _, err := v.List(v.t.Context(), v.base); return err },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v, _ := random(t, 1<<20)
				f, err := v.openFile(v.in("/file"), unix.O_RDONLY)
				must(t, err)
				defer f.Close()
				if got, _ := v.all(f); len(got) != 1<<20 {
					t.Fatal("first reading")
				}
				want := strings.Repeat("z", 1<<20)
				write(t, v.remote(v.in("/file")), want)
				time.Sleep(DefaultLife + 1)
				must(t, tell(v))
				if got, err := v.all(f); got != want || err != nil {
					t.Errorf("%d bytes that are not the new ones, %v", len(got), err)
				}
			})
		})
	}
}

// TestHostileAgent: what no honest agent says is refused or left out.
func TestHostileAgent(t *testing.T) {
	v := newView(t, nil)
	say := func(reply ...protocol.Message) {
		v.target.on(func(s *link.Stream, _ protocol.Message) bool {
			for _, m := range reply {
				s.Send(m)
			}
			return true
		})
	}
	regular := protocol.Attr{Mode: unix.S_IFREG | 0o644, Ino: 9, Size: 1 << 30}

	bad := &protocol.Entries{}
	for _, name := range []string{"", ".", "..", "a/b", "/", "nul\x00", strings.Repeat("x", 256), "good", strings.Repeat("y", 255)} {
		bad.List = append(bad.List, protocol.Entry{Name: name, Attr: regular})
	}
	say(bad)
	list, err := v.List(t.Context(), viewDir)
	if err != nil || len(list) != 2 || list[0].Name != "good" {
		t.Errorf("names: %v, %v", list, err)
	}

	many := &protocol.Entries{}
	for i := range 4000 {
		many.List = append(many.List, protocol.Entry{Name: fmt.Sprint(i)})
	}
	v.target.on(func(s *link.Stream, _ protocol.Message) bool {
		for s.Send(many) == nil {
		}
		return true
	})
	v.Tree.remote.names = 20_000
	if _, err := v.List(t.Context(), viewDir); errno(err) != syscall.EOVERFLOW {
		t.Errorf("a listing without end: %v, want EOVERFLOW", err)
	}

	whole := regular
	whole.HasData, whole.Data = true, make([]byte, prefetch+1)
	whole.Size = prefetch + 1
	short := regular
	short.HasData, short.Data = true, []byte("x")
	for name, a := range map[string]protocol.Attr{"more than asked for": whole, "less than the size": short} {
		say(&a)
		if _, err := v.Lookup(t.Context(), v.in("/"+name)); errno(err) != syscall.EIO {
			t.Errorf("content, %s: %v, want EIO", name, err)
		}
	}
	say(&regular)
	n, err := v.Lookup(t.Context(), v.in("/file"))
	must(t, err)
	say(&protocol.Opened{Handle: 1, Attr: regular, Data: make([]byte, prefetch+1)})
	if _, err := v.Open(t.Context(), v.in("/file"), n.Key, unix.O_RDONLY); errno(err) != syscall.EIO {
		t.Errorf("open with too much: %v, want EIO", err)
	}
	say(&protocol.Opened{Handle: 1, Attr: regular})
	f, err := v.Open(t.Context(), v.in("/file"), n.Key, unix.O_RDONLY)
	must(t, err)
	defer f.Close()
	say(&protocol.Data{Bytes: make([]byte, chunk+1)})
	for _, size := range []int{100, 128 << 10} {
		for _, off := range []int64{0, 100 << 20} {
			if n, err := f.ReadAt(t.Context(), make([]byte, size), off); errno(err) != syscall.EIO {
				t.Errorf("%d bytes at %d: %d, %v, want EIO", size, off, n, err)
			}
		}
	}
	say(&protocol.Fsinfo{}) // an answer to another question
	if _, err := v.Lookup(t.Context(), v.in("/other")); errno(err) != syscall.EIO {
		t.Errorf("another answer: %v, want EIO", err)
	}
	say(&protocol.Answer{}) // yes to what?
	if _, err := v.Lookup(t.Context(), v.in("/other")); errno(err) != syscall.EIO {
		t.Errorf("a bare yes: %v, want EIO", err)
	}
	say() // the end of the stream
	if _, err := v.Lookup(t.Context(), v.in("/other")); err == nil {
		t.Error("no answer is taken for one")
	}
}

// TestRememberedIsBounded: by size, by number and by time.
func TestRememberedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote(nil, 0, DefaultLife, nil)
		defer r.close()
		check := func() {
			t.Helper()
			named, content, linked, names, contents := 0, 0, 0, 0, 0
			for p, d := range r.dirs {
				named += directoryCost + len(p)
				for _, e := range d.names {
					named += e.cost()
					names++
					if e.content != nil {
						content += len(e.content.data)
						contents++
					}
					if e.severalNames() {
						linked++
					}
				}
			}
			if named != r.named || content != r.content || linked != r.linked || r.order.Len() != len(r.dirs) || r.contents.Len() != contents {
				t.Errorf("counted %d, %d, %d, %d, %d; there are %d, %d, %d, %d, %d", r.named, r.content, r.linked, r.order.Len(), r.contents.Len(),
					named, content, linked, len(r.dirs), contents)
			}
			if named > maxNamed || content > maxContent || len(r.changed)+len(r.moved) > maxChanged {
				t.Errorf("%d bytes of names, %d of contents, %d changes", named, content, len(r.changed)+len(r.moved))
			}
		}
		file := func(data int) *protocol.Attr {
			return &protocol.Attr{Mode: unix.S_IFREG | 0o644, Nlink: 2, Size: uint64(data), Data: make([]byte, data), HasData: data > 0}
		}
		for i := range 1000 {
			r.remember(fmt.Sprintf("/d/%d", i), file(64<<10), time.Now())
		}
		check()
		for i := range 50_000 {
			r.remember(fmt.Sprintf("/d/%d/%d", i%300, i), file(0), time.Now())
			r.remember("/same", file(1), time.Now())
			if i%1000 == 0 {
				r.forgetAround(fmt.Sprintf("/d/%d", i%299))
			}
		}
		check()
		for i := range 20_000 { // more than one directory may hold
			r.remember(fmt.Sprintf("/large/%d", i), file(0), time.Now())
			r.forgetAround(fmt.Sprintf("/e/%d", i))
		}
		check()
		if _, ok := r.remembered("/same"); !ok {
			t.Error("the newest is not remembered")
		}
		r.forget("/same")
		if _, ok := r.remembered("/same"); ok {
			t.Error("what is forgotten is remembered")
		}
		r.remember("/d/0/old", file(0), time.Now())
		time.Sleep(2 * DefaultLife)
		if _, ok := r.remembered("/d/0/old"); ok {
			t.Error("what is old is remembered")
		}
		for _, p := range []string{"/d", "/large", "/e"} {
			r.forgetAround(p)
		}
		r.forgetAround("/same")
		check()
		if r.content != 0 || len(r.dirs) > 1 {
			t.Errorf("%d bytes of contents and %d directories are left", r.content, len(r.dirs))
		}
	})
}

// TestCloseWaits: nothing runs after Close, and nothing begins.
func TestCloseWaits(t *testing.T) {
	v, _ := random(t, 4<<20)
	f, err := v.openFile(v.in("/file"), unix.O_RDONLY)
	must(t, err)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for off := int64(i) * chunk; ; off = (off + chunk/2) % (4 << 20) {
				if _, err := f.ReadAt(t.Context(), make([]byte, chunk), off); err != nil {
					if errno(err) != syscall.EIO {
						t.Errorf("after Close: %v, want EIO", err)
					}
					return
				}
			}
		})
	}
	v.Tree.Close()
	if n := len(v.Tree.remote.ahead); n != 0 {
		t.Errorf("%d pieces are on their way", n)
	}
	wg.Wait()
	f.Close()
}

func sideKey(s side) uint64 { return uint64(s)<<62 | 1 }

func FuzzValidName(f *testing.F) {
	f.Add("a")
	f.Add("../x")
	f.Add("a\x00")
	f.Fuzz(func(t *testing.T, name string) {
		ok := name != "" && name != "." && name != ".." && len(name) <= 255 && !strings.ContainsAny(name, "/\x00")
		if validName(name) != ok {
			t.Errorf("%q: got %v, want %v", name, !ok, ok)
		}
	})
}

// FuzzAgent: whatever the agent answers, each question ends, nothing of the
// developer's changes, and names, sizes and contents are what a kernel takes.
func FuzzAgent(f *testing.F) {
	attr := protocol.Attr{Mode: unix.S_IFREG | 0o644, Ino: 9, Size: 1 << 62}
	for _, m := range []protocol.Message{
		&attr, &protocol.Attr{Mode: unix.S_IFLNK | 0o777, Link: "/../../etc/\x00x"}, &protocol.Attr{Mode: ^uint32(0)}, &protocol.Opened{Handle: 1, Attr: attr, Data: []byte("x")},
		&protocol.Entries{List: []protocol.Entry{{Name: "../x", Attr: attr}, {Name: "ok\n", Attr: attr}}}, &protocol.Data{Bytes: []byte("abc")},
		&protocol.Answer{Errno: 1 << 20}, &protocol.Answer{}, &protocol.Fsinfo{}, &protocol.Bye{},
	} {
		f.Add(protocol.Append(nil, m))
	}
	v := newView(f, nil)
	var reply atomic.Pointer[[]byte] // also of what is asked ahead, until the next one
	reply.Store(new([]byte))
	v.target.on(func(s *link.Stream, _ protocol.Message) bool {
		_, _ = s.Write(*reply.Load())
		return true
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		reply.Store(&b)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for _, p := range []string{v.in("/x"), viewDir + "/y"} {
			v.Tree.remote.forget(v.in("/x"))
			v.Tree.remote.forget("/y")
			n, err := v.Lookup(ctx, p)
			if err == nil {
				_, _ = v.Readlink(ctx, p, n.Key)
				if file, err := v.Open(ctx, p, n.Key, unix.O_RDONLY); err == nil {
					got, _ := file.ReadAt(ctx, make([]byte, 100), 5)
					if got > 100 {
						t.Errorf("%x: %d bytes", b, got)
					}
					file.Close()
				}
			}
		}
		list, _ := v.List(ctx, viewDir)
		for _, e := range list {
			if !validName(e.Name) {
				t.Errorf("%x: the name %q", b, e.Name)
			}
		}
		_, _ = v.Statfs(ctx, viewDir)
		if ctx.Err() != nil {
			t.Errorf("%x: not answered", b)
		}
	})
}

// TestCacheOff: nothing is remembered, so what changes in the target is seen at
// once; and what is remembered for long is not asked for again.
func TestCacheOff(t *testing.T) {
	for name, c := range map[string]struct {
		life time.Duration
		want string
	}{"off": {0, "changed"}, "long": {time.Hour, "before."}} {
		t.Run(name, func(t *testing.T) {
			v := newView(t, func(_ string, o *Options) { o.Life = c.life })
			v.has(nil, map[string]string{"/dir/file": "before.", "/dir/other": "x"})
			n, err := v.Lookup(t.Context(), v.in("/dir/file"))
			must(t, err)
			if n.Keep != c.life || n.KeepAttr != c.life {
				t.Errorf("the kernel keeps it for %v and %v, want %v", n.Keep, n.KeepAttr, c.life)
			}
			if got, err := v.content(v.in("/dir/file")); got != "before." || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
			must(t, os.WriteFile(v.remote(v.in("/dir/file")), []byte("changed"), 0o644))
			if got, err := v.content(v.in("/dir/file")); got != c.want || err != nil {
				t.Errorf("after a change in the target: %q, %v, want %q", got, err, c.want)
			}
			if _, err := v.Lookup(t.Context(), v.in("/dir/none")); errno(err) != syscall.ENOENT {
				t.Error(err)
			}
			must(t, os.WriteFile(v.remote(v.in("/dir/none")), nil, 0o644))
			_, err = v.Lookup(t.Context(), v.in("/dir/none"))
			if err != nil {
				t.Errorf("made in the target: %v", err)
			}
		})
	}
}
