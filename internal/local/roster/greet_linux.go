package roster

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/rights"
)

const (
	// meetTime bounds every wait for the other end, which is on this machine: one
	// that takes longer is stopped.
	meetTime = 5 * time.Second
	// maxGreeting bounds what is taken of a Greeting, in bytes.
	maxGreeting = 4096
)

// Greeting is the first word of a session.
type Greeting struct {
	Version string `json:"version"` // of its mirrord
	Own     bool   `json:"own"`     // its sandbox has a user namespace
	// Kubeconfig is the variable KUBECONFIG that holds for it: who joins may have
	// to remove what it owned in the cluster.
	Kubeconfig string `json:"kubeconfig,omitempty"`
}

// Greet sends g, with the door of the session's sandbox.
func Greet(c *net.UnixConn, g Greeting, door *os.File) error {
	b, err := json.Marshal(g)
	if err != nil {
		return err
	}
	return Send(c, append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...), door)
}

// Greeted receives what Greet sent. The caller owns the file.
func Greeted(c *net.UnixConn) (g Greeting, door *os.File, err error) {
	var head [2]byte
	if door, err = Receive(c, head[:]); err != nil {
		return g, nil, err
	}
	b := make([]byte, min(binary.BigEndian.Uint16(head[:]), maxGreeting))
	stray, err := Receive(c, b)
	if stray != nil {
		stray.Close()
	}
	if err == nil {
		err = json.Unmarshal(b, &g)
	}
	if err == nil && door == nil {
		err = errors.New("it sent no descriptor")
	}
	if err != nil {
		if door != nil {
			door.Close()
		}
		return g, nil, fmt.Errorf("meet the session: %w", err)
	}
	return g, door, nil
}

// Send sends b, with a file if f is not nil, which stays the caller's.
func Send(c *net.UnixConn, b []byte, f *os.File) error {
	_ = c.SetWriteDeadline(time.Now().Add(meetTime))
	defer c.SetWriteDeadline(time.Time{})
	if f == nil {
		_, err := c.Write(b)
		return err
	}
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = rc.Control(func(fd uintptr) { _, _, sent = c.WriteMsgUnix(b, unix.UnixRights(int(fd)), nil) })
	return errors.Join(err, sent)
}

// Receive fills b, and takes the file that came with it; nil: none did. What
// follows stays unread.
func Receive(c *net.UnixConn, b []byte) (f *os.File, err error) {
	_ = c.SetReadDeadline(time.Now().Add(meetTime))
	defer c.SetReadDeadline(time.Time{})
	oob := make([]byte, unix.CmsgSpace(4))
	for len(b) > 0 {
		n, oobn, _, _, err := c.ReadMsgUnix(b, oob)
		if f == nil && oobn > 0 {
			f = rights.Received(oob[:oobn])
		}
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			if f != nil {
				f.Close()
			}
			return nil, err
		}
		b = b[n:]
	}
	return f, nil
}
