// Package seal makes a byte pipe private and both of its ends certain: TLS 1.3
// with one Ed25519 key each, known to the other end beforehand.
//
// The supervisor calls Client and the agent Server, once for every short pipe
// below package resume. Whoever sits between them (the API server's proxy, a
// relay, another process on the agent's port) can delay or cut the pipe, but
// not read, change or join it. See docs/protocol.md, part 1.
//
// A sealed pipe sends no closure alert: package resume tells an orderly end
// from a cut one, and an alert could block on a pipe that has no deadlines.
package seal

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/gather"
)

// Version is that of everything below the messages: a link of another version
// has another name and fails in the handshake, with ErrVersion.
const Version = 1

// alpn is Version's name on the wire (RFC 7301); a test holds them together.
const alpn = "mirrord/1"

// ErrVersion means that the other end is of a release whose link is another.
var ErrVersion = errors.New("the other end's link has another version")

// rawBuffer is how many bytes one read takes from the pipe at most: crypto/tls
// by itself reads a record's header and body with a call each.
const rawBuffer = 64 << 10

// maxHeld bounds what one Write gathers, in bytes: a frame of package resume
// with its records' own bytes.
const maxHeld = 66 << 10

// ErrWrongKey means that the other end is not who it should be: another
// process has the agent's port, or (at the agent) a stranger dialed it.
var ErrWrongKey = errors.New("the other end has another key than expected")

// ErrRefused means that the agent does not know this session's key: it serves
// another session. Client returns it, or, because TLS 1.3 lets a client finish
// first, the first Read.
var ErrRefused = errors.New("the agent does not know this session's key")

// Client seals rw, which it owns from now on, as the session whose key is key
// towards the agent whose public key is peer. ctx bounds the handshake only.
//
// The result's methods may be called concurrently as those of a net.Conn.
// Close closes rw, which must end calls to rw's Read and Write under way.
func Client(ctx context.Context, rw io.ReadWriteCloser, key ed25519.PrivateKey, peer ed25519.PublicKey) (io.ReadWriteCloser, error) {
	c, err := config(key, peer)
	if err != nil {
		rw.Close()
		return nil, err
	}
	raw := newPipe(rw)
	t := tls.Client(raw, c)
	if err := handshake(ctx, t, raw); err != nil {
		return nil, fmt.Errorf("seal the pipe to the agent: %w", clientError(err))
	}
	return &conn{Conn: t, raw: raw, client: true}, nil
}

// Server seals rw, which it owns from now on, as the agent whose key is key
// towards the session whose public key is peer. ctx bounds the handshake only.
// The result is as that of Client.
func Server(ctx context.Context, rw io.ReadWriteCloser, key ed25519.PrivateKey, peer ed25519.PublicKey) (io.ReadWriteCloser, error) {
	c, err := config(key, peer)
	if err != nil {
		rw.Close()
		return nil, err
	}
	raw := newPipe(rw)
	t := tls.Server(raw, c)
	if err := handshake(ctx, t, raw); err != nil {
		return nil, fmt.Errorf("seal the pipe from the session: %w", err)
	}
	return &conn{Conn: t, raw: raw}, nil
}

// config is the same for both ends, and leaves TLS nothing to negotiate but
// the cipher: both of its AEADs are good, and which one is faster depends on
// the machine.
func config(key ed25519.PrivateKey, peer ed25519.PublicKey) (*tls.Config, error) {
	if len(key) != ed25519.PrivateKeySize || len(peer) != ed25519.PublicKeySize {
		return nil, errors.New("seal: a key has the wrong length")
	}
	cert, err := certificate(key)
	if err != nil {
		return nil, fmt.Errorf("seal: make a certificate: %w", err)
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		MaxVersion:             tls.VersionTLS13,
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768, tls.X25519},
		NextProtos:             []string{alpn},
		SessionTicketsDisabled: true,
		// Small first records serve browsers; here they are system calls.
		DynamicRecordSizingDisabled: true,
		Certificates:                []tls.Certificate{cert},
		// Names and authorities say nothing here. The pinned key is checked in
		// VerifyConnection, that the peer holds it by TLS itself.
		InsecureSkipVerify: true,
		ClientAuth:         tls.RequireAnyClientCert,
		VerifyConnection: func(s tls.ConnectionState) error {
			if s.NegotiatedProtocol != alpn {
				return ErrVersion // it speaks none that has a name
			}
			if len(s.PeerCertificates) == 0 {
				return ErrWrongKey
			}
			got, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
			if !ok || !got.Equal(peer) {
				return ErrWrongKey
			}
			return nil
		},
	}, nil
}

// certificate wraps key in the least that TLS accepts. Its dates are not
// checked by anyone: the two machines' clocks may disagree.
func certificate(key ed25519.PrivateKey) (tls.Certificate, error) {
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// lingerTime and lingerBytes bound how long, and over how much, a pipe that
// failed to be sealed is read before it is closed. A TCP socket closed with
// unread bytes sends a reset, and the alert that says why is lost with it.
const (
	lingerTime  = time.Second
	lingerBytes = 64 << 10
)

// handshake closes raw if it fails.
func handshake(ctx context.Context, t *tls.Conn, raw *pipe) error {
	// raw has no deadlines, so the end of ctx closes it. HandshakeContext would
	// do the same, but it also closes when ctx ends just after the handshake.
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	err := t.HandshakeContext(context.WithoutCancel(ctx))
	if !stop() {
		raw.Close()
		return context.Cause(ctx)
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, ErrWrongKey) {
		timer := time.AfterFunc(lingerTime, func() { raw.Close() })
		_, _ = io.CopyN(io.Discard, raw, lingerBytes)
		timer.Stop()
	}
	raw.Close()
	return err
}

// refusal is the alert that crypto/tls sends when VerifyConnection fails:
// bad_certificate (RFC 8446 section 6.2).
const refusal tls.AlertError = 42

// otherVersion is the alert that a server sends to a client of whose protocols
// it speaks none: no_application_protocol (RFC 7301 section 3.2).
const otherVersion tls.AlertError = 120

// clientError names what the agent's alert means. Outside QUIC crypto/tls
// gives a received alert a type of its own: only its text can be compared.
func clientError(err error) error {
	var foreign tls.RecordHeaderError
	if errors.As(err, &foreign) { // somebody who does not speak TLS has the agent's port
		return fmt.Errorf("%w: %w", ErrWrongKey, err)
	}
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" || op.Err == nil {
		return err
	}
	switch op.Err.Error() {
	case refusal.Error():
		return ErrRefused
	case otherVersion.Error():
		return ErrVersion
	}
	return err
}

// conn is the sealed pipe.
type conn struct {
	*tls.Conn
	raw     *pipe
	client  bool
	writing sync.Mutex // held by Write: one batch at a time
	reading sync.Mutex // held by Read, which looks into raw
}

// Write sends all the records that b becomes with one Write of the pipe:
// crypto/tls by itself makes one for each, and whatever lies below makes a
// frame, a message and a packet of each of those.
func (c *conn) Write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.raw.w.Hold()
	n, err := c.Conn.Write(b)
	if ferr := c.raw.w.Flush(); err == nil && ferr != nil {
		return 0, ferr
	}
	return n, err
}

// Read gives the bytes of all records that are there, not of one: who waits for
// them is woken once. It waits for the first only.
func (c *conn) Read(p []byte) (n int, err error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	defer func() { c.raw.hurried = false }()
	for {
		m, err := c.Conn.Read(p[n:])
		n += m
		switch {
		case err != nil && n > 0: // it comes again
			return n, nil
		case err != nil && c.client:
			return 0, clientError(err)
		case err != nil:
			return 0, err
		case n == len(p) || !c.raw.whole():
			return n, nil
		}
		c.raw.hurried = true // what is there may be a record without bytes for us
	}
}

// Close does not send the alert that tls.Conn.Close sends, which may block.
func (c *conn) Close() error { return c.raw.Close() }

// pipe makes a net.Conn of any byte pipe, for crypto/tls. It has no deadlines:
// crypto/tls sets them only in the Close that conn does not call.
type pipe struct {
	r     *bufio.Reader
	w     *gather.Writer
	close func() error

	// For who reads, one at a time.
	left    int  // bytes of the current record that were not read
	hurried bool // Read does not wait for a record
}

func newPipe(rw io.ReadWriteCloser) *pipe {
	return &pipe{r: bufio.NewReaderSize(rw, rawBuffer), w: gather.New(rw, maxHeld), close: sync.OnceValue(rw.Close)}
}

func (p *pipe) Write(b []byte) (int, error)    { return p.w.Write(b) }
func (p *pipe) Close() error                   { return p.close() }
func (*pipe) LocalAddr() net.Addr              { return addr{} }
func (*pipe) RemoteAddr() net.Addr             { return addr{} }
func (*pipe) SetDeadline(time.Time) error      { return nil }
func (*pipe) SetReadDeadline(time.Time) error  { return nil }
func (*pipe) SetWriteDeadline(time.Time) error { return nil }

// recordHeader is the length in bytes of what stands before a record; its last
// two bytes are the length of what follows (RFC 8446 section 5.1).
const recordHeader = 5

// Read gives bytes of one record at most, so that crypto/tls, which takes what
// it can get, holds nothing of the next, and whole knows where that begins.
func (p *pipe) Read(b []byte) (int, error) {
	if p.left == 0 {
		if p.hurried && !p.whole() {
			return 0, errNone
		}
		h, err := p.r.Peek(recordHeader)
		if len(h) < recordHeader {
			if len(h) == 0 {
				return 0, err
			}
			return p.r.Read(b) // the end, in the middle of a header
		}
		p.left = recordHeader + int(binary.BigEndian.Uint16(h[3:]))
	}
	n, err := p.r.Read(b[:min(len(b), p.left)])
	p.left -= n
	return n, err
}

// errNone is what a hurried Read gives instead of waiting. crypto/tls takes any
// other error than a temporary one for the end.
var errNone net.Error = noRecord{}

type noRecord struct{}

func (noRecord) Error() string   { return "no record is there" }
func (noRecord) Timeout() bool   { return true }
func (noRecord) Temporary() bool { return true }

// whole reports whether another record can be read without waiting.
func (p *pipe) whole() bool {
	if p.left > 0 || p.r.Buffered() < recordHeader {
		return false
	}
	h, _ := p.r.Peek(recordHeader)
	return p.r.Buffered() >= recordHeader+int(binary.BigEndian.Uint16(h[3:]))
}

// addr is the address of a pipe, which has none.
type addr struct{}

func (addr) Network() string { return "pipe" }
func (addr) String() string  { return "pipe" }
