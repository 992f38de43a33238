package outgoing

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/datagram"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
)

// lookupTime is how long a reply is waited for: local forgets a socket that has
// been idle for so long, and resolvers give up a server before (resolv.conf(5)).
const lookupTime = 10 * time.Second

// Lookup answers m on s, which it owns, at the latest when lookupTime or ctx has
// ended.
func (o *Server) Lookup(ctx context.Context, s *link.Stream, m *protocol.Lookup) {
	defer s.Close()
	if !m.Addr.IsValid() {
		_ = s.Send(&protocol.Answer{Errno: syscall.EPROTONOSUPPORT, Cause: protocol.CauseUnsupported, Text: fmt.Sprintf("there is no name server %v", m.Addr)})
		return
	}
	if !o.Connections.Take(ConnCost) {
		_ = s.Send(&protocol.Answer{Errno: syscall.EAGAIN, Text: "there is no memory for another lookup"})
		return
	}
	defer o.Connections.Give(ConnCost)
	c, err := o.Dial(ctx, "udp", m.Addr)
	if err != nil {
		_ = s.Send(&protocol.Answer{Errno: dialErrno(err)})
		return
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	reply := ask(c, m.Query)
	d, _ := reply.(*protocol.Datagram)
	if d != nil && len(d.Data) > ConnCost { // local may not take it
		if !o.Connections.Take(len(d.Data)) {
			return // lost like any datagram
		}
		defer o.Connections.Give(len(d.Data))
	}
	_ = s.Send(reply)
	runtime.Gosched() // the reply goes first: closing the socket takes as long
}

// ask sends a query, and waits for its reply.
func ask(c net.Conn, query []byte) protocol.Message {
	var errno syscall.Errno
	if _, err := c.Write(query); errors.As(err, &errno) {
		return &protocol.Datagram{Errno: errno}
	}
	_ = c.SetReadDeadline(time.Now().Add(lookupTime))
	for {
		buf, n, err := receive(c)
		switch {
		case errors.As(err, &errno): // an ICMP error
			return &protocol.Datagram{Errno: errno}
		case err != nil: // too late, or the end
			return &protocol.Answer{}
		}
		var d *protocol.Datagram
		if sameID(query, buf[:n]) {
			d = &protocol.Datagram{Data: slices.Clone(buf[:n])}
		}
		datagram.Give(buf)
		if d != nil {
			return d
		}
	}
}

// sameID reports whether a message is the reply to another, by their first two
// bytes (RFC 1035 §4.1.1). What is no message of DNS is answered by anything.
func sameID(query, reply []byte) bool {
	return len(query) < 2 || len(reply) >= 2 && query[0] == reply[0] && query[1] == reply[1]
}
