package tlsport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

// acceptTime bounds the handshake with a client.
const acceptTime = 10 * time.Second

// Terms are what the target's server agrees on with a client that begins as a Hello
// does. Its methods may be called concurrently.
type Terms struct {
	// Protocol is what both will speak inside (ALPN, RFC 7301); empty: nothing was said.
	Protocol   string
	ServerName string

	version, suite uint16
	pair           *tls.Certificate
	asks           bool // the server asks its clients for a certificate
	keys           *pairs
	vouched        bool // the client has shown one
}

// Reasons for which a connection stays encrypted.
type Reason int

// Values of a Reason.
const (
	NoKeys     Reason = iota + 1 // the files cannot be read, or do not hold what they should
	Mismatch                     // the server shows a certificate that is not among them
	AsksClient                   // the server asks its clients for a certificate, and there is none to show
	Unfit                        // the client begins in a way that cannot be answered in the server's place
)

// StaysError says why a connection stays encrypted, for a person.
type StaysError struct {
	Reason Reason
	Err    error
}

func (e *StaysError) Error() string { return e.Err.Error() }
func (e *StaysError) Unwrap() error { return e.Err }

func stays(r Reason, format string, args ...any) error {
	return &StaysError{r, fmt.Errorf(format, args...)}
}

// Ask asks the server, to which dial connects, what it agrees on with the client of h.
// An error is a *StaysError where there is something to be mended; else the server
// itself has refused the client, or could not be reached.
func (k *Keys) Ask(ctx context.Context, h *Hello, dial func(context.Context) (net.Conn, error)) (*Terms, error) {
	if h.early() {
		return nil, stays(Unfit, "a client sends data before the handshake has ended (0-RTT)")
	}
	keys, err := k.now(ctx)
	if err != nil {
		return nil, stays(NoKeys, "%w", err)
	}
	t := &Terms{ServerName: h.ServerName, keys: keys}
	c := t.config()
	c.MinVersion, c.MaxVersion = h.versions()
	c.CipherSuites, c.NextProtos = suites(h.info.CipherSuites), h.info.SupportedProtos
	if c.MinVersion == 0 || len(c.CipherSuites) == 0 && c.MaxVersion < tls.VersionTLS13 {
		return nil, stays(Unfit, "a client offers nothing that is understood here")
	}
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		t.asks = true
		return &tls.Certificate{}, nil
	}
	nc, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	server := tls.Client(nc, c)
	defer server.Close() // with a goodbye, which servers do not write down
	err = server.HandshakeContext(ctx)
	switch {
	case t.asks && keys.shown == nil: // whatever came of it
		return nil, stays(AsksClient, "the server asks its clients for certificates")
	case err != nil && !t.asks: // before TLS 1.3 a server that insists refuses now
		return nil, err
	}
	return t, t.take(h, server, err)
}

// take notes what came of a handshake with the server. failed is why the server does
// not go on, for want of a client's certificate.
func (t *Terms) take(h *Hello, server *tls.Conn, failed error) error {
	s := server.ConnectionState()
	if failed != nil && len(s.PeerCertificates) == 0 {
		return failed
	}
	t.version, t.suite, t.Protocol = s.Version, s.CipherSuite, s.NegotiatedProtocol
	if t.pair = t.keys.of(s.PeerCertificates); t.pair == nil {
		return stays(Mismatch, "the server shows another certificate than the files have")
	}
	t.pair.OCSPStaple, t.pair.SignedCertificateTimestamps = s.OCSPResponse, s.SignedCertificateTimestamps
	if err := h.info.SupportsCertificate(t.pair); err != nil {
		return stays(Unfit, "a client cannot do with the server's certificate: %w", err)
	}
	return nil
}

// config is what all handshakes with the server have in common. Its certificate needs
// nobody's word: it is compared with the target's own file, and whoever could be in
// between is in the target.
func (t *Terms) config() *tls.Config {
	return &tls.Config{ServerName: t.ServerName, InsecureSkipVerify: true, MinVersion: tls.VersionTLS10}
}

// Accept ends the client's handshake on c, whose first bytes are those that Greet has
// read. It owns c if it fails.
func (t *Terms) Accept(ctx context.Context, c net.Conn) (*Conn, error) {
	config := &tls.Config{
		Certificates: []tls.Certificate{*t.pair}, MinVersion: t.version, MaxVersion: t.version, SessionTicketsDisabled: true,
	}
	if t.version < tls.VersionTLS13 {
		config.CipherSuites = []uint16{t.suite}
	}
	if t.Protocol != "" {
		config.NextProtos = []string{t.Protocol}
	}
	if t.asks {
		config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, t.keys.clients
	}
	client, err := shake(ctx, acceptTime, c, tls.Server(c, config))
	if err == nil {
		t.vouched = len(client.ConnectionState().PeerCertificates) > 0
	}
	return client, err
}

// Anonymous reports whether the client, which has been accepted, has not shown the
// certificate that the server asks for. What it says is the server's then, who knows
// whom it serves.
func (t *Terms) Anonymous() bool { return t.asks && !t.vouched }

// Dial puts TLS on c, a connection to the server, as the client would that has been
// accepted. It owns c if it fails.
func (t *Terms) Dial(ctx context.Context, c net.Conn) (*Conn, error) {
	config := t.config()
	config.MinVersion, config.MaxVersion = t.version, t.version
	if t.version < tls.VersionTLS13 {
		config.CipherSuites = []uint16{t.suite}
	}
	if t.Protocol != "" {
		config.NextProtos = []string{t.Protocol}
	}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if t.asks && t.vouched {
			return t.keys.shown, nil
		}
		return &tls.Certificate{}, nil
	}
	server, err := shake(ctx, acceptTime, c, tls.Client(c, config))
	if err == nil && server.ConnectionState().NegotiatedProtocol != t.Protocol {
		server.Close()
		return nil, errChanged
	}
	return server, err
}

// errChanged: the server is not what it was a moment ago.
var errChanged = errors.New("the target's server has chosen another protocol than for the same client before")

// shake ends a handshake in time.
func shake(ctx context.Context, limit time.Duration, below net.Conn, c *tls.Conn) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		below.Close()
		return nil, err
	}
	return &Conn{Conn: c, below: below}, nil
}
