package ping

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// ICMP as far as it is needed (RFC 792, RFC 4443).
const (
	reply4, reply6         = 0, 129
	checksumAt, identityAt = 2, 4
	messageMin             = 8 // header of an echo message, in bytes
)

// rawConn is a connected raw socket that looks like one for ping. To such a
// socket the kernel gives all ICMP of its peer, also the replies to others: its
// own bear its identifier. Of ICMP errors nobody tells whose they are.
type rawConn struct {
	net.Conn
	raw  syscall.RawConn
	id   uint16
	four bool
}

// newRaw takes over c.
func newRaw(c net.Conn, four bool) (net.Conn, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("a raw socket is a %T", c), c.Close())
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &rawConn{Conn: c, raw: raw, id: uint16(rand.Uint32()), four: four}, nil
}

// SyscallConn is for Drain, and for those that wait before they Take.
func (c *rawConn) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }

// Read waits for a reply to a request of this socket.
func (c *rawConn) Read(p []byte) (n int, err error) {
	waited := c.raw.Read(func(fd uintptr) bool {
		n, err = c.take(int(fd), p)
		return err != unix.EAGAIN
	})
	if waited != nil {
		return 0, waited
	}
	if err != nil {
		return 0, os.NewSyscallError("read", err)
	}
	return n, nil
}

// take reads the next reply of this socket's.
func (c *rawConn) take(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, err
		}
		if m := c.reply(p[:n]); m != nil {
			return copy(p, m), nil
		}
	}
}

// reply is the message in a packet that has come, nil if it is not a reply to
// this socket. IPv4 gives its own header too (raw(7)).
func (c *rawConn) reply(pkt []byte) []byte {
	want := byte(reply6)
	if c.four {
		want = reply4
		if len(pkt) == 0 {
			return nil
		}
		header := int(pkt[0]&0xf) * 4
		if len(pkt) < header {
			return nil
		}
		pkt = pkt[header:]
	}
	if len(pkt) < messageMin || pkt[0] != want || binary.BigEndian.Uint16(pkt[identityAt:]) != c.id {
		return nil
	}
	return pkt
}

// Write sends an echo request.
func (c *rawConn) Write(p []byte) (int, error) {
	if len(p) < messageMin {
		return 0, os.NewSyscallError("write", unix.EINVAL) // as the kernel says of a socket for ping
	}
	m := slices.Clone(p)
	binary.BigEndian.PutUint16(m[identityAt:], c.id)
	if c.four { // for IPv6 the kernel does it (RFC 3542, 3.1)
		binary.BigEndian.PutUint16(m[checksumAt:], 0)
		binary.BigEndian.PutUint16(m[checksumAt:], checksum(m))
	}
	return c.Conn.Write(m)
}

// checksum is the internet's (RFC 1071).
func checksum(p []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(p); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	if len(p)%2 == 1 {
		sum += uint32(p[len(p)-1]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
