package relay

import (
	"context"
	"errors"
	"io"
	"sync"
)

// Packets is one side of a connection that keeps messages apart, and whose
// directions end separately.
type Packets interface {
	// Receive gives the next message to use, whose it is until it returns. io.EOF:
	// the other end sends nothing more.
	Receive(use func(p []byte) error) error
	Send(p []byte) error
	CloseWrite() error
	Close() error
}

// JoinPackets is Join for messages.
func JoinPackets(ctx context.Context, a, b Packets) error {
	var once sync.Once
	reset := func(err error) {
		once.Do(func() {
			resetPackets(a, err)
			resetPackets(b, err)
		})
	}
	stop := context.AfterFunc(ctx, func() { reset(context.Cause(ctx)) })
	defer stop()
	var there, back error
	var wg sync.WaitGroup
	wg.Go(func() {
		if there = pumpPackets(b, a); there != nil {
			reset(there)
		}
	})
	if back = pumpPackets(a, b); back != nil {
		reset(back)
	}
	wg.Wait()
	a.Close()
	b.Close()
	if there != nil {
		return there
	}
	return back
}

func pumpPackets(dst, src Packets) error {
	for {
		err := src.Receive(dst.Send)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if err := dst.CloseWrite(); err != nil && !gone(err) {
		return err
	}
	return nil
}

// resetPackets closes p so that its peer sees an error, where p can say one.
func resetPackets(p Packets, cause error) {
	if c, ok := p.(Conn); ok {
		Reset(c, cause)
		return
	}
	p.Close()
}
