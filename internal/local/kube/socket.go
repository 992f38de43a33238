package kube

import (
	"bufio"
	"net"

	"github.com/mirrord-go/mirrord/internal/gather"
)

const (
	// socketRead is how many bytes are taken from a socket at once: crypto/tls by
	// itself reads a record's header and body with a call each.
	socketRead = 64 << 10
	// socketHeld bounds what one Write of a pipe becomes, in bytes: two frames,
	// and what was sealed beyond.
	socketHeld = 72 << 10
)

// socket is the connection below TLS: it is read in large pieces, and written to
// once for all that Hold and Flush enclose. Each write would be a packet of its
// own, up to the API server.
type socket struct {
	net.Conn
	r *bufio.Reader
	*gather.Writer
}

func newSocket(c net.Conn) *socket {
	return &socket{c, bufio.NewReaderSize(c, socketRead), gather.New(c, socketHeld)}
}

func (s *socket) Read(b []byte) (int, error)  { return s.r.Read(b) }
func (s *socket) Write(b []byte) (int, error) { return s.Writer.Write(b) }

// NetConn is the connection itself.
func (s *socket) NetConn() net.Conn { return s.Conn }
