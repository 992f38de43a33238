package outgoing

import (
	"context"
	"errors"
	"net"
	"syscall"

	"github.com/mirrord-go/mirrord/internal/datagram"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/ping"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// datagrams carries datagrams both ways until local ends s, or ctx ends: how
// long an idle flow lives is for local to decide.
func (o *Server) datagrams(ctx context.Context, s *link.Stream, c net.Conn) {
	stop := context.AfterFunc(ctx, func() { c.Close(); s.Close() })
	defer stop()
	back := make(chan struct{})
	go func() {
		defer close(back)
		defer s.Close()
		o.toLocal(s, c)
	}()
	for {
		d, err := s.ReceiveDatagram()
		if err != nil {
			break
		}
		if send(s, c, d.Data) != nil {
			break
		}
	}
	c.Close()
	<-back
}

// toLocal sends what the socket receives, and the ICMP errors that it tells,
// until either end is closed. What waits to be sent is no larger than the
// datagram; one that there is no memory for is dropped, as on any way.
func (o *Server) toLocal(s *link.Stream, c net.Conn) {
	for {
		buf, n, err := receive(c)
		m := &protocol.Datagram{}
		switch {
		case err == nil:
			m.Data = buf[:n]
		case !errors.As(err, &m.Errno): // closed; after an ICMP error a socket goes on
			return
		}
		room := o.Connections.Take(n)
		var b []byte
		if room {
			b = protocol.Append(nil, m)
		}
		if buf != nil {
			datagram.Give(buf)
		}
		if !room {
			continue
		}
		_, err = s.Write(b)
		o.Connections.Give(n)
		if err != nil {
			return
		}
	}
}

// receive waits for one datagram of c; whoever calls it gives the buffer back.
// While it waits it holds none: an agent has thousands of flows, most of them
// idle, and 64 KiB each would be more than it may use.
func receive(c net.Conn) (buf *datagram.Buffer, n int, err error) {
	take := func() { buf = datagram.Take() }
	drop := func() {
		datagram.Give(buf)
		buf = nil
	}
	if sc, ok := c.(syscall.Conn); ok {
		if raw, rawErr := sc.SyscallConn(); rawErr == nil {
			waited := raw.Read(func(fd uintptr) bool {
				take()
				if n, err = ping.Take(c, int(fd), buf[:]); err != nil {
					drop()
				}
				return err != syscall.EAGAIN
			})
			if waited != nil {
				return nil, 0, net.ErrClosed
			}
			if err != nil {
				ping.Drain(sc)
			}
			return buf, n, err
		}
	}
	take()
	if n, err = c.Read(buf[:]); err != nil {
		drop()
	}
	return buf, n, err
}

// send writes one datagram. A socket that has an ICMP error to tell does so
// instead of sending (udp(7)): that is passed on, and the datagram tried again.
// The error is that of s.
func send(s *link.Stream, c net.Conn, p []byte) error {
	var e syscall.Errno
	if _, err := c.Write(p); !errors.As(err, &e) {
		return nil
	}
	if err := s.Send(&protocol.Datagram{Errno: e}); err != nil {
		return err
	}
	_, _ = c.Write(p)
	return nil
}
