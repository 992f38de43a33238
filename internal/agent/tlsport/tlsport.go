// Package tlsport takes TLS off connections to a port of the target, so that
// somebody can look at what they carry, and puts it on again towards the target's
// own server.
//
// Nothing is decrypted before it is known that nobody will notice: the server is
// asked first, by a handshake of our own with what the client offers, which
// certificate it shows, what it agrees on, and whether it wants to see one of the
// client's. Only where the certificate is one of those that Keys has read from the
// target's files does the client get the same answer from here. What cannot be
// answered as the server would, is not: the caller has all that was read and passes
// it on as it came.
//
//	Greet ─► Hello ──► Ask (the server) ──► Terms ─┬─► Accept: the client's Conn
//	                     ▲                         └─► Dial: a Conn of the server's
//	                    Keys
//
// TLS is that of crypto/tls: RFC 8446 and, down to 1.0, those before it.
package tlsport

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"slices"
	"time"
)

// Cost is what a connection is counted as whose TLS is taken off and put on again, in
// bytes: for each side a record that comes, one that goes, and keys.
const Cost = 2 * (40 << 10)

const (
	// maxHello bounds what a client may begin with, in bytes: common ones have less
	// than 2 KiB.
	maxHello = 20 << 10
	// helloTime is how long a client may take with it.
	helloTime = 5 * time.Second
	// handshake is the type of a record with which TLS begins (RFC 8446 §5.1).
	handshake = 22
	// earlyData is the extension of who speaks before the handshake's end (RFC 8446 §4.2.10).
	earlyData = 42
)

// Hello is what a client of TLS begins with.
type Hello struct {
	ServerName string // whom it asks for (SNI), as it has written it; empty: it does not say
	info       tls.ClientHelloInfo
}

// Greet reads what the client of c begins with. hello is nil if that is no TLS, or none
// that is understood, or if the client says nothing for silence. said is all that was
// read, and is to be read again; err is what reading has ended with, nil if there may
// be more. Nothing is written to c.
func Greet(c net.Conn, silence time.Duration) (hello *Hello, said []byte, err error) {
	defer c.SetReadDeadline(time.Time{})
	r := &recorder{Conn: c}
	_ = c.SetReadDeadline(time.Now().Add(silence))
	first := make([]byte, 4<<10)
	n, err := r.Read(first)
	if n > 0 && first[0] == handshake {
		_ = c.SetReadDeadline(time.Now().Add(helloTime))
		hello = r.hello(first[:n])
	}
	if err = r.err; errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return hello, r.said, err
}

// errStop ends a handshake that is only begun to see its first message.
var errStop = errors.New("the client's first message is all that is wanted")

var errLong = errors.New("the client's first message is too long")

// recorder keeps what is read, and writes nothing.
type recorder struct {
	net.Conn
	again *bytes.Reader // is read first; nil: nothing is
	said  []byte
	err   error // of the connection
}

func (r *recorder) Read(p []byte) (int, error) {
	if r.again != nil && r.again.Len() > 0 {
		return r.again.Read(p)
	}
	if len(r.said) >= maxHello {
		return 0, errLong
	}
	n, err := r.Conn.Read(p[:min(len(p), maxHello-len(r.said))])
	r.said = append(r.said, p[:n]...)
	r.err = err
	return n, err
}

func (r *recorder) Write(p []byte) (int, error) { return len(p), nil }

// hello reads on until the client's first message is whole.
func (r *recorder) hello(first []byte) *Hello {
	r.again = bytes.NewReader(first)
	var h *Hello
	c := &tls.Config{MinVersion: tls.VersionTLS10, CipherSuites: suites(nil), GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
		h = &Hello{ServerName: info.ServerName, info: *info}
		h.info.Conn, h.info.ServerName = nil, "" // which certificate is for a name is the server's business
		return nil, errStop
	}}
	_ = tls.Server(r, c).Handshake()
	return h
}

// early reports whether the client says more than its first message before it is
// answered.
func (h *Hello) early() bool { return slices.Contains(h.info.Extensions, earlyData) }

// versions are the oldest and the newest that the client and crypto/tls have in common.
func (h *Hello) versions() (oldest, newest uint16) {
	for _, v := range h.info.SupportedVersions {
		if v < tls.VersionTLS10 || v > tls.VersionTLS13 {
			continue
		}
		if oldest == 0 || v < oldest {
			oldest = v
		}
		newest = max(newest, v)
	}
	return oldest, newest
}

// suites are those of TLS 1.2 and before that crypto/tls has, of offered if that is not
// nil. Old ones, too: it is the server who chooses, as without us.
func suites(offered []uint16) (all []uint16) {
	for _, s := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		if offered == nil || slices.Contains(offered, s.ID) {
			all = append(all, s.ID)
		}
	}
	return all
}
