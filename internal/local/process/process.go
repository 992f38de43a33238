// Package process starts an agent beside a process of this machine: the way to
// the target "process/PID", and the embedded default, without a cluster.
//
// The command line calls it. The agent is a child of the calling process, run
// from memory, and speaks over a unix socket that has no name in any
// directory. If the target has its own user or network namespace (a rootless
// container, the demo's pod), the agent is started through nsenter(1), in the
// target's namespaces and with the capabilities that they give; otherwise it
// is started plainly, with the caller's rights. A process of another user
// needs root.
//
// Failures are failure.Error: no such process, not permitted (with the owner's
// name), nsenter missing, an agent that did not start (with what it said).
//
// Hazards: the agent gets its parent-death signal when the thread that started
// it ends (prctl(2)), so that thread is locked and waits for it. Entering a
// foreign user namespace clears that signal; setpriv(1) sets it again there.
// Where there is no setpriv that can, an agent whose session was killed lives
// on until it sees that nobody comes back.
package process

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

const (
	// startTimeout bounds the start: it takes some 20 ms, so ten seconds are a
	// machine that is very busy, more is one that hangs.
	startTimeout = 10 * time.Second
	// endTimeout is what the agent gets to end by itself when told to: it has
	// only its own things to put away.
	endTimeout = 2 * time.Second
	// maxAnnouncement bounds the agent's first line, in bytes; it has about 100.
	maxAnnouncement = 4 << 10
	// logLength is how many bytes of the agent's last log lines are kept.
	logLength = 8 << 10

	// Descriptors of the agent.
	listenerFD = 3
	programFD  = 4
)

// Spec says what to start.
type Spec struct {
	Agent     []byte // the agent's program, a static executable
	PublicKey string // of the session, as text: who may connect
	SessionID string
	Arguments []string // more of the agent's process: flags of cmd/mirrord-agent
}

// Agent is a running agent. Its methods may be called concurrently.
type Agent struct {
	said   protocol.Announcement
	pid    int
	socket *socket
	log    *tail

	signal func(os.Signal) error
	done   chan struct{} // closed when the agent has ended and err is set
	err    error
	wg     sync.WaitGroup
}

// Start starts an agent whose target is the process pid and returns when it
// listens. The caller closes it. ctx bounds the start only; progress gets one
// line per step.
func Start(ctx context.Context, pid int, spec Spec, progress func(string)) (*Agent, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	t, err := look(pid)
	if err != nil {
		return nil, err
	}
	enter, err := t.enter(ctx)
	if err != nil {
		return nil, err
	}
	if len(enter) > 0 {
		progress(fmt.Sprintf("starting the agent in the namespaces of process %d (%s)", pid, t.name))
	} else {
		progress(fmt.Sprintf("starting the agent beside process %d (%s)", pid, t.name))
	}
	program, err := inMemory(spec.Agent)
	if err != nil {
		return nil, failure.Wrap(err, "agent-start", "the agent's program could not be put into memory", "see docs/errors.md, agent-start: what it needs")
	}
	defer program.Close()
	sock, listener, err := newSocket()
	if err != nil {
		return nil, failure.Wrap(err, "agent-start", "no socket could be made for the agent", "see docs/errors.md, agent-start: what it needs")
	}
	defer listener.Close()
	argv := append(enter, fmt.Sprintf("/proc/self/fd/%d", programFD),
		"--key", spec.PublicKey, "--session", spec.SessionID, "--pid", strconv.Itoa(pid), "--listen-fd", strconv.Itoa(listenerFD))
	argv = append(argv, spec.Arguments...)
	a, err := run(ctx, argv, []*os.File{listener, program})
	if err != nil {
		sock.close()
		return nil, t.notStarted(err, len(enter) > 0)
	}
	a.socket = sock
	return a, nil
}

// run starts argv with files as its descriptors from 3 on and reads the
// announcement.
func run(ctx context.Context, argv []string, files []*os.File) (*Agent, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	stdout, stdoutEnd, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	a := &Agent{log: &tail{}, done: make(chan struct{})}
	cmd := &exec.Cmd{
		Path: argv[0], Args: argv, Env: []string{"LC_ALL=C"}, Dir: "/",
		Stdout: stdoutEnd, Stderr: a.log, ExtraFiles: files,
		// A session of its own: Ctrl-C is for the user's program.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
		WaitDelay:   endTimeout, // should anybody else hold its stderr
	}
	started := make(chan error)
	a.wg.Go(func() {
		runtime.LockOSThread() // see the package's hazards
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			a.err = cmd.Wait()
			// Nor does anybody who holds its stdout hold up the end.
			_ = stdout.SetReadDeadline(time.Now().Add(endTimeout)) // fails when all is read
			close(a.done)
		}
	})
	err = <-started
	stdoutEnd.Close()
	if err != nil {
		stdout.Close()
		a.wg.Wait()
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	a.pid, a.signal = cmd.Process.Pid, cmd.Process.Signal

	line := make(chan []byte, 1)
	a.wg.Go(func() { // until the agent ends, so that it never waits for us
		defer stdout.Close()
		r := bufio.NewReaderSize(stdout, maxAnnouncement)
		first, _ := r.ReadSlice('\n') // cut short: cannot be read, below
		line <- append([]byte(nil), first...)
		_, _ = io.Copy(io.Discard, r)
	})
	select {
	case <-ctx.Done():
		err = ctx.Err()
	case b := <-line:
		var ok bool
		if a.said, ok = protocol.ParseAnnouncement(b); ok {
			return a, nil
		}
		err = fmt.Errorf("read the agent's announcement %q: no version or key", b)
		if len(b) == 0 { // it ends: how says more
			select {
			case <-a.done:
				if ended := a.Err(); ended != nil {
					err = ended
				}
			case <-ctx.Done():
			}
		}
	}
	a.end(ctx)
	if said := a.lastWords(); said != "" && !strings.HasSuffix(err.Error(), said) {
		err = fmt.Errorf("%w; it said last: %s", err, said)
	}
	return nil, err
}

// Announced is what the agent says of itself.
func (a *Agent) Announced() protocol.Announcement { return a.said }

// PID is the agent's process.
func (a *Agent) PID() int { return a.pid }

// Dial connects to the agent, again and again. It fails with ECONNREFUSED when
// the agent is gone.
func (a *Agent) Dial(ctx context.Context) (io.ReadWriteCloser, error) {
	c, err := a.socket.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to the agent: %w", err)
	}
	return c, nil
}

// Done is closed when the agent has ended.
func (a *Agent) Done() <-chan struct{} { return a.done }

// Err says how the agent ended, with its last words; nil while it runs, or if
// it ended as it should.
func (a *Agent) Err() error {
	select {
	case <-a.done:
	default:
		return nil
	}
	if a.err == nil {
		return nil
	}
	return fmt.Errorf("the agent ended (%w): %s", a.err, cmp.Or(a.lastWords(), "it said nothing"))
}

// lastWords is the last line that the agent logged.
func (a *Agent) lastWords() string {
	said := strings.TrimSpace(a.log.String())
	return said[strings.LastIndexByte(said, '\n')+1:]
}

// Log is the last part of what the agent logged.
func (a *Agent) Log() string { return a.log.String() }

// Close ends the agent and waits for it. When ctx ends the agent is killed.
// How it ended is no error: see Err.
func (a *Agent) Close(ctx context.Context) error {
	a.end(ctx)
	return a.socket.close()
}

func (a *Agent) end(ctx context.Context) {
	_ = a.signal(syscall.SIGTERM) // fails when it has ended
	patience := time.NewTimer(endTimeout)
	defer patience.Stop()
	select {
	case <-a.done:
	case <-ctx.Done():
	case <-patience.C:
	}
	_ = a.signal(syscall.SIGKILL)
	a.wg.Wait()
}

// socket is a listening unix socket without a name: its file is removed as
// soon as it is there, and found by a descriptor of it instead. So nobody else
// can reach it, and nothing is left on disk even after kill -9.
type socket struct{ file *os.File }

func newSocket() (s *socket, listener *os.File, err error) {
	dir, err := os.MkdirTemp("", "mirrord-") // mode 0700
	if err != nil {
		return nil, nil, fmt.Errorf("make a private directory: %w", err)
	}
	defer os.RemoveAll(dir)
	d, err := openPath(dir)
	if err != nil {
		return nil, nil, err
	}
	defer d.Close()
	// By its descriptor: the name of a socket has 107 bytes at most (unix(7)),
	// TMPDIR may be longer.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprintf("/proc/self/fd/%d/agent", d.Fd()), Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	defer l.Close() // the agent has its copy; ours would accept for nobody
	file, err := openPath(dir + "/agent")
	if err != nil {
		return nil, nil, err
	}
	if listener, err = l.File(); err != nil {
		file.Close()
		return nil, nil, err
	}
	return &socket{file}, listener, nil
}

func (s *socket) dial(ctx context.Context) (net.Conn, error) {
	conn, err := s.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	var c net.Conn
	var d net.Dialer
	// Within Control the descriptor stays what it is, also while Close runs.
	if e := conn.Control(func(fd uintptr) {
		c, err = d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d", fd))
	}); e != nil {
		return nil, errors.Join(e, err)
	}
	return c, err
}

func (s *socket) close() error {
	if err := s.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// tail keeps the last logLength bytes written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if n := len(t.b) - logLength; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
