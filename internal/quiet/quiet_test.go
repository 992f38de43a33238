package quiet_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/quiet"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

// pair is a connection over loopback: ours, and the other end as package net has it.
func pair(t *testing.T) (*quiet.Conn, *net.TCPConn) {
	t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	far, err := net.DialTCP("tcp", nil, ln.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	near, err := ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	c := quiet.New(near)
	t.Cleanup(func() { c.Close(); far.Close() })
	return c, far
}

// Many bytes both ways at once, in pieces of any size, with the ends of both directions.
func TestBytes(t *testing.T) {
	c, far := pair(t)
	sent := make([]byte, 8<<20)
	for i := range sent {
		sent[i] = byte(rand.Uint32())
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if n, err := io.Copy(far, far); n != int64(len(sent)) || err != nil {
			t.Errorf("the other end has echoed %d bytes, %v", n, err)
		}
		_ = far.CloseWrite()
	})
	wg.Go(func() {
		for rest := sent; len(rest) > 0; {
			n, err := c.Write(rest[:min(len(rest), 1+rand.IntN(1<<20))])
			if err != nil {
				t.Error(err)
				break
			}
			rest = rest[n:]
		}
		_ = c.CloseWrite()
	})
	var got bytes.Buffer
	piece := make([]byte, 300<<10)
	for {
		n, err := c.Read(piece[:1+rand.IntN(len(piece))])
		got.Write(piece[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got.Bytes(), sent) {
		t.Errorf("%d bytes came back otherwise than %d were sent", got.Len(), len(sent))
	}
	if n, err := c.Read(nil); n != 0 || err != nil {
		t.Errorf("nothing read: %d, %v", n, err)
	}
}

// Errors are those of package net.
func TestErrors(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(c *quiet.Conn, far *net.TCPConn)
		write   bool
		want    error
	}{
		"read after a reset":       {func(_ *quiet.Conn, far *net.TCPConn) { _ = far.SetLinger(0); far.Close() }, false, syscall.ECONNRESET},
		"read after its time":      {func(c *quiet.Conn, _ *net.TCPConn) { _ = c.SetReadDeadline(time.Unix(1, 0)) }, false, os.ErrDeadlineExceeded},
		"read when closed":         {func(c *quiet.Conn, _ *net.TCPConn) { c.Close() }, false, net.ErrClosed},
		"read while it closes":     {func(c *quiet.Conn, _ *net.TCPConn) { go c.Close() }, false, net.ErrClosed},
		"write after a half-close": {func(c *quiet.Conn, _ *net.TCPConn) { _ = c.CloseWrite() }, true, syscall.EPIPE},
		"write after its time":     {func(c *quiet.Conn, _ *net.TCPConn) { _ = c.SetWriteDeadline(time.Unix(1, 0)) }, true, os.ErrDeadlineExceeded},
		"write when closed":        {func(c *quiet.Conn, _ *net.TCPConn) { c.Close() }, true, net.ErrClosed},
		"write while it closes":    {func(c *quiet.Conn, _ *net.TCPConn) { go c.Close() }, true, net.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			c, far := pair(t)
			test.prepare(c, far)
			var err error
			for p := make([]byte, 1<<20); err == nil; { // until there is no room, at the latest
				if test.write {
					_, err = c.Write(p)
				} else {
					_, err = c.Read(p)
				}
			}
			if op, ok := errors.AsType[*net.OpError](err); !ok || !errors.Is(err, test.want) {
				t.Errorf("%v (%T), want %v", err, op, test.want)
			}
		})
	}
}

// A request and its answer take nothing from the heap.
func TestAllocations(t *testing.T) {
	c, far := pair(t)
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(far, far) })
	p := make([]byte, 512)
	n := testing.AllocsPerRun(100, func() {
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, p); err != nil {
			t.Fatal(err)
		}
	})
	c.Close()
	wg.Wait()
	if n != 0 {
		t.Errorf("%.0f allocations", n)
	}
}
