package server

import (
	"context"
	"errors"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/profile"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// serveProfile answers m on stream, which it owns. Nobody looks longer than local
// waits for it.
func serveProfile(ctx context.Context, stream *link.Stream, m *protocol.Profile) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer stream.Close()
	waiting.Go(func() {
		_, _ = io.Copy(io.Discard, stream)
		cancel()
	})
	taken, err := profile.Take(ctx, m.Name, time.Duration(m.Seconds)*time.Second)
	if err != nil {
		a := &protocol.Answer{Errno: syscall.EIO, Text: err.Error()}
		_ = errors.As(err, &a.Errno)
		_ = stream.Send(a)
		return
	}
	if stream.Send(&protocol.Answer{}) == nil {
		_, _ = stream.Write(taken)
	}
}
