package target

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/unixsock"
)

const (
	// dialers is how many unix sockets are connected at once, each by a thread
	// that walks a path of the target's, whose storage may hold it up for ever.
	dialers = 4
	// retryFirst and retryLast are between looks whether a busy server has room
	// again: the kernel tells only who blocks, and a thread must not.
	retryFirst, retryLast = time.Millisecond, 100 * time.Millisecond
	// endTime is how long close waits for dials under way.
	endTime = 3 * time.Second
)

// person is threads that are the target's user, whole and for good: a server at
// a unix socket sees who connects (SO_PEERCRED) and who sends (SO_PASSCRED), and
// that is the calling thread.
type person struct {
	dial, send chan func()
	quit       chan struct{}
	wg         sync.WaitGroup
}

// Personate makes the threads by which DialUnix does what the target's user may.
// It needs CAP_SETUID and CAP_SETGID, but where the agent is that user already.
// It is called once, before t is used.
func (t *Target) Personate() error {
	p := &person{dial: make(chan func()), send: make(chan func()), quit: make(chan struct{})}
	ready := make(chan error)
	run := func(work chan func()) {
		p.wg.Go(func() {
			// Never unlocked: the thread, which is nobody else's any more, ends with
			// this goroutine.
			runtime.LockOSThread()
			err := t.personate()
			ready <- err
			if err != nil {
				return
			}
			for {
				select {
				case f := <-work:
					f()
				case <-p.quit:
					return
				}
			}
		})
	}
	for range dialers {
		run(p.dial)
	}
	run(p.send)
	var err error
	for range dialers + 1 {
		err = errors.Join(err, <-ready)
	}
	if err != nil {
		close(p.quit)
		p.wg.Wait()
		return err
	}
	t.person = p
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
	ids := make([]uint32, len(t.Groups)+1) // one more: it has an address then
	for i, g := range t.Groups {
		ids[i] = uint32(g)
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(t.Groups)), uintptr(unsafe.Pointer(&ids[0])), 0)
	// Without the capability the agent is the target's own user (an ordinary process
	// of this machine, or in the target's pod) and its groups are as good.
	if errno != 0 && os.Geteuid() != int(t.UID) {
		return fmt.Errorf("take the target's groups: %w", errno)
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

// do runs f on a thread that takes work, unless ctx ends before one is free.
func (p *person) do(ctx context.Context, work chan func(), f func()) error {
	done := make(chan struct{})
	select {
	case work <- func() { defer close(done); f() }:
		<-done
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.quit:
		return unix.ENETDOWN
	}
}

// close ends the threads. Those that the target's storage holds up go with the
// process.
func (p *person) close() {
	close(p.quit)
	ended := make(chan struct{})
	go func() { // ends with the last of the threads
		defer close(ended)
		p.wg.Wait()
	}()
	timer := time.NewTimer(endTime)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
	}
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
		done := t.person.do(ctx, t.person.dial, func() { err = t.connectUnix(fd, name, abstract) })
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
		c.As = func(f func()) error { return t.person.do(context.WithoutCancel(ctx), t.person.send, f) }
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
