// Package claims keeps which session holds which port of a target.
//
// A claim is an abstract unix socket in the target's network namespace: taking
// it is atomic, everyone on the target sees it, it dies with its owner however
// that ends, and whoever finds it taken can ask the owner's name on it, or to
// join him (unix(7), abstract sockets). It leaves no trace in any file system.
//
// On a connection the owner says his name and a newline. Who wants to join
// answers with one byte; what is said then is theirs.
//
// Hazards. A process of the target can squat a name: then the port cannot be
// claimed. Owner and joiner believe only a process in their own PID namespace,
// as other agents are, and, where the target is in that too, none in the
// target's container: nobody there can pass for a colleague. A name is shown,
// and nothing follows from it.
package claims

import (
	"errors"
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
	// maxAsking is how many colleagues may be about to join at once.
	maxAsking = 8
	// join is what a joiner says.
	join = 'j'
)

// ErrAlone: who holds the port cannot be joined, or is just giving it up.
var ErrAlone = errors.New("whoever holds the port cannot be joined")

// Claim is one held port.
type Claim struct {
	t      Target
	ln     net.Listener
	wg     sync.WaitGroup
	joined func(net.Conn)

	mu     sync.Mutex
	asking map[net.Conn]bool // colleagues who have been told the name
	over   bool
}

// HeldError says who holds a port. It wraps EADDRINUSE.
type HeldError struct {
	Network string
	Port    uint16
	Holder  string // empty: nobody answers
	Silent  bool   // and it is a colleague who does not: one who is stopped
}

func (e *HeldError) Error() string {
	port := fmt.Sprintf("port %d", e.Port)
	if e.Network == UDP {
		port = "UDP " + port
	}
	switch {
	case e.Holder == "" && e.Silent:
		return port + " is held by another session, whose agent does not answer, as if it were stopped"
	case e.Holder == "":
		return port + " is held by a program of the target that does not say who it is"
	}
	return fmt.Sprintf("%s is held by %s", port, e.Holder)
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

// Networks whose ports are claimed.
const (
	TCP = "tcp"
	UDP = "udp"
)

func name(network string, port uint16) string {
	return fmt.Sprintf("@%s%s-%d", prefix, network, port)
}

const prefix = "mirrord-claim-"

// Is reports whether what sun_path has is the name of a claim. An agent connects
// to one for itself only: who is at the other end believes it.
func Is(sunPath string) bool { return strings.HasPrefix(sunPath, "\x00"+prefix) }

// Take claims a port of t in the name of holder, who others are told of. A
// port that is held already is a *HeldError. joined is given the connection of
// each colleague who joins, which it owns; it must not wait. nil: nobody can.
func Take(t Target, network string, port uint16, holder string, joined func(net.Conn)) (*Claim, error) {
	var ln net.Listener
	err := t.Do(func() (err error) {
		ln, err = net.Listen("unix", name(network, port))
		return err
	})
	if err != nil {
		c, derr := dial(t, network, port)
		if derr != nil {
			return nil, fmt.Errorf("claim port %d: %w", port, err)
		}
		defer c.Close()
		return nil, &HeldError{Network: network, Port: port, Holder: ask(t, c), Silent: known(t, c)}
	}
	c := &Claim{t: t, ln: ln, joined: joined, asking: map[net.Conn]bool{}}
	c.wg.Go(func() { c.answer(holder[:min(len(holder), maxName)]) })
	return c, nil
}

// Join connects to the colleague who holds a TCP port. An error that wraps ErrAlone
// says that there is none, or none who can be joined.
func Join(t Target, port uint16) (net.Conn, error) {
	c, err := dial(t, TCP, port)
	if err != nil {
		return nil, fmt.Errorf("join the holder of port %d: %w (%w)", port, ErrAlone, err)
	}
	if ask(t, c) == "" {
		c.Close()
		return nil, fmt.Errorf("join the holder of port %d: %w", port, ErrAlone)
	}
	if _, err := c.Write([]byte{join}); err != nil {
		c.Close()
		return nil, fmt.Errorf("join the holder of port %d: %w (%w)", port, ErrAlone, err)
	}
	_ = c.SetDeadline(time.Time{})
	return c, nil
}

// Holder is the colleague who holds a port; false: nobody does, or nobody who is
// believed.
func Holder(t Target, network string, port uint16) (name string, held bool) {
	c, err := dial(t, network, port)
	if err != nil {
		return "", false
	}
	defer c.Close()
	name = ask(t, c)
	return name, name != ""
}

func dial(t Target, network string, port uint16) (*net.UnixConn, error) {
	var c net.Conn
	if err := t.Do(func() (err error) { c, err = net.DialTimeout("unix", name(network, port), askTime); return err }); err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// ask reads the holder's name; empty if nobody is believed. It sets c's deadline.
func ask(t Target, c *net.UnixConn) string {
	if !known(t, c) {
		return ""
	}
	_ = c.SetDeadline(time.Now().Add(askTime))
	// Byte by byte: what comes behind the newline is not for us.
	var said []byte
	for b := make([]byte, 1); ; said = append(said, b...) {
		if _, err := io.ReadFull(c, b); err != nil || b[0] == '\n' || len(said) == maxName {
			return string(said)
		}
	}
}

// known reports whether the other end is in this process's PID namespace, and
// not in the target's container.
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
		_, _ = io.WriteString(conn, holder+"\n")
		if c.joined == nil || !known(c.t, conn.(*net.UnixConn)) || !c.enter(conn) {
			conn.Close()
			continue
		}
		c.wg.Go(func() { c.admit(conn) })
	}
}

// enter notes that conn may join, if there is room for one more.
func (c *Claim) enter(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || len(c.asking) >= maxAsking {
		return false
	}
	c.asking[conn] = true
	return true
}

// admit waits for the word of somebody who may join.
func (c *Claim) admit(conn net.Conn) {
	word := make([]byte, 1)
	n, _ := conn.Read(word)
	c.mu.Lock()
	delete(c.asking, conn)
	over := c.over
	c.mu.Unlock()
	if over || n != 1 || word[0] != join {
		conn.Close()
		return
	}
	_ = conn.SetDeadline(time.Time{})
	c.joined(conn)
}

// Release gives the port up. Those who have joined are not touched.
func (c *Claim) Release() {
	c.ln.Close()
	c.mu.Lock()
	c.over = true
	for conn := range c.asking {
		conn.Close()
	}
	c.mu.Unlock()
	c.wg.Wait()
}
