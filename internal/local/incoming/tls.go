package incoming

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
)

// This file is about connections from which the agent has taken TLS: the program gets
// it back, unless it serves in the clear.

// handshakeTime bounds a handshake with a program that has accepted the connection. Of
// one that may accept when it likes nobody knows that it has.
const handshakeTime = 10 * time.Second

// Delivery is how the program gets what was under TLS. The zero value: under TLS, with
// any certificate.
type Delivery struct {
	plain bool
	roots *x509.CertPool    // who vouches for the program's certificate; nil: nobody has to
	cert  *x509.Certificate // that it must show; nil: any
	name  string            // that it is asked for; empty: as the client did
}

// NewDelivery reads the files that o names. Its error is a failure.
func NewDelivery(o rules.TLSDelivery) (Delivery, error) {
	d, err := newDelivery(o)
	if err != nil {
		return d, failure.Usage("tls-delivery", "feature.network.incoming.tls_delivery names a file that cannot be used", "correct its path, which counts from the working directory; try: mirrord config show", "%v", err)
	}
	return d, nil
}

func newDelivery(o rules.TLSDelivery) (Delivery, error) {
	d := Delivery{plain: o.Plain, name: o.ServerName}
	for _, name := range o.TrustRoots {
		b, err := os.ReadFile(name)
		if err != nil {
			return d, fmt.Errorf("read trust_roots: %w", err)
		}
		if d.roots == nil {
			d.roots = x509.NewCertPool()
		}
		if !d.roots.AppendCertsFromPEM(b) {
			return d, fmt.Errorf("read trust_roots: %s has no certificate in PEM", name)
		}
	}
	if o.ServerCert == "" {
		return d, nil
	}
	b, err := os.ReadFile(o.ServerCert)
	if err != nil {
		return d, fmt.Errorf("read server_cert: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return d, fmt.Errorf("read server_cert: %s begins with no certificate in PEM", o.ServerCert)
	}
	if d.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		return d, fmt.Errorf("read server_cert: %s: %w", o.ServerCert, err)
	}
	return d, nil
}

// agreed is what the agent and a client have agreed on.
type agreed struct{ serverName, protocol string }

// agreement is that of m; nil: there was no TLS.
func agreement(m *protocol.Incoming) *agreed {
	if !m.TLS {
		return nil
	}
	return &agreed{m.ServerName, m.Protocol}
}

// serverName is whom the program is asked for.
func (d Delivery) serverName(a *agreed) string {
	switch {
	case d.name != "":
		return d.name
	case d.cert != nil && len(d.cert.DNSNames) > 0:
		return d.cert.DNSNames[0]
	case a.serverName != "":
		return a.serverName
	}
	return "localhost"
}

// config is that of the handshake with the program.
func (d Delivery) config(a *agreed) *tls.Config {
	c := &tls.Config{ServerName: d.serverName(a), MinVersion: tls.VersionTLS12, InsecureSkipVerify: true} // VerifyConnection does what is asked for
	if a.protocol != "" {
		c.NextProtos = []string{a.protocol}
	}
	c.VerifyConnection = func(s tls.ConnectionState) error {
		shown := s.PeerCertificates[0] // of a server there is one
		switch {
		case d.cert != nil && !shown.Equal(d.cert):
			return errors.New("the program shows another certificate than tls_delivery.server_cert has")
		case d.roots != nil:
			o := x509.VerifyOptions{Roots: d.roots, DNSName: c.ServerName, Intermediates: x509.NewCertPool()}
			for _, i := range s.PeerCertificates[1:] {
				o.Intermediates.AddCert(i)
			}
			if _, err := shown.Verify(o); err != nil {
				return fmt.Errorf("the program's certificate, by tls_delivery.trust_roots: %w", err)
			}
		}
		if a.protocol == "h2" && s.NegotiatedProtocol != "h2" {
			return errors.New("its client speaks HTTP/2, and the program does not (ALPN)")
		}
		return nil
	}
	return c
}

// underTLS is a connection to the program, under TLS from the moment on in which that
// may hear the client.
type underTLS struct {
	below  delivered
	tls    *tls.Conn
	begins func() bool // waits for that moment; false: it does not come
	failed func(error) // is told once why there is no TLS
	ctx    context.Context
	limit  time.Duration // of the handshake; 0: there is none

	once   sync.Once
	err    error // of the handshake
	resets atomic.Bool
}

// secure puts TLS on near, in limit. t is the connection's other side.
func (p *Ports) secure(ctx context.Context, near delivered, a arrival, t *taken, limit time.Duration) *underTLS {
	return &underTLS{
		below: near, tls: tls.Client(near, p.o.Delivery.config(a.tls)), ctx: ctx, limit: limit,
		begins: func() bool {
			if !t.hears() {
				return false
			}
			if t.peer != nil {
				t.peer.Find() // before the first word
			}
			return true
		},
		failed: func(err error) {
			if t.withdraw() && ctx.Err() == nil {
				p.notUnderTLS(a, err)
			}
		},
	}
}

// shake ends the handshake, for whoever comes first.
func (u *underTLS) shake() error {
	u.once.Do(func() {
		if !u.begins() {
			u.err = syscall.ECONNRESET
			return
		}
		ctx := u.ctx
		if u.limit > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, u.limit)
			defer cancel()
		}
		if err := u.tls.HandshakeContext(ctx); err != nil {
			u.err = fmt.Errorf("a handshake with the program: %v", err) // an end in it is no orderly one
			u.failed(err)
		}
	})
	return u.err
}

func (u *underTLS) Read(p []byte) (int, error) {
	if err := u.shake(); err != nil {
		return 0, err
	}
	n, err := u.tls.Read(p)
	if errors.Is(err, io.ErrUnexpectedEOF) { // many programs do not say goodbye
		err = io.EOF
	}
	return n, err
}

func (u *underTLS) Write(p []byte) (int, error) {
	if err := u.shake(); err != nil {
		return 0, err
	}
	return u.tls.Write(p)
}

// CloseWrite ends what is written, for TLS and for TCP.
func (u *underTLS) CloseWrite() error {
	if err := u.shake(); err != nil {
		return err
	}
	return errors.Join(u.tls.CloseWrite(), u.below.CloseWrite())
}

// SetLinger is that of TCP, for package relay. With 0, Close resets.
func (u *underTLS) SetLinger(seconds int) error {
	u.resets.Store(seconds == 0)
	if l, ok := u.below.(interface{ SetLinger(int) error }); ok {
		return l.SetLinger(seconds)
	}
	return nil
}

// Close ends the connection.
func (u *underTLS) Close() error {
	if u.resets.Load() {
		return u.below.Close()
	}
	return u.tls.Close()
}

// notUnderTLS tells that the program cannot have an arrival, which the target gets.
func (p *Ports) notUnderTLS(a arrival, err error) {
	e := event.Event{Level: event.Warning, Code: "tls-not-delivered", Flow: "incoming", Facts: a.key().facts(map[string]string{"client": a.client.String()}),
		Text: fmt.Sprintf("%v: what came under TLS does not reach the program, and the target answers: %v; a program that serves in the clear needs feature.network.incoming.tls_delivery.protocol tcp", a.key(), err)}
	if gone := len(p.listening(a)) == 0; gone || !p.unsecured.set(a.port, true) {
		e.Level = event.Detail
	}
	p.o.Emit(e)
}
