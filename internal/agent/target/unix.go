package target

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/agent/threadpool"
	"github.com/mirrord-go/mirrord/internal/unixsock"
)

const (
	// dialers is how many unix sockets are connected at once, each by a thread
	// that walks a path of the target's, whose storage may hold it up for ever.
	dialers = 4
	// retryFirst and retryLast are between looks whether a busy server has room
	// again: the kernel tells only who blocks, and a thread must not.
	retryFirst, retryLast = time.Millisecond, 100 * time.Millisecond
)

// person is threads that are the target's user, whole and for good: a server at
// a unix socket sees who connects (SO_PEERCRED) and who sends (SO_PASSCRED), and
// that is the calling thread.
type person struct{ dial, send *threadpool.Pool }

// Personate makes the threads by which DialUnix does what the target's user may.
// It needs CAP_SETUID and CAP_SETGID, but where the agent is that user already.
// It is called once, before t is used.
func (t *Target) Personate() error {
	dial, err := threadpool.New(dialers, unix.ENETDOWN, t.personate)
	if err != nil {
		return err
	}
	send, err := threadpool.New(1, unix.ENETDOWN, t.personate)
	if err != nil {
		dial.Close()
		return err
	}
	t.person = &person{dial, send}
	return nil
}

// Personates reports whether DialUnix can do anything.
func (t *Target) Personates() bool { return t.person != nil }

// personate gives the calling thread the ids of the target. The calls are made
// raw: the functions of package syscall change all threads. The saved user stays:
// with it the thread keeps what capabilities the others have, without being able
// to use one that is not given to all, and package confine can treat all threads
// alike.
func (t *Target) personate() error {
	if err := threadpool.TakeGroups(t.Groups, t.UID); err != nil {
		return err
	}
	const same = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(t.GID), uintptr(t.GID), same); errno != 0 {
		return fmt.Errorf("become group %d: %w", t.GID, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(t.UID), uintptr(t.UID), same); errno != 0 {
		return fmt.Errorf("become user %d: %w", t.UID, errno)
	}
	return nil
}

// close ends the threads.
func (p *person) close() {
	p.dial.Close()
	p.send.Close()
}

// DialUnix connects to a unix socket as the target's process would: as its user,
// a path below its root, where links lead to what they mean there and nothing
// leads out, an abstract name in its network namespace. name is what sun_path
// has; typ is SOCK_STREAM or SOCK_SEQPACKET. With wait it waits, until ctx ends,
// for room in the queue of a busy server. Errors are those of the target's
// kernel.
func (t *Target) DialUnix(ctx context.Context, typ int, name string, wait bool) (*unixsock.Conn, error) {
	abstract := strings.HasPrefix(name, "\x00")
	switch {
	case t.person == nil:
		return nil, fmt.Errorf("the agent may not act as the target's user: %w", unix.EACCES)
	case len(name) == 0, abstract && len(name) > unixsock.MaxName, !abstract && (name[0] != '/' || len(name) >= unix.PathMax || strings.ContainsRune(name, 0)):
		return nil, fmt.Errorf("%q is no name of a unix socket: %w", name, unix.EINVAL)
	}
	fd, err := t.Socket(unix.AF_UNIX, typ, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	for pause := retryFirst; ; pause = min(2*pause, retryLast) {
		done := t.person.dial.Do(ctx, func() { err = t.connectUnix(fd, name, abstract) })
		if done != nil {
			err = done
		}
		if !wait || !errors.Is(err, unix.EAGAIN) {
			break
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		if ctx.Err() != nil { // both may have been there
			err = context.Cause(ctx)
			break
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	c, err := unixsock.New(fd)
	if err == nil && os.Geteuid() != int(t.UID) {
		c.As = func(f func()) error { return t.person.send.Do(context.WithoutCancel(ctx), f) }
	}
	return c, err
}

// connectUnix runs on a thread of the target's user.
func (t *Target) connectUnix(fd int, name string, abstract bool) error {
	if abstract {
		return unixsock.Connect(fd, name)
	}
	at, err := t.find(name)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	// It is what was found, whatever happens to names meanwhile; whether it is a
	// socket, and one that this user may write to, the kernel looks.
	return unixsock.Connect(fd, "/proc/self/fd/"+strconv.Itoa(at))
}

// find walks a path below the target's root, and opens nothing (O_PATH).
func (t *Target) find(name string) (fd int, err error) {
	// A rename or a mount anywhere may race with the walk, which then has to be
	// tried again (openat2(2)); a target that does nothing else shall not keep us.
	const tries = 100
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	for range tries {
		fd, err = unix.Openat2(int(t.Root.Fd()), name, how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
	return -1, unix.ECONNREFUSED // EAGAIN would say that there is a server, and busy
}
