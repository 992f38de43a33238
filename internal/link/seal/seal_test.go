package seal

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func newKey(t testing.TB) (ed25519.PrivateKey, ed25519.PublicKey) {
	t.Helper()
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k, k.Public().(ed25519.PublicKey)
}

// tcp is a connected pair of TCP connections on loopback.
func tcp(t testing.TB) (near, far net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	near, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

type result struct {
	rw  io.ReadWriteCloser
	err error
}

func serve(ctx context.Context, rw io.ReadWriteCloser, key ed25519.PrivateKey, peer ed25519.PublicKey) chan result {
	done := make(chan result, 1)
	go func() {
		rw, err := Server(ctx, rw, key, peer)
		done <- result{rw, err}
	}()
	return done
}

func TestBytesTravelSealed(t *testing.T) {
	ck, cp := newKey(t)
	sk, sp := newKey(t)
	near, far := tcp(t)
	var seen bytes.Buffer // what a relay would see
	done := serve(t.Context(), far, sk, cp)
	c, err := Client(t.Context(), struct {
		io.Reader
		io.WriteCloser
	}{io.TeeReader(near, &seen), near}, ck, sp)
	if err != nil {
		t.Fatal(err)
	}
	s := <-done
	if s.err != nil {
		t.Fatal(s.err)
	}
	secret := bytes.Repeat([]byte("the target's file "), 10000)
	go s.rw.Write(secret)
	got := make([]byte, len(secret))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, secret) {
		t.Fatalf("got other bytes than were sent, %v", err)
	}
	if bytes.Contains(seen.Bytes(), secret[:18]) {
		t.Error("the bytes could be read on the way")
	}
	c.Close()
	if _, err := s.rw.Read(got); err == nil {
		t.Error("read after the end gives no error")
	}
	s.rw.Close()
}

func TestAgentWithAnotherKey(t *testing.T) {
	ck, cp := newKey(t)
	squatter, _ := newKey(t)
	_, agent := newKey(t)
	near, far := tcp(t)
	done := serve(t.Context(), far, squatter, cp)
	if _, err := Client(t.Context(), near, ck, agent); !errors.Is(err, ErrWrongKey) {
		t.Errorf("client gets %v, want %v", err, ErrWrongKey)
	}
	if s := <-done; s.err == nil {
		t.Error("the squatter got a pipe")
	}
	if _, err := near.Write([]byte("x")); err == nil {
		t.Error("the refused pipe is still open")
	}
}

func TestSessionWithAnotherKey(t *testing.T) {
	stranger, _ := newKey(t)
	_, session := newKey(t)
	sk, sp := newKey(t)
	near, far := tcp(t)
	done := serve(t.Context(), far, sk, session)
	c, err := Client(t.Context(), near, stranger, sp)
	if err == nil { // TLS 1.3: the client is ready before the server has judged it
		c.Write([]byte("hello")) // must not cost us the reason
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if !errors.Is(err, ErrRefused) {
		t.Errorf("client gets %v, want %v", err, ErrRefused)
	}
	if s := <-done; !errors.Is(s.err, ErrWrongKey) {
		t.Errorf("server gets %v, want %v", s.err, ErrWrongKey)
	}
}

// An end of another release is told apart from a stranger, by either side.
func TestAnotherVersion(t *testing.T) {
	if want := fmt.Sprintf("mirrord/%d", Version); alpn != want {
		t.Errorf("ALPN is %q, want %q", alpn, want)
	}
	ak, agent := newKey(t)
	sk, session := newKey(t)
	for name, names := range map[string][]string{"newer": {"mirrord/2"}, "none": nil} {
		t.Run(name, func(t *testing.T) {
			near, far := tcp(t)
			c, err := config(ak, session)
			if err != nil {
				t.Fatal(err)
			}
			c.NextProtos = names
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = tls.Server(far, c).Handshake()
				far.Close()
			}()
			rw, err := Client(t.Context(), near, sk, agent)
			if !errors.Is(err, ErrVersion) {
				t.Errorf("sealing towards it gives %v, %v, want ErrVersion", rw, err)
			}
			<-done
		})
	}
}

// TestStrangers are clients that are not ours at all.
func TestStrangers(t *testing.T) {
	_, session := newKey(t)
	sk, _ := newKey(t)
	ours, err := config(sk, session)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		speak func(c net.Conn) error
	}{
		{"http", func(c net.Conn) error {
			_, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
			return err
		}},
		{"nothing", func(c net.Conn) error { return c.(*net.TCPConn).CloseWrite() }},
		{"no certificate", func(c net.Conn) error {
			return tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}}).Handshake()
		}},
		{"no version", func(c net.Conn) error {
			return tls.Client(c, &tls.Config{InsecureSkipVerify: true, Certificates: ours.Certificates}).Handshake()
		}},
		{"another version", func(c net.Conn) error {
			return tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"mirrord/2"}}).Handshake()
		}},
		{"tls 1.2", func(c net.Conn) error {
			return tls.Client(c, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, NextProtos: []string{alpn}}).Handshake()
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			near, far := tcp(t)
			done := serve(t.Context(), far, sk, session)
			_ = test.speak(near)
			_, _ = io.Copy(io.Discard, near)
			if s := <-done; s.err == nil {
				t.Error("a stranger got a pipe")
			}
		})
	}
}

func TestChangedOnTheWay(t *testing.T) {
	ck, cp := newKey(t)
	sk, sp := newKey(t)
	near, relayNear := tcp(t)
	relayFar, far := tcp(t)
	flip := make(chan bool, 1)
	go func() {
		buf := make([]byte, 32<<10)
		for {
			n, err := relayNear.Read(buf)
			if err != nil {
				return
			}
			select {
			case <-flip:
				buf[n-1] ^= 1
			default:
			}
			relayFar.Write(buf[:n])
		}
	}()
	go io.Copy(relayNear, relayFar)
	done := serve(t.Context(), far, sk, cp)
	c, err := Client(t.Context(), near, ck, sp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := <-done
	flip <- true
	c.Write([]byte("hello"))
	if n, err := s.rw.Read(make([]byte, 8)); n != 0 || err == nil || errors.Is(err, io.EOF) {
		t.Errorf("changed bytes: got %d bytes, %v, want an error", n, err)
	}
	s.rw.Close()
}

func TestEndOfContextEndsTheHandshake(t *testing.T) {
	key, _ := newKey(t)
	_, peer := newKey(t)
	for name, seal := range map[string]func(context.Context, io.ReadWriteCloser, ed25519.PrivateKey, ed25519.PublicKey) (io.ReadWriteCloser, error){
		"client": Client, "server": Server,
	} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			go io.Copy(io.Discard, far)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if _, err := seal(ctx, near, key, peer); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
			}
			if _, err := near.Write([]byte("x")); err == nil {
				t.Error("the pipe is still open")
			}
		})
	}
}

func TestKeyText(t *testing.T) {
	k, p := newKey(t)
	got, err := ParsePublicKey(PublicKey(k))
	if err != nil || !got.Equal(p) {
		t.Fatalf("got %x, %v, want %x", got, err, p)
	}
	good := base64.StdEncoding.EncodeToString(make([]byte, 32))
	tests := []struct{ name, text, want string }{
		{"empty", "", "empty"},
		{"not base64", "ssh-ed25519 AAAA", "not base64"},
		{"short", good[:40], "30 bytes, not 32"},
		{"long", base64.StdEncoding.EncodeToString(make([]byte, 64)), "64 bytes"},
		{"line end", good[:20] + "\n" + good[20:], "holds"},
		{"padding bits", good[:42] + "B=", "not base64"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, err := ParsePublicKey(test.text); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}

func FuzzParsePublicKey(f *testing.F) {
	f.Add(base64.StdEncoding.EncodeToString(make([]byte, 32)))
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := ParsePublicKey(text)
		if err != nil {
			return
		}
		if again := base64.StdEncoding.EncodeToString(k); again != text {
			t.Errorf("%q and %q are the same key", text, again)
		}
	})
}

func TestBadKeysAreErrors(t *testing.T) {
	k, p := newKey(t)
	near, _ := net.Pipe()
	if _, err := Client(t.Context(), near, k[:10], p); err == nil {
		t.Error("a short private key is accepted")
	}
	if _, err := near.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the pipe is left open: %v", err)
	}
}

// FuzzHandshake: whatever arrives instead of a handshake, neither end has a pipe
// with it, and both come to an end.
func FuzzHandshake(f *testing.F) {
	own, _ := newKey(f)
	_, peer := newKey(f)
	hello := func() []byte { // what a client of ours says first
		near, far := net.Pipe()
		defer near.Close()
		go func() {
			if c, err := Client(context.Background(), far, own, peer); err == nil {
				c.Close()
			}
		}()
		b := make([]byte, 4096)
		n, _ := near.Read(b)
		return b[:n]
	}()
	f.Add(hello)
	f.Add(append(append([]byte{}, hello...), hello...))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte{22, 3, 3, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, side := range map[string]func(context.Context, io.ReadWriteCloser, ed25519.PrivateKey, ed25519.PublicKey) (io.ReadWriteCloser, error){"server": Server, "client": Client} {
			rw := struct {
				io.Reader
				io.Writer
				io.Closer
			}{bytes.NewReader(b), io.Discard, io.NopCloser(nil)}
			if _, err := side(t.Context(), rw, own, peer); err == nil {
				t.Errorf("%s: a pipe with nobody", name)
			}
		}
	})
}

// Who took the agent's port and does not speak TLS is nobody to try again with.
func TestSquatter(t *testing.T) {
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() { // it hears whatever is said
		defer close(done)
		_, _ = io.Copy(io.Discard, far)
	}()
	go func() { _, _ = far.Write([]byte("HTTP/1.0 200 OK\r\n\r\n")) }()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Client(t.Context(), near, key, key.Public().(ed25519.PublicKey)); !errors.Is(err, ErrWrongKey) {
		t.Errorf("got %v, want %v", err, ErrWrongKey)
	}
	near.Close()
	<-done
}

// sealed gives both ends of a sealed pipe over TCP, near's writes counted.
func sealed(t *testing.T) (near, far io.ReadWriteCloser, writes *counted) {
	t.Helper()
	ck, cp := newKey(t)
	sk, sp := newKey(t)
	x, y := tcp(t)
	done := serve(t.Context(), y, sk, cp)
	writes = &counted{Conn: x}
	near, err := Client(t.Context(), writes, ck, sp)
	if err != nil {
		t.Fatal(err)
	}
	s := <-done
	if s.err != nil {
		t.Fatal(s.err)
	}
	writes.n = 0
	return near, s.rw, writes
}

// counted counts Writes, or keeps them back.
type counted struct {
	net.Conn
	n    int
	keep bool
	kept []byte
}

func (c *counted) Write(b []byte) (int, error) {
	c.n++
	if c.keep {
		c.kept = append(c.kept, b...)
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// TestOneWrite: what is written at once goes to the pipe at once, in however many
// records.
func TestOneWrite(t *testing.T) {
	near, far, below := sealed(t)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 64<<10/16)
	for i := range 3 {
		if n, err := near.Write(sent); n != len(sent) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
		if below.n != i+1 {
			t.Errorf("after %d writes of %d bytes the pipe had %d", i+1, len(sent), below.n)
		}
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("other bytes arrive, %v", err)
		}
	}
}

// TestReadTakesWhatIsThere: one Read gives the bytes of all records that have
// come, and waits for none that has not, not even for the rest of one.
func TestReadTakesWhatIsThere(t *testing.T) {
	near, far, below := sealed(t)
	below.keep = true
	for _, part := range []string{"one", "two", "three"} {
		if _, err := io.WriteString(near, part); err != nil {
			t.Fatal(err)
		}
	}
	part := len(below.kept) - 1 // all but the last byte of the third
	if _, err := below.Conn.Write(below.kept[:part]); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, err := far.Read(b); string(b[:n]) != "onetwo" || err != nil {
		t.Errorf("got %q, %v, want the two records that came as a whole", b[:n], err)
	}
	if _, err := below.Conn.Write(below.kept[part:]); err != nil {
		t.Fatal(err)
	}
	if n, err := far.Read(b[:2]); string(b[:n]) != "th" || err != nil {
		t.Errorf("got %q, %v, want as much as there is room for", b[:n], err)
	}
	if n, err := far.Read(b); string(b[:n]) != "ree" || err != nil {
		t.Errorf("got %q, %v, want the rest", b[:n], err)
	}
}

// TestBytesBeforeAnError: what came before a record that was changed on its way is
// given, then the error.
func TestBytesBeforeAnError(t *testing.T) {
	near, far, below := sealed(t)
	below.keep = true
	for _, part := range []string{"one", "two"} {
		if _, err := io.WriteString(near, part); err != nil {
			t.Fatal(err)
		}
	}
	below.kept[len(below.kept)-1]++
	if _, err := below.Conn.Write(below.kept); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, err := far.Read(b); string(b[:n]) != "one" || err != nil {
		t.Errorf("got %q, %v, want the first record", b[:n], err)
	}
	for range 2 {
		if n, err := far.Read(b); n != 0 || err == nil {
			t.Errorf("got %d bytes, %v, want an error", n, err)
		}
	}
}

// TestHurriedRead: between two records, and in the middle of one that is not there
// as a whole, crypto/tls is told at once that there is nothing, and goes on later.
func TestHurriedRead(t *testing.T) {
	near, far, below := sealed(t)
	below.keep = true
	if _, err := io.WriteString(near, "word"); err != nil {
		t.Fatal(err)
	}
	c := far.(*conn)
	c.raw.hurried = true
	if n, err := c.Conn.Read(make([]byte, 10)); n != 0 || err != errNone {
		t.Fatalf("got %d bytes, %v, want %v", n, err, errNone)
	}
	c.raw.hurried = false
	if _, err := below.Conn.Write(below.kept); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	if n, err := far.Read(b); string(b[:n]) != "word" || err != nil {
		t.Errorf("then %q, %v, want word", b[:n], err)
	}
}
