// Package relay joins two connections: what one side says the other hears,
// with half-close and reset passed on.
//
// Every flow that carries connections uses it, on both machines. It knows no
// network: connections are anything with the methods of Conn. A waiting
// connection holds two buffers of 2 KiB; larger ones are for those that have
// much to say, as far as the process has memory for them.
package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/budget"
)

// Conn is one side: a stream both ways whose directions end separately.
// *net.TCPConn, *net.UnixConn, a stream of the link and a connection of the
// netstack are such.
type Conn interface {
	io.ReadWriteCloser
	CloseWrite() error
}

const (
	// smallBuffer is what a direction holds while it waits, in bytes: most
	// connections of a session do nothing most of the time, and there are
	// thousands of them.
	smallBuffer = 2 << 10
	// largeBuffer is what a direction reads with while there is much to read:
	// large enough that a system call's price is small beside the copying, and a
	// little less than a segment of the sandbox's device and than a frame of package
	// link/resume, so that it becomes one there, not one and some bytes.
	largeBuffer = 62 << 10
)

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// Count is what a relay has carried, in bytes.
type Count struct {
	AtoB, BtoA int64
}

// Join copies between a and b until both directions have ended, then closes
// both. An orderly end of one direction is passed on as a half-close; an error
// or the end of ctx resets both sides. The error is nil if both directions
// ended orderly. Large buffers are taken from large; a direction that gets none
// goes on with its small one.
func Join(ctx context.Context, large *budget.Share, a, b Conn) (Count, error) {
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
	toA, toB := &half{Conn: a}, &half{Conn: b}
	wg.Go(func() {
		if n.AtoB, there = pump(large, toB, toA); there != nil {
			reset(there)
		}
	})
	if n.BtoA, back = pump(large, toA, toB); back != nil {
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

// half is one side, and whether it has been told the end.
type half struct {
	Conn
	told atomic.Bool
}

// pump copies src to dst until src ends, then half-closes dst.
func pump(large *budget.Share, dst, src *half) (n int64, err error) {
	n, err = copyBuffered(large, dst.Conn, src.Conn)
	if err != nil {
		return n, err
	}
	// A kernel tells of a reset once: when it was the other direction's write that
	// heard it, who reads finds an end.
	if isClosed(src.Conn) && !src.told.Load() {
		return n, syscall.ECONNRESET
	}
	dst.told.Store(true)
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
func copyBuffered(large *budget.Share, dst io.Writer, src io.Reader) (n int64, err error) {
	buf := &buffer{share: large}
	buf.small = smallBuffers.Get().(*[smallBuffer]byte)
	defer func() { smallBuffers.Put(buf.small); buf.shrink() }()
	read := reading(src, buf)
	for {
		b, rerr := read()
		if len(b) > 0 {
			w, werr := dst.Write(b)
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
// of traffic whose reply goes nowhere. It closes both; large is as for Join.
func Drain(ctx context.Context, large *budget.Share, dst, src Conn) (n int64, err error) {
	stop := context.AfterFunc(ctx, func() {
		Reset(src, context.Cause(ctx))
		Reset(dst, context.Cause(ctx))
	})
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(io.Discard, readOnly{dst}) })
	if n, err = pump(large, &half{Conn: dst}, &half{Conn: src}); err != nil {
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
