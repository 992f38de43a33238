// Package claims keeps which session holds which port of a target.
//
// A claim is an abstract unix socket in the target's network namespace: taking
// it is atomic, everyone on the target sees it, it dies with its owner however
// that ends, and whoever finds it taken can ask the owner's name on it
// (unix(7), abstract sockets). It leaves no trace in any file system.
//
// Hazards. A process of the target can squat a name: then the port cannot be
// claimed. What it says of itself is believed only of a process in the agent's
// own PID namespace, as other agents are, and, where the target is in that too,
// of none in the target's container: nobody there can pass for a colleague. A
// name is all that a claim gives: it is shown, and nothing follows from it.
package claims

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// askTime bounds the question who holds a port.
	askTime = time.Second
	// maxName bounds a holder's name, in bytes.
	maxName = 200
)

// Claim is one held port.
type Claim struct {
	ln net.Listener
	wg sync.WaitGroup
}

// HeldError says who holds a port. It wraps EADDRINUSE.
type HeldError struct {
	Port   uint16
	Holder string // empty: nobody answers
}

func (e *HeldError) Error() string {
	if e.Holder == "" {
		return fmt.Sprintf("port %d is held by a program of the target that does not say who it is", e.Port)
	}
	return fmt.Sprintf("port %d is held by %s", e.Port, e.Holder)
}

// Unwrap gives EADDRINUSE.
func (*HeldError) Unwrap() error { return syscall.EADDRINUSE }

// Target is whose ports are claimed.
type Target interface {
	// Do runs f inside its network namespace.
	Do(f func() error) error
	// Holds reports whether process pid is known to be in its container.
	Holds(pid int) bool
}

// Take claims a TCP port of t in the name of holder, who others are told of. A
// port that is held already is a *HeldError.
func Take(t Target, port uint16, holder string) (*Claim, error) {
	name := fmt.Sprintf("@mirrord-claim-tcp-%d", port)
	var ln net.Listener
	err := t.Do(func() (err error) {
		ln, err = net.Listen("unix", name)
		return err
	})
	if err != nil {
		var c net.Conn
		if t.Do(func() (err error) { c, err = net.DialTimeout("unix", name, askTime); return err }) != nil {
			return nil, fmt.Errorf("claim port %d: %w", port, err)
		}
		return nil, &HeldError{Port: port, Holder: ask(t, c.(*net.UnixConn))}
	}
	c := &Claim{ln: ln}
	c.wg.Go(func() { c.answer(holder) })
	return c, nil
}

// ask reads the holder's name and closes c; empty if nobody is believed.
func ask(t Target, c *net.UnixConn) string {
	defer c.Close()
	if !known(t, c) {
		return ""
	}
	_ = c.SetDeadline(time.Now().Add(askTime))
	b, _ := io.ReadAll(io.LimitReader(c, maxName))
	return string(b)
}

// known reports whether who listens is in this process's PID namespace, and not
// in the target's container.
func known(t Target, c *net.UnixConn) bool {
	rc, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var peer *unix.Ucred
	if rc.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }) != nil || err != nil {
		return false
	}
	own, theirs := depth("self"), depth(strconv.Itoa(int(peer.Pid))) // pid 0: not one that is seen from here
	return own > 0 && own == theirs && !t.Holds(int(peer.Pid))
}

// depth is in how many PID namespaces a process is, counted from that of /proc
// (proc_pid_status(5), NSpid); 0 if that cannot be told. Anybody may read it.
func depth(pid string) int {
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "\nNSpid:")
	line, _, _ := strings.Cut(rest, "\n")
	return len(strings.Fields(line))
}

func (c *Claim) answer(holder string) {
	for {
		conn, err := c.ln.Accept()
		if err != nil {
			return
		}
		_ = conn.SetDeadline(time.Now().Add(askTime))
		_, _ = io.WriteString(conn, holder[:min(len(holder), maxName)])
		conn.Close()
	}
}

// Release gives the port up.
func (c *Claim) Release() {
	c.ln.Close()
	c.wg.Wait()
}
