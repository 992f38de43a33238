// Package demo makes a small "pod" from namespaces on this machine, and tells
// the story of `mirrord demo` against it: a real session, without a cluster.
//
// The command line calls it, and fast tests do. It needs no privilege: a user,
// mount, network, UTS, IPC and PID namespace (user_namespaces(7)), a veth pair
// and tmpfs, all made inside. Nothing of it is on this machine's file system
// or network, so it cannot clash with anything and leaves nothing behind.
//
// Two processes are the pod. The main one, Pod.PID, is the target of sessions:
// its own root, environment, host name, addresses, an HTTP service, a UDP echo
// and a sidecar on its loopback. The other plays the rest of the cluster in a
// network namespace at the far end of the pod's eth0: name server, database,
// another HTTP service, and the client that Pod.Request speaks through. Both
// are this very executable, started again under the name Name: whoever imports
// this package must call Main first of all when os.Args[0] is Name.
//
// Start fails where user namespaces are restricted, or without veth; the
// reason is a failure.Error.
//
// Hazards: the parent-death signal of the pod belongs to the thread that
// started it, which is therefore locked and waits for it. The main process is
// PID 1 of its PID namespace: with it the kernel ends all the rest.
package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/failure"
)

const (
	// Name is os.Args[0] of the re-executed roles; see Main.
	Name = "mirrord-demo-pod"
	// Hostname is the pod's host name.
	Hostname = "shop-demo-0"

	// startTimeout bounds the start: it takes some 30 ms, on an emulated machine
	// that is very busy some ten seconds, more is one that hangs.
	startTimeout = 30 * time.Second
	// tailLength is how many bytes of what the pod complained about are kept.
	tailLength = 4 << 10
)

// Pod is a running pod. Its methods may be called concurrently.
type Pod struct {
	pid       int
	neighbour int
	own       bool // it has a user namespace
	addrs     []netip.Addr
	main      *caller // to the main process
	client    *caller // to the rest of the cluster
	done      chan struct{}
	kill      func()
}

// Start makes a pod and returns when all its services answer. The caller
// closes it; it also ends when the calling process does, however that ends.
// ctx bounds the start only.
func Start(ctx context.Context) (*Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	main, mainEnd, err := newCaller()
	if err != nil {
		return nil, err
	}
	defer mainEnd.Close()
	client, clientEnd, err := newCaller()
	if err != nil {
		main.close()
		return nil, err
	}
	defer clientEnd.Close()

	var stderr tail
	p := &Pod{main: main, client: client, done: make(chan struct{})}
	cmd := command(mainEnd, clientEnd, &stderr)
	p.own = true
	started := make(chan error)
	go func() {
		// Never unlocked while the pod lives: it gets its parent-death signal
		// when this thread ends (PR_SET_PDEATHSIG, prctl(2)).
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err != nil && os.Geteuid() == 0 { // root can do without a user namespace
			p.own = false
			cmd = command(mainEnd, clientEnd, &stderr)
			cmd.SysProcAttr.Cloneflags &^= unix.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = nil, nil
			if cmd.Start() == nil {
				err = nil
			}
		}
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended tells less than what it said
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		main.close()
		client.close()
		return nil, refused(err)
	}
	p.pid = cmd.Process.Pid
	p.kill = func() { _ = cmd.Process.Kill() } // fails only when it has ended
	ready, err := main.call(ctx, call{Op: opReady})
	if err == nil {
		p.addrs = ready.Addresses
		p.neighbour, err = p.findNeighbour()
	}
	if err != nil {
		p.Close()
		if ctx.Err() != nil { // what it said then is about its end
			return nil, refused(fmt.Errorf("it was not ready within %v: %w", startTimeout, ctx.Err()))
		}
		if said := strings.TrimSpace(stderr.String()); said != "" {
			err = errors.New(said)
		}
		return nil, refused(err)
	}
	return p, nil
}

func command(mainEnd, clientEnd *os.File, stderr *tail) *exec.Cmd {
	return &exec.Cmd{
		Path:       "/proc/self/exe",
		Args:       []string{Name},
		Env:        environment(),
		Dir:        "/",
		Stderr:     stderr,
		ExtraFiles: []*os.File{mainEnd, clientEnd},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS |
				unix.CLONE_NEWIPC | unix.CLONE_NEWPID,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
			Setsid:      true, // Ctrl-C is for the user's program
			Pdeathsig:   syscall.SIGKILL,
		},
	}
}

// refused says why there is no pod, in the words of a failure.
func refused(err error) error {
	f := &failure.Error{
		Code:  "demo-pod",
		What:  "the demo pod could not be made",
		Why:   err.Error(),
		Do:    "see docs/errors.md, demo-pod: what it needs",
		Cause: err,
	}
	switch {
	case errors.Is(err, syscall.ENOSPC):
		f.Why = "this machine allows no more user namespaces (user.max_user_namespaces): " + err.Error()
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES),
		// From inside comes text only.
		strings.Contains(err.Error(), syscall.EPERM.Error()), strings.Contains(err.Error(), syscall.EACCES.Error()):
		f.Why = "this machine does not let an ordinary user make namespaces: " + err.Error()
	}
	return f
}

// PID is the pod's main process: the target of sessions, as "process/PID".
func (p *Pod) PID() int { return p.pid }

// NeighbourPID is the process that plays the rest of the cluster; programs in
// its context are clients of the pod, from 10.245.0.1.
func (p *Pod) NeighbourPID() int { return p.neighbour }

// Addresses are the pod's own: IPv4, and IPv6 if this machine has it.
func (p *Pod) Addresses() []netip.Addr { return p.addrs }

// Done is closed when the pod has ended.
func (p *Pod) Done() <-chan struct{} { return p.done }

// Close ends the pod and all that is in it, and waits.
func (p *Pod) Close() {
	p.kill()
	<-p.done
	p.main.close()
	p.client.close()
}

// Request is an HTTP request for Pod.Request.
type Request struct {
	Method string
	URL    string // names are resolved by the pod's name server
	Header http.Header
	Body   []byte
}

// Response is the answer to a Request.
type Response struct {
	Status int
	Header http.Header
	Body   []byte // at most maxBody bytes
}

// Request makes an HTTP request from another address of the pod's network, on
// a connection of its own. It returns errors of the connection with their
// errno, and ends with ctx or after callTimeout.
func (p *Pod) Request(ctx context.Context, r Request) (Response, error) {
	a, err := p.client.call(ctx, call{Op: opRequest, Request: &r})
	if err != nil {
		return Response{}, fmt.Errorf("%s %s from the pod's network: %w", r.Method, r.URL, err)
	}
	return *a.Response, nil
}

// Exchange connects from another address of the pod's network, sends data,
// ends its direction and returns what comes back: with "tcp" until the other
// side ends, with "udp" one datagram. At most maxBody bytes either way.
func (p *Pod) Exchange(ctx context.Context, network, address string, data []byte) ([]byte, error) {
	a, err := p.client.call(ctx, call{Op: opExchange, Exchange: &exchange{Network: network, Address: address, Data: data}})
	if err != nil {
		return nil, fmt.Errorf("%s to %s from the pod's network: %w", network, address, err)
	}
	return a.Data, nil
}

// Inventory lists what a session could leave behind in the pod's network
// namespace: links, addresses, routes, rules and nftables tables, one a line,
// sorted. Equal lists before and after a session: nothing is left.
func (p *Pod) Inventory(ctx context.Context) ([]string, error) {
	a, err := p.main.call(ctx, call{Op: opInventory})
	if err != nil {
		return nil, fmt.Errorf("take inventory of the pod: %w", err)
	}
	return a.Inventory, nil
}

// tail keeps the last tailLength bytes written to it.
type tail struct {
	mu   sync.Mutex
	b    []byte
	more chan struct{} // closed at the next write; nil: nobody waits
}

// await waits until what was written has a text in it.
func (t *tail) await(ctx context.Context, text string) error {
	for {
		t.mu.Lock()
		there := bytes.Contains(t.b, []byte(text))
		if t.more == nil {
			t.more = make(chan struct{})
		}
		more := t.more
		t.mu.Unlock()
		if there {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("it does not say %q: %w", text, ctx.Err())
		}
	}
}

var _ io.Writer = (*tail)(nil)

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if t.more != nil {
		close(t.more)
		t.more = nil
	}
	if n := len(t.b) - tailLength; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
