// Package unixsock makes connected unix sockets into what a relay can carry:
// streams of bytes, and whole messages (SOCK_SEQPACKET).
//
// The agent uses it towards the target's server, the session towards the
// program. It opens nothing.
//
// Hazards. Descriptors that come along (SCM_RIGHTS) cannot be carried: they are
// never taken into this process, the kernel closes them. A message of no bytes
// cannot be told from the end, by nobody, and counts as that.
package unixsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/budget"
)

// MaxName is the size of sun_path in bytes: what a name can have at most
// (unix(7)).
const MaxName = 108

// maxPacket bounds a message in bytes: what fits into one of the link's. The
// kernel's own bound is the size of the socket's buffer, 208 KiB by default.
const maxPacket = 512 << 10

// Conn is a connected socket. Its methods may be called concurrently; its
// fields are set before the first.
type Conn struct {
	// Dropped is called, by Read and Receive, for each piece that came with
	// descriptors. nil: nobody wants to know.
	Dropped func()
	// As runs what sends: a server can ask for the credentials of who does
	// (SO_PASSCRED), and these are the calling thread's. f does not block. nil: any
	// thread may.
	As func(f func()) error
	// Packets is memory for messages. nil: it has no end.
	Packets *budget.Share

	c   *net.UnixConn
	raw syscall.RawConn
}

// New owns fd, a connected non-blocking socket, from the beginning on.
func New(fd int) (*Conn, error) {
	f := os.NewFile(uintptr(fd), "unix")
	defer f.Close() // FileConn has a descriptor of its own
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, syscall.EPROTOTYPE
	}
	raw, err := u.SyscallConn()
	if err != nil {
		u.Close()
		return nil, err
	}
	return &Conn{c: u, raw: raw}, nil
}

// Name is sun_path as a person writes it: an abstract name begins with @.
func Name(sunPath string) string {
	if abstract, ok := strings.CutPrefix(sunPath, "\x00"); ok {
		return "@" + strings.TrimRight(abstract, "\x00")
	}
	return sunPath
}

// Connect is connect(2) to a name as sun_path has it: a path, or NUL and an
// abstract name.
func Connect(fd int, name string) error {
	if len(name) == 0 || len(name) > MaxName {
		return unix.EINVAL
	}
	b := append(binary.NativeEndian.AppendUint16(nil, unix.AF_UNIX), name...)
	if name[0] != 0 && len(name) < MaxName {
		b = append(b, 0)
	}
	_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if e != 0 {
		return e
	}
	return nil
}

// Read reads bytes of a stream.
func (c *Conn) Read(p []byte) (int, error) {
	n, _, flags, _, err := c.c.ReadMsgUnix(p, nil)
	c.noticed(flags)
	return max(n, 0), errno(err) // -1 with an error
}

// noticed looks for what the kernel has left out: without room for it, what
// comes along is never installed here (recvmsg(2), MSG_CTRUNC).
func (c *Conn) noticed(flags int) {
	if flags&unix.MSG_CTRUNC != 0 && c.Dropped != nil {
		c.Dropped()
	}
}

// Write writes bytes of a stream.
func (c *Conn) Write(p []byte) (n int, err error) {
	if c.As == nil {
		n, err = c.c.Write(p)
		return n, errno(err)
	}
	for n < len(p) {
		sent, err := c.send(p[n:])
		n += sent
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// send waits until the socket takes something of p, in the name of As.
func (c *Conn) send(p []byte) (n int, err error) {
	waited := c.raw.Write(func(fd uintptr) bool {
		do := func() { n, err = unix.SendmsgN(int(fd), p, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT) }
		if c.As == nil {
			do()
		} else if gone := c.As(do); gone != nil {
			err = gone
		}
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	if waited != nil {
		return 0, net.ErrClosed
	}
	return max(n, 0), err
}

// Receive waits for one message and gives it to use, whose it is until it
// returns, and whose error is then Receive's. At the end it gives io.EOF; ENOBUFS:
// there is no memory for the message.
func (c *Conn) Receive(use func(p []byte) error) error {
	var size int
	var err error
	waited := c.raw.Read(func(fd uintptr) bool {
		size, _, err = unix.Recvfrom(int(fd), nil, unix.MSG_PEEK|unix.MSG_TRUNC|unix.MSG_DONTWAIT)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	switch {
	case waited != nil:
		return net.ErrClosed
	case err != nil:
		return err
	case size == 0:
		return io.EOF
	case size > maxPacket:
		return fmt.Errorf("a message of %d bytes: %w", size, syscall.EMSGSIZE)
	case !c.Packets.Take(size):
		return fmt.Errorf("a message of %d bytes: %w", size, syscall.ENOBUFS)
	}
	defer c.Packets.Give(size)
	p := make([]byte, size)
	n, _, flags, _, err := c.c.ReadMsgUnix(p, nil)
	c.noticed(flags)
	if err != nil {
		return errno(err)
	}
	return use(p[:n])
}

// Send sends one message.
func (c *Conn) Send(p []byte) error {
	_, err := c.send(p)
	return err
}

// CloseWrite ends this direction: the other end reads the end of file.
func (c *Conn) CloseWrite() error { return errno(c.c.CloseWrite()) }

// Close ends both directions. The other end reads the end of file, unless
// something that it has sent was not read yet: then ECONNRESET.
func (c *Conn) Close() error { return c.c.Close() }

// errno is err without what package net adds: unix sockets have no addresses
// worth a line.
func errno(err error) error {
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	if e := syscall.Errno(0); errors.As(err, &e) {
		return e
	}
	return err
}
