package tlsport

import (
	"crypto/tls"
	"net"
	"sync/atomic"
)

// Conn is a connection under TLS, of which the plain bytes are read and written.
type Conn struct {
	*tls.Conn
	below  net.Conn
	resets atomic.Bool
}

// CloseWrite ends what is written, for TLS (close_notify) and for TCP.
func (c *Conn) CloseWrite() error {
	err := c.Conn.CloseWrite()
	if w, ok := c.below.(interface{ CloseWrite() error }); ok && err == nil {
		err = w.CloseWrite()
	}
	return err
}

// SetLinger is that of TCP, for package relay. With 0, Close resets: the peer is not
// told of an end, which would be an orderly one.
func (c *Conn) SetLinger(seconds int) error {
	c.resets.Store(seconds == 0)
	if l, ok := c.below.(interface{ SetLinger(int) error }); ok {
		return l.SetLinger(seconds)
	}
	return nil
}

// Close ends the connection.
func (c *Conn) Close() error {
	if c.resets.Load() {
		return c.below.Close()
	}
	return c.Conn.Close()
}
