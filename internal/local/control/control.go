// Package control holds the words that the front and the supervisor of a
// session exchange, and carries them over a pair of connected unix sockets.
//
// The front is the process that the user started, the parent of the command;
// the supervisor serves the session from a session of its own. The end of the
// stream tells each that the other is gone.
package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
)

// Message is one line of JSON on the socket; exactly one field is set.
type Message struct {
	// From the front.
	Start  *Start  `json:"start,omitempty"`  // first
	Exited *Exited `json:"exited,omitempty"` // the command has ended
	// From the supervisor.
	Event    *event.Event    `json:"event,omitempty"`
	Owned    json.RawMessage `json:"owned,omitempty"`    // what the front must remove in the cluster if the supervisor dies
	Running  *Running        `json:"running,omitempty"`  // the command runs
	Failed   *failure.Error  `json:"failed,omitempty"`   // the session could not start, or ended before the command
	Released *Released       `json:"released,omitempty"` // the answer to Exited: the front may end
}

// Start says what to run.
type Start struct {
	Argv    []string        `json:"argv"`
	Env     []string        `json:"env"` // of the caller
	Dir     string          `json:"dir"`
	UID     int             `json:"uid"`
	GID     int             `json:"gid"`
	Options json.RawMessage `json:"options"` // of the command line, resolved
}

// Exited is how the command ended: its code in the manner of a shell.
type Exited struct {
	Code int `json:"code"`
}

// Running tells that the command has been started.
type Running struct{}

// Released tells the front to end.
type Released struct{}

// Conn is one end. Send may be called concurrently, Receive may not.
type Conn struct {
	c   *net.UnixConn
	dec *json.Decoder
	mu  sync.Mutex // Send
	enc *json.Encoder
}

// Pair makes the two ends: ours, and a descriptor to give to another process.
func Pair() (*Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "control")
	ours, err := Open(os.NewFile(uintptr(fds[0]), "control"))
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// Open makes an end of a descriptor, which it takes over.
func Open(f *os.File) (*Conn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("open the control socket: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("open the control socket: it is a %T", c)
	}
	return &Conn{c: u, dec: json.NewDecoder(u), enc: json.NewEncoder(u)}, nil
}

// Send sends m. It fails when the other end is gone.
func (c *Conn) Send(m Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.enc.Encode(m)
}

// Receive waits for the next message; io.EOF means that the other end is gone.
func (c *Conn) Receive() (Message, error) {
	var m Message
	err := c.dec.Decode(&m)
	if err != nil && (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)) {
		err = io.EOF
	}
	return m, err
}

// Close ends both directions.
func (c *Conn) Close() error { return c.c.Close() }
