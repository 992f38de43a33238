// Package threadpool keeps threads that are somebody else's than the agent's
// process: of the target's user.
//
// The agent's files and target have one each: who asks the kernel for a file, or
// connects to a unix socket, is the calling thread. It makes system calls on
// threads of its own only, and needs CAP_SETUID and CAP_SETGID where the agent
// is not that user already.
package threadpool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// EndTime is how long Close waits for what is under way: the target's storage
// can hold it up for ever, and the agent must end all the same.
const EndTime = 3 * time.Second

// Pool is threads that do what they are given, one thing after the other. Its
// methods may be called concurrently.
type Pool struct {
	work  chan func()
	quit  chan struct{}
	ended error
	once  sync.Once
	wg    sync.WaitGroup
}

// New starts n threads, each of which calls become first; if one of them cannot,
// nor can New. ended is what Do says after Close.
func New(n int, ended error, become func() error) (*Pool, error) {
	p := &Pool{work: make(chan func()), quit: make(chan struct{}), ended: ended}
	ready := make(chan error)
	for range n {
		p.wg.Go(func() {
			// Never unlocked: the thread, which is nobody else's any more, ends
			// with this goroutine.
			runtime.LockOSThread()
			err := become()
			ready <- err
			if err == nil {
				p.run()
			}
		})
	}
	var err error
	for range n {
		err = errors.Join(err, <-ready)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *Pool) run() {
	for {
		select {
		case f := <-p.work:
			f()
		case <-p.quit:
			return
		}
	}
}

// Do runs f on a thread and returns after it, or before it began with the
// reason: that ctx has ended, or the pool.
func (p *Pool) Do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case p.work <- func() { defer close(done); f() }:
		<-done
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.quit:
		return p.ended
	}
}

// Close ends the threads; false: some hang, and go with the process.
func (p *Pool) Close() bool {
	p.once.Do(func() { close(p.quit) })
	ended := make(chan struct{})
	go func() { // ends with the last of the threads
		defer close(ended)
		p.wg.Wait()
	}()
	timer := time.NewTimer(EndTime)
	defer timer.Stop()
	select {
	case <-ended:
		return true
	case <-timer.C:
		return false
	}
}

// TakeGroups gives the calling thread the groups of user uid. The call is made
// raw, as all in become must be: the functions of package syscall change all
// threads of the process.
func TakeGroups(groups []int, uid uint32) error {
	if have, err := unix.Getgroups(); err == nil && slices.Equal(have, groups) {
		return nil
	}
	ids := make([]uint32, len(groups))
	for i, g := range groups {
		ids[i] = uint32(g)
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(ids)), uintptr(unsafe.Pointer(unsafe.SliceData(ids))), 0)
	// Without the capability the agent is the target's own user (an ordinary process
	// of this machine, or in the target's pod) and its groups are as good.
	if errno != 0 && os.Geteuid() != int(uid) {
		return fmt.Errorf("take the target's groups: %w", errno)
	}
	return nil
}
