package files

import (
	"context"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// reads answers m and what follows it on stream, one after the other: what was
// asked for first is there first. Each has its own errno.
func (s *Server) reads(ctx context.Context, stream *link.Stream, m protocol.Message) {
	for s.sendRead(ctx, stream, m) {
		var err error
		if m, err = stream.Receive(); err != nil {
			return
		}
	}
}

// sendRead answers one request among reads; false: nobody listens.
func (s *Server) sendRead(ctx context.Context, stream *link.Stream, m protocol.Message) bool {
	read, ok := m.(*protocol.ReadAt)
	if !ok {
		return stream.Send(&protocol.Answer{Errno: syscall.EPROTO}) == nil
	}
	leave, err := s.room(ctx, read)
	if err != nil {
		return stream.Send(&protocol.Answer{Errno: errnoOf(err)}) == nil
	}
	defer leave()
	data, err := do(ctx, s, func() (*protocol.Data, error) { return s.readAt(read) })
	if err != nil {
		return stream.Send(&protocol.Answer{Errno: errnoOf(err)}) == nil
	}
	return stream.Send(data) == nil
}

func (s *Server) readAt(m *protocol.ReadAt) (*protocol.Data, error) {
	h, err := s.use(m.Handle)
	if err != nil {
		return nil, err
	}
	defer h.busy.Done()
	if m.Off < 0 {
		return nil, syscall.EINVAL
	}
	buf := make([]byte, min(m.N, maxRead))
	n, err := readFull(int(h.f.Fd()), buf, m.Off)
	if err != nil {
		return nil, err
	}
	return &protocol.Data{Bytes: buf[:n]}, nil
}
