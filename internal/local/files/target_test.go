package files

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/local/fusefs"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// writing is a view in mode write.
func writing(t *testing.T, set func(base string, o *rules.FilesOptions)) *view {
	return newView(t, func(base string, o *Options) {
		f := rules.FilesOptions{Mode: rules.FilesWrite}
		if set != nil {
			set(base, &f)
		}
		o.Rules = ruled(t, f, rules.Places{Own: []string{base + "/own"}})
	})
}

// put writes a file of the view as a program would.
func (v *view) put(p string, flags uint32, content string) error {
	f, err := v.openFile(p, flags)
	if errors.Is(err, syscall.ENOENT) && flags&unix.O_CREAT != 0 {
		f, err = v.Create(v.t.Context(), p, flags, 0o644)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(v.t.Context(), []byte(content), 0, false); err != nil {
		return err
	}
	return f.Flush(v.t.Context())
}

// TestWriteInTarget: everything that a program does to names and contents.
func TestWriteInTarget(t *testing.T) {
	v := writing(t, nil)
	v.has(map[string]string{"/data/both": "local", "/own/mine": "l"}, map[string]string{"/data/both": "remote", "/data/dir/x": "r", "/data/main.py": "r"})
	ctx, b := t.Context(), v.base
	must(t, v.put(b+"/data/new", unix.O_WRONLY|unix.O_CREAT, "new"))
	must(t, v.put(b+"/data/both", unix.O_WRONLY|unix.O_TRUNC, "changed"))
	must(t, v.Mkdir(ctx, b+"/data/made", 0o755))
	must(t, v.Symlink(ctx, "new", b+"/data/sym"))
	must(t, v.Symlink(ctx, viewDir+"/usr/x", b+"/data/abs"))
	must(t, v.Link(ctx, b+"/data/new", b+"/data/made/hard"))
	must(t, v.Mknod(ctx, b+"/data/fifo", unix.S_IFIFO|0o600, 0))
	must(t, v.Rename(ctx, b+"/data/new", b+"/data/newer", 0))
	for p, want := range map[string]string{"/data/both": "changed", "/data/newer": "new", "/data/made/hard": "new", "/data/sym": "open"} {
		if got := read(t, v.remote(b+p)); got != want && want != "open" {
			t.Errorf("%s in the target is %q, want %q", p, got, want)
		}
		if got, err := v.content(b + p); want != "open" && (got != want || err != nil) {
			t.Errorf("%s read back: %q, %v, want %q", p, got, err, want)
		}
		if got := v.side(b + p); got != "remote" {
			t.Errorf("%s is %s", p, got)
		}
	}
	if to, _ := os.Readlink(v.remote(b + "/data/abs")); to != "/usr/x" {
		t.Errorf("a link to what was seen in the view leads to %s in the target", to)
	}
	if got := read(t, b+"/data/both"); got != "local" {
		t.Errorf("the local file was changed: %q", got)
	}
	if got := names(t, b+"/data"); !slices.Equal(got, []string{"both"}) {
		t.Errorf("made on this machine: %v", got)
	}
	for _, names := range []uint32{2, 1} {
		if n, err := v.Lookup(ctx, b+"/data/newer"); err != nil || n.Attr.Nlink != names {
			t.Errorf("%d names, %v, want %d", n.Attr.Nlink, err, names)
		}
		_ = v.Unlink(ctx, b+"/data/made/hard")
	}
	mode, size, now := uint32(0o600), uint64(2), time.Time{}
	n, err := v.Lookup(ctx, b+"/data/both")
	must(t, err)
	must(t, v.Setattr(ctx, b+"/data/both", n.Key, fusefs.Change{Mode: &mode, Size: &size, Mtime: &now}))
	n, err = v.Lookup(ctx, b+"/data/both")
	if err != nil || n.Attr.Mode != unix.S_IFREG|0o600 || n.Attr.Size != 2 || time.Since(time.Unix(0, n.Attr.Mtime)) > time.Minute {
		t.Errorf("after chmod, truncate and touch: %+v, %v", n.Attr, err)
	}
	must(t, v.Unlink(ctx, b+"/data/both"))
	if got := v.side(b + "/data/both"); got != "none" {
		t.Errorf("removed: %s", got)
	}
	for name, c := range map[string]struct{ got, want error }{
		"between the sides":             {v.Rename(ctx, b+"/own/mine", b+"/data/mine", 0), syscall.EXDEV},
		"between the sides, back":       {v.Rename(ctx, b+"/data/newer", b+"/own/newer", 0), syscall.EXDEV},
		"a link between the sides":      {v.Link(ctx, b+"/own/mine", b+"/data/mine"), syscall.EXDEV},
		"to what is local by its name":  {v.Rename(ctx, b+"/data/newer", b+"/data/newer.py", 0), syscall.EXDEV},
		"rmdir of a full one":           {v.Rmdir(ctx, b+"/data/dir"), syscall.ENOTEMPTY},
		"rename of nothing":             {v.Rename(ctx, b+"/data/none", b+"/data/x", 0), syscall.ENOENT},
		"mkdir of what is there":        {v.Mkdir(ctx, b+"/data/dir", 0o755), syscall.EEXIST},
		"exclusively, what is there":    {second(v.Create(ctx, b+"/data/newer", unix.O_EXCL, 0o644)), syscall.EEXIST},
		"a directory that is not there": {second(v.Create(ctx, b+"/none/x", unix.O_WRONLY, 0o644)), syscall.ENOENT},
		"the view":                      {v.Unlink(ctx, viewDir+b+"/data/newer"), syscall.EROFS},
	} {
		if errno(c.got) != c.want {
			t.Errorf("%s: got %v, want %v", name, c.got, c.want)
		}
	}
	must(t, v.Unlink(ctx, b+"/data/dir/x"))
	must(t, v.Rmdir(ctx, b+"/data/dir"))
	if _, err := os.Lstat(v.remote(b + "/data/dir")); err == nil {
		t.Error("the target's directory was not removed")
	}
	if n := v.codes("written"); n != 0 {
		t.Errorf("%d files became local", n)
	}
	// An empty one is removed by who may not list it.
	must(t, v.Mkdir(ctx, b+"/data/closed", 0))
	v.target.on(func(s *link.Stream, m protocol.Message) bool {
		_, lists := m.(*protocol.ReadDir)
		if lists {
			_ = s.Send(&protocol.Answer{Errno: syscall.EACCES})
		}
		return lists
	})
	must(t, v.Rmdir(ctx, b+"/data/closed"))
}

// TestListsInModes: whose file is written, by list and mode.
func TestListsInModes(t *testing.T) {
	for _, c := range []struct {
		mode string
		want map[string]string // which side a write changes
	}{
		{rules.FilesRead, map[string]string{"/data/f": "local", "/rw/f": "remote", "/ro/f": "local", "/mine/f": "local", "/gone/f": "ENOENT"}},
		{rules.FilesWrite, map[string]string{"/data/f": "remote", "/rw/f": "remote", "/ro/f": "local", "/mine/f": "local", "/gone/f": "ENOENT"}},
		{rules.FilesLocalWithOverrides, map[string]string{"/data/f": "local", "/rw/f": "remote", "/ro/f": "local", "/mine/f": "local", "/gone/f": "ENOENT"}},
		{rules.FilesLocal, map[string]string{"/data/f": "local", "/rw/f": "local", "/ro/f": "local", "/mine/f": "local", "/gone/f": "local"}},
	} {
		t.Run(c.mode, func(t *testing.T) {
			v := newView(t, func(base string, o *Options) {
				o.Rules = ruled(t, rules.FilesOptions{Mode: c.mode, ReadWrite: texts("^" + base + "/rw/"), ReadOnly: texts("^" + base + "/ro/"),
					Local: texts("^" + base + "/mine(/|$)"), NotFound: texts("^" + base + "/gone/")}, rules.Places{})
			})
			both := map[string]string{}
			for p := range c.want {
				both[p] = "before"
			}
			v.has(both, both)
			for p, want := range c.want {
				err := v.put(v.in(p), unix.O_RDWR, "AFTER!")
				local, remote := read(t, v.in(p)), read(t, v.remote(v.in(p)))
				switch got := local + " " + remote; {
				case want == "ENOENT" && errno(err) == syscall.ENOENT && got == "before before":
				case want == "local" && err == nil && got == "AFTER! before":
				case want == "remote" && err == nil && got == "before AFTER!":
				default:
					t.Errorf("%s: local and remote are %q, %v; want the %s one changed", p, got, err, want)
				}
				if want == "ENOENT" {
					continue
				}
				if got, err := v.content(v.in(p)); got != "AFTER!" || err != nil {
					t.Errorf("%s read back: %q, %v", p, got, err)
				}
			}
		})
	}
}

// TestReadsWhatItWrote: whoever reads, by whatever name and handle, sees what
// the session has written, although nothing was waited for.
func TestReadsWhatItWrote(t *testing.T) {
	v := writing(t, nil)
	const size = 3 << 20
	content := make([]byte, size)
	rand.Read(content)
	v.has(nil, map[string]string{"/big": string(content), "/small": "0123456789"})
	must(t, os.Link(v.remote(v.in("/small")), v.remote(v.in("/hard"))))
	slow := true
	var mu sync.Mutex
	v.target.on(func(_ *link.Stream, m protocol.Message) bool {
		mu.Lock()
		defer mu.Unlock()
		if _, ok := m.(*protocol.WriteAt); ok && slow {
			time.Sleep(20 * time.Millisecond)
		}
		return false
	})
	ctx := t.Context()
	for _, p := range []string{"/big", "/small"} {
		p = v.in(p)
		reader, err := v.openFile(p, unix.O_RDONLY)
		must(t, err)
		if _, err := v.all(reader); err != nil { // all is in memory now
			t.Fatal(err)
		}
		w, err := v.openFile(p, unix.O_RDWR)
		must(t, err)
		for i := range 5 {
			text := fmt.Sprintf("text %d", i)
			if _, err := w.WriteAt(ctx, []byte(text), 2, false); err != nil {
				t.Fatal(err)
			}
			for name, f := range map[string]fusefs.File{"the reader": reader, "the writer": w} {
				buf := make([]byte, len(text))
				if _, err := f.ReadAt(ctx, buf, 2); err != nil || string(buf) != text {
					t.Errorf("%s: %s reads %q, %v, want %q", p, name, buf, err, text)
				}
			}
			if got, err := v.content(p); err != nil || got[2:2+len(text)] != text {
				t.Errorf("%s: opened anew: %v", p, err)
			}
		}
		if got, err := v.content(v.in("/hard")); err != nil || strings.HasSuffix(p, "small") && !strings.Contains(got, "text 4") {
			t.Errorf("by another name: %q, %v", got, err)
		}
		long := int64(len(content)) + 100
		if _, err := w.WriteAt(ctx, []byte("end"), long, false); err != nil {
			t.Fatal(err)
		}
		n, err := v.Lookup(ctx, p)
		if err != nil || n.Attr.Size != uint64(long)+3 {
			t.Errorf("%s: size %d, %v, want %d", p, n.Attr.Size, err, long+3)
		}
		if a, _, err := reader.Stat(ctx); err != nil || a.Size != uint64(long)+3 {
			t.Errorf("%s: the reader's size %d, %v", p, a.Size, err)
		}
		must(t, w.Truncate(ctx, 4))
		if got, err := v.content(p); err != nil || len(got) != 4 {
			t.Errorf("%s: truncated: %q, %v", p, got[:min(10, len(got))], err)
		}
		list, err := v.List(ctx, v.base)
		must(t, err)
		for _, e := range list {
			if path.Join(v.base, e.Name) == p && e.Node.Attr.Mode != 0 && e.Node.Attr.Size != 4 {
				t.Errorf("%s: listed with size %d", p, e.Node.Attr.Size)
			}
		}
		// Without a name it is still the file.
		must(t, v.Unlink(ctx, p))
		if _, err := w.WriteAt(ctx, []byte("more"), 4, false); err != nil {
			t.Fatal(err)
		}
		if a, _, err := w.Stat(ctx); err != nil || a.Size != 8 {
			t.Errorf("%s: removed, size %d, %v", p, a.Size, err)
		}
		w.Close()
		reader.Close()
	}
	v.Tree.remote.mu.Lock()
	defer v.Tree.remote.mu.Unlock()
	for k, in := range v.Tree.remote.inodes {
		if in.users != 0 || len(in.pending) != 0 {
			t.Errorf("inode %x: %d users, %d pending", k, in.users, len(in.pending))
		}
	}
}

// TestOpenedWhileWritten: what comes with an open file may be from before a write
// that was done by the time it is here.
func TestOpenedWhileWritten(t *testing.T) {
	v := writing(t, nil)
	v.has(nil, map[string]string{"/file": "0123456789"})
	w, err := v.openFile(v.in("/file"), unix.O_WRONLY)
	must(t, err)
	defer w.Close()
	v.target.on(func(s *link.Stream, m protocol.Message) bool {
		if o, ok := m.(*protocol.Open); !ok || o.Flags&unix.O_ACCMODE != unix.O_RDWR {
			return false
		}
		reply, err := v.target.reply(m)
		if err == nil {
			_, err = w.WriteAt(t.Context(), []byte("more"), 10, false)
		}
		if err == nil {
			err = w.Flush(t.Context())
		}
		if err != nil {
			t.Error(err)
		}
		_ = s.Send(reply)
		return true
	})
	f, err := v.openFile(v.in("/file"), unix.O_RDWR)
	must(t, err)
	defer f.Close()
	if got, err := v.all(f); got != "0123456789more" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if a, _, err := f.Stat(t.Context()); a.Size != 14 || err != nil {
		t.Errorf("got size %d, %v", a.Size, err)
	}
}

// TestOrderOfDescriptors: what is written by turns through several descriptors
// is done in that order.
func TestOrderOfDescriptors(t *testing.T) {
	v := writing(t, nil)
	v.has(nil, map[string]string{"/file": ""})
	v.target.on(func(_ *link.Stream, m protocol.Message) bool {
		if w, ok := m.(*protocol.WriteAt); ok && w.Data[0]%2 == 0 {
			time.Sleep(2 * time.Millisecond) // one of them is slow
		}
		return false
	})
	var files [2]fusefs.File
	for i := range files {
		f, err := v.openFile(v.in("/file"), unix.O_WRONLY|unix.O_APPEND)
		must(t, err)
		defer f.Close()
		files[i] = f
	}
	want := ""
	for i := range 20 {
		want += string(rune('a' + i))
		must(t, second(files[i%2].WriteAt(t.Context(), []byte{byte('a' + i)}, 0, false)))
	}
	for _, f := range files {
		must(t, f.Flush(t.Context()))
	}
	if got := read(t, v.remote(v.in("/file"))); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestSizeOfWhatIsWritten: fstat(2) between writes, with nothing else asked.
func TestSizeOfWhatIsWritten(t *testing.T) {
	v := writing(t, nil)
	v.has(nil, map[string]string{"/dir/": ""})
	f, err := v.Create(t.Context(), v.in("/dir/new"), unix.O_RDWR, 0o644)
	must(t, err)
	defer f.Close()
	for i := range int64(4) {
		if a, _, err := f.Stat(t.Context()); err != nil || a.Size != uint64(i)*1000 {
			t.Errorf("after %d writes the size is %d, %v", i, a.Size, err)
		}
		must(t, second(f.WriteAt(t.Context(), make([]byte, 1000), i*1000, false)))
	}
}

// TestWritesDoNotWait: a thousand writes take as long as the link, not as its
// round trips; close tells when all is there.
func TestWritesDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := writing(t, nil)
		v.has(nil, map[string]string{"/file": ""})
		v.target.on(func(_ *link.Stream, m protocol.Message) bool {
			if _, ok := m.(*protocol.WriteAt); ok {
				time.Sleep(time.Millisecond)
			}
			return false
		})
		f, err := v.openFile(v.in("/file"), unix.O_WRONLY)
		must(t, err)
		start := time.Now()
		var want bytes.Buffer
		for i := range 1000 {
			line := fmt.Sprintf("line %d\n", i)
			if _, err := f.WriteAt(t.Context(), []byte(line), int64(want.Len()), false); err != nil {
				t.Fatal(err)
			}
			want.WriteString(line)
		}
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("the writes took %v", took)
		}
		must(t, f.Flush(t.Context()))
		if took := time.Since(start); took < 900*time.Millisecond {
			t.Errorf("close did not wait: %v", took)
		}
		f.Close()
		if got := read(t, v.remote(v.in("/file"))); got != want.String() {
			t.Errorf("got %d bytes, want %d", len(got), want.Len())
		}
	})
}

// TestWritesAreBounded: what is on its way is never more than the bound.
func TestWritesAreBounded(t *testing.T) {
	v := writing(t, nil)
	v.has(nil, map[string]string{"/file": ""})
	hold := make(chan struct{})
	v.target.on(func(_ *link.Stream, m protocol.Message) bool {
		if _, ok := m.(*protocol.WriteAt); ok {
			<-hold
		}
		return false
	})
	file, err := v.openFile(v.in("/file"), unix.O_WRONLY)
	must(t, err)
	defer file.Close()
	defer close(hold)
	f := file.(*remoteFile)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for off := int64(0); ; off += 1 << 20 {
			if _, err := f.WriteAt(ctx, make([]byte, 1<<20), off, false); err != nil {
				if errno(err) != syscall.EINTR {
					t.Errorf("a signal: %v, want EINTR", err)
				}
				return
			}
		}
	})
	time.Sleep(300 * time.Millisecond) // there is no event for what does not happen
	f.box.mu.Lock()
	total := f.box.total
	f.box.mu.Unlock()
	if total > maxPending {
		t.Errorf("%d bytes are on their way", total)
	}
	cancel()
	wg.Wait()
}

// TestWriteErrors: an error is told once, by the next call or by close; nothing
// is written behind what failed.
func TestWriteErrors(t *testing.T) {
	v := writing(t, nil)
	v.has(nil, map[string]string{"/file": ""})
	var mu sync.Mutex
	full := true
	v.target.on(func(s *link.Stream, m protocol.Message) bool {
		mu.Lock()
		defer mu.Unlock()
		if w, ok := m.(*protocol.WriteAt); ok && full && w.Off >= 10 {
			s.Send(&protocol.Answer{Errno: syscall.ENOSPC})
			return true
		}
		return false
	})
	ctx := t.Context()
	f, err := v.openFile(v.in("/file"), unix.O_RDWR)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt(ctx, []byte("good"), 0, false)
	must(t, err)
	_, err = f.WriteAt(ctx, []byte("bad"), 10, false)
	must(t, err)
	if err := f.Flush(ctx); errno(err) != syscall.ENOSPC {
		t.Errorf("close: %v, want ENOSPC", err)
	}
	must(t, f.Flush(ctx)) // once
	_, err = f.WriteAt(ctx, []byte("bad"), 10, false)
	must(t, err)
	if err := f.Sync(ctx); errno(err) != syscall.ENOSPC {
		t.Errorf("fsync: %v, want ENOSPC", err)
	}
	_, err = f.WriteAt(ctx, []byte("bad"), 10, false)
	must(t, err)
	deadline := time.Now().Add(10 * time.Second)
	for err == nil && time.Now().Before(deadline) {
		_, err = f.WriteAt(ctx, []byte("x"), 5, false)
	}
	if errno(err) != syscall.ENOSPC {
		t.Errorf("a later write: %v, want ENOSPC", err)
	}
	mu.Lock()
	full = false
	mu.Unlock()
	must(t, second(f.WriteAt(ctx, []byte("fine"), 10, false)))
	must(t, f.Flush(ctx))
	if got := read(t, v.remote(v.in("/file"))); len(got) != 14 || got[:4] != "good" || got[10:] != "fine" {
		t.Errorf("the file is %q", got)
	}
	// An answer that is none, and the end of the link.
	v.target.on(func(s *link.Stream, m protocol.Message) bool {
		if _, ok := m.(*protocol.WriteAt); ok {
			s.Send(&protocol.Data{Bytes: []byte("what?")})
			return true
		}
		return false
	})
	must(t, second(f.WriteAt(ctx, []byte("x"), 0, false)))
	if err := f.Flush(ctx); errno(err) != syscall.EIO {
		t.Errorf("a wrong answer: %v, want EIO", err)
	}
	v.target.on(func(*link.Stream, protocol.Message) bool { return false })
	v.link.Close("")
	if err := second(f.WriteAt(ctx, []byte("x"), 0, false)); errno(err) != syscall.EIO {
		if err := f.Flush(ctx); errno(err) != syscall.EIO {
			t.Errorf("without a link: %v, want EIO", err)
		}
	}
}

// TestConcurrentWriters: many at once on a file and on several handles.
func TestConcurrentWriters(t *testing.T) {
	v := writing(t, nil)
	v.has(nil, map[string]string{"/file": strings.Repeat(".", 64<<10)})
	var wg sync.WaitGroup
	for i := range 8 {
		f, err := v.openFile(v.in("/file"), unix.O_RDWR)
		must(t, err)
		for j := range 2 {
			wg.Go(func() {
				for n := range 32 {
					off := int64(n*2048 + i*256 + j*128)
					if _, err := f.WriteAt(t.Context(), bytes.Repeat([]byte{byte('A' + i)}, 128), off, false); err != nil {
						t.Error(err)
					}
					buf := make([]byte, 128)
					if n, err := f.ReadAt(t.Context(), buf, off); n != 128 || err != nil || buf[0] != byte('A'+i) || buf[127] != byte('A'+i) {
						t.Errorf("read back at %d: %q, %v", off, buf[:1], err)
					}
				}
				if err := f.Flush(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		defer f.Close()
	}
	wg.Wait()
	got := read(t, v.remote(v.in("/file")))
	for i := range 8 {
		if n := strings.Count(got, string(rune('A'+i))); n != 32*256 {
			t.Errorf("writer %d wrote %d bytes, want %d", i, n, 32*256)
		}
	}
}

// TestMappedPaths: what a mapping calls otherwise is found, listed and changed
// there.
func TestMappedPaths(t *testing.T) {
	v := newView(t, func(base string, o *Options) {
		m := func(p, to string) rules.FileMapping { return rules.FileMapping{Path: rules.Pattern{Text: p}, To: to} }
		o.Rules = ruled(t, rules.FilesOptions{ReadWrite: texts("^" + base + "/there/"), Mapping: []rules.FileMapping{
			m("^"+base+"/app(/|$)", base+"/there$1"), m("^"+base+"/in/(.*)\\.cfg$", base+"/own/$1.local"), m("^"+base+"/deep/er/file$", base+"/data/x"),
			m("^"+base+"/away$", base+"/none"), m("^"+base+"/docs", base+"/own/docs")}}, rules.Places{Own: []string{base + "/own"}})
	})
	v.has(map[string]string{"/own/one.local": "local one", "/own/docs/a": "a", "/own/docs/rel": "-> ../one.local"}, map[string]string{
		"/there/file": "there", "/there/dir/x": "x", "/there/link": "-> file", "/app/file": "the target's own", "/in/one.cfg": "r", "/in/two.txt": "r", "/in/gone.cfg": "r",
		"/data/x": "data", "/away": "r"})
	for p, want := range map[string]string{"/app/file": "there", "/app/dir/x": "x", "/in/one.cfg": "local one", "/in/two.txt": "r", "/deep/er/file": "data", "/docs/a": "a"} {
		if got, err := v.content(v.in(p)); got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", p, got, err, want)
		}
	}
	for p, want := range map[string]string{"/app": "dir file link", "/app/dir": "x", "/in": "one.cfg two.txt", "/deep": "er", "/deep/er": "file", "/docs": "a rel",
		"": "app data deep docs in own there"} {
		list, err := v.List(t.Context(), v.base+p)
		var got []string
		for _, e := range list {
			got = append(got, e.Name)
			if n, err := v.Lookup(t.Context(), path.Join(v.base+p, e.Name)); err != nil || n.Key != e.Node.Key {
				t.Errorf("%s/%s is listed as %x, found as %x, %v", p, e.Name, e.Node.Key, n.Key, err)
			}
		}
		if g := strings.Join(got, " "); g != want && (p != "" || !strings.Contains(g, "deep docs in")) || err != nil {
			t.Errorf("%s has %q, %v, want %q", p, g, err, want)
		}
	}
	for p, want := range map[string]string{"/away": "none", "/in/gone.cfg": "none", "/app": "remote", "/docs": "local", "/deep/er": "fixed"} {
		if got := v.side(v.in(p)); got != want {
			t.Errorf("%s is %s, want %s", p, got, want)
		}
	}
	for p, want := range map[string]string{"/docs/rel": v.base + "/own/docs/../one.local", "/app/link": v.base + "/there/file"} {
		n, err := v.Lookup(t.Context(), v.in(p))
		must(t, err)
		if to, err := v.Readlink(t.Context(), v.in(p), n.Key); to != want || err != nil {
			t.Errorf("%s leads to %q, %v, want %q", p, to, err, want)
		}
	}
	a, _ := v.Lookup(t.Context(), v.in("/docs"))
	b, _ := v.Lookup(t.Context(), v.in("/own/docs"))
	if a.Key == b.Key {
		t.Error("a directory at two paths is one")
	}
	// Changes go where the name leads.
	must(t, v.put(v.in("/app/new"), unix.O_WRONLY|unix.O_CREAT, "new"))
	must(t, v.put(v.in("/in/made.cfg"), unix.O_WRONLY|unix.O_CREAT, "made"))
	must(t, v.Rename(t.Context(), v.in("/app/new"), v.in("/there/newer"), 0))
	if got := read(t, v.remote(v.in("/there/newer"))); got != "new" {
		t.Errorf("in the target: %q", got)
	}
	if got := read(t, v.in("/own/made.local")); got != "made" {
		t.Errorf("here: %q", got)
	}
	must(t, v.Unlink(t.Context(), v.in("/app/newer")))
	if _, err := os.Lstat(v.remote(v.in("/there/newer"))); err == nil {
		t.Error("it was not removed")
	}
}

// TestNotFoundAndListing: patterns decide what a listing of both sides shows.
func TestNotFoundAndListing(t *testing.T) {
	v := newView(t, func(base string, o *Options) {
		o.Rules = ruled(t, rules.FilesOptions{NotFound: texts(`\.secret$`), ReadOnly: texts(`\.yaml$`, "^"+base+"/own/far/away/x$"), Local: texts(`\.mine$`)},
			rules.Places{Own: []string{base + "/own"}})
	})
	v.has(map[string]string{"/own/a.yaml": "l", "/own/b.secret": "l", "/own/c": "l", "/data/d.mine": "l", "/data/e": "l", "/data/f.secret": "l"},
		map[string]string{"/own/a.yaml": "r", "/own/z.yaml": "r", "/own/c": "r", "/own/q": "r", "/data/d.mine": "r", "/data/e": "r", "/data/f.secret": "r", "/data/g.mine": "r", "/own/far/away/x": "r", "/own/far/y": "r"})
	for p, want := range map[string]string{"/own": "a.yaml c far z.yaml", "/data": "d.mine e", "/own/far": "away", "/own/far/away": "x"} {
		list, err := v.List(t.Context(), v.base+p)
		must(t, err)
		var got []string
		for _, e := range list {
			got = append(got, e.Name)
			if n, err := v.Lookup(t.Context(), path.Join(v.base+p, e.Name)); err != nil || n.Key != e.Node.Key {
				t.Errorf("%s/%s is listed and not found: %v", p, e.Name, err)
			}
		}
		if g := strings.Join(got, " "); g != want {
			t.Errorf("%s has %q, want %q", p, g, want)
		}
	}
	for p, want := range map[string]string{"/own/a.yaml": "r", "/own/c": "l", "/data/d.mine": "l", "/data/e": "r", "/own/far/away/x": "r"} {
		if got, err := v.content(v.in(p)); got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", p, got, err, want)
		}
	}
	for _, p := range []string{"/own/b.secret", "/own/q", "/data/f.secret", "/data/g.mine", "/own/far/y"} {
		if got := v.side(v.in(p)); got != "none" {
			t.Errorf("%s is %s", p, got)
		}
	}
}
