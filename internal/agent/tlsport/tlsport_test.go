package tlsport

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"
)

// words is a connection that says some words and then err, or nothing.
type words struct {
	net.Conn
	said    *bytes.Reader
	err     error
	written int
}

func (w *words) Read(p []byte) (int, error) {
	if w.said.Len() == 0 {
		return 0, w.err
	}
	return w.said.Read(p)
}

func (w *words) Write(p []byte) (int, error) { w.written += len(p); return len(p), nil }

func (w *words) SetReadDeadline(time.Time) error { return nil }

// first is a client's first message.
func first(t testing.TB, c *tls.Config) []byte {
	t.Helper()
	near, far := net.Pipe()
	go func() {
		_ = tls.Client(near, c).Handshake()
	}()
	b := make([]byte, maxHello)
	n, err := far.Read(b)
	far.Close()
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

func TestGreet(t *testing.T) {
	hello := string(first(t, &tls.Config{ServerName: shop, InsecureSkipVerify: true}))
	unnamed := string(first(t, &tls.Config{InsecureSkipVerify: true}))
	cut := hello[:5] + hello[5:100]
	long := "\x16\x03\x01\x40\x00\x01\x00\xff\xff" + string(make([]byte, 1<<14-4))
	for _, c := range []struct {
		name, said string
		is         bool
		asks       string
		err        error
	}{
		{"TLS", hello, true, shop, nil},
		{"TLS for nobody by name", unnamed, true, "", nil},
		{"TLS and more", hello + "more", true, shop, nil},
		{"HTTP", "GET / HTTP/1.1\r\n\r\n", false, "", nil},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false, "", nil},
		{"half of it", cut, false, "", io.EOF},
		{"nothing", "", false, "", io.EOF},
		{"no hello", "\x16\x03\x01\x00\x05hello", false, "", nil},
		{"an alert", "\x15\x03\x01\x00\x02\x02\x28", false, "", nil},
		{"too long", long + long + long, false, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &words{said: bytes.NewReader([]byte(c.said)), err: io.EOF}
			got, said, err := Greet(w, time.Second)
			rest, _ := io.ReadAll(w)
			switch {
			case (got != nil) != c.is, c.is && got.ServerName != c.asks:
				t.Errorf("got %+v", got)
			case err != c.err:
				t.Errorf("it ended with %v, want %v", err, c.err)
			case string(said)+string(rest) != c.said:
				t.Errorf("of %d bytes it gave %d and left %d", len(c.said), len(said), len(rest))
			case w.written > 0:
				t.Errorf("it wrote %d bytes", w.written)
			case len(said) > maxHello:
				t.Errorf("it read %d bytes", len(said))
			}
		})
	}
}

// TestGreetSilent: a client that says nothing, or not enough, is not waited for for ever.
func TestGreetSilent(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	if hello, said, err := Greet(far, time.Millisecond); hello != nil || len(said) > 0 || err != nil {
		t.Errorf("got %v, %q, %v", hello, said, err)
	}
	go near.Write([]byte("x"))
	if b, err := io.ReadAll(io.LimitReader(far, 1)); string(b) != "x" || err != nil {
		t.Errorf("what comes later: %q, %v", b, err)
	}
}

func FuzzGreet(f *testing.F) {
	f.Add(first(f, &tls.Config{ServerName: shop, InsecureSkipVerify: true}))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		w := &words{said: bytes.NewReader(b), err: io.EOF}
		hello, said, err := Greet(w, time.Second)
		rest, _ := io.ReadAll(w)
		switch {
		case !bytes.Equal(append(bytes.Clone(said), rest...), b) || w.written > 0 || len(said) > maxHello:
			t.Fatalf("read %d and left %d of %d, wrote %d, %v", len(said), len(rest), len(b), w.written, err)
		case hello != nil:
			hello.versions()
			hello.early()
		}
	})
}
