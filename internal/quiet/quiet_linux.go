package quiet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// largest is the most that one system call carries, in bytes: nobody else runs on
// this processor while the kernel copies it.
const largest = 64 << 10

// Conn is a TCP connection; but for Read and Write it is the one it was made of.
type Conn struct {
	*net.TCPConn
	raw syscall.RawConn

	reading, writing call
}

// call is one direction: what its current system call is about. What reads or writes
// is made once, since the compiler cannot keep it from the heap.
type call struct {
	mu  sync.Mutex // one after the other, as with any connection
	p   []byte
	n   int
	err syscall.Errno
	try func(fd uintptr) bool
}

// New takes c over.
func New(c *net.TCPConn) *Conn {
	q := &Conn{TCPConn: c}
	q.raw, _ = c.SyscallConn() // fails for none that was made by package net
	q.reading.try = q.reading.of(syscall.SYS_READ)
	q.writing.try = q.writing.of(syscall.SYS_WRITE)
	return q
}

// of makes the system call with that number; false: one has to wait.
func (c *call) of(number uintptr) func(fd uintptr) bool {
	return func(fd uintptr) bool {
		for {
			n, _, err := syscall.RawSyscall(number, fd, uintptr(unsafe.Pointer(&c.p[0])), uintptr(len(c.p)))
			switch err {
			case syscall.EINTR:
				continue
			case syscall.EAGAIN:
				return false
			}
			c.n, c.err = int(n), err
			return true
		}
	}
}

// Read is that of net.Conn.
func (q *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c := &q.reading
	c.mu.Lock()
	defer c.mu.Unlock()
	c.p = p[:min(len(p), largest)]
	err := q.raw.Read(c.try)
	c.p = nil
	switch {
	case err != nil:
		return 0, err
	case c.err != 0:
		return 0, q.failure("read", c.err)
	case c.n == 0:
		return 0, io.EOF
	}
	return c.n, nil
}

// Write is that of net.Conn.
func (q *Conn) Write(p []byte) (int, error) {
	c := &q.writing
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() { c.p = nil }()
	written := 0
	for written < len(p) {
		c.p = p[written:min(len(p), written+largest)]
		if err := q.raw.Write(c.try); err != nil {
			return written, err
		}
		if c.err != 0 {
			return written, q.failure("write", c.err)
		}
		written += c.n
	}
	return written, nil
}

// failure is what package net makes of an errno.
func (q *Conn) failure(op string, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: "tcp", Source: q.LocalAddr(), Addr: q.RemoteAddr(), Err: os.NewSyscallError(op, errno)}
}
