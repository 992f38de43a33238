// Package relay joins two connections: what one side says the other hears,
// with half-close and reset passed on.
//
// Every flow that carries connections uses it, on both machines. It knows no
// network: connections are anything with the methods of Conn. It allocates
// nothing per connection but two buffers from a pool.
package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// Conn is one side: a stream both ways whose directions end separately.
// *net.TCPConn, *net.UnixConn, a stream of the link and a connection of the
// netstack are such.
type Conn interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// bufferSize is the length in bytes of a copy buffer: large enough that a
// system call's price is small beside the copying, small enough for thousands
// of connections.
const bufferSize = 64 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// Count is what a relay has carried, in bytes.
type Count struct {
	AtoB, BtoA int64
}

// Join copies between a and b until both directions have ended, then closes
// both. An orderly end of one direction is passed on as a half-close; an error
// or the end of ctx resets both sides. The error is nil if both directions
// ended orderly.
func Join(ctx context.Context, a, b Conn) (Count, error) {
	var once sync.Once
	reset := func(err error) {
		once.Do(func() {
			Reset(a, err)
			Reset(b, err)
		})
	}
	stop := context.AfterFunc(ctx, func() { reset(context.Cause(ctx)) })
	defer stop()

	var n Count
	var there, back error
	var wg sync.WaitGroup
	wg.Go(func() {
		if n.AtoB, there = pump(b, a); there != nil {
			reset(there)
		}
	})
	if n.BtoA, back = pump(a, b); back != nil {
		reset(back)
	}
	wg.Wait()
	a.Close()
	b.Close()
	if there != nil {
		return n, there
	}
	return n, back
}

// pump copies src to dst until src ends, then half-closes dst.
func pump(dst, src Conn) (n int64, err error) {
	n, err = copyBuffered(dst, src)
	if err != nil {
		return n, err
	}
	// A side that is gone already has nothing more to hear.
	if err := dst.CloseWrite(); err != nil && !gone(err) {
		return n, err
	}
	return n, nil
}

func gone(err error) bool {
	return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) || errors.Is(err, io.ErrClosedPipe)
}

// copyBuffered does not use io.Copy: its short cuts (splice, ReadFrom) would
// hide which side an error came from and hold buffers of their own.
func copyBuffered(dst io.Writer, src io.Reader) (n int64, err error) {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	for {
		r, rerr := src.Read(buf[:])
		if r > 0 {
			w, werr := dst.Write(buf[:r])
			n += int64(w)
			if werr != nil {
				return n, werr
			}
		}
		if rerr != nil {
			if errors.Is(rerr, io.EOF) {
				return n, nil
			}
			return n, rerr
		}
	}
}

// Drain reads src to its end into dst and forgets what src is told: for copies
// of traffic whose reply goes nowhere. It closes both.
func Drain(ctx context.Context, dst, src Conn) (n int64, err error) {
	stop := context.AfterFunc(ctx, func() {
		Reset(src, context.Cause(ctx))
		Reset(dst, context.Cause(ctx))
	})
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(io.Discard, readOnly{dst}) })
	if n, err = pump(dst, src); err != nil {
		Reset(dst, err)
	}
	wg.Wait()
	dst.Close()
	src.Close()
	return n, err
}

// readOnly keeps io.Copy from finding a WriteTo.
type readOnly struct{ io.Reader }

// Reset closes c so that its peer sees an error rather than an orderly end:
// the errno that cause wraps where the connection can carry one, else a reset.
func Reset(c Conn, cause error) {
	switch c := c.(type) {
	case interface{ Reset(syscall.Errno) error }:
		_ = c.Reset(Errno(cause))
	case interface{ Abort() }:
		c.Abort()
	case interface{ SetLinger(int) error }:
		_ = c.SetLinger(0)
	}
	c.Close()
}

// Errno is the errno that err wraps; ECONNRESET for any other error.
func Errno(err error) syscall.Errno {
	var e syscall.Errno
	if errors.As(err, &e) && e != 0 {
		return e
	}
	return syscall.ECONNRESET
}
