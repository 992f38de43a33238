// Package claims keeps which session holds which port of a target.
//
// A claim is an abstract unix socket in the target's network namespace: taking
// it is atomic, everyone on the target sees it, it dies with its owner however
// that ends, and whoever finds it taken can ask the owner's name on it
// (unix(7), abstract sockets). It leaves no trace in any file system.
//
// Hazards. A process of the target can squat a name: then the port cannot be
// claimed, and the error says that its holder does not answer.
package claims

import (
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
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

// Take claims a TCP port in the name of holder, who others are told of. in
// runs a function inside the target's network namespace. A port that is held
// already is a *HeldError.
func Take(in func(func() error) error, port uint16, holder string) (*Claim, error) {
	name := fmt.Sprintf("@mirrord-claim-tcp-%d", port)
	var ln net.Listener
	err := in(func() (err error) {
		ln, err = net.Listen("unix", name)
		return err
	})
	if err != nil {
		var c net.Conn
		if in(func() (err error) { c, err = net.DialTimeout("unix", name, askTime); return err }) != nil {
			return nil, fmt.Errorf("claim port %d: %w", port, err)
		}
		return nil, &HeldError{Port: port, Holder: ask(c)}
	}
	c := &Claim{ln: ln}
	c.wg.Go(func() { c.answer(holder) })
	return c, nil
}

// ask reads the holder's name and closes c.
func ask(c net.Conn) string {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(askTime))
	b, _ := io.ReadAll(io.LimitReader(c, maxName))
	return string(b)
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
