// Package target holds the target container of a session: its process, root,
// environment and network namespace.
//
// The agent's server opens one Target and gives its parts to the flows. It
// reads /proc and enters the target's network and UTS namespaces, for which it
// needs CAP_SYS_PTRACE and CAP_SYS_ADMIN in the namespaces' user namespace
// (none where the target shares the agent's own). It changes nothing in the
// target: sockets made in its network namespace are the agent's and go with
// it.
//
// Hazards. A process id is used again after its process has ended: the pidfd
// is opened first and everything else is checked against it. Threads that have
// entered another namespace are never given back to the scheduler.
package target

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/mountinfo"
)

const (
	// maxEnviron bounds what is read of an environment, in bytes: the kernel's
	// own limit of arguments and environment together is a quarter of the stack
	// limit, 2 MiB by default.
	maxEnviron = 4 << 20
)

// Target is one container, or one process. Its methods may be called
// concurrently.
type Target struct {
	PID      int
	UID, GID uint32
	Groups   []int
	Umask    uint32
	Caps     uint64   // its effective capabilities, a bit each
	Root     *os.File // O_PATH of its root directory; alive until Close
	NetNS    *os.File // of its network namespace; alive until Close

	permitted uint64 // capabilities that it could make effective

	container string // its id; empty: only the process was named
	self      bool   // the agent's own process
	hostNet   bool
	environ   told[[]string]
	hostname  told[string]
	mounts    told[[]string]

	pidfd  *os.File
	done   chan struct{} // closed when the process has ended
	wg     sync.WaitGroup
	room   *room // where its sockets are made
	stock  *stock
	ports  *ports
	person *person // nil: see Personate
	closed sync.Once
}

// told is what was read when the target was opened: later its process id may
// be another's, and the agent without the right to look.
type told[T any] struct {
	value T
	err   error
}

func tell[T any](value T, err error) told[T] { return told[T]{value, err} }

// OpenContainer opens the first process of the container id, in the process
// list at proc ("/proc").
func OpenContainer(proc, id string) (*Target, error) {
	pid, err := Find(proc, id)
	if err != nil {
		return nil, err
	}
	t, err := Open(pid)
	if err != nil {
		return nil, err
	}
	// The id could have become another's between the look and the opening.
	groups, err := os.ReadFile(fmt.Sprintf("%s/%d/cgroup", proc, pid))
	if err == nil && (!inContainer(string(groups), id) || !t.alive()) {
		err = fmt.Errorf("container %s: %w", id, ErrNotFound)
	}
	if err != nil {
		t.Close()
		return nil, err
	}
	t.container = id
	return t, nil
}

// Holds reports whether process pid is in the target's container, by its control
// group, which nobody in an ordinary container can leave. It is false where the
// target is a process outside containers.
func (t *Target) Holds(pid int) bool {
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	switch {
	case err != nil:
		return false
	case t.container != "":
		return inContainer(string(groups), t.container)
	case t.PID != 1:
		return false
	}
	// The first of the agent's own process list is another container's, which lets
	// the agent see its processes.
	first, err := os.ReadFile("/proc/1/cgroup")
	return err == nil && bytes.Equal(groups, first)
}

// Open opens the process pid.
func Open(pid int) (*Target, error) { return open(pid, false) }

// Self opens the agent's own process: targetless sessions.
func Self() (*Target, error) { return open(os.Getpid(), true) }

func open(pid int, self bool) (_ *Target, err error) {
	t := &Target{PID: pid, self: self, done: make(chan struct{})}
	defer func() {
		if err != nil {
			t.release()
		}
	}()
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	t.pidfd = os.NewFile(uintptr(fd), "pidfd")
	if t.Root, err = openPath(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY); err != nil {
		return nil, fmt.Errorf("open the target's root: %w", explain(pid, err))
	}
	if t.NetNS, err = openPath(fmt.Sprintf("/proc/%d/ns/net", pid), unix.O_RDONLY); err != nil {
		return nil, fmt.Errorf("open the target's network namespace: %w", err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, fmt.Errorf("read the target's credentials: %w", err)
	}
	if err := t.parseStatus(status); err != nil {
		return nil, err
	}
	if t.room, err = newRoom(t.NetNS); err != nil {
		return nil, err
	}
	t.stock = newStock(t.sockets)
	var local portRange
	if err := t.room.do(func() error { local = readRange(); return nil }); err != nil {
		return nil, err
	}
	t.ports = newPorts(local, func(network string) (n int, err error) {
		err = t.room.do(func() (err error) { n, err = local.inUse(network, reserved(local)-local.size()/lookPart); return err })
		return n, err
	})
	t.hostNet = t.readHostNetwork()
	t.environ, t.hostname, t.mounts = tell(readEnviron(pid)), tell(t.readHostname()), tell(mountinfo.Volumes(pid))
	if self { // the file is closed to a process that lets nobody look in, itself included
		t.environ = tell(os.Environ(), nil)
	}
	if !t.alive() {
		return nil, fmt.Errorf("process %d has ended: %w", pid, unix.ESRCH)
	}
	if !self {
		t.wg.Go(t.await)
	}
	return t, nil
}

func openPath(path string, flags int) (*os.File, error) {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// await closes done when the process has ended; a pidfd is readable then
// (pidfd_open(2)).
func (t *Target) await() {
	rc, err := t.pidfd.SyscallConn()
	if err != nil {
		return
	}
	err = rc.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, _ := unix.Poll(p, 0)
		return n > 0
	})
	if err == nil {
		close(t.done)
	}
}

// parseStatus reads /proc/PID/status (proc_pid_status(5)): the ids that the
// file system sees, the groups, the umask and the capabilities.
func (t *Target) parseStatus(status []byte) error {
	for line := range strings.Lines(string(status)) {
		name, rest, _ := strings.Cut(line, ":")
		f := strings.Fields(rest)
		switch name {
		case "Uid", "Gid":
			if len(f) != 4 {
				return fmt.Errorf("credentials of the target: %q", line)
			}
			id, err := strconv.ParseUint(f[3], 10, 32)
			if err != nil {
				return fmt.Errorf("credentials of the target: %w", err)
			}
			if name == "Uid" {
				t.UID = uint32(id)
			} else {
				t.GID = uint32(id)
			}
		case "Groups":
			for _, g := range f {
				id, err := strconv.ParseUint(g, 10, 32)
				if err != nil {
					return fmt.Errorf("groups of the target: %w", err)
				}
				t.Groups = append(t.Groups, int(id))
			}
		case "Umask":
			if len(f) == 1 {
				m, err := strconv.ParseUint(f[0], 8, 32)
				if err != nil {
					return fmt.Errorf("umask of the target: %w", err)
				}
				t.Umask = uint32(m)
			}
		case "CapEff", "CapPrm":
			if len(f) == 1 {
				c, err := strconv.ParseUint(f[0], 16, 64)
				if err != nil {
					return fmt.Errorf("capabilities of the target: %w", err)
				}
				if name == "CapPrm" {
					t.permitted = c
				} else {
					t.Caps = c
				}
			}
		}
	}
	return nil
}

// Targetless reports whether the agent's own process stands for the target.
func (t *Target) Targetless() bool { return t.self }

// alive reports whether the process has not been waited for: its id is its own.
func (t *Target) alive() bool {
	return !errors.Is(unix.PidfdSendSignal(int(t.pidfd.Fd()), 0, nil, 0), unix.ESRCH)
}

// Done is closed when the target's process has ended.
func (t *Target) Done() <-chan struct{} { return t.done }

// Mounts gives where the target has volumes; see mountinfo.Volumes.
func (t *Target) Mounts() ([]string, error) { return t.mounts.value, t.mounts.err }

// Environ gives the environment that the process was started with, as
// "NAME=value" strings.
func (t *Target) Environ() ([]string, error) { return t.environ.value, t.environ.err }

func readEnviron(pid int) ([]string, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxEnviron))
	if err != nil {
		return nil, err
	}
	var vars []string
	for v := range bytes.SplitSeq(b, []byte{0}) {
		if len(v) > 0 {
			vars = append(vars, string(v))
		}
	}
	return vars, nil
}

// Hostname is what uname(2) tells the target.
func (t *Target) Hostname() (string, error) { return t.hostname.value, t.hostname.err }

func (t *Target) readHostname() (string, error) {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/uts", t.PID))
	if err != nil {
		return "", err
	}
	defer ns.Close()
	if same(ns, "uts") {
		return os.Hostname()
	}
	var name string
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWUTS)
		if err == nil {
			name, err = os.Hostname()
		}
		result <- err
	}()
	if err := <-result; err == nil {
		return name, nil
	}
	return t.givenHostname() // without the right to enter
}

// givenHostname is the name that the container was given at its start. What is in
// that file's place now is the target's doing: it may lead anywhere, have no end, or
// never open.
func (t *Target) givenHostname() (string, error) {
	const maxName = 64 // __NEW_UTS_LEN in linux/utsname.h
	at, err := t.find("etc/hostname")
	if err != nil {
		return "", fmt.Errorf("read the target's /etc/hostname: %w", err)
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return "", fmt.Errorf("read the target's /etc/hostname: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "", fmt.Errorf("the target's /etc/hostname is no file: %w", unix.ENXIO)
	}
	f, err := openPath(fmt.Sprintf("/proc/self/fd/%d", at), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxName+1))
	name, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return name[:min(len(name), maxName)], err
}

// same reports whether ns is the calling thread's namespace of that kind. The
// process's is that of its first thread, which may be another target's room.
func same(ns *os.File, kind string) bool {
	var a, b unix.Stat_t
	return unix.Fstat(int(ns.Fd()), &a) == nil && unix.Stat("/proc/thread-self/ns/"+kind, &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino
}

// HostNetwork reports whether the target shares the network of the node.
func (t *Target) HostNetwork() bool { return t.hostNet }

// SayHostNetwork sets what HostNetwork reports. Where the agent sees no more
// than the target's processes, the first of them is none of the node's, and
// somebody else must know. To be called before t is used.
func (t *Target) SayHostNetwork(yes bool) { t.hostNet = yes }

func (t *Target) readHostNetwork() bool {
	var a, b unix.Stat_t
	return unix.Fstat(int(t.NetNS.Fd()), &a) == nil && unix.Stat("/proc/1/ns/net", &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino
}

// Addrs gives the target's own addresses, each once, without loopback and
// link-local ones.
func (t *Target) Addrs() (list []netip.Prefix, err error) {
	err = t.room.do(func() error {
		all, err := net.InterfaceAddrs()
		if err != nil {
			return err
		}
		for _, a := range all {
			ipn, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			ip, ok := netip.AddrFromSlice(ipn.IP)
			if ip = ip.Unmap(); !ok || ip.IsLoopback() || ip.IsLinkLocalUnicast() {
				continue
			}
			// On a node several devices can have the same address.
			if slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Addr() == ip }) {
				continue
			}
			bits, _ := ipn.Mask.Size()
			list = append(list, netip.PrefixFrom(ip, bits))
		}
		return nil
	})
	return list, err
}

// SYNRetries gives tcp_syn_retries and tcp_syn_linear_timeouts of the target's
// network, 0 where its kernel has none.
func (t *Target) SYNRetries() (retries, linear uint8) {
	_ = t.room.do(func() error {
		for name, v := range map[string]*uint8{"tcp_syn_retries": &retries, "tcp_syn_linear_timeouts": &linear} {
			if b, err := os.ReadFile("/proc/sys/net/ipv4/" + name); err == nil { // of the calling thread's namespace
				_, _ = fmt.Sscan(string(b), v)
			}
		}
		return nil
	})
	return retries, linear
}

// Close lets go of everything.
func (t *Target) Close() error {
	t.closed.Do(func() {
		t.release()
		t.wg.Wait()
	})
	return nil
}

func (t *Target) release() {
	for _, f := range []*os.File{t.pidfd, t.Root, t.NetNS} {
		if f != nil {
			f.Close()
		}
	}
	if t.person != nil {
		t.person.close()
	}
	if t.stock != nil {
		t.stock.close()
	}
	if t.room != nil {
		t.room.close()
	}
}
