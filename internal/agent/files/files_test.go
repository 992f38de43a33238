package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests act as other users: run them as root")
		os.Exit(1)
	}
	os.Exit(leak.Main(m))
}

// client asks a server over a link.
type client struct {
	t  testing.TB
	l  *link.Conn
	at *Server
}

// serve serves root to a client, both gone at the end of the test.
func serve(t testing.TB, root string, as As) *client {
	t.Helper()
	dir, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(dir, as, testMemory())
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	local, agent := link.New(near, link.Local, link.Options{}), link.New(far, link.Agent, link.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			stream, m, err := agent.Accept(ctx)
			if err != nil {
				return
			}
			wg.Go(func() {
				if !s.Serve(ctx, stream, m) {
					stream.Reset(syscall.ENOSYS)
					stream.Close()
				}
			})
		}
	})
	t.Cleanup(func() {
		local.Close("")
		cancel()
		agent.Close("")
		wg.Wait()
		s.Close()
		dir.Close()
	})
	return &client{t, local, s}
}

// ask gives the reply to m, or the errno that came in its place.
func (c *client) ask(m protocol.Message) (protocol.Message, error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
	defer cancel()
	reply, err := c.l.Call(ctx, m)
	if err != nil {
		c.t.Fatalf("%T: %v", m, err)
	}
	if a, ok := reply.(*protocol.Answer); ok {
		return nil, refusal(a)
	}
	return reply, nil
}

// refusal is an answer's bare errno; nil if it has none.
func refusal(a *protocol.Answer) error {
	if a.Errno == 0 {
		return nil
	}
	return a.Errno
}

// get is ask for what must be answered with a T.
func get[T protocol.Message](c *client, m protocol.Message) T {
	c.t.Helper()
	reply, err := c.ask(m)
	if err != nil {
		c.t.Fatalf("%+v: %v", m, err)
	}
	got, ok := reply.(T)
	if !ok {
		c.t.Fatalf("%+v is answered with %T", m, reply)
	}
	return got
}

// list gives a directory's entries and the number of batches.
func (c *client) list(p string) (all []protocol.Entry, batches int, err error) {
	c.t.Helper()
	s, err := c.l.Open(c.t.Context(), link.Interactive, &protocol.ReadDir{Path: p})
	if err != nil {
		c.t.Fatal(err)
	}
	defer s.Close()
	for {
		switch m, err := s.Receive(); m := m.(type) {
		case *protocol.Entries:
			all = append(all, m.List...)
			batches++
		case *protocol.Answer:
			return nil, batches, refusal(m)
		default:
			if !errors.Is(err, io.EOF) {
				c.t.Fatalf("listing %s: %T, %v", p, m, err)
			}
			return all, batches, nil
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, p, content string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(p), 0o755))
	must(t, os.WriteFile(p, []byte(content), 0o644))
}

// open gives a root that any user can get to.
func tempRoot(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
	return dir
}

func TestStat(t *testing.T) {
	root := tempRoot(t)
	file := filepath.Join(root, "file")
	write(t, file, "content")
	must(t, os.Chmod(file, 0o640))
	must(t, os.Chown(file, 1234, 5678))
	must(t, os.Link(file, filepath.Join(root, "second")))
	mtime := time.Date(1965, 4, 3, 2, 1, 0, 987654321, time.UTC) // before 1970
	must(t, os.Chtimes(file, mtime, mtime))
	must(t, os.Symlink("file", filepath.Join(root, "link")))
	must(t, os.Symlink("nowhere", filepath.Join(root, "dangling")))
	must(t, unix.Mknod(filepath.Join(root, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	c := serve(t, root, As{})

	var st unix.Stat_t
	must(t, unix.Stat(file, &st))
	got := get[*protocol.Attr](c, &protocol.Stat{Path: "/file", Prefetch: 7})
	if got.Btime == 0 || time.Since(time.Unix(0, got.Btime)) > time.Hour {
		t.Errorf("time of birth %v", time.Unix(0, got.Btime))
	}
	var x unix.Statx_t
	must(t, unix.Statx(unix.AT_FDCWD, file, 0, unix.STATX_MNT_ID, &x))
	got.Btime = 0
	want := &protocol.Attr{Ino: st.Ino, Size: 7, Blocks: uint64(st.Blocks), Dev: st.Dev, Mode: unix.S_IFREG | 0o640, Nlink: 2,
		UID: 1234, GID: 5678, Blksize: uint32(st.Blksize), Atime: got.Atime, Mtime: mtime.UnixNano(), Ctime: st.Ctim.Nano(),
		Data: []byte("content"), HasData: true, Mount: x.Mnt_id}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}

	for _, tc := range []struct {
		name    string
		ask     protocol.Stat
		mode    uint32
		link    string
		hasData bool
		err     error
	}{
		{"too large for the prefetch", protocol.Stat{Path: "/file", Prefetch: 6}, unix.S_IFREG | 0o640, "", false, nil},
		{"no prefetch", protocol.Stat{Path: "/file"}, unix.S_IFREG | 0o640, "", false, nil},
		{"link", protocol.Stat{Path: "/link", Prefetch: 100}, unix.S_IFLNK | 0o777, "file", false, nil},
		{"what the link leads to", protocol.Stat{Path: "/link", Follow: true, Prefetch: 100}, unix.S_IFREG | 0o640, "", true, nil},
		{"dangling link", protocol.Stat{Path: "/dangling"}, unix.S_IFLNK | 0o777, "nowhere", false, nil},
		{"dangling link, followed", protocol.Stat{Path: "/dangling", Follow: true}, 0, "", false, syscall.ENOENT},
		{"root", protocol.Stat{Path: "/"}, unix.S_IFDIR | 0o755, "", false, nil},
		{"above the root", protocol.Stat{Path: "/../../file"}, unix.S_IFREG | 0o640, "", false, nil},
		{"device", protocol.Stat{Path: "/null", Prefetch: 100}, unix.S_IFCHR | 0o666, "", false, nil},
		{"missing", protocol.Stat{Path: "/missing"}, 0, "", false, syscall.ENOENT},
		{"below a file", protocol.Stat{Path: "/file/x"}, 0, "", false, syscall.ENOTDIR},
		{"relative", protocol.Stat{Path: "file"}, 0, "", false, syscall.EINVAL},
		{"empty", protocol.Stat{}, 0, "", false, syscall.EINVAL},
		{"with a NUL", protocol.Stat{Path: "/file\x00x"}, 0, "", false, syscall.EINVAL},
		{"too long", protocol.Stat{Path: "/" + strings.Repeat("x", 256)}, 0, "", false, syscall.ENAMETOOLONG},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reply, err := (&client{t, c.l, c.at}).ask(&tc.ask)
			if !errors.Is(err, tc.err) {
				t.Fatalf("error %v, want %v", err, tc.err)
			}
			if tc.err != nil {
				return
			}
			a := reply.(*protocol.Attr)
			if a.Mode&^0o22 != tc.mode&^0o22 || a.Link != tc.link || a.HasData != tc.hasData { // the umask is the caller's
				t.Errorf("mode %o, link %q, content %v; want %o, %q, %v", a.Mode, a.Link, a.HasData, tc.mode, tc.link, tc.hasData)
			}
		})
	}
	if got := get[*protocol.Attr](c, &protocol.Stat{Path: "/null"}).Rdev; got != unix.Mkdev(1, 3) {
		t.Errorf("device number %x", got)
	}
}

// TestContentIsComplete: what looks complete is. Files of procfs say that they
// are empty and are not.
func TestContentIsComplete(t *testing.T) {
	c := serve(t, "/", As{})
	a := get[*protocol.Attr](c, &protocol.Stat{Path: "/proc/version", Prefetch: 1 << 16})
	if a.Size != 0 || a.HasData {
		t.Errorf("size %d, content %v; want 0 and none", a.Size, a.HasData)
	}
	want, _ := os.ReadFile("/proc/version")
	o := get[*protocol.Opened](c, &protocol.Open{Path: "/proc/version", Prefetch: 1 << 16})
	if !bytes.Equal(o.Data, want) || !o.EOF {
		t.Errorf("opened: %q (end %v), want %q", o.Data, o.EOF, want)
	}

	root := tempRoot(t)
	grows := filepath.Join(root, "grows")
	write(t, grows, "")
	c = serve(t, root, As{})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		f, _ := os.OpenFile(grows, os.O_WRONLY|os.O_APPEND, 0)
		defer f.Close()
		for n := 0; n < 20000; n++ {
			select {
			case <-stop:
				return
			default:
				f.WriteString("x")
			}
		}
	})
	for range 300 {
		if a := get[*protocol.Attr](c, &protocol.Stat{Path: "/grows", Prefetch: 1 << 16}); a.HasData && uint64(len(a.Data)) != a.Size {
			t.Fatalf("%d bytes of a file with %d", len(a.Data), a.Size)
		}
	}
	close(stop)
	wg.Wait()
}

func TestOpenReadClose(t *testing.T) {
	root := tempRoot(t)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	must(t, os.WriteFile(filepath.Join(root, "file"), want, 0o644))
	must(t, os.Symlink("file", filepath.Join(root, "link")))
	write(t, filepath.Join(root, "empty"), "")
	c := serve(t, root, As{})
	o := get[*protocol.Opened](c, &protocol.Open{Path: "/file", Prefetch: 1 << 20})
	if o.Attr.Size != 1<<20 || len(o.Data) != maxPrefetch || o.EOF || !bytes.Equal(o.Data, want[:maxPrefetch]) {
		t.Errorf("opened: size %d, %d bytes, end %v", o.Attr.Size, len(o.Data), o.EOF)
	}
	var got []byte
	for {
		d := get[*protocol.Data](c, &protocol.ReadAt{Handle: o.Handle, Off: int64(len(got)), N: 1 << 30})
		if len(d.Bytes) == 0 {
			break
		}
		if len(d.Bytes) > maxRead {
			t.Fatalf("%d bytes in one message", len(d.Bytes))
		}
		got = append(got, d.Bytes...)
	}
	if !bytes.Equal(got, want) {
		t.Error("the content differs")
	}
	if d := get[*protocol.Data](c, &protocol.ReadAt{Handle: o.Handle, Off: 16, N: 4}); string(d.Bytes) != "0123" {
		t.Errorf("got %q, want 0123", d.Bytes)
	}
	// A removed file can be read on.
	must(t, os.Remove(filepath.Join(root, "file")))
	if d := get[*protocol.Data](c, &protocol.ReadAt{Handle: o.Handle, Off: 1<<20 - 2, N: 9}); string(d.Bytes) != "ef" {
		t.Errorf("after removal: got %q, want ef", d.Bytes)
	}
	if _, err := c.ask(&protocol.ReadAt{Handle: o.Handle, Off: -1, N: 1}); err != syscall.EINVAL {
		t.Errorf("negative offset: %v", err)
	}
	if _, err := c.ask(&protocol.CloseHandle{Handle: o.Handle}); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := c.ask(&protocol.CloseHandle{Handle: o.Handle}); err != syscall.EBADF {
		t.Errorf("closed twice: %v, want EBADF", err)
	}
	if _, err := c.ask(&protocol.ReadAt{Handle: o.Handle, N: 1}); err != syscall.EBADF {
		t.Errorf("read after close: %v, want EBADF", err)
	}
	if o := get[*protocol.Opened](c, &protocol.Open{Path: "/empty", Prefetch: 10}); !o.EOF || len(o.Data) != 0 {
		t.Errorf("empty file: %q, end %v", o.Data, o.EOF)
	}
	must(t, os.WriteFile(filepath.Join(root, "file"), want, 0o644))
	if _, err := c.ask(&protocol.Open{Path: "/link", Flags: 0o400000}); err != syscall.ELOOP {
		t.Errorf("a link without following: %v, want ELOOP", err)
	}
	get[*protocol.Opened](c, &protocol.Open{Path: "/link"})
}

func TestOpenRefuses(t *testing.T) {
	root := tempRoot(t)
	write(t, filepath.Join(root, "file"), "x")
	must(t, os.Mkdir(filepath.Join(root, "dir"), 0o755))
	must(t, unix.Mkfifo(filepath.Join(root, "fifo"), 0o666))
	must(t, unix.Mknod(filepath.Join(root, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	l, err := net.Listen("unix", filepath.Join(root, "socket"))
	must(t, err)
	defer l.Close()
	c := serve(t, root, As{})
	for _, tc := range []struct {
		name string
		open protocol.Open
		want error
	}{
		{"directory", protocol.Open{Path: "/dir"}, syscall.EISDIR},
		{"FIFO", protocol.Open{Path: "/fifo"}, syscall.ENXIO},
		{"device", protocol.Open{Path: "/null"}, syscall.ENXIO},
		{"socket", protocol.Open{Path: "/socket"}, syscall.ENXIO},
		{"directory, to write", protocol.Open{Path: "/dir", Flags: unix.O_RDWR}, syscall.EISDIR},
		{"FIFO, to write", protocol.Open{Path: "/fifo", Flags: unix.O_WRONLY}, syscall.ENXIO},
		{"device, to write", protocol.Open{Path: "/null", Flags: unix.O_WRONLY | unix.O_CREAT}, syscall.ENXIO},
		{"what is there, exclusively", protocol.Open{Path: "/file", Flags: unix.O_RDWR | unix.O_CREAT | unix.O_EXCL}, syscall.EEXIST},
		{"creation without a directory", protocol.Open{Path: "/no/new", Flags: unix.O_CREAT}, syscall.ENOENT},
		{"creation below a file", protocol.Open{Path: "/file/new", Flags: unix.O_CREAT}, syscall.ENOTDIR},
		{"missing", protocol.Open{Path: "/missing"}, syscall.ENOENT},
		{"relative", protocol.Open{Path: "file"}, syscall.EINVAL},
		{"with a NUL", protocol.Open{Path: "/fi\x00le"}, syscall.EINVAL},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := (&client{t, c.l, c.at}).ask(&tc.open); err != tc.want {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

// TestFIFOIsNotTouched: whoever waits in the target for a reader of a FIFO must
// not take us for one.
func TestFIFOIsNotTouched(t *testing.T) {
	root := tempRoot(t)
	fifo := filepath.Join(root, "fifo")
	must(t, unix.Mkfifo(fifo, 0o666))
	c := serve(t, root, As{})
	// A reader is what O_WRONLY|O_NONBLOCK needs (fifo(7)).
	for range 50 {
		var wg sync.WaitGroup
		for _, m := range []protocol.Message{&protocol.Stat{Path: "/fifo", Prefetch: 100}, &protocol.Open{Path: "/fifo"}} {
			wg.Go(func() { c.l.Call(t.Context(), m) })
		}
		for range 20 {
			if fd, err := unix.Open(fifo, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
				unix.Close(fd)
				t.Fatal("the FIFO has a reader")
			}
		}
		wg.Wait()
	}
}

// TestRootHolds: no link and no ".." leads out of the root.
func TestRootHolds(t *testing.T) {
	outside := tempRoot(t)
	root := filepath.Join(outside, "root")
	write(t, filepath.Join(outside, "secret"), "outside")
	write(t, filepath.Join(root, "dir", "file"), "inside")
	write(t, filepath.Join(root, "etc", "passwd"), "inside")
	for name, to := range map[string]string{"up": "../../../../../../../../secret", "absolute": filepath.Join(outside, "secret"),
		"dir/etc": "/etc", "dir/up": "../..", "magic": "/realproc/self/root"} {
		must(t, os.Symlink(to, filepath.Join(root, name)))
	}
	must(t, os.Mkdir(filepath.Join(root, "realproc"), 0o755))
	must(t, unix.Mount("proc", filepath.Join(root, "realproc"), "proc", 0, ""))
	defer unix.Unmount(filepath.Join(root, "realproc"), 0)
	c := serve(t, root, As{})
	for p, want := range map[string]error{
		"/up": syscall.ENOENT, "/absolute": syscall.ENOENT, "/../secret": syscall.ENOENT, "/dir/../../secret": syscall.ENOENT,
		"/dir/up/secret": syscall.ENOENT, "/magic/etc/passwd": syscall.EXDEV,
		"/realproc/self/root/etc/passwd": syscall.EXDEV, // such a link leads anywhere
		"/realproc/self/cwd/x":           syscall.EXDEV,
		"/dir/etc/passwd":                nil, "/dir/up/etc/passwd": nil,
	} {
		if _, err := c.ask(&protocol.Open{Path: p}); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", p, err, want)
		}
		if _, err := c.ask(&protocol.Stat{Path: p, Follow: true}); !errors.Is(err, want) {
			t.Errorf("%s: stat gives %v, want %v", p, err, want)
		}
	}
	if o := get[*protocol.Opened](c, &protocol.Open{Path: "/dir/etc/passwd", Prefetch: 100}); string(o.Data) != "inside" {
		t.Errorf("an absolute link leads to %q", o.Data)
	}
	if all, _, err := c.list("/dir/up"); err != nil || !slices.ContainsFunc(all, func(e protocol.Entry) bool { return e.Name == "etc" }) {
		t.Errorf("listing of a link to the root: %v, %v", all, err)
	}
}

func TestReadDir(t *testing.T) {
	root := tempRoot(t)
	many := filepath.Join(root, "many")
	must(t, os.Mkdir(many, 0o755))
	const count = 10_000
	for i := range count {
		f, err := os.Create(filepath.Join(many, fmt.Sprintf("name-%05d", i)))
		must(t, err)
		f.Close()
	}
	must(t, os.Symlink("/to/there", filepath.Join(many, "link")))
	must(t, os.Mkdir(filepath.Join(many, "dir"), 0o700))
	must(t, os.Mkdir(filepath.Join(root, "empty"), 0o755))
	c := serve(t, root, As{})
	all, batches, err := c.list("/many")
	must(t, err)
	seen := map[string]protocol.Attr{}
	for _, e := range all {
		if _, twice := seen[e.Name]; twice {
			t.Errorf("%s is listed twice", e.Name)
		}
		seen[e.Name] = e.Attr
	}
	if len(seen) != count+2 || batches < 20 || batches > 200 {
		t.Errorf("%d names in %d batches", len(seen), batches)
	}
	if a := seen["link"]; a.Mode&unix.S_IFMT != unix.S_IFLNK || a.Link != "/to/there" {
		t.Errorf("link: %+v", a)
	}
	if a := seen["dir"]; a.Mode != unix.S_IFDIR|0o700 || a.Ino == 0 {
		t.Errorf("directory: %+v", a)
	}
	if want := get[*protocol.Attr](c, &protocol.Stat{Path: "/many/name-00042"}); fmt.Sprint(*want) != fmt.Sprint(seen["name-00042"]) {
		t.Errorf("attributes differ: listed %+v, stat %+v", seen["name-00042"], want)
	}
	if all, _, err := c.list("/empty"); err != nil || len(all) != 0 {
		t.Errorf("empty directory: %v, %v", all, err)
	}
	for p, want := range map[string]error{"/missing": syscall.ENOENT, "/many/name-00000": syscall.ENOTDIR, "many": syscall.EINVAL} {
		if _, _, err := c.list(p); err != want {
			t.Errorf("%s: got %v, want %v", p, err, want)
		}
	}
	// Whoever goes away in the middle holds nothing up.
	for range 3 * threads {
		s, err := c.l.Open(t.Context(), link.Interactive, &protocol.ReadDir{Path: "/many"})
		must(t, err)
		_, err = s.Receive()
		must(t, err)
		defer s.Close()
	}
	get[*protocol.Attr](c, &protocol.Stat{Path: "/many"})
}

// TestPermission: the target's user decides, not the agent's.
func TestPermission(t *testing.T) {
	root := tempRoot(t)
	for name, as := range map[string]struct {
		mode     os.FileMode
		uid, gid int
	}{"roots": {0o600, 0, 0}, "mine": {0o600, 1000, 1000}, "groups": {0o640, 0, 1000}, "more": {0o640, 0, 4242}, "all": {0o644, 0, 0}, "exec-only": {0o711, 0, 0}} {
		write(t, filepath.Join(root, name), name)
		must(t, os.Chown(filepath.Join(root, name), as.uid, as.gid))
		must(t, os.Chmod(filepath.Join(root, name), as.mode))
	}
	write(t, filepath.Join(root, "closed", "file"), "x")
	must(t, os.Chmod(filepath.Join(root, "closed"), 0o700))
	write(t, filepath.Join(root, "listable", "file"), "x")
	must(t, os.Chmod(filepath.Join(root, "listable"), 0o744))
	ok := error(nil)
	for _, u := range []struct {
		name string
		as   As
		want map[string]error
	}{
		{"root", As{}, map[string]error{"/roots": ok, "/mine": ok, "/groups": ok, "/more": ok, "/all": ok, "/exec-only": ok, "/closed/file": ok}},
		{"user", As{UID: 1000, GID: 1000}, map[string]error{"/roots": syscall.EACCES, "/mine": ok, "/groups": ok, "/more": syscall.EACCES, "/all": ok, "/exec-only": syscall.EACCES, "/closed/file": syscall.EACCES}},
		{"user with groups", As{UID: 1000, GID: 1000, Groups: []int{7, 4242}}, map[string]error{"/roots": syscall.EACCES, "/mine": ok, "/groups": ok, "/more": ok}},
		{"other user", As{UID: 2000, GID: 2000}, map[string]error{"/roots": syscall.EACCES, "/mine": syscall.EACCES, "/groups": syscall.EACCES, "/all": ok}},
	} {
		t.Run(u.name, func(t *testing.T) {
			c := serve(t, root, u.as)
			for p, want := range u.want {
				if _, err := c.ask(&protocol.Open{Path: p}); err != want {
					t.Errorf("opening %s: got %v, want %v", p, err, want)
				}
				reply, err := c.ask(&protocol.Stat{Path: p, Prefetch: 100})
				if p == "/closed/file" {
					if err != want {
						t.Errorf("stat of %s: got %v, want %v", p, err, want)
					}
				} else if err != nil || reply.(*protocol.Attr).HasData != (want == nil) {
					t.Errorf("stat of %s: %v, content %v", p, err, reply)
				}
			}
			if u.as.UID != 0 {
				if _, _, err := c.list("/closed"); err != syscall.EACCES {
					t.Errorf("listing: %v, want EACCES", err)
				}
				// Names may be read, files not looked at: they are listed all the same.
				all, _, err := c.list("/listable")
				if err != nil || len(all) != 1 || all[0].Name != "file" || all[0].Attr.Mode != 0 {
					t.Errorf("listing: %+v, %v", all, err)
				}
			}
		})
	}
	// The process itself is who it was.
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(root, "closed", "file"), &st); err != nil {
		t.Error(err)
	}
	if fd, err := os.Open(filepath.Join(root, "roots")); err != nil {
		t.Error(err)
	} else {
		fd.Close()
	}
}

func TestReadlinkAndStatfs(t *testing.T) {
	root := tempRoot(t)
	write(t, filepath.Join(root, "file"), "")
	long := strings.Repeat("x/", 2000) + "x"
	must(t, os.Symlink(long, filepath.Join(root, "link")))
	c := serve(t, root, As{})
	if got := get[*protocol.Data](c, &protocol.Readlink{Path: "/link"}); string(got.Bytes) != long {
		t.Errorf("got %q", got.Bytes)
	}
	if _, err := c.ask(&protocol.Readlink{Path: "/file"}); !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOENT) {
		t.Errorf("readlink of a file: %v", err)
	}
	var st unix.Statfs_t
	must(t, unix.Statfs(root, &st))
	if got := get[*protocol.Fsinfo](c, &protocol.Statfs{Path: "/file"}); got.Type != uint64(st.Type) || got.Bsize != uint64(st.Bsize) || got.Blocks != st.Blocks || got.Namelen != 255 {
		t.Errorf("got %+v, want %+v", got, st)
	}
	if _, err := c.ask(&protocol.Statfs{Path: "/missing"}); err != syscall.ENOENT {
		t.Errorf("statfs: %v", err)
	}
	// Somebody else's requests are left alone.
	if _, err := c.l.Call(t.Context(), &protocol.EnvRequest{}); !errors.Is(err, syscall.ENOSYS) {
		t.Errorf("a request that is none of files: %v", err)
	}
}

// TestErrorInTheMiddle: an error behind some bytes must not look like the end
// of the file. In /proc/self/mem every page that is not mapped is such.
func TestErrorInTheMiddle(t *testing.T) {
	const page = 4096
	mem, err := unix.Mmap(-1, 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	must(t, err)
	defer unix.Munmap(mem)
	must(t, unix.Mprotect(mem[page:], unix.PROT_NONE))
	mem[0] = 'x'
	c := serve(t, "/", As{})
	o := get[*protocol.Opened](c, &protocol.Open{Path: fmt.Sprintf("/proc/%d/mem", os.Getpid())})
	at := int64(addressOf(mem))
	if d := get[*protocol.Data](c, &protocol.ReadAt{Handle: o.Handle, Off: at, N: page}); len(d.Bytes) != page || d.Bytes[0] != 'x' {
		t.Errorf("the good page: %d bytes", len(d.Bytes))
	}
	unmapped(t, mem[page:])
	if _, err := c.ask(&protocol.ReadAt{Handle: o.Handle, Off: at, N: 2 * page}); err != syscall.EIO {
		t.Errorf("both pages: %v, want EIO", err)
	}
}

// TestLease: a file that a process of the target has a lease on is refused for
// the moment (fcntl(2)); it does not keep a thread busy.
func TestLease(t *testing.T) {
	root := tempRoot(t)
	write(t, filepath.Join(root, "leased"), "x")
	f, err := os.OpenFile(filepath.Join(root, "leased"), os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatalf("take a lease: %v", err)
	}
	c := serve(t, root, As{})
	if _, err := c.ask(&protocol.Open{Path: "/leased"}); err != syscall.EAGAIN {
		t.Errorf("got %v, want EAGAIN", err)
	}
	unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	get[*protocol.Opened](c, &protocol.Open{Path: "/leased"})
}

func TestHandleBound(t *testing.T) {
	root := tempRoot(t)
	write(t, filepath.Join(root, "file"), "x")
	c := serve(t, root, As{})
	var last uint64
	for i := range maxHandles {
		o, err := c.at.open(&protocol.Open{Path: "/file"})
		if err != nil {
			t.Fatalf("handle %d: %v", i, err)
		}
		last = o.Handle
	}
	if _, err := c.ask(&protocol.Open{Path: "/file"}); err != syscall.ENFILE {
		t.Errorf("one too many: %v, want ENFILE", err)
	}
	if _, err := c.ask(&protocol.CloseHandle{Handle: last}); err != nil {
		t.Error(err)
	}
	if o := get[*protocol.Opened](c, &protocol.Open{Path: "/file"}); o.Handle == last {
		t.Error("a handle's number is used twice")
	}
}

// TestCloseLeavesNothing: neither threads nor descriptors, also when requests
// are under way.
func TestCloseLeavesNothing(t *testing.T) {
	root := tempRoot(t)
	must(t, os.WriteFile(filepath.Join(root, "file"), make([]byte, 1<<20), 0o644))
	leak.Check(t)
	threadsBefore, _ := os.ReadDir("/proc/self/task")
	for range 5 {
		dir, err := os.Open(root)
		must(t, err)
		s, err := New(dir, As{UID: 1000, GID: 1000}, Memory{})
		must(t, err)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for {
					o, err := do(t.Context(), s, func() (*protocol.Opened, error) { return s.open(&protocol.Open{Path: "/file"}) })
					if err == nil {
						_, err = do(t.Context(), s, func() (*protocol.Data, error) { return s.readAt(&protocol.ReadAt{Handle: o.Handle, N: maxRead}) })
					}
					if err != nil {
						if !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.EBADF) {
							t.Errorf("after Close: %v, want EIO", err)
						}
						return
					}
				}
			})
		}
		s.Close()
		wg.Wait()
		s.Close()
		if _, err := s.keep(&handle{}); !errors.Is(err, syscall.EIO) {
			t.Errorf("a handle after Close: %v", err)
		}
		dir.Close()
	}
	for end := time.Now().Add(3 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		now, _ := os.ReadDir("/proc/self/task")
		if len(now) <= len(threadsBefore)+threads { // the runtime keeps some of its own
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d threads, %d before", len(now), len(threadsBefore))
		}
	}
}

// TestRefusedIdentity: an agent that may not act as the target's user says so.
func TestRefusedIdentity(t *testing.T) {
	dir, err := os.Open("/")
	must(t, err)
	defer dir.Close()
	var werr, own error
	var wg sync.WaitGroup
	wg.Go(func() {
		// A thread of its own loses its rights; those that New starts inherit them
		// only if they are cloned from it, so ask the step itself.
		lockedAs(t, 1000)
		werr = As{UID: 2000, GID: 2000}.become()
		own = As{UID: 1000, GID: 1000, Groups: []int{5}}.become() // its groups are as good
	})
	wg.Wait()
	if own != nil {
		t.Errorf("an ordinary user as himself: %v", own)
	}
	if !errors.Is(werr, syscall.EPERM) {
		t.Errorf("got %v, want EPERM", werr)
	}
}

// testMemory is more than an agent has.
func testMemory() Memory {
	const each = 32 << 20
	b := budget.New(2 * each)
	return Memory{Questions: b.Share(each, each), Reads: b.Share(each, each)}
}

// TestContent: the agent's own look at a file stays below the root and does nothing to
// what is none.
func TestContent(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{"key": "secret", "empty": "", "large": strings.Repeat("x", 101)} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"link": "/key", "out": "../../../../etc/passwd"} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(root, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	s, err := New(dir, As{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}, testMemory())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, c := range []struct {
		name, want string
		errno      syscall.Errno
	}{
		{"/key", "secret", 0}, {"/empty", "", 0}, {"/link", "secret", 0}, {"/large", "", syscall.EFBIG}, {"/pipe", "", syscall.EINVAL}, {"/", "", syscall.EINVAL},
		{"/out", "", syscall.ENOENT}, {"/none", "", syscall.ENOENT}, {"key", "", syscall.EINVAL},
	} {
		got, err := s.Content(t.Context(), c.name, 100)
		if c.errno == 0 && (string(got) != c.want || err != nil) || c.errno != 0 && !errors.Is(err, c.errno) {
			t.Errorf("%s: got %q, %v, want %q, %v", c.name, got, err, c.want, c.errno)
		}
	}
}
