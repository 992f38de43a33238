package tlsport

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/rules"
	"github.com/mirrord-go/mirrord/internal/testcert"
)

// disk is the target's files.
type disk struct {
	mu    sync.Mutex
	files map[string][]byte
	reads int
}

func (d *disk) read(_ context.Context, name string, most int) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reads++
	b, ok := d.files[name]
	switch {
	case !ok:
		return nil, fs.ErrNotExist
	case len(b) > most:
		return nil, errors.New("it is too large")
	}
	return b, nil
}

func (d *disk) put(name string, b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files[name] = b
}

// stage is a server under TLS, its files, and who takes TLS off.
type stage struct {
	t       testing.TB
	servers *testcert.Authority
	clients *testcert.Authority
	disk    *disk
	files   rules.TLS
	config  *tls.Config // of the server
	ln      net.Listener
	wg      sync.WaitGroup

	mu   sync.Mutex
	seen []tls.ConnectionState // by the server, of those that said something
}

const shop, admin = "shop.example", "admin.example"

func newStage(t testing.TB) *stage {
	s := &stage{t: t, servers: testcert.New(t, "servers"), clients: testcert.New(t, "clients"), disk: &disk{files: map[string][]byte{}}, config: &tls.Config{MinVersion: tls.VersionTLS10}}
	for _, name := range []string{shop, admin} {
		certificate, key := s.servers.Issue(t, name)
		s.disk.files["/tls/"+name+".crt"], s.disk.files["/tls/"+name+".key"] = certificate, key
		s.files.Certificates = append(s.files.Certificates, "/tls/"+name+".crt")
		s.files.Keys = append(s.files.Keys, "/tls/"+name+".key")
		pair, err := tls.X509KeyPair(certificate, key)
		if err != nil {
			t.Fatal(err)
		}
		s.config.Certificates = append(s.config.Certificates, pair)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.ln = ln
	s.wg.Go(s.serve)
	t.Cleanup(func() {
		ln.Close()
		s.wg.Wait()
	})
	return s
}

// vouch lets the files say who vouches for clients, and what the server is shown.
func (s *stage) vouch() {
	s.files.ClientCA, s.files.ClientCertificate, s.files.ClientKey = "/tls/clients.pem", "/tls/agent.crt", "/tls/agent.key"
	s.disk.put(s.files.ClientCA, s.clients.PEM)
	certificate, key := s.clients.Issue(s.t, "agent")
	s.disk.put(s.files.ClientCertificate, certificate)
	s.disk.put(s.files.ClientKey, key)
}

// serve echoes.
func (s *stage) serve() {
	for {
		nc, err := s.ln.Accept()
		if err != nil {
			return
		}
		s.wg.Go(func() {
			defer nc.Close()
			c := tls.Server(nc, s.config)
			buf := make([]byte, 100)
			n, err := c.Read(buf)
			if n == 0 {
				return
			}
			s.mu.Lock()
			s.seen = append(s.seen, c.ConnectionState())
			s.mu.Unlock()
			for n > 0 {
				if _, wrong := c.Write(buf[:n]); wrong != nil {
					return
				}
				if n = 0; err == nil {
					n, err = c.Read(buf)
				}
			}
			if err == io.EOF {
				_ = c.CloseWrite()
			}
		})
	}
}

func (s *stage) dial(ctx context.Context) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", s.ln.Addr().String())
}

// between accepts one connection and takes TLS off it and puts it on again. done gets
// what came of it.
func (s *stage) between(keys *Keys) (addr string, done chan outcome) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	done = make(chan outcome, 1)
	s.wg.Go(func() {
		defer ln.Close()
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		done <- s.take(keys, nc)
	})
	return ln.Addr().String(), done
}

// outcome is what came of one connection.
type outcome struct {
	terms *Terms
	err   error
}

func (s *stage) take(keys *Keys, nc net.Conn) outcome {
	ctx := s.t.Context()
	hello, said, err := Greet(nc, time.Minute)
	if err != nil || hello == nil {
		return outcome{err: errors.Join(errors.New("no hello"), err)}
	}
	terms, err := keys.Ask(ctx, hello, s.dial)
	if err != nil {
		return outcome{err: err}
	}
	client, err := terms.Accept(ctx, &behind{nc, said})
	if err != nil {
		return outcome{terms, err}
	}
	defer client.Close()
	raw, err := s.dial(ctx)
	if err != nil {
		return outcome{terms, err}
	}
	server, err := terms.Dial(ctx, raw)
	if err != nil {
		return outcome{terms, err}
	}
	defer server.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.CloseWrite()
	})
	_, _ = io.Copy(client, server)
	_ = client.CloseWrite()
	wg.Wait()
	return outcome{terms, nil}
}

// behind is a connection of which some bytes come again.
type behind struct {
	net.Conn
	said []byte
}

func (b *behind) Read(p []byte) (int, error) {
	if len(b.said) == 0 {
		return b.Conn.Read(p)
	}
	n := copy(p, b.said)
	b.said = b.said[n:]
	return n, nil
}

// say connects to addr, says something and gives what came of it.
func say(addr string, c *tls.Config) (tls.ConnectionState, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer nc.Close()
	client := tls.Client(nc, c)
	_ = client.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(client, "hello"); err != nil {
		return client.ConnectionState(), err
	}
	if err := client.CloseWrite(); err != nil {
		return client.ConnectionState(), err
	}
	b, err := io.ReadAll(client)
	if err == nil && string(b) != "hello" {
		err = errors.New("it says " + string(b))
	}
	return client.ConnectionState(), err
}
