package handoff

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/rights"
)

// Kind of a Message.
type Kind byte

// Kinds of messages, with their direction.
const (
	KindSpec   Kind = iota + 1 // supervisor to init: an encoded Spec
	KindFile                   // init to supervisor: a descriptor; Body[0] is its Label
	KindReady                  // init to supervisor: waits for KindGo
	KindGo                     // supervisor to init
	KindError                  // init to supervisor: an encoded Error; init ends
	KindWords                  // between front and supervisor: SendFile
	KindProbe                  // in place of KindSpec: only find out what is possible here
	KindProbed                 // init to whoever probes: an encoded Error, without errno and text if the Step is possible
)

// Message is one unit of the pipe. Whoever receives it owns File.
type Message struct {
	Kind Kind
	Body []byte
	File *os.File // nil: none
}

const (
	headerSize = 5 // kind, length of the body (big endian)
	// maxBody bounds what a reader takes: Linux limits arguments and
	// environment of a program to a quarter of the stack limit, 6 MiB at most
	// (execve(2)); bind paths come on top.
	maxBody = 16 << 20
)

// Conn carries messages over a stream socket. One goroutine may send while
// another receives.
type Conn struct {
	f  *os.File
	rc syscall.RawConn

	sending, receiving sync.Mutex // held for a whole message
}

// Pair makes a connected pair of sockets, both close-on-exec.
func Pair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "sandbox-supervisor"), os.NewFile(uintptr(fds[1]), "sandbox-init"), nil
}

// NewConn owns f, an end of a Pair, also on error.
func NewConn(f *os.File) (*Conn, error) {
	if f.SetDeadline(time.Time{}) != nil {
		// f was made while its descriptor was in blocking mode: it does not know
		// the poller, and a blocked call could not be ended.
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("duplicate sandbox socket: %w", err)
		}
		if err := unix.SetNonblock(fd, true); err != nil {
			unix.Close(fd)
			return nil, err
		}
		f = os.NewFile(uintptr(fd), "sandbox")
	}
	rc, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Conn{f: f, rc: rc}, nil
}

// Close ends both directions; a blocked call fails.
func (c *Conn) Close() error { return c.f.Close() }

// SetDeadline makes blocked and later calls fail with os.ErrDeadlineExceeded
// at t; the zero time takes it away.
func (c *Conn) SetDeadline(t time.Time) error { return c.f.SetDeadline(t) }

// Send sends m. m.File stays the caller's.
func (c *Conn) Send(m Message) error {
	if len(m.Body) > maxBody {
		return fmt.Errorf("send to sandbox: %w", unix.E2BIG)
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	head := append([]byte{byte(m.Kind)}, binary.BigEndian.AppendUint32(nil, uint32(len(m.Body)))...)
	var rights []byte
	if m.File != nil {
		frc, err := m.File.SyscallConn()
		if err != nil {
			return err
		}
		// The descriptor must stay open until it is in the socket.
		var sent error
		err = frc.Control(func(fd uintptr) { sent = c.write(head, unix.UnixRights(int(fd))) })
		if err == nil {
			err = sent
		}
		if err != nil {
			return fmt.Errorf("send descriptor: %w", err)
		}
	} else if err := c.write(head, rights); err != nil {
		return fmt.Errorf("send to sandbox: %w", err)
	}
	if err := c.write(m.Body, nil); err != nil {
		return fmt.Errorf("send to sandbox: %w", err)
	}
	return nil
}

func (c *Conn) write(b, oob []byte) error {
	for len(b) > 0 {
		var n int
		var err error
		werr := c.rc.Write(func(fd uintptr) bool {
			n, err = unix.SendmsgN(int(fd), b, oob, nil, unix.MSG_NOSIGNAL)
			return !errors.Is(err, unix.EAGAIN)
		})
		switch {
		case werr != nil:
			return werr
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		}
		b, oob = b[n:], nil
	}
	return nil
}

// Receive waits for the next message. io.EOF: the other end is closed.
func (c *Conn) Receive() (m Message, err error) {
	c.receiving.Lock()
	defer c.receiving.Unlock()
	defer func() {
		if err != nil && m.File != nil {
			m.File.Close()
			m.File = nil
		}
	}()
	head := make([]byte, headerSize)
	// The descriptor comes with the first byte; reading the header alone makes
	// sure that it cannot be mixed up with that of the next message.
	if m.File, err = c.read(head); err != nil {
		return m, err
	}
	m.Kind = Kind(head[0])
	size := binary.BigEndian.Uint32(head[1:])
	if size > maxBody {
		return m, fmt.Errorf("receive from sandbox: %w", unix.EMSGSIZE)
	}
	m.Body = make([]byte, size)
	stray, err := c.read(m.Body)
	if stray != nil {
		stray.Close()
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return m, err
}

// read fills b.
func (c *Conn) read(b []byte) (f *os.File, err error) {
	oob := make([]byte, unix.CmsgSpace(4))
	for got := 0; got < len(b); {
		var n, oobn int
		rerr := c.rc.Read(func(fd uintptr) bool {
			n, oobn, _, _, err = unix.Recvmsg(int(fd), b[got:], oob, unix.MSG_CMSG_CLOEXEC)
			return !errors.Is(err, unix.EAGAIN)
		})
		switch {
		case rerr != nil:
			return f, rerr
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECONNRESET): // the other end closed with unread data
			return f, io.EOF
		case err != nil:
			return f, fmt.Errorf("receive from sandbox: %w", err)
		case n == 0 && got == 0:
			return f, io.EOF
		case n == 0:
			return f, io.ErrUnexpectedEOF
		}
		if oobn > 0 && f == nil {
			f = rights.Received(oob[:oobn])
		}
		got += n
	}
	return f, nil
}

// SendFile passes f with a label over a socket of Pair, for processes that have
// no other way to pass descriptors. f stays the caller's.
func SendFile(c *Conn, label string, f *os.File) error {
	return c.Send(Message{Kind: KindWords, Body: []byte(label), File: f})
}

// RecvFile receives what SendFile sent. The caller owns the file.
func RecvFile(c *Conn) (label string, f *os.File, err error) {
	m, err := c.Receive()
	if err != nil {
		return "", nil, err
	}
	if m.Kind != KindWords || m.File == nil {
		if m.File != nil {
			m.File.Close()
		}
		return "", nil, errors.New("receive descriptor: the message has none")
	}
	return string(m.Body), m.File, nil
}
