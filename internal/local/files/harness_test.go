package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/local/fusefs"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
	"github.com/mirrord-go/mirrord/internal/statx"
)

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests make directories in /, where nothing is local by default: run them as root")
		os.Exit(1)
	}
	os.Exit(leak.Main(m))
}

// target plays the agent: it shows what is below a directory of this machine.
type target struct {
	t    testing.TB
	root string

	mu      sync.Mutex
	hook    func(s *link.Stream, m protocol.Message) bool // see on
	asked   map[string]int                                // requests by message and path
	handles map[uint64]*os.File
	last    uint64
}

// view is a tree with all around it. local(p) and remote(p) are where p of the
// tree is on the two sides; base is a directory that no default rule knows.
type view struct {
	*Tree
	t      testing.TB
	target *target
	link   *link.Conn
	base   string

	mu     sync.Mutex
	events []event.Event
}

func (v *view) in(p string) string     { return path.Join(v.base, p) }
func (v *view) remote(p string) string { return path.Join(v.target.root, p) }

// newView makes a view whose rules and plan set may change; base is given to it.
func newView(t testing.TB, set func(base string, o *Options)) *view {
	t.Helper()
	base, err := os.MkdirTemp("/", "files-test-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(base) })
	tg := &target{t: t, root: t.TempDir(), asked: map[string]int{}, handles: map[uint64]*os.File{}}
	must(t, os.MkdirAll(tg.root+base, 0o755))
	near, far := net.Pipe()
	local, agent := link.New(near, link.Local, link.Options{}), link.New(far, link.Agent, link.Options{})
	v := &view{t: t, target: tg, link: local, base: base}
	o := Options{Life: DefaultLife, Peer: local, Rules: ruled(t, rules.FilesOptions{}, rules.Places{}), Emit: func(e event.Event) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.events = append(v.events, e)
	}}
	if set != nil {
		set(base, &o)
	}
	v.Tree = New(o)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			s, m, err := agent.Accept(context.Background())
			if err != nil {
				return
			}
			wg.Go(func() { tg.answer(s, m) })
		}
	})
	t.Cleanup(func() {
		v.Tree.Close()
		local.Close("")
		agent.Close("")
		wg.Wait()
		for _, f := range tg.handles {
			f.Close()
		}
	})
	return v
}

// ruled makes rules of patterns that are known to be good.
func ruled(t testing.TB, o rules.FilesOptions, at rules.Places) *rules.Files {
	t.Helper()
	f, err := rules.NewFiles(o, at)
	must(t, err)
	return f
}

// texts makes patterns.
func texts(list ...string) (all []rules.Pattern) {
	for _, text := range list {
		all = append(all, rules.Pattern{Text: text})
	}
	return all
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write makes a file, or a directory if p ends with "/", or a link if content
// begins with "-> ".
func write(t testing.TB, p, content string) {
	t.Helper()
	if strings.HasSuffix(p, "/") {
		must(t, os.MkdirAll(p, 0o755))
		return
	}
	must(t, os.MkdirAll(filepath.Dir(p), 0o755))
	if to, ok := strings.CutPrefix(content, "-> "); ok {
		must(t, os.Symlink(to, p))
		return
	}
	must(t, os.WriteFile(p, []byte(content), 0o644))
}

// has makes files on both sides, given below base.
func (v *view) has(local, remote map[string]string) {
	v.t.Helper()
	for p, content := range local {
		write(v.t, v.base+p, content)
	}
	for p, content := range remote {
		write(v.t, v.target.root+v.base+p, content)
	}
}

func (v *view) codes(code string) (n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range v.events {
		if e.Code == code {
			n++
		}
	}
	return n
}

// count is how often something was asked; of all paths if p is empty.
func (tg *target) count(kind, p string) (n int) {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	for k, c := range tg.asked {
		if what, at, _ := strings.Cut(k, " "); what == kind && (p == "" || at == p) {
			n += c
		}
	}
	return n
}

// on lets hook see every request first; it returns true if it has dealt with it.
func (tg *target) on(hook func(s *link.Stream, m protocol.Message) bool) {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	tg.hook = hook
}

func (tg *target) open() int {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	return len(tg.handles)
}

func (tg *target) answer(s *link.Stream, m protocol.Message) {
	defer s.Close()
	for {
		if !tg.answerOne(s, m) {
			return
		}
		switch m.(type) { // these may follow each other
		case *protocol.Open, *protocol.ReadAt, *protocol.WriteAt, *protocol.Resize, *protocol.SyncHandle, *protocol.Allocate:
		default:
			return
		}
		var err error
		if m, err = s.Receive(); err != nil {
			return
		}
	}
}

// answerOne answers m; false if the stream is not to be used any more.
func (tg *target) answerOne(s *link.Stream, m protocol.Message) bool {
	what, p := strings.TrimPrefix(fmt.Sprintf("%T", m), "*protocol."), ""
	switch m := m.(type) {
	case *protocol.Stat:
		p = m.Path
	case *protocol.Open:
		p = m.Path
	case *protocol.ReadDir:
		p = m.Path
	}
	tg.mu.Lock()
	tg.asked[what+" "+p]++
	hook := tg.hook
	tg.mu.Unlock()
	if hook != nil && hook(s, m) {
		return true
	}
	reply, err := tg.reply(m)
	if err != nil {
		errno := syscall.EIO
		errors.As(err, &errno)
		reply = &protocol.Answer{Errno: errno}
	}
	if reply != nil {
		return s.Send(reply) == nil
	}
	return true
}

func (tg *target) at(p string, flags uint64) (*os.File, error) {
	return tg.openat(p, &unix.OpenHow{Flags: flags})
}

func (tg *target) openat(p string, how *unix.OpenHow) (*os.File, error) {
	how.Flags |= unix.O_CLOEXEC
	how.Resolve = unix.RESOLVE_IN_ROOT
	dir, err := os.Open(tg.root)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	fd, err := unix.Openat2(int(dir.Fd()), "."+p, how)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), p), nil
}

func (tg *target) attr(fd int) protocol.Attr {
	all, err := statx.At(fd, "")
	must(tg.t, err)
	a := *all
	a.Mount = 0 // as with an old kernel
	if a.Mode&unix.S_IFMT == unix.S_IFLNK {
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(fd, "", buf)
		must(tg.t, err)
		a.Link = string(buf[:n])
	}
	return a
}

// use does something with an open handle's file.
func (tg *target) use(handle uint64, do func(f *os.File) error) error {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	if f := tg.handles[handle]; f != nil {
		return do(f)
	}
	return syscall.EBADF
}

// change answers what changes something.
func (tg *target) change(m protocol.Message) (protocol.Message, error) {
	yes := &protocol.Answer{}
	// The tests' target has no links above what is changed.
	at := func(p string) string { return tg.root + p }
	attr := func(p string) (protocol.Message, error) { return tg.reply(&protocol.Stat{Path: p}) }
	switch m := m.(type) {
	case *protocol.WriteAt:
		return yes, tg.use(m.Handle, func(f *os.File) error {
			_, err := unix.Pwrite(int(f.Fd()), m.Data, m.Off)
			return err
		})
	case *protocol.Resize:
		return yes, tg.use(m.Handle, func(f *os.File) error { return f.Truncate(int64(m.Size)) })
	case *protocol.SyncHandle:
		return yes, tg.use(m.Handle, func(*os.File) error { return nil })
	case *protocol.Make:
		var err error
		switch p := at(m.Path); {
		case m.Old != "":
			err = unix.Link(at(m.Old), p)
		case m.Handle != 0:
			err = tg.use(m.Handle, func(f *os.File) error {
				return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, p, unix.AT_SYMLINK_FOLLOW)
			})
		case m.Mode&unix.S_IFMT == unix.S_IFDIR:
			err = unix.Mkdir(p, m.Mode&0o7777)
		case m.Mode&unix.S_IFMT == unix.S_IFLNK:
			err = unix.Symlink(m.Text, p)
		default:
			err = unix.Mknod(p, m.Mode, 0)
		}
		if err != nil {
			return nil, err
		}
		return attr(m.Path)
	case *protocol.Remove:
		if m.Dir {
			return yes, unix.Rmdir(at(m.Path))
		}
		return yes, unix.Unlink(at(m.Path))
	case *protocol.Rename:
		return yes, unix.Renameat2(unix.AT_FDCWD, at(m.Old), unix.AT_FDCWD, at(m.New), uint(m.Flags))
	case *protocol.SetAttr:
		p, chown := at(m.Path), os.Lchown
		if m.Handle != 0 {
			chown = os.Chown
			if err := tg.use(m.Handle, func(f *os.File) error { p = fmt.Sprintf("/proc/self/fd/%d", f.Fd()); return nil }); err != nil {
				return nil, err
			}
		}
		if m.What&(protocol.SetUID|protocol.SetGID) != 0 {
			uid, gid := -1, -1
			if m.What&protocol.SetUID != 0 {
				uid = int(m.UID)
			}
			if m.What&protocol.SetGID != 0 {
				gid = int(m.GID)
			}
			if err := chown(p, uid, gid); err != nil {
				return nil, err
			}
		}
		if m.What&protocol.SetMode != 0 {
			if err := unix.Chmod(p, m.Mode); err != nil {
				return nil, err
			}
		}
		if m.What&protocol.SetSize != 0 {
			if err := unix.Truncate(p, int64(m.Size)); err != nil {
				return nil, err
			}
		}
		if m.What&protocol.SetMtime != 0 {
			now := time.Unix(0, m.Mtime)
			if m.What&protocol.SetMtimeNow != 0 {
				now = time.Now()
			}
			if err := os.Chtimes(p, time.Time{}, now); err != nil {
				return nil, err
			}
		}
		if m.Handle != 0 {
			return tg.reply(&protocol.Stat{Handle: m.Handle})
		}
		return attr(m.Path)
	case *protocol.Allocate:
		return yes, tg.use(m.Handle, func(f *os.File) error { return unix.Fallocate(int(f.Fd()), m.Mode, int64(m.Off), int64(m.Len)) })
	case *protocol.CopyRange:
		n := 0
		return tg.position(m.From, func(from *os.File) (int64, error) {
			to, fromOff, toOff := tg.handles[m.To], m.FromOff, m.ToOff
			var err error
			n, err = unix.CopyFileRange(int(from.Fd()), &fromOff, int(to.Fd()), &toOff, int(m.Len), 0)
			return int64(n), err
		})
	case *protocol.SetXattr:
		return yes, unix.Lsetxattr(at(m.Path), m.Name, m.Value, int(m.Flags))
	case *protocol.RemoveXattr:
		return yes, unix.Lremovexattr(at(m.Path), m.Name)
	}
	return nil, syscall.ENOSYS
}

// position answers with a number that an open file gives.
func (tg *target) position(handle uint64, get func(f *os.File) (int64, error)) (protocol.Message, error) {
	p := &protocol.Position{}
	err := tg.use(handle, func(f *os.File) (err error) {
		p.Off, err = get(f)
		return err
	})
	return p, err
}

func (tg *target) reply(m protocol.Message) (protocol.Message, error) {
	switch m := m.(type) {
	case *protocol.Stat:
		if m.Handle != 0 {
			var a protocol.Attr
			err := tg.use(m.Handle, func(f *os.File) error {
				a = tg.attr(int(f.Fd()))
				return nil
			})
			return &a, err
		}
		flags := uint64(unix.O_PATH | unix.O_NOFOLLOW)
		if m.Follow {
			flags = unix.O_PATH
		}
		f, err := tg.at(m.Path, flags)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		a := tg.attr(int(f.Fd()))
		if a.Mode&unix.S_IFMT == unix.S_IFREG && a.Size <= uint64(m.Prefetch) && m.Prefetch > 0 {
			if a.Data, err = os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); err != nil {
				return nil, err
			}
			a.HasData = true
		}
		return &a, nil
	case *protocol.Open:
		how := &unix.OpenHow{Flags: uint64(m.Flags)}
		if m.Flags&(unix.O_CREAT|unix.O_TMPFILE) != 0 {
			how.Mode = uint64(m.Mode)
		}
		f, err := tg.openat(m.Path, how)
		if err != nil {
			return nil, err
		}
		buf := make([]byte, m.Prefetch)
		n, _ := f.ReadAt(buf, 0)
		tg.mu.Lock()
		defer tg.mu.Unlock()
		tg.last++
		tg.handles[tg.last] = f
		return &protocol.Opened{Handle: tg.last, Attr: tg.attr(int(f.Fd())), Data: buf[:n], EOF: n < len(buf)}, nil
	case *protocol.ReadAt:
		buf := make([]byte, m.N)
		n := 0
		err := tg.use(m.Handle, func(f *os.File) (err error) {
			if n, err = f.ReadAt(buf, m.Off); errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		})
		return &protocol.Data{Bytes: buf[:n]}, err
	case *protocol.CloseHandle:
		tg.mu.Lock()
		f := tg.handles[m.Handle]
		delete(tg.handles, m.Handle)
		tg.mu.Unlock()
		return &protocol.Answer{}, f.Close()
	case *protocol.Seek:
		return tg.position(m.Handle, func(f *os.File) (int64, error) { return unix.Seek(int(f.Fd()), m.Off, int(m.Whence)) })
	case *protocol.GetXattr:
		buf := make([]byte, protocol.MaxXattr)
		n, err := unix.Lgetxattr(tg.root+m.Path, m.Name, buf)
		return &protocol.Data{Bytes: buf[:max(n, 0)]}, err
	case *protocol.ListXattr:
		buf := make([]byte, protocol.MaxXattr)
		n, err := unix.Llistxattr(tg.root+m.Path, buf)
		return &protocol.Data{Bytes: buf[:max(n, 0)]}, err
	case *protocol.Statfs:
		f, err := tg.at(m.Path, unix.O_PATH)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return &protocol.Fsinfo{Type: 42, Namelen: 255}, nil
	case *protocol.ReadDir:
		f, err := tg.at(m.Path, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		names, err := f.Readdirnames(-1)
		if err != nil {
			return nil, err
		}
		e := &protocol.Entries{}
		for _, n := range names {
			c, err := tg.at(path.Join(m.Path, n), unix.O_PATH|unix.O_NOFOLLOW)
			if err != nil {
				return nil, err
			}
			e.List = append(e.List, protocol.Entry{Name: n, Attr: tg.attr(int(c.Fd()))})
			c.Close()
		}
		return e, nil
	}
	return tg.change(m)
}

// errno is the bare errno of err, for comparing.
func errno(err error) error {
	if e := syscall.Errno(0); errors.As(err, &e) {
		return e
	}
	return err
}

// content reads a file of the view as the kernel would: by looking it up,
// opening it, and again when that says ESTALE.
func (v *view) content(p string) (string, error) {
	v.t.Helper()
	f, err := v.openFile(p, unix.O_RDONLY)
	if err != nil {
		return "", errno(err)
	}
	defer f.Close()
	return v.all(f)
}

func (v *view) all(f fusefs.File) (string, error) {
	var b strings.Builder
	buf := make([]byte, 128<<10)
	for {
		n, err := f.ReadAt(v.t.Context(), buf, int64(b.Len()))
		b.Write(buf[:n])
		if err != nil || n == 0 {
			return b.String(), errno(err)
		}
	}
}

func (v *view) openFile(p string, flags uint32) (fusefs.File, error) {
	var err error
	for range 2 {
		var n fusefs.Node
		if n, err = v.Lookup(v.t.Context(), p); err != nil {
			return nil, err
		}
		var f fusefs.File
		if f, err = v.Open(v.t.Context(), p, n.Key, flags); !errors.Is(err, syscall.ESTALE) {
			return f, err
		}
	}
	return nil, err
}

// side says where the node at p comes from, "none" if there is none.
func (v *view) side(p string) string {
	v.t.Helper()
	n, err := v.Lookup(v.t.Context(), p)
	if err != nil {
		if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ENOTDIR) {
			v.t.Errorf("%s: %v", p, err)
		}
		return "none"
	}
	return map[side]string{sideOther: "fixed", sideLocal: "local", sideRemote: "remote", sideView: "view"}[sideOf(n.Key)]
}
