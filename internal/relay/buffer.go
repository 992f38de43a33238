package relay

import (
	"io"
	"net"
	"os"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/budget"
)

// buffer is what one direction reads into.
type buffer struct {
	share *budget.Share // of large
	small *[smallBuffer]byte
	large *[largeBuffer]byte // nil: it has none
}

func (b *buffer) bytes() []byte {
	if b.large != nil {
		return b.large[:]
	}
	return b.small[:]
}

// grow takes a large buffer, if there is one: there is much to read.
func (b *buffer) grow() {
	if b.large == nil && b.share.Take(largeBuffer) {
		b.large = largeBuffers.Get().(*[largeBuffer]byte)
	}
}

// shrink gives the large buffer back: the next read may wait.
func (b *buffer) shrink() {
	if b.large != nil {
		largeBuffers.Put(b.large)
		b.large = nil
		b.share.Give(largeBuffer)
	}
}

// reading gives what reads src into buf; its result is valid until the next call.
// Nobody waits with a large buffer in hand. And where it is known, who had to wait
// does not begin with a small one if much has come: that would be a small write,
// with all that follows from it on the way, whenever the other side is the faster.
func reading(src io.Reader, buf *buffer) func() ([]byte, error) {
	switch s := src.(type) {
	case *net.TCPConn:
		if raw, err := s.SyscallConn(); err == nil && rawReads {
			return readingSocket(raw, buf)
		}
	case interface{ Ready() int }:
		return func() ([]byte, error) {
			if !more(src) {
				buf.shrink()
			}
			if s.Ready() > smallBuffer {
				buf.grow()
			}
			p := buf.bytes()
			n, err := src.Read(p)
			return p[:n], err
		}
	}
	much := false // is there, as far as the last read tells
	return func() ([]byte, error) {
		buf.fit(much)
		p := buf.bytes()
		n, err := src.Read(p)
		much = n == len(p) || more(src)
		return p[:n], err
	}
}

// readingSocket is reading for a socket, which says by EAGAIN that it has nothing
// more: the large buffer is given back for the time until it has.
func readingSocket(raw syscall.RawConn, buf *buffer) func() ([]byte, error) {
	var p []byte
	var n int
	var err error
	much := false // came with the last read
	try := func(fd uintptr) bool {
		buf.fit(much)
		p = buf.bytes()
		n, err = readSocket(fd, p)
		for err == syscall.EINTR {
			n, err = readSocket(fd, p)
		}
		if err == syscall.EAGAIN {
			buf.shrink()
			return false
		}
		return true
	}
	return func() ([]byte, error) {
		if err := raw.Read(try); err != nil {
			return nil, err
		}
		switch {
		case err != nil:
			return nil, os.NewSyscallError("read", err)
		case n == 0:
			return nil, io.EOF
		}
		much = n >= smallBuffer
		return p[:n], nil
	}
}

// fit has the size for much, or for what one waits for.
func (b *buffer) fit(much bool) {
	if much {
		b.grow()
	} else {
		b.shrink()
	}
}

// more reports whether src is known to have more after a read that did not fill
// its buffer: a socket has not.
func more(src io.Reader) bool {
	s, ok := src.(interface{ Buffered() int })
	return ok && s.Buffered() > 0
}
