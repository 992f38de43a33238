//go:build !linux

package quiet

import "net"

// Conn is a TCP connection.
type Conn struct{ *net.TCPConn }

// New takes c over.
func New(c *net.TCPConn) *Conn { return &Conn{c} }
