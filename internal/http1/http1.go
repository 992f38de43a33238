// Package http1 reads HTTP/1 messages without changing a byte of them, but where it
// is told to (Request.Adopt, Request.Decline).
//
// A Reader finds where the messages of one direction of a connection begin and
// end, tells what decides about them (method, target, header fields, how the
// connection goes on), and forwards them exactly as they came: casing, order,
// folding, chunks, trailers. It never repairs. What could be understood in two
// ways, by the rules of RFC 9112, is an error before anything of the message
// is consumed: its caller passes the bytes on to whoever they were for, who
// understands them in his own way.
//
// It touches nothing but the io.Reader and io.Writer that it is given, starts
// no goroutines, and needs the same memory for any body: 4 KiB while it waits,
// 64 KiB while much arrives, if there is memory for them; more only for a body
// that is looked at before it is forwarded (Ahead).
package http1

import (
	"errors"
	"io"
	"sync"

	"github.com/mirrord-go/mirrord/internal/budget"
)

const (
	// smallBuffer holds the heads of most messages, in bytes: a connection
	// that waits for its next request costs no more.
	smallBuffer = 4 << 10
	// MaxHead is the longest head that is understood, in bytes, and the buffer
	// for bodies: a system call's price is small beside its copying. Servers
	// refuse heads far shorter (8 KiB to 1 MiB).
	MaxHead = 64 << 10
)

var (
	// ErrIncomplete: the head has not arrived completely; Fill gets more.
	ErrIncomplete = errors.New("the head is not complete")
	// ErrNotHTTP: the bytes do not begin with the first line of a message of
	// HTTP/1.0 or HTTP/1.1.
	ErrNotHTTP = errors.New("not HTTP/1")
	// ErrAmbiguous: two implementations could understand the message in
	// different ways.
	ErrAmbiguous = errors.New("ambiguous HTTP/1 message")
	// ErrTooLong: the head is longer than MaxHead, or than a small buffer while
	// there is no memory for a large one.
	ErrTooLong = errors.New("the head is too long")
)

// WriteError is an error of the writer that Forward writes to.
type WriteError struct{ Err error }

func (e *WriteError) Error() string { return "forward: " + e.Err.Error() }

// Unwrap gives Err.
func (e *WriteError) Unwrap() error { return e.Err }

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([MaxHead]byte) }}
)

// Reader reads one direction of a connection. It must not be used
// concurrently.
type Reader struct {
	src   io.Reader
	large *budget.Share // of large buffers
	buf   []byte        // nil, or from a pool
	r, w  int           // buf[r:w] has been read and not consumed
	scan  scanner
}

// NewReader reads from src. Its memory is given back by Close. Large buffers,
// of MaxHead bytes each, are taken from large: a peer that is slow keeps its
// buffer, and there may be as many as connections.
func NewReader(src io.Reader, large *budget.Share) *Reader { return &Reader{src: src, large: large} }

// Buffered is what has arrived and is not consumed. It is valid until the next
// call of another method.
func (r *Reader) Buffered() []byte { return r.buf[r.r:r.w] }

// Discard consumes what is buffered.
func (r *Reader) Discard() {
	r.r, r.w = 0, 0
	r.scan = scanner{}
}

// Close gives the memory back; src is left alone.
func (r *Reader) Close() {
	r.Discard()
	r.resize(0)
}

// Fill waits until more has arrived. Its error is that of src; what is
// buffered stays. It must not be called after ErrTooLong.
func (r *Reader) Fill() error {
	if r.r == r.w {
		r.r, r.w = 0, 0
		r.resize(smallBuffer)
	} else if !r.room() {
		return ErrTooLong
	}
	return r.read()
}

// room makes room behind what is buffered; false: there is none to be had.
func (r *Reader) room() bool {
	switch {
	case len(r.buf) == 0:
		return r.resize(smallBuffer)
	case r.w < len(r.buf):
		return true
	case r.r > 0:
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
		return true
	}
	return len(r.buf) < MaxHead && r.resize(MaxHead)
}

// fit gives back what a body that was looked at has needed, as far as there is
// not more behind it.
func (r *Reader) fit() {
	if rest := r.w - r.r; len(r.buf) > MaxHead && rest <= MaxHead {
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
		r.resize(MaxHead)
	}
}

// read reads once behind what is buffered.
func (r *Reader) read() error {
	for range 100 { // as bufio: a reader that gives nothing is broken
		n, err := r.src.Read(r.buf[r.w:])
		r.w += n
		if n > 0 {
			return nil // an error comes again
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// resize changes the buffer's length to 0, smallBuffer, MaxHead or more, and keeps
// what is in it. False: there is no memory for a large one, the buffer stays.
func (r *Reader) resize(n int) bool {
	if len(r.buf) == n {
		return true
	}
	if n >= MaxHead && !r.large.Take(n) {
		return false
	}
	old := r.buf
	switch n {
	case 0:
		r.buf = nil
	case smallBuffer:
		r.buf = smallBuffers.Get().(*[smallBuffer]byte)[:]
	case MaxHead:
		r.buf = largeBuffers.Get().(*[MaxHead]byte)[:]
	default:
		r.buf = make([]byte, n)
	}
	copy(r.buf, old)
	switch len(old) {
	case smallBuffer:
		smallBuffers.Put((*[smallBuffer]byte)(old))
	case MaxHead:
		largeBuffers.Put((*[MaxHead]byte)(old))
	}
	if len(old) >= MaxHead {
		r.large.Give(len(old))
	}
	return true
}

// head waits for nothing: it finds the end of the head that is buffered.
func (r *Reader) head(kind kind) (string, error) {
	b := r.buf[r.r:r.w]
	done, err := r.scan.scan(b, kind)
	switch {
	case err != nil:
		return "", err
	case done:
		return string(b[:r.scan.at]), nil
	case !r.room():
		return "", ErrTooLong
	}
	return "", ErrIncomplete
}

// Message is where a message ends. It is the part of a Request or Response
// that Forward consumes.
type Message struct {
	head int // bytes of the head not yet forwarded
	body body

	instead []byte // of the head, where that is forwarded in other words
}

// Forward writes the message m, which was the last that Request or Response
// gave, head and body to dst, and consumes it, as it arrives. A *WriteError is
// dst's; ErrAmbiguous means that the rest of the body, still buffered, could be
// understood in two ways; any other error is the reader's, with
// io.ErrUnexpectedEOF for an end inside the message.
func (r *Reader) Forward(dst io.Writer, m *Message) error {
	r.scan = scanner{later: true}
	if m.instead != nil {
		if _, err := dst.Write(m.instead); err != nil {
			return &WriteError{err}
		}
		r.r += m.head
		m.head, m.instead = 0, nil
	}
	for {
		n, done, err := m.body.scan(r.buf[r.r+m.head : r.w])
		b := r.buf[r.r : r.r+m.head+n]
		n += m.head
		m.head = 0
		if n > 0 {
			if _, werr := dst.Write(b); werr != nil {
				return &WriteError{werr}
			}
			r.r += n
		}
		if done || err != nil {
			r.fit()
			return err
		}
		// All that is buffered was the message's.
		full := r.w == len(r.buf)
		r.r, r.w = 0, 0
		if full {
			r.resize(MaxHead) // or goes on with what there is
		}
		if err := r.read(); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
}

// ForwardRest writes to dst what is buffered and all that src still gives, and
// gives the Reader's memory back. Between two TCP connections the kernel does
// it. The error is nil at the end of src; one of dst is a *WriteError where it
// can be told apart.
func (r *Reader) ForwardRest(dst io.Writer) error {
	defer r.Close()
	for {
		if b := r.Buffered(); len(b) > 0 {
			if _, err := dst.Write(b); err != nil {
				return &WriteError{err}
			}
		}
		full := r.w == len(r.buf)
		r.Discard()
		if spliced(dst) && spliced(r.src) {
			r.Close()
			_, err := io.Copy(dst, r.src)
			return err
		}
		if !full || !r.resize(MaxHead) {
			r.resize(smallBuffer)
		}
		if err := r.read(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// spliced reports whether c is a TCP connection, or embeds one: io.Copy between
// two of them is splice(2).
func spliced(c any) bool {
	_, ok := c.(interface {
		io.ReaderFrom
		io.WriterTo
		SetNoDelay(bool) error
	})
	return ok
}
