package tlsport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/leak"
	"github.com/mirrord-go/mirrord/internal/testcert"
)

// TestSeenAlike: a client sees the same certificate, version and protocol as without
// us, and the server what the client has asked for.
func TestSeenAlike(t *testing.T) {
	leak.Check(t)
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
		for _, offered := range [][]string{nil, {"http/1.1"}, {"h2", "http/1.1"}} {
			for _, speaks := range [][]string{nil, {"h2", "http/1.1"}, {"http/1.1"}} {
				for _, name := range []string{"", shop, admin, "other.example"} {
					t.Run(fmt.Sprint(tls.VersionName(version), offered, speaks, name), func(t *testing.T) {
						s := newStage(t)
						s.config.NextProtos = speaks
						c := &tls.Config{ServerName: name, InsecureSkipVerify: true, MinVersion: version, MaxVersion: version, NextProtos: offered}
						want, err := say(s.ln.Addr().String(), c)
						if err != nil {
							t.Fatal(err)
						}
						addr, done := s.between(NewKeys(s.files, s.disk.read))
						got, err := say(addr, c)
						if o := <-done; err != nil || o.err != nil {
							t.Fatal(err, o.err)
						}
						if !got.PeerCertificates[0].Equal(want.PeerCertificates[0]) || got.Version != want.Version || got.NegotiatedProtocol != want.NegotiatedProtocol {
							t.Errorf("got %s, %s, %q, want %s, %s, %q", got.PeerCertificates[0].Subject, tls.VersionName(got.Version), got.NegotiatedProtocol,
								want.PeerCertificates[0].Subject, tls.VersionName(want.Version), want.NegotiatedProtocol)
						}
						ours := s.seen[len(s.seen)-1]
						if ours.ServerName != name || ours.NegotiatedProtocol != want.NegotiatedProtocol || ours.Version != version {
							t.Errorf("the server sees %q, %q, %s", ours.ServerName, ours.NegotiatedProtocol, tls.VersionName(ours.Version))
						}
					})
				}
			}
		}
	}
}

// TestClientCertificates: who shows none is the server's, with none; who shows one that
// is vouched for is shown as the agent; no other gets through.
func TestClientCertificates(t *testing.T) {
	leak.Check(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, auth := range []tls.ClientAuthType{tls.RequestClientCert, tls.RequireAnyClientCert, tls.VerifyClientCertIfGiven, tls.RequireAndVerifyClientCert} {
			for _, by := range []string{"", "clients", "strangers"} {
				t.Run(fmt.Sprint(tls.VersionName(version), " ", auth, " ", by), func(t *testing.T) {
					s := newStage(t)
					s.vouch()
					s.config.ClientAuth, s.config.ClientCAs = auth, s.clients.Pool()
					c := &tls.Config{ServerName: shop, RootCAs: s.servers.Pool(), MinVersion: version, MaxVersion: version}
					signer := map[string]*testcert.Authority{"clients": s.clients, "strangers": testcert.New(t, "strangers")}[by]
					if signer != nil {
						pair := signer.Pair(t, "ana")
						c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
					}
					_, direct := say(s.ln.Addr().String(), c)
					before := len(s.seen)
					addr, done := s.between(NewKeys(s.files, s.disk.read))
					_, err := say(addr, c)
					o := <-done
					var shown []*x509.Certificate
					if len(s.seen) > before {
						shown = s.seen[before].PeerCertificates
					}
					switch by {
					case "":
						if (err == nil) != (direct == nil) || o.terms == nil || !o.terms.Anonymous() || len(shown) > 0 {
							t.Errorf("without one: %v (%v without us), %+v, the server saw %d", err, direct, o, len(shown))
						}
					case "clients":
						if err != nil || o.terms.Anonymous() || len(shown) == 0 || shown[0].Subject.CommonName != "agent" {
							t.Errorf("with one: %v, %+v, the server saw %v", err, o, shown)
						}
					case "strangers":
						if err == nil || o.err == nil || len(shown) > 0 {
							t.Errorf("with a stranger's: %v, %+v, the server saw %v", err, o, shown)
						}
					}
				})
			}
		}
	}
}

func TestStays(t *testing.T) {
	leak.Check(t)
	for _, c := range []struct {
		name   string
		set    func(*stage)
		hello  func(*Hello)
		client func(*tls.Config)
		reason Reason // 0: the server's own refusal
		text   string
	}{
		{"no file", func(s *stage) { s.files.Keys[1] = "/tls/none" }, nil, nil, NoKeys, "read /tls/none: file does not exist"},
		{"a key of another's", func(s *stage) { s.files.Keys[1] = s.files.Keys[0] }, nil, nil, NoKeys, "/tls/admin.example.crt: tls: private key does not match public key"},
		{"no PEM", func(s *stage) { s.disk.put("/tls/shop.example.crt", []byte("x")) }, nil, nil, NoKeys, "/tls/shop.example.crt: tls: failed to find any PEM data"},
		{"too large", func(s *stage) { s.disk.put("/tls/shop.example.crt", make([]byte, maxFiles+1)) }, nil, nil, NoKeys, "too large"},
		{"clients' authority", func(s *stage) { s.vouch(); s.disk.put("/tls/clients.pem", []byte("x")) }, nil, nil, NoKeys, "/tls/clients.pem: it has no certificate in PEM"},
		{"another certificate", func(s *stage) { s.files.Certificates, s.files.Keys = s.files.Certificates[1:], s.files.Keys[1:] }, nil, nil, Mismatch, "another certificate"},
		{"another certificate, with the same name", func(s *stage) {
			certificate, key := s.servers.Issue(s.t, shop)
			s.disk.put("/tls/shop.example.crt", certificate)
			s.disk.put("/tls/shop.example.key", key)
		}, nil, nil, Mismatch, "another certificate"},
		{"client certificates", func(s *stage) { s.config.ClientAuth = tls.RequireAnyClientCert }, nil, nil, AsksClient, "asks its clients"},
		{"client certificates, before TLS 1.3", func(s *stage) {
			s.config.ClientAuth, s.config.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12
		}, nil, nil, AsksClient, "asks its clients"},
		{"client certificates, at will", func(s *stage) { s.config.ClientAuth = tls.RequestClientCert }, nil, nil, AsksClient, "asks its clients"},
		{"0-RTT", nil, func(h *Hello) { h.info.Extensions = append(h.info.Extensions, earlyData) }, nil, Unfit, "0-RTT"},
		{"SSL 3", nil, func(h *Hello) { h.info.SupportedVersions = []uint16{tls.VersionSSL30} }, nil, Unfit, "nothing that is understood"},
		{"unknown ciphers", nil, func(h *Hello) {
			h.info.SupportedVersions, h.info.CipherSuites = []uint16{tls.VersionTLS12}, []uint16{0xfefe}
		}, nil, Unfit, "nothing that is understood"},
		{"no common signature", nil, func(h *Hello) { h.info.SignatureSchemes = []tls.SignatureScheme{tls.PSSWithSHA256} }, nil, Unfit, "cannot do with the server's certificate"},
		{"no common version", func(s *stage) { s.config.MaxVersion = tls.VersionTLS12 }, nil, func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }, 0, "protocol version"},
		{"no common protocol", func(s *stage) { s.config.NextProtos = []string{"h2"} }, nil, func(c *tls.Config) { c.NextProtos = []string{"smtp"} }, 0, "no application protocol"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t)
			if c.set != nil {
				c.set(s)
			}
			config := &tls.Config{ServerName: shop, InsecureSkipVerify: true}
			if c.client != nil {
				c.client(config)
			}
			hello := greeted(t, config)
			if c.hello != nil {
				c.hello(hello)
			}
			terms, err := NewKeys(s.files, s.disk.read).Ask(t.Context(), hello, s.dial)
			var stays *StaysError
			switch {
			case err == nil:
				t.Fatalf("it is decrypted: %+v", terms)
			case errors.As(err, &stays) != (c.reason != 0) || stays != nil && stays.Reason != c.reason || !strings.Contains(err.Error(), c.text):
				t.Errorf("got %v, want reason %d, %q", err, c.reason, c.text)
			case strings.Contains(err.Error(), "PRIVATE"):
				t.Errorf("%v tells a secret", err)
			}
		})
	}
}

// greeted is what a client with this configuration begins with.
func greeted(t *testing.T, c *tls.Config) *Hello {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(near, c).Handshake()
	}()
	hello, said, err := Greet(far, time.Minute)
	far.Close()
	<-done
	if hello == nil || err != nil || len(said) == 0 {
		t.Fatalf("hello %v, %d bytes, %v", hello, len(said), err)
	}
	return hello
}

// TestServerGone: who cannot be asked has not refused.
func TestServerGone(t *testing.T) {
	s := newStage(t)
	s.ln.Close()
	var stays *StaysError
	if _, err := NewKeys(s.files, s.disk.read).Ask(t.Context(), greeted(t, &tls.Config{InsecureSkipVerify: true}), s.dial); err == nil || errors.As(err, &stays) {
		t.Errorf("got %v", err)
	}
}

// TestChanged: a server that has changed its mind is not spoken with in another
// protocol than the client was promised.
func TestChanged(t *testing.T) {
	leak.Check(t)
	s := newStage(t)
	s.config.NextProtos = []string{"h2"}
	terms, err := NewKeys(s.files, s.disk.read).Ask(t.Context(), greeted(t, &tls.Config{ServerName: shop, InsecureSkipVerify: true, NextProtos: []string{"h2"}}), s.dial)
	if err != nil {
		t.Fatal(err)
	}
	other := newStage(t)
	nc, err := other.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c, err := terms.Dial(t.Context(), nc); !errors.Is(err, errChanged) {
		t.Errorf("got %v, %v", c, err)
	}
}

// TestConn: an end is an end and a reset a reset.
func TestConn(t *testing.T) {
	leak.Check(t)
	for _, resets := range []bool{false, true} {
		s := newStage(t)
		nc, err := s.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		nc.Close()
		told := make(chan error, 1)
		go func() {
			nc, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				told <- err
				return
			}
			defer nc.Close()
			c := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
			_, err = c.Read(make([]byte, 1))
			told <- err
		}()
		below, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
		c, err := shake(t.Context(), time.Minute, below, tls.Server(below, s.config))
		if err != nil {
			t.Fatal(err)
		}
		if resets {
			_ = c.SetLinger(0)
		}
		c.Close()
		if err := <-told; (err.Error() == "EOF") == resets {
			t.Errorf("resets %v: the peer sees %v", resets, err)
		}
	}
}
