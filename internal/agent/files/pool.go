package files

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// threads is how many requests reach the disk at once: enough to keep a disk
// busy, few enough to cost no memory. A request that the target's storage holds
// up for ever (a dead NFS server) takes one of them.
const threads = 8

// endTime is how long close waits for requests under way: the target can hold
// one up for ever, and the agent must end all the same.
const endTime = 3 * time.Second

// pool is threads with the ids of the target's process.
type pool struct {
	work chan func()
	quit chan struct{}
	once sync.Once
	wg   sync.WaitGroup
}

func newPool(as As) (*pool, error) {
	p := &pool{work: make(chan func()), quit: make(chan struct{})}
	ready := make(chan error)
	for range threads {
		p.wg.Go(func() {
			// Never unlocked: the thread, which is nobody else's any more, ends
			// with this goroutine.
			runtime.LockOSThread()
			err := as.become()
			ready <- err
			if err != nil {
				return
			}
			p.run()
		})
	}
	var err error
	for range threads {
		if e := <-ready; e != nil {
			err = e
		}
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *pool) run() {
	for {
		select {
		case f := <-p.work:
			f()
		case <-p.quit:
			return
		}
	}
}

// do runs f on a thread and returns after it, or before it began with the
// reason.
func (p *pool) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case p.work <- func() { defer close(done); f() }:
		<-done
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.quit:
		return errEnded
	}
}

// close ends the threads; false: some hang.
func (p *pool) close() bool {
	p.once.Do(func() { close(p.quit) })
	ended := make(chan struct{})
	go func() { // ends with the last of the threads
		defer close(ended)
		p.wg.Wait()
	}()
	timer := time.NewTimer(endTime)
	defer timer.Stop()
	select {
	case <-ended:
		return true
	case <-timer.C:
		return false
	}
}

// become gives the calling thread the ids and the umask. The calls are made raw: the
// functions of package syscall change all threads of the process.
func (as As) become() error {
	if groups, err := unix.Getgroups(); err != nil || !slices.Equal(groups, as.Groups) {
		ids := make([]uint32, len(as.Groups))
		for i, g := range as.Groups {
			ids[i] = uint32(g)
		}
		_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(ids)), uintptr(unsafe.Pointer(unsafe.SliceData(ids))), 0)
		// Without the capability the agent is the target's own user (an
		// ordinary process of this machine) and its groups are as good.
		if errno != 0 && uint32(os.Getuid()) != as.UID {
			return fmt.Errorf("take the target's groups: %w", errno)
		}
	}
	// The umask is one of the things that threads share until they part. Where
	// that is forbidden (a container's seccomp profile, for a process without
	// privileges) all of them get it: an agent makes no other files.
	_, _, _ = unix.RawSyscall(unix.SYS_UNSHARE, unix.CLONE_FS, 0, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_UMASK, uintptr(as.Umask&0o777), 0, 0) // cannot fail
	if err := set("gid", unix.SYS_SETFSGID, as.GID); err != nil {
		return err
	}
	// The last one: a user id other than 0 takes the capabilities for files
	// away from the thread (capabilities(7)), which is what we want.
	return set("uid", unix.SYS_SETFSUID, as.UID)
}

// set is setfsuid(2) or setfsgid(2), which report the previous id and never an
// error: asked with an impossible id they say what it is now.
func set(what string, trap uintptr, id uint32) error {
	_, _, _ = unix.RawSyscall(trap, uintptr(id), 0, 0)
	now, _, _ := unix.RawSyscall(trap, ^uintptr(0), 0, 0)
	if uint32(now) != id {
		return fmt.Errorf("use files as %s %d: %w", what, id, unix.EPERM)
	}
	return nil
}
