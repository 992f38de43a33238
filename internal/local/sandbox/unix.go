package sandbox

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/unixsock"
)

// This file is about connect(2) to unix sockets that are not this machine's. The
// call waits while the far end is dialed; then the supervisor connects the
// program's own socket, of which it has a duplicate, to a listener of its own.
// So it is the same socket afterwards, with all its options and in every epoll.

const (
	// maxUnixDials bounds how many of these calls wait for the far end at once,
	// each a goroutine and two descriptors. One more gets EAGAIN, as from a server
	// that is busy.
	maxUnixDials = 512
	// lastTime is how long what the last process of the tree has written before its
	// end may take to be carried away.
	lastTime = time.Second
)

// Unix says what becomes of connect(2) to unix sockets, which Spec.Connects has
// the program stopped at. Its functions may be called concurrently; Remote and
// Missed must not wait.
type Unix struct {
	// Remote tells whether a name is dialed. It is what sun_path has (unix(7)), but
	// a relative path is made absolute by the caller's working directory.
	Remote func(name string) bool
	// Dial makes the far end, while connect(2) of the program waits, which returns
	// its error, a syscall.Errno (EIO for others). ctx ends when the program is killed.
	Dial func(ctx context.Context, d UnixDial) (Far, error)
	// Missed tells of what goes to this machine though it is Remote, or may be.
	Missed func(m Missed)
}

// UnixDial is a call of connect(2).
type UnixDial struct {
	Name   string
	Packet bool // SOCK_SEQPACKET
	Wait   bool // the socket is a blocking one
	PID    int
}

// Far is the far end of a connection that Dial has made. One of its methods is
// called, once.
type Far interface {
	// Carry owns near, the program's end, and returns when the connection has ended,
	// or ctx.
	Carry(ctx context.Context, near *unixsock.Conn)
	// Drop ends it: nobody waits any more.
	Drop()
}

// Missed is a call, or a way to make some, that was left to the kernel.
type Missed struct {
	Why  MissedWhy
	PID  int
	Name string // sun_path; empty: it is not known
}

// MissedWhy is why a call was missed.
type MissedWhy int

// The reasons.
const (
	MissedDatagram MissedWhy = iota // the socket is of SOCK_DGRAM
	MissedRing                      // the process has an io_uring, whose operations nobody sees
)

// unixes is the state of one watch.
type unixes struct {
	Unix
	w       *watch
	space   string // the sandbox's mount namespace; empty: it cannot be told
	slots   chan struct{}
	carried sync.WaitGroup
	meet    meetings
}

func newUnixes(w *watch, u Unix) *unixes {
	x := &unixes{Unix: u, w: w, slots: make(chan struct{}, maxUnixDials)}
	x.space, _ = os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", w.b.helper.pid))
	return x
}

// last waits for what ended processes have written, for a moment.
func (u *unixes) last(ctx context.Context) {
	done := make(chan struct{})
	u.w.wg.Go(func() { defer close(done); u.carried.Wait() })
	timer := time.NewTimer(lastTime)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// take answers connect(2), later if somebody has to be dialed.
func (u *unixes) take(ctx context.Context, c *call) {
	later := u.begin(ctx, c)
	if later == nil {
		u.w.n.answer(c, answer{pass: true})
		return
	}
	select {
	case u.slots <- struct{}{}:
	default:
		later(true)
		u.w.n.answer(c, answer{errno: unix.EAGAIN})
		return
	}
	u.w.wg.Go(func() {
		defer func() { <-u.slots }()
		u.w.n.answer(c, verdict(later(false)))
	})
}

// begin looks at a call; nil lets the kernel run it. The result does what is
// asked for, or only forgets it.
func (u *unixes) begin(ctx context.Context, c *call) (later func(forget bool) error) {
	addr, err := c.sockaddr()
	if err != nil {
		return nil
	}
	name, ok := unixName(addr)
	if !ok {
		return nil
	}
	if name, ok = c.absolute(name); !ok || !u.Remote(name) || !u.here(c) {
		return nil
	}
	d := UnixDial{Name: name, PID: c.pid()}
	fd, err := c.socket(d.PID)
	if err != nil {
		return nil
	}
	typ := u.kind(fd, &d)
	if typ == unix.SOCK_DGRAM {
		u.Missed(Missed{Why: MissedDatagram, PID: d.PID, Name: name})
	}
	if typ != unix.SOCK_STREAM && typ != unix.SOCK_SEQPACKET || !u.w.n.waiting(c) {
		unix.Close(fd)
		return nil
	}
	return func(forget bool) error {
		defer unix.Close(fd)
		if forget {
			return nil
		}
		return u.connect(ctx, c, fd, typ, d)
	}
}

// kind looks at the caller's socket and gives its type; 0: it is none that this
// is about.
func (u *unixes) kind(fd int, d *UnixDial) (typ int) {
	// A container or sandbox that the command started has a network of its own.
	if id, err := netOf(fd); err != nil || id != u.w.b.net {
		return 0
	}
	if domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || domain != unix.AF_UNIX {
		return 0
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return 0
	}
	typ, _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	d.Wait, d.Packet = flags&unix.O_NONBLOCK == 0, typ == unix.SOCK_SEQPACKET
	return typ
}

// connect dials, and connects the program's socket when that has succeeded.
func (u *unixes) connect(ctx context.Context, c *call, fd, typ int, d UnixDial) error {
	alive, done := whileAlive(ctx, d.PID)
	defer done()
	far, err := u.Dial(alive, d)
	if err != nil {
		return err
	}
	if !u.w.n.waiting(c) { // killed meanwhile
		far.Drop()
		return unix.EINTR
	}
	near, err := u.meet.connect(fd, typ)
	if err != nil {
		far.Drop()
		return err
	}
	u.carried.Add(1)
	u.w.wg.Go(func() {
		defer u.carried.Done()
		far.Carry(ctx, near)
	})
	return nil
}

// here reports whether paths mean to the caller what they mean in the sandbox: a
// container that the command started has files of its own, whatever its network.
func (u *unixes) here(c *call) bool {
	space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", c.Tid))
	if err != nil || space != u.space {
		return false
	}
	root, err := os.Readlink(fmt.Sprintf("/proc/%d/root", c.Tid))
	return err == nil && root == "/"
}

// absolute makes a relative path absolute; other names stay as they are.
func (c *call) absolute(name string) (string, bool) {
	if name[0] == 0 || name[0] == '/' {
		return name, true
	}
	dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", c.Tid))
	return path.Join(dir, name), err == nil && strings.HasPrefix(dir, "/")
}

// unixName reads sun_path: of a path the bytes before its NUL, if it has one
// (unix(7)); ok is false for other addresses, and for one without a name.
func unixName(addr []byte) (name string, ok bool) {
	if len(addr) < 3 || len(addr) > 2+unixsock.MaxName || binary.NativeEndian.Uint16(addr) != unix.AF_UNIX {
		return "", false
	}
	name = string(addr[2:])
	if i := strings.IndexByte(name, 0); i > 0 {
		name = name[:i]
	}
	return name, true
}
