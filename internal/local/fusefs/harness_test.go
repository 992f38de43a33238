package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/splice"
	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/local/ids"
	"github.com/mirrord-go/mirrord/internal/local/waits"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// A test serves a tree made of memory. The mount is in namespaces of a child,
// this binary again, which plays a program there: one of the functions in acts.
// All of it runs as root, and once more as an ordinary user.

const (
	actVar   = "FUSEFS_TEST_ACT"
	mountVar = "FUSEFS_TEST_MOUNT"
	userVar  = "FUSEFS_TEST_USER"
	userUID  = 1000
	// With the race detector every program would wait a second at its end.
	quickExit = "GORACE=atexit_sleep_ms=0"
)

func TestMain(m *testing.M) {
	switch act := os.Getenv(actVar); {
	case act == "hello":
		fmt.Print("hello from a program in the mount")
		os.Exit(0)
	case act == "read": // forever, if nobody answers
		_, err := os.ReadFile(os.Args[1])
		fmt.Print(err)
		os.Exit(0)
	case act != "":
		os.Exit(play(act))
	}
	// The library keeps a pool of pipes, and once it has emptied one, /dev/null.
	if p, err := splice.Get(); err == nil {
		splice.Done(p)
	}
	os.Exit(leak.Main(m))
}

// TestOrdinaryUser runs the other tests as one.
func TestOrdinaryUser(t *testing.T) {
	if os.Getenv(userVar) != "" {
		return
	}
	if os.Geteuid() != 0 {
		t.Fatal("these tests run as root and as an ordinary user: start them as root")
	}
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), userVar+"=1", "TMPDIR=/tmp", quickExit)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: userUID, Gid: userUID}, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestLooking")) {
		t.Errorf("as user %d: %v\n%s", userUID, err, out)
	}
}

// mounted serves t to the act, which it waits for. It returns what the act
// printed; a failed act fails the test.
func mounted(t *testing.T, tree *memory, act string) string {
	t.Helper()
	m := begin(t, tree, act)
	out := m.wait()
	if err := m.srv.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	return out
}

type mounting struct {
	t     *testing.T
	cmd   *exec.Cmd
	out   bytes.Buffer
	srv   *Server
	waits waits.Table
}

func begin(t *testing.T, tree *memory, act string) *mounting {
	t.Helper()
	mnt := t.TempDir()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	m := &mounting{t: t, cmd: exec.Command("/proc/self/exe")}
	m.cmd.Env = append(os.Environ(), actVar+"="+act, mountVar+"="+mnt, quickExit)
	m.cmd.Stdout, m.cmd.Stderr, m.cmd.ExtraFiles = &m.out, &m.out, []*os.File{theirs}
	id := func(n int) []syscall.SysProcIDMap {
		return []syscall.SysProcIDMap{{ContainerID: n, HostID: n, Size: 1}}
	}
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
		UidMappings: id(os.Getuid()), GidMappings: id(os.Getgid()), AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN}}
	known := ids.Known{UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Users: ids.Set{{First: uint32(os.Getuid()), Count: 1}}, Groups: ids.Set{{First: uint32(os.Getgid()), Count: 1}}}
	if tree.known.Users != nil {
		known = tree.known
		m.cmd.SysProcAttr.UidMappings, m.cmd.SysProcAttr.GidMappings = mappings(known.Users), mappings(known.Groups)
	}
	err = m.cmd.Start()
	theirs.Close()
	must(t, err)
	t.Cleanup(func() {
		m.cmd.Process.Kill()
		m.cmd.Wait()
		splice.ClearSplicePool()
	})
	c, err := net.FileConn(ours)
	must(t, err)
	defer c.Close()
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := c.(*net.UnixConn).ReadMsgUnix(make([]byte, 1), oob)
	if err != nil || n == 0 {
		t.Fatalf("no mount: %v: %s", err, m.wait())
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	must(t, err)
	got, err := unix.ParseUnixRights(&msgs[0])
	must(t, err)
	m.srv, err = Serve(os.NewFile(uintptr(got[0]), "fuse"), tree, known, m.waits.Observe)
	must(t, err)
	_, err = c.Write([]byte("go"))
	must(t, err)
	return m
}

// mappings lets each id stand for itself, which only root may ask for.
func mappings(all ids.Set) (maps []syscall.SysProcIDMap) {
	for _, r := range all {
		maps = append(maps, syscall.SysProcIDMap{ContainerID: int(r.First), HostID: int(r.First), Size: int(r.Count)})
	}
	return maps
}

func (m *mounting) wait() string {
	m.t.Helper()
	timer := time.AfterFunc(20*time.Second, func() { m.cmd.Process.Kill() })
	defer timer.Stop()
	if err := m.cmd.Wait(); err != nil {
		m.t.Errorf("the act: %v\n%s", err, m.out.String())
	}
	return m.out.String()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// play is the child: it mounts, hands the device over and acts.
func play(act string) int {
	err := func() error {
		mnt := os.Getenv(mountVar)
		dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,max_read=%d", dev.Fd(), os.Getuid(), os.Getgid(), MaxRead)
		if err := unix.Mount("test", mnt, "fuse.test", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
			return fmt.Errorf("mount: %w", err)
		}
		if err := unix.Sendmsg(3, []byte{0}, unix.UnixRights(int(dev.Fd())), nil, 0); err != nil {
			return err
		}
		dev.Close()
		if n, err := unix.Read(3, make([]byte, 2)); n != 2 || err != nil {
			return fmt.Errorf("no go: %v", err)
		}
		unix.Close(3)
		if err := os.Chdir(mnt); err != nil {
			return err
		}
		// Until the kernel has asked for the root's owner it takes root, who is
		// nobody here.
		if _, err := os.Stat("."); err != nil {
			return err
		}
		a := &actor{mnt: mnt}
		acts[act](a)
		return errors.Join(a.failures...)
	}()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// actor collects what goes wrong in an act.
type actor struct {
	mnt      string
	failures []error
}

func (a *actor) errorf(format string, args ...any) {
	a.failures = append(a.failures, fmt.Errorf(format, args...))
}

func (a *actor) is(what string, got, want any) {
	if fmt.Sprint(got) != fmt.Sprint(want) {
		a.errorf("%s: got %v, want %v", what, got, want)
	}
}

func (a *actor) ok(what string, err error) {
	if err != nil {
		a.errorf("%s: %v", what, err)
	}
}

func (a *actor) fails(what string, err error, want syscall.Errno) {
	if !errors.Is(err, want) {
		a.errorf("%s: got %v, want %v", what, err, want)
	}
}

// memory is a tree. Its hooks may be nil.
type memory struct {
	mu     sync.Mutex
	nodes  map[string]*item
	last   uint64
	calls  map[string]int // by method and path
	onOpen func(path string, key uint64, flags uint32) error
	onRead func(ctx context.Context, path string) error
	bad    map[string]int64 // where files cannot be read any more
	onCall func()           // before every method
	keep   time.Duration
	mixed  bool
	known  ids.Known // in the namespace of the act; none: the caller's
}

type item struct {
	Node
	content []byte
	link    string
	xattrs  map[string]string
	becomes *item // at the first change
}

func newMemory(files map[string]string) *memory {
	m := &memory{nodes: map[string]*item{}, calls: map[string]int{}, last: 10, keep: time.Minute}
	m.put("/", unix.S_IFDIR|0o755, "")
	for p, content := range files {
		for d := path.Dir(p); d != "/"; d = path.Dir(d) {
			if m.nodes[d] == nil {
				m.put(d, unix.S_IFDIR|0o755, "")
			}
		}
		if to, ok := strings.CutPrefix(content, "-> "); ok {
			m.put(p, unix.S_IFLNK|0o777, to)
		} else {
			m.put(p, unix.S_IFREG|0o644, content)
		}
	}
	return m
}

// put makes or replaces a node; whoever calls holds the lock or is alone.
func (m *memory) put(p string, mode uint32, content string) *item {
	m.last++
	n := &item{content: []byte(content)}
	n.Key, n.Keep, n.KeepAttr = m.last, m.keep, m.keep
	n.Attr = protocol.Attr{Mode: mode, Nlink: 1, Size: uint64(len(content)), Mtime: 1e18 + int64(m.last), Ctime: 1e18, Atime: 1e18, Blksize: 4096}
	if mode&unix.S_IFMT == unix.S_IFLNK {
		n.link = content
	}
	m.nodes[p] = n
	return n
}

func (m *memory) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

func (m *memory) count(call string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls[call]
}

// enter counts a call and gives the item at p; the caller unlocks.
func (m *memory) enter(call, p string) (*item, error) {
	if m.onCall != nil {
		m.onCall()
	}
	m.mu.Lock()
	m.calls[call+" "+p]++
	m.calls[call]++
	n := m.nodes[p]
	if n == nil {
		return nil, syscall.ENOENT
	}
	return n, nil
}

func (m *memory) Lookup(_ context.Context, p string) (Node, error) {
	n, err := m.enter("Lookup", p)
	defer m.mu.Unlock()
	if err != nil {
		return Node{Keep: m.keep}, err
	}
	return n.Node, nil
}

func (m *memory) List(_ context.Context, p string) ([]Entry, error) {
	_, err := m.enter("List", p)
	defer m.mu.Unlock()
	var list []Entry
	for c, n := range m.nodes {
		if c != "/" && path.Dir(c) == p {
			list = append(list, Entry{path.Base(c), n.Node})
		}
	}
	return list, err
}

func (m *memory) Mixed(string) bool { return m.mixed }

func (m *memory) Owner(_ uint64, a *protocol.Attr) (uid, gid uint32) { return a.UID, a.GID }

func (m *memory) Readlink(_ context.Context, p string, _ uint64) (string, error) {
	n, err := m.enter("Readlink", p)
	defer m.mu.Unlock()
	if err != nil {
		return "", err
	}
	return n.link, nil
}

func (m *memory) Open(_ context.Context, p string, key uint64, flags uint32) (File, error) {
	if m.onOpen != nil {
		if err := m.onOpen(p, key, flags); err != nil {
			return nil, err
		}
	}
	n, err := m.enter("Open", p)
	defer m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if flags&unix.O_TRUNC != 0 {
		n.content, n.Attr.Size = nil, 0
	}
	return &open{m: m, n: n, p: p, appends: flags&unix.O_APPEND != 0}, nil
}

func (m *memory) make(p string, mode uint32, content string) (*item, error) {
	n, err := m.enter("make", p)
	defer m.mu.Unlock()
	if err == nil {
		return n, syscall.EEXIST
	}
	return m.put(p, mode, content), nil
}

func (m *memory) Create(_ context.Context, p string, _, mode uint32) (File, error) {
	n, err := m.make(p, unix.S_IFREG|mode, "")
	if err != nil {
		return nil, err
	}
	return &open{m: m, n: n, p: p}, nil
}

func (m *memory) Mkdir(_ context.Context, p string, mode uint32) error {
	_, err := m.make(p, unix.S_IFDIR|mode, "")
	return err
}

func (m *memory) Mknod(_ context.Context, p string, mode, _ uint32) error {
	_, err := m.make(p, mode, "")
	return err
}

func (m *memory) Symlink(_ context.Context, to, p string) error {
	_, err := m.make(p, unix.S_IFLNK|0o777, to)
	return err
}

func (m *memory) Link(_ context.Context, old, p string) error {
	n, err := m.enter("Link", old)
	defer m.mu.Unlock()
	if err == nil {
		n.Attr.Nlink++
		m.nodes[p] = n
	}
	return err
}

func (m *memory) Unlink(_ context.Context, p string) error {
	_, err := m.enter("Unlink", p)
	defer m.mu.Unlock()
	delete(m.nodes, p)
	return err
}

func (m *memory) Rmdir(ctx context.Context, p string) error { return m.Unlink(ctx, p) }

func (m *memory) Rename(_ context.Context, old, p string, flags uint32) error {
	_, err := m.enter("Rename", old)
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	move := func(from, to string) map[string]*item {
		got := map[string]*item{}
		for c, n := range m.nodes {
			if c == from || strings.HasPrefix(c, from+"/") {
				got[to+c[len(from):]] = n
				delete(m.nodes, c)
			}
		}
		return got
	}
	there, back := move(old, p), map[string]*item{}
	if flags&unix.RENAME_EXCHANGE != 0 {
		back = move(p, old)
	}
	for _, set := range []map[string]*item{there, back} {
		for c, n := range set {
			m.nodes[c] = n
		}
	}
	return nil
}

func (m *memory) Setattr(_ context.Context, p string, key uint64, c Change) error {
	n, err := m.enter("Setattr", p)
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	if n.becomes != nil && n.Key == key {
		m.nodes[p], n = n.becomes, n.becomes
	}
	if n.Key != key {
		return syscall.ESTALE
	}
	if c.UID != nil {
		n.Attr.UID = *c.UID
	}
	if c.GID != nil {
		n.Attr.GID = *c.GID
	}
	if c.Mode != nil {
		n.Attr.Mode = n.Attr.Mode&unix.S_IFMT | *c.Mode&0o7777
	}
	if c.Size != nil {
		n.resize(int64(*c.Size))
	}
	if c.Mtime != nil {
		n.Attr.Mtime = c.Mtime.UnixNano()
	}
	return nil
}

func (m *memory) Tmpfile(_ context.Context, _ string, _, mode uint32) (Node, File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.put("unnamed", unix.S_IFREG|mode&0o7777, "")
	delete(m.nodes, "unnamed")
	n.Attr.Nlink = 0
	return n.Node, &open{m: m, n: n}, nil
}

func (m *memory) Name(_ context.Context, f File, p string) error {
	m.change(func() {
		n := f.(*open).n
		n.Attr.Nlink++
		m.nodes[p] = n
	})
	return nil
}

func (m *memory) Xattr(_ context.Context, p string, _ uint64, name string) ([]byte, error) {
	n, err := m.enter("Xattr", p)
	defer m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if v, ok := n.xattrs[name]; ok {
		return []byte(v), nil
	}
	return nil, syscall.ENODATA
}

func (m *memory) Xattrs(_ context.Context, p string, _ uint64) ([]byte, error) {
	n, err := m.enter("Xattrs", p)
	defer m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	var all []byte
	for name := range n.xattrs {
		all = append(append(all, name...), 0)
	}
	return all, nil
}

func (m *memory) SetXattr(_ context.Context, p string, _ uint64, name string, value []byte, _ uint32) error {
	n, err := m.enter("SetXattr", p)
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	if n.xattrs == nil {
		n.xattrs = map[string]string{}
	}
	n.xattrs[name] = string(value)
	return nil
}

func (m *memory) RemoveXattr(_ context.Context, p string, _ uint64, name string) error {
	n, err := m.enter("RemoveXattr", p)
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	delete(n.xattrs, name)
	return nil
}

func (m *memory) Access(_ context.Context, p string, mask uint32) error {
	n, err := m.enter("Access", p)
	defer m.mu.Unlock()
	if err == nil && mask&^(n.Attr.Mode>>6)&7 != 0 {
		return syscall.EACCES
	}
	return err
}

func (m *memory) Statfs(_ context.Context, p string) (protocol.Fsinfo, error) {
	_, err := m.enter("Statfs", p)
	defer m.mu.Unlock()
	return protocol.Fsinfo{Bsize: 512, Blocks: 77, Namelen: 255}, err
}

func (n *item) resize(size int64) {
	for int64(len(n.content)) < size {
		n.content = append(n.content, 0)
	}
	n.content = n.content[:size]
	n.Attr.Size = uint64(size)
	n.Attr.Mtime++
}

// open is an open file of memory.
type open struct {
	m *memory
	n *item
	p string

	appends bool
}

func (o *open) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if o.m.onRead != nil {
		if err := o.m.onRead(ctx, o.p); err != nil {
			return 0, err
		}
	}
	o.m.mu.Lock()
	defer o.m.mu.Unlock()
	o.m.calls["ReadAt "+o.p]++
	if off >= int64(len(o.n.content)) {
		return 0, nil
	}
	n := copy(p, o.n.content[off:])
	if bad := o.m.bad[o.p]; bad > 0 && off+int64(n) > bad {
		return int(max(bad-off, 0)), syscall.EIO
	}
	return n, nil
}

func (o *open) Sizeless() bool {
	o.m.mu.Lock()
	defer o.m.mu.Unlock()
	return o.n.Attr.Size == 0 && len(o.n.content) > 0
}

func (o *open) WriteAt(_ context.Context, p []byte, off int64, inPlace bool) (int, error) {
	o.m.mu.Lock()
	defer o.m.mu.Unlock()
	if o.appends && !inPlace {
		off = int64(len(o.n.content))
	}
	if end := off + int64(len(p)); end > int64(len(o.n.content)) {
		o.n.resize(end)
	}
	return copy(o.n.content[off:], p), nil
}

func (o *open) Truncate(_ context.Context, size int64) error {
	o.m.change(func() { o.n.resize(size) })
	return nil
}

func (o *open) Stat(context.Context) (protocol.Attr, time.Duration, error) {
	o.m.mu.Lock()
	defer o.m.mu.Unlock()
	return o.n.Attr, o.n.KeepAttr, nil
}

func (o *open) Setattr(_ context.Context, c Change) error {
	o.m.change(func() {
		if c.Mode != nil {
			o.n.Attr.Mode = o.n.Attr.Mode&unix.S_IFMT | *c.Mode
		}
	})
	return nil
}

func (o *open) Allocate(_ context.Context, off, size uint64, _ uint32) error {
	o.m.change(func() { o.n.resize(int64(max(off+size, o.n.Attr.Size))) })
	return nil
}

// Seek finds data up to the first byte that is 0, and a hole from there on.
func (o *open) Seek(_ context.Context, off int64, whence uint32) (int64, error) {
	o.m.mu.Lock()
	defer o.m.mu.Unlock()
	hole := bytes.IndexByte(o.n.content, 0)
	switch {
	case whence == unix.SEEK_HOLE && hole >= 0:
		return max(off, int64(hole)), nil
	case whence == unix.SEEK_DATA && hole >= 0 && off >= int64(hole):
		return 0, syscall.ENXIO
	}
	return off, nil
}

func (o *open) CopyFrom(_ context.Context, from File, fromOff, off int64, n uint64) (int64, error) {
	src := from.(*open)
	o.m.mu.Lock()
	defer o.m.mu.Unlock()
	o.m.calls["CopyFrom"]++
	part := src.n.content[fromOff:min(int(fromOff)+int(n), len(src.n.content))]
	o.n.resize(max(int64(len(o.n.content)), off+int64(len(part))))
	return int64(copy(o.n.content[off:], part)), nil
}

func (o *open) Sync(context.Context) error { return nil }

func (o *open) Flush(context.Context) error {
	o.m.change(func() { o.m.calls["Flush "+o.p]++ })
	return nil
}

func (o *open) Close() error {
	o.m.change(func() { o.m.calls["Close "+o.p]++ })
	return nil
}
