package tlsport

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mirrord-go/mirrord/internal/rules"
)

const (
	// maxFiles bounds the files of one Keys together, in bytes: a system's whole bundle
	// of authorities has some 220 KiB.
	maxFiles = 256 << 10
	// KeysCost is what a Keys is counted as, in bytes: its files twice, while one is
	// replaced by the next, as what they are when they are understood.
	KeysCost = 2 << 20
	// freshTime is how long what was read is not looked at again: certificates are
	// replaced some time before the old ones end.
	freshTime = time.Second
	// readTime is how long a connection waits for the files.
	readTime = time.Second
)

// ReadFile reads a file of the target's, of most bytes at most, as the target's own
// process would.
type ReadFile func(ctx context.Context, name string, most int) ([]byte, error)

// Keys are what the files of a rules.TLS hold: those of now, or, while they cannot be
// read or do not fit together, the last that did. Its methods may be called
// concurrently.
type Keys struct {
	files rules.TLS
	read  ReadFile

	mu     sync.Mutex
	last   *pairs        // nil: there were none yet
	err    error         // why the newest files are no good
	until  time.Time     // they are not looked at again before
	loaded chan struct{} // closed when the reading under way has ended; nil: there is none
}

// pairs are the certificates with their keys.
type pairs struct {
	servers []tls.Certificate
	clients *x509.CertPool   // who vouches for clients; nil: they are asked for nothing
	shown   *tls.Certificate // to the server in their place
}

// NewKeys makes a Keys. Nothing is read yet.
func NewKeys(files rules.TLS, read ReadFile) *Keys { return &Keys{files: files, read: read} }

// now gives those of now. It waits for a moment only: storage can hold a read up for
// ever, which is then the only one under way.
func (k *Keys) now(ctx context.Context) (*pairs, error) {
	k.mu.Lock()
	if k.loaded == nil && time.Now().After(k.until) {
		k.loaded = make(chan struct{})
		go k.load(context.WithoutCancel(ctx)) // it ends with the read
	}
	loaded := k.loaded
	k.mu.Unlock()
	if loaded != nil {
		patience := time.NewTimer(readTime)
		defer patience.Stop()
		select {
		case <-loaded:
		case <-patience.C:
		case <-ctx.Done():
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.last != nil:
		return k.last, nil
	case k.err != nil:
		return nil, k.err
	}
	return nil, fmt.Errorf("read %s: nothing has come of it for %v", k.files.Certificates[0], readTime)
}

func (k *Keys) load(ctx context.Context) {
	p, err := k.pairs(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		k.last = p
	}
	k.err, k.until = err, time.Now().Add(freshTime)
	close(k.loaded)
	k.loaded = nil
}

func (k *Keys) pairs(ctx context.Context) (*pairs, error) {
	left := maxFiles
	read := func(name string) ([]byte, error) {
		b, err := k.read(ctx, name, left)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		left -= len(b)
		return b, nil
	}
	pair := func(certificate, key string) (p tls.Certificate, err error) {
		chain, err := read(certificate)
		if err != nil {
			return p, err
		}
		secret := chain
		if key != "" {
			if secret, err = read(key); err != nil {
				return p, err
			}
		}
		if p, err = tls.X509KeyPair(chain, secret); err != nil {
			return p, fmt.Errorf("%s: %w", certificate, err)
		}
		return p, nil
	}
	p := &pairs{}
	for i, name := range k.files.Certificates {
		key := ""
		if len(k.files.Keys) > 0 {
			key = k.files.Keys[i]
		}
		c, err := pair(name, key)
		if err != nil {
			return nil, err
		}
		p.servers = append(p.servers, c)
	}
	if k.files.ClientCA == "" {
		return p, nil
	}
	roots, err := read(k.files.ClientCA)
	if err != nil {
		return nil, err
	}
	p.clients = x509.NewCertPool()
	if !p.clients.AppendCertsFromPEM(roots) {
		return nil, fmt.Errorf("%s: %w", k.files.ClientCA, errors.New("it has no certificate in PEM"))
	}
	shown, err := pair(k.files.ClientCertificate, k.files.ClientKey)
	if err != nil {
		return nil, err
	}
	p.shown = &shown
	return p, nil
}

// of gives the pair whose certificate the server has shown; nil: there is none. The
// chain is as it was shown.
func (p *pairs) of(shown []*x509.Certificate) *tls.Certificate {
	if len(shown) == 0 {
		return nil
	}
	for _, c := range p.servers {
		if !bytes.Equal(c.Certificate[0], shown[0].Raw) {
			continue
		}
		c.Certificate = nil
		for _, link := range shown {
			c.Certificate = append(c.Certificate, link.Raw)
		}
		return &c
	}
	return nil
}
