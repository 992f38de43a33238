package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A process is one that runs in one of the pod's namespaces.
type process struct {
	pid  int
	name string
}

// in lists the processes that have the same namespace of a kind ("pid", "net",
// "user") as the pod's main process.
func (p *Pod) in(kind string) ([]process, error) {
	want, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", p.pid, kind))
	if err != nil {
		return nil, fmt.Errorf("find the pod's processes: %w", err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("find the pod's processes: %w", err)
	}
	var list []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// Unreadable: somebody else's, or gone meanwhile.
		if got, err := os.Readlink(filepath.Join("/proc", e.Name(), "ns", kind)); err != nil || got != want {
			continue
		}
		// Not its comm: that of a program run by descriptor is a number.
		exe, err := os.Readlink(filepath.Join("/proc", e.Name(), "exe"))
		if err == nil {
			list = append(list, process{pid, filepath.Base(strings.TrimSuffix(exe, " (deleted)"))})
		}
	}
	return list, nil
}

// findNeighbour finds the other process of the pod's PID namespace.
func (p *Pod) findNeighbour() (int, error) {
	list, err := p.in("pid")
	if err != nil {
		return 0, err
	}
	for _, q := range list {
		if q.pid != p.pid {
			return q.pid, nil
		}
	}
	return 0, errors.New("the neighbours have ended")
}

// Strangers lists the processes in the pod's user or network namespace that
// are not the pod's own, as "NAME (PID)": agents of sessions.
func (p *Pod) Strangers() ([]string, error) {
	list, err := p.strangers()
	var text []string
	for _, q := range list {
		text = append(text, fmt.Sprintf("%s (%d)", q.name, q.pid))
	}
	return text, err
}

func (p *Pod) strangers() ([]process, error) {
	own, err := p.in("pid")
	if err != nil {
		return nil, err
	}
	var list []process
	kinds := []string{"user", "net"}
	if !p.own { // everybody is in the machine's
		kinds = kinds[1:]
	}
	for _, kind := range kinds {
		all, err := p.in(kind)
		if err != nil {
			return nil, err
		}
		for _, q := range all {
			if !slices.Contains(own, q) && !slices.Contains(list, q) {
				list = append(list, q)
			}
		}
	}
	return list, nil
}

// AwaitAlone waits until no process but the pod's own is in its namespaces.
// When ctx ends before, the error names those that are.
func (p *Pod) AwaitAlone(ctx context.Context) error {
	for {
		list, err := p.strangers()
		if err != nil || len(list) == 0 {
			return err
		}
		if err := awaitEnd(ctx, list[0].pid); err != nil {
			return fmt.Errorf("%s (process %d) is still in the pod: %w", list[0].name, list[0].pid, err)
		}
	}
}

// awaitEnd waits for the end of any process, not only of a child.
func awaitEnd(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	// poll(2) cannot be told of ctx: look at it this often.
	const look = 50 * time.Millisecond
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(look.Milliseconds()))
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("watch process %d: %w", pid, err)
		}
		if n > 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}
