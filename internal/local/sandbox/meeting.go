package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/unixsock"
)

// meetings are listeners to which programs' sockets are connected, by type. They
// had a name while they were made, in a directory of this user's alone; now there
// is nothing but descriptors, so nobody else can connect to them.
type meetings struct {
	mu sync.Mutex // held while one is connected: so what is accepted is that one
	of map[int]meeting
}

type meeting struct{ listener, path int } // path: O_PATH of the socket

// connect connects fd and gives its other end.
func (m *meetings) connect(fd, typ int) (*unixsock.Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.of[typ]
	if !ok {
		var err error
		if at, err = newMeeting(typ); err != nil {
			return nil, fmt.Errorf("make a listener for the program's unix sockets: %w", err)
		}
		if m.of == nil {
			m.of = map[int]meeting{}
		}
		m.of[typ] = at
	}
	if err := unixsock.Connect(fd, self(at.path)); err != nil {
		return nil, err
	}
	near, _, err := unix.Accept4(at.listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return nil, err
	}
	if peer, err := unix.GetsockoptUcred(near, unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil || int(peer.Pid) != os.Getpid() {
		unix.Close(near)
		return nil, errors.New("somebody else has connected")
	}
	return unixsock.New(near)
}

// newMeeting makes one where this user can: not every file system takes sockets.
func newMeeting(typ int) (meeting, error) {
	var failed error
	for _, dir := range []string{os.TempDir(), os.Getenv("XDG_RUNTIME_DIR"), "/dev/shm"} {
		if dir == "" {
			continue
		}
		at, err := newMeetingIn(dir, typ)
		if err == nil {
			return at, nil
		}
		failed = errors.Join(failed, err)
	}
	return meeting{}, failed
}

func newMeetingIn(parent string, typ int) (_ meeting, err error) {
	dir, err := os.MkdirTemp(parent, "mirrord-") // mode 0700
	if err != nil {
		return meeting{}, err
	}
	defer os.RemoveAll(dir)
	at := meeting{-1, -1}
	defer func() {
		if err != nil {
			at.close()
		}
	}()
	if at.listener, err = unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return at, err
	}
	name := dir + "/unix"
	if len(name) >= unixsock.MaxName { // getpeername(2) shows it; else a shorter way
		d, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return at, err
		}
		defer unix.Close(d)
		name = self(d) + "/unix"
	}
	if err = unix.Bind(at.listener, &unix.SockaddrUnix{Name: name}); err != nil {
		return at, err
	}
	if err = unix.Listen(at.listener, 1); err != nil {
		return at, err
	}
	at.path, err = unix.Open(name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	return at, err
}

func self(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func (a meeting) close() {
	for _, fd := range []int{a.listener, a.path} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

func (m *meetings) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, at := range m.of {
		at.close()
	}
	m.of = nil
}
