// Package netns runs functions inside a network namespace.
//
// The agent and the tests use it; it needs CAP_SYS_ADMIN over the namespace
// and in the caller's own user namespace (setns(2)). A thread that entered a
// namespace is never given back to the scheduler: it ends with its function.
//
// Hazards: what f starts (goroutines) runs on other threads, outside. Sockets
// stay in the namespace they were made in, so f makes them and returns.
// net.Dial and net.Listen are fine; resolving names is not, the resolver
// starts goroutines.
package netns

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Do runs f on a thread of its own inside the namespace ns and returns f's
// error. It waits for f. The thread ends afterwards.
func Do(ns *os.File, f func() error) error {
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the runtime ends the thread with the goroutine, so no
		// other goroutine can run in the wrong namespace.
		runtime.LockOSThread()
		if err := enter(ns); err != nil {
			result <- err
			return
		}
		result <- f()
	}()
	return <-result
}

// DoNew is Do in a namespace made for it, which lives on only as long as
// something holds it. It needs CAP_SYS_ADMIN. Its loopback interface is down.
func DoNew(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // as in Do
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("make network namespace: %w", err)
			return
		}
		result <- f()
	}()
	return <-result
}

func enter(ns *os.File) error {
	rc, err := ns.SyscallConn()
	if err != nil {
		return err
	}
	var e error
	if err := rc.Control(func(fd uintptr) { e = unix.Setns(int(fd), unix.CLONE_NEWNET) }); err != nil {
		return err
	}
	if e != nil {
		return fmt.Errorf("enter network namespace: %w", e)
	}
	return nil
}

// Current gives the calling thread's network namespace. The caller closes it.
func Current() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") }

// Open gives the network namespace of the process pid. The caller closes it.
func Open(pid int) (*os.File, error) { return os.Open(fmt.Sprintf("/proc/%d/ns/net", pid)) }
