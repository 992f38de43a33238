package files

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/local/fusefs"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

func read(t *testing.T, p string) string {
	t.Helper()
	b, err := os.ReadFile(p)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// names gives the entries of a local directory.
func names(t *testing.T, p string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(p)
	must(t, err)
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// TestFirstWriteMakesLocal is the heart of mode read.
func TestFirstWriteMakesLocal(t *testing.T) {
	v := newView(t, nil)
	big := make([]byte, 1<<20)
	rand.Read(big)
	v.has(map[string]string{"/data/": "", "/data/have": "mine"}, map[string]string{
		"/data/copy": string(big), "/data/small": "small", "/data/trunc": string(big), "/data/have": "theirs", "/data/mode": "x", "/nodir/file": "r"})
	must(t, os.Chmod(v.remote(v.in("/data/mode")), 0o4755))
	ctx := t.Context()

	n, err := v.Lookup(ctx, v.in("/data/copy"))
	must(t, err)
	reader, err := v.Open(ctx, v.in("/data/copy"), n.Key, unix.O_RDONLY)
	must(t, err)
	defer reader.Close()
	if _, err := v.Open(ctx, v.in("/data/copy"), n.Key, unix.O_RDWR); errno(err) != syscall.ESTALE {
		t.Fatalf("first open for writing: %v, want ESTALE", err)
	}
	if got := v.side(v.in("/data/copy")); got != "local" {
		t.Fatalf("after that it is %s", got)
	}
	if _, err := v.Open(ctx, v.in("/data/copy"), n.Key, unix.O_RDONLY); errno(err) != syscall.ESTALE {
		t.Errorf("opening the inode from before: %v, want ESTALE", err)
	}
	f, err := v.openFile(v.in("/data/copy"), unix.O_RDWR)
	must(t, err)
	if _, err := f.WriteAt(ctx, []byte("WRITTEN"), 5, false); err != nil {
		t.Error(err)
	}
	f.Close()
	want := bytes.Clone(big)
	copy(want[5:], "WRITTEN")
	if read(t, v.in("/data/copy")) != string(want) {
		t.Error("the local file is not the remote one with the change")
	}
	if read(t, v.remote(v.in("/data/copy"))) != string(big) {
		t.Error("the target's file was changed")
	}
	if got, err := v.content(v.in("/data/copy")); got != string(want) || err != nil {
		t.Errorf("read back: %d bytes, %v", len(got), err)
	}
	if got, err := v.all(reader); got != string(big) || err != nil { // keeps what it opened
		t.Errorf("reader from before: %d bytes, %v", len(got), err)
	}

	asked := v.target.count("ReadAt", "")
	f, err = v.openFile(v.in("/data/trunc"), unix.O_WRONLY|unix.O_TRUNC)
	must(t, err)
	f.Close()
	if got := v.target.count("ReadAt", "") + v.target.count("Open", v.in("/data/trunc")); got != asked || read(t, v.in("/data/trunc")) != "" {
		t.Errorf("what is emptied is not copied: %d requests more", got-asked)
	}
	f, err = v.openFile(v.in("/data/have"), unix.O_RDWR) // the local one is there already
	must(t, err)
	f.Close()
	if got, _ := v.content(v.in("/data/have")); got != "mine" {
		t.Errorf("got %q, want the local file", got)
	}
	f, err = v.openFile(v.in("/data/mode"), unix.O_WRONLY)
	must(t, err)
	f.Close()
	if fi, _ := os.Stat(v.in("/data/mode")); fi.Mode() != 0o755 {
		t.Errorf("mode %v, want 0755 without set-user-id", fi.Mode())
	}
	n, err = v.Lookup(ctx, v.in("/data/small"))
	must(t, err)
	must(t, v.Setattr(ctx, v.in("/data/small"), n.Key, fusefs.Change{})) // chown(-1, -1)
	if got := v.side(v.in("/data/small")); got != "remote" {
		t.Errorf("who gives a file to nobody has one that is %s", got)
	}
	if n := v.codes("written"); n != 4 {
		t.Errorf("%d files were said to be local now, want 4", n)
	}

	// No directory here: no place, one event.
	for range 3 {
		if _, err := v.openFile(v.in("/nodir/file"), unix.O_WRONLY); errno(err) != syscall.EROFS {
			t.Errorf("without a local directory: %v, want EROFS", err)
		}
		if _, err := v.Create(ctx, v.in("/nodir/new"), unix.O_WRONLY, 0o644); errno(err) != syscall.EROFS {
			t.Errorf("create without a local directory: %v, want EROFS", err)
		}
	}
	if n := v.codes("no-place"); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
	if got, err := v.content(v.in("/nodir/file")); got != "r" || err != nil {
		t.Errorf("the remote file: %q, %v", got, err)
	}
	if got := names(t, v.in("/data")); len(got) != 4 {
		t.Errorf("left over: %v", got)
	}
}

// TestChangesOfAttributes: chmod, truncate and utimes are first writes as well;
// of a directory they are refused, it would take all below it along.
func TestChangesOfAttributes(t *testing.T) {
	v := newView(t, nil)
	v.has(map[string]string{"/data/": "", "/data/dir/": ""}, map[string]string{"/data/a": "content", "/data/b": "content", "/data/dir/x": "r"})
	setattr := func(p string, c fusefs.Change) (err error) {
		for range 2 {
			n, err := v.Lookup(t.Context(), p)
			must(t, err)
			if err = v.Setattr(t.Context(), p, n.Key, c); !errors.Is(err, syscall.ESTALE) {
				return errno(err)
			}
		}
		return syscall.ESTALE
	}
	mode, size, none := uint32(0o600), uint64(3), uint64(0)
	must(t, setattr(v.in("/data/a"), fusefs.Change{Mode: &mode}))
	must(t, setattr(v.in("/data/a"), fusefs.Change{Size: &size}))
	must(t, setattr(v.in("/data/b"), fusefs.Change{Size: &none}))
	if fi, err := os.Stat(v.in("/data/a")); err != nil || fi.Mode() != 0o600 || read(t, v.in("/data/a")) != "con" {
		t.Errorf("got %v, %v", fi, err)
	}
	if n := v.target.count("Open", v.in("/data/b")); n != 0 {
		t.Error("what is emptied was copied")
	}
	if err := setattr(v.in("/data/dir"), fusefs.Change{Mode: &mode}); err != syscall.EROFS {
		t.Errorf("chmod of a directory: %v, want EROFS", err)
	}
	if got := v.side(v.in("/data/dir/x")); got != "remote" {
		t.Errorf("below it: %s", got)
	}
}

// TestWritersRace: two programs begin to write a file at the same time; neither
// may find a half copied one.
func TestWritersRace(t *testing.T) {
	v := newView(t, nil)
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<17) // 2 MiB
	v.has(map[string]string{"/data/": ""}, map[string]string{"/data/file": string(big)})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			f, err := v.openFile(v.in("/data/file"), unix.O_RDWR)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			if a, _, err := f.Stat(t.Context()); err != nil || a.Size != uint64(len(big)) {
				t.Errorf("size %d, %v", a.Size, err)
			}
			f.WriteAt(t.Context(), []byte{'A' + byte(i)}, int64(i), false)
		})
	}
	wg.Wait()
	if got := read(t, v.in("/data/file")); got != "ABCDEFGH"+string(big[8:]) {
		t.Errorf("a write is lost: %q…", got[:min(16, len(got))])
	}
	if got := names(t, v.in("/data")); len(got) != 1 {
		t.Errorf("left over: %v", got)
	}
}

// TestCopyFails: what cannot be copied leaves nothing behind.
func TestCopyFails(t *testing.T) {
	v := newView(t, nil)
	v.has(map[string]string{"/data/": ""}, map[string]string{"/data/file": strings.Repeat("x", 1<<20)})
	v.target.on(func(s *link.Stream, m protocol.Message) bool {
		if r, ok := m.(*protocol.ReadAt); ok && r.Off >= chunk {
			s.Send(&protocol.Answer{Errno: syscall.EIO})
			return true
		}
		return false
	})
	if _, err := v.openFile(v.in("/data/file"), unix.O_RDWR); errno(err) != syscall.EIO {
		t.Errorf("got %v, want EIO", err)
	}
	if got := names(t, v.in("/data")); len(got) != 0 || v.side(v.in("/data/file")) != "remote" {
		t.Errorf("left over: %v; the path is %s", got, v.side(v.in("/data/file")))
	}
	// Too large, by what the target says.
	v.target.on(func(s *link.Stream, m protocol.Message) bool {
		if _, ok := m.(*protocol.Stat); ok {
			s.Send(&protocol.Attr{Mode: unix.S_IFREG | 0o644, Ino: 7, Size: maxCopy + 1})
			return true
		}
		return false
	})
	v.Tree.remote.forget(v.in("/data/file"))
	if _, err := v.openFile(v.in("/data/file"), unix.O_RDWR); errno(err) != syscall.EROFS || v.codes("no-place") != 1 {
		t.Errorf("too large: %v, %d events", err, v.codes("no-place"))
	}
}

func TestMakeAndRemove(t *testing.T) {
	v := mixed(t)
	ctx := t.Context()
	v.has(map[string]string{"/remote/": "", "/app/stays": "l"}, map[string]string{"/remote/dir/file": "r", "/remote/gone": "r", "/app/stays": "r"})

	// Names made in a remote directory are local ones.
	f, err := v.Create(ctx, v.in("/remote/new"), unix.O_WRONLY, 0o644)
	must(t, err)
	f.Close()
	must(t, v.Mkdir(ctx, v.in("/remote/made"), 0o755))
	must(t, v.Symlink(ctx, "new", v.in("/remote/sym")))
	must(t, v.Link(ctx, v.in("/remote/new"), v.in("/remote/hard")))
	must(t, v.Mknod(ctx, v.in("/remote/fifo"), unix.S_IFIFO|0o600, 0))
	must(t, v.Rename(ctx, v.in("/remote/hard"), v.in("/remote/moved"), 0))
	for _, p := range []string{"/remote/new", "/remote/made", "/remote/sym", "/remote/fifo", "/remote/moved"} {
		if got := v.side(v.in(p)); got != "local" {
			t.Errorf("%s is %s", p, got)
		}
	}

	// A removed name of the target's is hidden; the target has it still.
	must(t, v.Unlink(ctx, v.in("/remote/gone")))
	if got := v.side(v.in("/remote/gone")); got != "none" {
		t.Errorf("after unlink: %s", got)
	}
	if read(t, v.remote(v.in("/remote/gone"))) != "r" {
		t.Error("it was removed in the target")
	}
	if err := v.Rmdir(ctx, v.in("/remote/dir")); errno(err) != syscall.ENOTEMPTY {
		t.Errorf("rmdir: %v, want ENOTEMPTY", err)
	}
	must(t, v.Unlink(ctx, v.in("/remote/dir/file")))
	must(t, v.Rmdir(ctx, v.in("/remote/dir")))
	if got := v.side(v.in("/remote/dir")); got != "none" {
		t.Errorf("after rmdir: %s", got)
	}
	must(t, v.Mkdir(ctx, v.in("/remote/dir"), 0o755))
	if err := v.Unlink(ctx, v.in("/app/stays")); errno(err) != syscall.EROFS {
		t.Errorf("unlink of a name that is here too: %v, want EROFS", err)
	}
	must(t, v.Unlink(ctx, v.in("/ws/shop/main.go")))
	if _, err := os.Lstat(v.in("/ws/shop/main.go")); err == nil {
		t.Error("a local file was not removed")
	}
	// Hidden and made again, where there is no directory for it.
	must(t, v.Unlink(ctx, v.in("/data/sub/x")))
	if _, err := v.Create(ctx, v.in("/data/sub/x"), unix.O_WRONLY, 0o644); errno(err) != syscall.EROFS || v.codes("no-place") != 1 {
		t.Errorf("no place: %v, %d events", err, v.codes("no-place"))
	}

	for name, c := range map[string]struct{ got, want error }{
		"rename of a remote file":      {v.Rename(ctx, v.in("/app/config.yaml"), v.in("/app/x"), 0), syscall.EXDEV},
		"link to a remote file":        {v.Link(ctx, v.in("/app/config.yaml"), v.in("/app/x")), syscall.EXDEV},
		"rename of a mount point":      {v.Rename(ctx, v.in("/ws/shop/src"), v.in("/ws/shop/x"), 0), syscall.EBUSY},
		"rename to a mount point":      {v.Rename(ctx, v.in("/remote/moved"), v.in("/ws/shop/src"), 0), syscall.EBUSY},
		"rename of what leads to one":  {v.Rename(ctx, v.in("/ws"), v.in("/x"), 0), syscall.EBUSY},
		"unlink of a pin":              {v.Unlink(ctx, v.in("/pinned")), syscall.EBUSY},
		"rmdir of a mount point":       {v.Rmdir(ctx, v.in("/ws/shop/src")), syscall.EBUSY},
		"mkdir of what is hidden":      {v.Mkdir(ctx, v.in("/home/ana/.kube/x"), 0o755), syscall.ENOENT},
		"unlink of what is hidden":     {v.Unlink(ctx, v.in("/home/ana/.kube/config")), syscall.ENOENT},
		"mkdir that is there":          {v.Mkdir(ctx, v.in("/ws/shop"), 0o755), syscall.EBUSY},
		"rmdir of a full local one":    {v.Rmdir(ctx, v.in("/deep/below")), syscall.ENOTEMPTY},
		"rename over a served file":    {v.Rename(ctx, v.in("/remote/moved"), v.in("/app/served"), 0), syscall.EROFS},
		"creating over a served file":  {second(v.Create(ctx, v.in("/app/served"), unix.O_WRONLY, 0)), syscall.EROFS},
		"opening a mount point itself": {second(v.Open(ctx, v.in("/pinned"), pathKey(v.in("/pinned")), unix.O_RDONLY)), syscall.ENXIO},
	} {
		if errno(c.got) != c.want {
			t.Errorf("%s: got %v, want %v", name, c.got, c.want)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestServed: a file of the session's own, whatever this machine has there.
func TestServed(t *testing.T) {
	v := mixed(t)
	ctx := t.Context()
	p := v.in("/ws/shop/served") // a local place
	write(t, p, "the developer's")
	if got, err := v.content(p); got != "too" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	n, err := v.Lookup(ctx, p)
	must(t, err)
	size := uint64(0)
	for name, err := range map[string]error{
		"write": second(v.Open(ctx, p, n.Key, unix.O_WRONLY)), "truncate": v.Setattr(ctx, p, n.Key, fusefs.Change{Size: &size}),
		"unlink": v.Unlink(ctx, p), "rename": v.Rename(ctx, p, v.in("/ws/shop/x"), 0), "link": v.Link(ctx, p, v.in("/ws/shop/y")),
		"rename over it": v.Rename(ctx, v.in("/ws/shop/main.go"), p, 0),
	} {
		if errno(err) != syscall.EROFS {
			t.Errorf("%s: %v, want EROFS", name, err)
		}
	}
	if got := read(t, p); got != "the developer's" {
		t.Errorf("the developer's own file is now %q", got)
	}
	f, err := v.openFile(p, unix.O_RDONLY)
	must(t, err)
	defer f.Close()
	if n, err := f.ReadAt(ctx, make([]byte, 10), 100); n != 0 || err != nil {
		t.Errorf("behind the end: %d, %v", n, err)
	}
	if a, _, err := f.Stat(ctx); a.Size != 3 || err != nil {
		t.Errorf("stat: %+v, %v", a, err)
	}
}

func TestLocalFile(t *testing.T) {
	v := newView(t, func(base string, o *Options) {
		o.Rules = ruled(t, rules.FilesOptions{}, rules.Places{Own: []string{base}})
	})
	v.has(map[string]string{"/log": "one\n", "/file": "old"}, nil)
	ctx := context.Background()
	// Another process appends as well: nothing is lost, whatever the kernel of
	// the sandbox takes for the end of the file.
	f, err := v.openFile(v.in("/log"), unix.O_WRONLY|unix.O_APPEND)
	must(t, err)
	other, err := os.OpenFile(v.in("/log"), os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	other.WriteString("two\n")
	if n, err := f.WriteAt(ctx, []byte("three\n"), 4, false); n != 6 || err != nil {
		t.Errorf("append: %d, %v", n, err)
	}
	other.Close()
	f.Close()
	if got := read(t, v.in("/log")); got != "one\ntwo\nthree\n" {
		t.Errorf("got %q", got)
	}

	// An editor replaces the file between lookup and open.
	n, err := v.Lookup(ctx, v.in("/file"))
	must(t, err)
	write(t, v.in("/file.new"), "new")
	must(t, os.Rename(v.in("/file.new"), v.in("/file")))
	if _, err := v.Open(ctx, v.in("/file"), n.Key, unix.O_RDONLY); errno(err) != syscall.ESTALE {
		t.Errorf("another file: %v, want ESTALE", err)
	}
	if got, err := v.content(v.in("/file")); got != "new" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	must(t, os.Symlink("a", v.in("/link")))
	n, err = v.Lookup(ctx, v.in("/link"))
	must(t, err)
	must(t, os.Remove(v.in("/link")))
	must(t, os.Symlink("b", v.in("/link")))
	if _, err := v.Readlink(ctx, v.in("/link"), n.Key); errno(err) != syscall.ESTALE {
		t.Errorf("another link: %v, want ESTALE", err)
	}
	must(t, os.Symlink(filepath.Join(v.base, "file"), v.in("/abs")))
	n, _ = v.Lookup(ctx, v.in("/abs"))
	if to, err := v.Readlink(ctx, v.in("/abs"), n.Key); to != v.in("/file") || err != nil {
		t.Errorf("local link: %q, %v", to, err)
	}
}
