package outgoing

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/relay"
)

// unixTypes are the types of sockets that a network stands for.
var unixTypes = map[uint8]int{protocol.NetworkUnix: syscall.SOCK_STREAM, protocol.NetworkUnixPacket: syscall.SOCK_SEQPACKET}

// unix answers a dial of a unix socket.
func (o *Server) unix(ctx context.Context, s *link.Stream, m *protocol.Dial, typ int) {
	if !o.Connections.Take(ConnCost) {
		_ = s.Send(&protocol.Answer{Errno: syscall.EAGAIN, Text: "there is no memory for another connection"})
		return
	}
	defer o.Connections.Give(ConnCost)
	limit, cancel := context.WithTimeout(ctx, dialTime)
	// Local says nothing before the answer, and closes the stream of a program
	// that does not wait any more.
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		if _, err := s.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
			cancel()
		}
	}()
	c, err := o.Unix(limit, typ, m.Name, m.Wait)
	_ = s.SetReadDeadline(time.Unix(1, 0))
	<-heard
	_ = s.SetReadDeadline(time.Time{})
	cancel()
	if err != nil {
		_ = s.Send(&protocol.Answer{Errno: dialErrno(err)})
		return
	}
	defer c.Close()
	c.Packets = o.Relayed
	c.Dropped = func() { o.Dropped(m.Name) }
	if s.Send(&protocol.Answer{}) != nil {
		return
	}
	if typ == syscall.SOCK_SEQPACKET {
		_ = relay.JoinPackets(ctx, link.Packets{Stream: s}, c)
		return
	}
	_, _ = relay.Join(ctx, o.Relayed, s, c)
}
