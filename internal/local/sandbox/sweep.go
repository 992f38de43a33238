package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/tree"
)

// Where the filter cannot see, listeners are looked for. A look costs about
// 40 µs of CPU.
const (
	// pollTime is the time between two looks when there is no filter.
	pollTime = 10 * time.Millisecond
	// sweepTime is the same while some process can make listeners behind the
	// filter: shorter, since that is the exception.
	sweepTime = 5 * time.Millisecond
	// ringTime is how often a process is asked whether it still has a ring.
	ringTime = 500 * time.Millisecond
	// firstAnyPort is the first number that the kernel chooses for who asks for
	// none, unless told otherwise (ip_local_port_range, ip-sysctl.rst).
	firstAnyPort = 32768
)

// sweeps are the processes because of which the watch looks for listeners.
type sweeps struct {
	mu      sync.Mutex
	of      map[int]bool
	looking bool
}

// poll stands in for the filter: listeners become known up to pollTime after
// listen(2), and the end of the tree is seen by its processes.
func (w *watch) poll(ctx context.Context, all *tree.Tree) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.wg.Go(func() { w.look(ctx, pollTime, func() bool { return true }) })
	return all.Wait(ctx)
}

// look looks for listeners until ctx ends or go on is false.
func (w *watch) look(ctx context.Context, every time.Duration, goOn func() bool) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for goOn() {
		w.find(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// find announces listeners that are not known yet. Nobody waits for the
// outcome; an error of the hook is the hook's own affair, the socket listens.
func (w *watch) find(ctx context.Context) {
	for _, proto := range []int{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		hook, states := w.hooks.Listen, []int{stateListen}
		if proto == unix.IPPROTO_UDP {
			hook, states = w.hooks.BindUDP, []int{stateClose}
		}
		all, err := w.b.dump(proto, states...)
		if err != nil {
			continue // the next look will tell
		}
		for _, s := range all {
			if w.reg.knows(s.cookie) || s.addr.Port() == 0 {
				continue
			}
			l := Listener{Proto: proto, Addr: s.addr, AnyPort: w.any.take(s.cookie) || proto == unix.IPPROTO_UDP && s.addr.Port() >= firstAnyPort}
			quiet := func(ctx context.Context, l Listener) error {
				if hook != nil {
					_ = hook(ctx, l)
				}
				return nil
			}
			w.slots <- struct{}{}
			w.wg.Go(func() {
				defer func() { <-w.slots }()
				_ = w.announce(ctx, s.cookie, l, quiet)
			})
		}
	}
}

// sweepFor looks for listeners as long as the caller can make some behind the
// filter: by io_uring, by 32-bit calls, or because we may not duplicate its
// descriptors.
func (w *watch) sweepFor(ctx context.Context, c *call) {
	pid := c.pid()
	w.sweeps.mu.Lock()
	defer w.sweeps.mu.Unlock()
	if pid == 0 || w.sweeps.of[pid] {
		return
	}
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return
	}
	w.sweeps.of[pid] = true
	ring := c.Data.NR == sysIOUringSetup && !c.foreign()
	w.wg.Go(func() { w.sweepUntil(ctx, os.NewFile(uintptr(fd), "pidfd"), pid, ring) })
	if !w.sweeps.looking {
		w.sweeps.looking = true
		w.wg.Go(func() { w.look(ctx, sweepTime, w.sweeping) })
	}
}

func (w *watch) sweeping() bool {
	w.sweeps.mu.Lock()
	defer w.sweeps.mu.Unlock()
	w.sweeps.looking = len(w.sweeps.of) > 0
	return w.sweeps.looking
}

// sweepUntil ends the sweep for a process when it has ended or, if it was for a
// ring, has none any more.
func (w *watch) sweepUntil(ctx context.Context, pidfd *os.File, pid int, ring bool) {
	defer pidfd.Close()
	stop := context.AfterFunc(ctx, func() { pidfd.Close() })
	defer stop()
	for {
		if ring {
			_ = pidfd.SetReadDeadline(time.Now().Add(ringTime))
		}
		err := waitReadable(pidfd)
		if errors.Is(err, os.ErrDeadlineExceeded) && hasRing(pid) {
			continue
		}
		break
	}
	w.sweeps.mu.Lock()
	delete(w.sweeps.of, pid)
	w.sweeps.mu.Unlock()
}

// hasRing tells whether a process holds a descriptor of an io_uring.
func hasRing(pid int) bool {
	dir := fmt.Sprintf("/proc/%d/fd/", pid)
	fds, err := os.ReadDir(dir)
	for _, e := range fds {
		if l, _ := os.Readlink(dir + e.Name()); l == "anon_inode:[io_uring]" {
			return true
		}
	}
	return err != nil // we may not look: assume so
}
