package quiet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
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
	err error
	try func(fd uintptr) bool
}

// New takes c over.
func New(c *net.TCPConn) *Conn {
	q := &Conn{TCPConn: c}
	q.raw, _ = c.SyscallConn() // fails for none that was made by package net
	q.reading.try = q.reading.of(read)
	q.writing.try = q.writing.of(write)
	return q
}

// of makes that system call; false: one has to wait.
func (c *call) of(system func(fd uintptr, p []byte) (int, error)) func(fd uintptr) bool {
	return func(fd uintptr) bool {
		for {
			c.n, c.err = system(fd, c.p)
			if c.err != syscall.EINTR {
				return c.err != syscall.EAGAIN
			}
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
	case c.err != nil:
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
		if c.err != nil {
			return written, q.failure("write", c.err)
		}
		written += c.n
	}
	return written, nil
}

// failure is what package net makes of an errno.
func (q *Conn) failure(op string, errno error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: q.LocalAddr(), Addr: q.RemoteAddr(), Err: os.NewSyscallError(op, errno)}
}
