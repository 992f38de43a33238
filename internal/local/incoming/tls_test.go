package incoming

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/event"
	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/rules"
	"github.com/mirrord-go/mirrord/internal/testcert"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

// file writes one, and gives its name.
func file(t *testing.T, content []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestDeliveredUnderTLS: the program is asked as the client has asked the target, and
// what does not fit what is wanted of it reaches it not at all.
func TestDeliveredUnderTLS(t *testing.T) {
	by, others := testcert.New(t, "ours"), testcert.New(t, "others")
	certificate, key := by.Issue(t, "shop.example")
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	roots, foreign, own := file(t, by.PEM), file(t, others.PEM), file(t, certificate)
	other, _ := by.Issue(t, "shop.example")
	modern := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}}
	for _, c := range []struct {
		name     string
		o        rules.TLSDelivery
		came     protocol.Incoming
		program  *tls.Config // nil: it speaks no TLS
		asked    string
		protocol string
		refused  string // empty: it gets the connection
	}{
		{"any certificate", rules.TLSDelivery{}, protocol.Incoming{ServerName: "shop.example", Protocol: "h2"}, modern, "shop.example", "h2", ""},
		{"HTTP/1", rules.TLSDelivery{}, protocol.Incoming{ServerName: "shop.example", Protocol: "http/1.1"}, modern, "shop.example", "http/1.1", ""},
		{"nothing agreed", rules.TLSDelivery{}, protocol.Incoming{}, modern, "localhost", "", ""},
		{"by another name", rules.TLSDelivery{ServerName: "dev.example"}, protocol.Incoming{ServerName: "shop.example"}, modern, "dev.example", "", ""},
		{"trusted", rules.TLSDelivery{TrustRoots: []string{foreign, roots}}, protocol.Incoming{ServerName: "shop.example"}, modern, "shop.example", "", ""},
		{"not trusted", rules.TLSDelivery{TrustRoots: []string{foreign}}, protocol.Incoming{ServerName: "shop.example"}, modern, "", "", "tls_delivery.trust_roots"},
		{"trusted for another name", rules.TLSDelivery{TrustRoots: []string{roots}}, protocol.Incoming{ServerName: "admin.example"}, modern, "", "", "admin.example"},
		{"its own", rules.TLSDelivery{ServerCert: own}, protocol.Incoming{ServerName: "admin.example"}, modern, "shop.example", "", ""},
		{"another", rules.TLSDelivery{ServerCert: file(t, other)}, protocol.Incoming{ServerName: "shop.example"}, modern, "", "", "tls_delivery.server_cert"},
		{"no HTTP/2", rules.TLSDelivery{}, protocol.Incoming{Protocol: "h2"}, &tls.Config{Certificates: modern.Certificates}, "", "", "HTTP/2"},
		{"HTTP/1 only", rules.TLSDelivery{}, protocol.Incoming{Protocol: "h2"}, &tls.Config{Certificates: modern.Certificates, NextProtos: []string{"http/1.1"}}, "", "", "no application protocol"},
		{"in the clear, where TLS is wanted", rules.TLSDelivery{}, protocol.Incoming{}, nil, "", "", "tls_delivery.protocol tcp"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := setUp(t, protocol.ModeSteal)
			if b.o.Delivery, err = NewDelivery(c.o); err != nil {
				t.Fatal(err)
			}
			c.came.Mode, c.came.TLS = protocol.ModeSteal, true
			agent, app, done := arriveAs(t, b, t.Context(), c.came)
			go func() { agent.Write([]byte("request")); agent.CloseWrite() }()
			if c.program == nil {
				app.Read(make([]byte, 1))
				app.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
				app.Close()
			} else if program := tls.Server(app, c.program); c.refused != "" {
				if err := program.Handshake(); err == nil {
					program.Read(make([]byte, 1)) // the alert, of TLS 1.3
				}
				app.Close()
			} else {
				got, err := io.ReadAll(program)
				if s := program.ConnectionState(); string(got) != "request" || err != nil || s.ServerName != c.asked || s.NegotiatedProtocol != c.protocol {
					t.Errorf("the program got %q, %v, for %q in %q", got, err, s.ServerName, s.NegotiatedProtocol)
				}
				program.Write([]byte("reply"))
				program.Close()
			}
			reply, err := io.ReadAll(agent)
			var reset *link.ResetError
			switch {
			case c.refused == "":
				if string(reply) != "reply" || err != nil {
					t.Errorf("the client got %q, %v", reply, err)
				}
			case !errors.As(err, &reset) || reset.Errno != syscall.ECONNREFUSED:
				t.Errorf("the agent is told %q, %v, want a refusal", reply, err)
			default:
				if e := b.event("tls-not-delivered"); e.Level != event.Warning || !strings.Contains(e.Text, c.refused) {
					t.Errorf("told %+v, want %s", e, c.refused)
				}
			}
			within(t, "the end of the delivery", done)
		})
	}
}

// TestDeliveredInTheClear: whoever wants that gets what the agent says.
func TestDeliveredInTheClear(t *testing.T) {
	b := setUp(t, protocol.ModeSteal)
	b.o.Delivery, _ = NewDelivery(rules.TLSDelivery{Plain: true})
	agent, app, done := arriveAs(t, b, t.Context(), protocol.Incoming{Mode: protocol.ModeSteal, TLS: true, ServerName: "shop.example"})
	go func() { agent.Write([]byte("request")); agent.CloseWrite() }()
	if got, err := io.ReadAll(app); string(got) != "request" || err != nil {
		t.Errorf("the program got %q, %v", got, err)
	}
	app.Close()
	within(t, "the end of the delivery", done)
}

// TestProgramsEndsUnderTLS: as its client would see them without TLS.
func TestProgramsEndsUnderTLS(t *testing.T) {
	pair := testcert.New(t, "ours").Pair(t, "shop.example")
	for name, ends := range map[string]func(*tls.Conn, *net.TCPConn){
		"":           func(c *tls.Conn, _ *net.TCPConn) { c.Close() },
		"no goodbye": func(_ *tls.Conn, below *net.TCPConn) { below.Close() },
		"half a record": func(_ *tls.Conn, below *net.TCPConn) {
			below.Write([]byte{23, 3, 3, 0, 9, 1})
			below.Close()
		},
		"reset": func(_ *tls.Conn, below *net.TCPConn) { below.SetLinger(0); below.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			b := setUp(t, protocol.ModeSteal)
			agent, app, done := arriveAs(t, b, t.Context(), protocol.Incoming{Mode: protocol.ModeSteal, TLS: true})
			go agent.Write([]byte("request"))
			program := tls.Server(app, &tls.Config{Certificates: []tls.Certificate{pair}})
			if got, err := io.ReadFull(program, make([]byte, 7)); got != 7 || err != nil {
				t.Fatal(err)
			}
			program.Write([]byte("reply"))
			if got, err := io.ReadFull(agent, make([]byte, 5)); got != 5 || err != nil {
				t.Fatal(err)
			}
			ends(program, app)
			rest, err := io.ReadAll(agent)
			var reset *link.ResetError
			if is := errors.As(err, &reset); len(rest) > 0 || is != (name == "reset") || is && reset.Errno != syscall.ECONNRESET {
				t.Errorf("the client got %q, %v", rest, err)
			}
			agent.Close()
			within(t, "the end of the delivery", done)
		})
	}
}

// TestClientsResetUnderTLS: a reset is no orderly end for the program either.
func TestClientsResetUnderTLS(t *testing.T) {
	b := setUp(t, protocol.ModeSteal)
	agent, app, done := arriveAs(t, b, t.Context(), protocol.Incoming{Mode: protocol.ModeSteal, TLS: true})
	program := tls.Server(app, &tls.Config{Certificates: []tls.Certificate{testcert.New(t, "ours").Pair(t, "shop.example")}})
	if err := program.Handshake(); err != nil {
		t.Fatal(err)
	}
	agent.Reset(syscall.ECONNRESET)
	if _, err := program.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the program reads %v", err)
	}
	within(t, "the end of the delivery", done)
}

// TestHandshakeWaits: a program that may not hear the client yet hears nothing.
func TestHandshakeWaits(t *testing.T) {
	for _, admitted := range []bool{true, false} {
		near, far := testnet.Pair(t)
		may := make(chan bool)
		u := &underTLS{below: near, tls: tls.Client(near, &tls.Config{InsecureSkipVerify: true}), ctx: t.Context(), begins: func() bool { return <-may }, failed: func(error) {}}
		read := make(chan error, 1)
		go func() { _, err := u.Read(make([]byte, 1)); read <- err }()
		_ = far.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := far.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the program hears %d bytes, %v", n, err)
		}
		may <- admitted
		_ = far.SetReadDeadline(time.Now().Add(3 * time.Second))
		if admitted {
			if n, err := far.Read(make([]byte, 1)); n == 0 {
				t.Errorf("then it hears %v", err)
			}
		}
		far.Close()
		if err := <-read; err == nil || errors.Is(err, io.EOF) {
			t.Errorf("admitted %v: the reader gets %v", admitted, err)
		}
		near.Close()
	}
}

// TestHandshakeThatHangs: a program that says nothing does not keep a client for ever,
// and the session's end not for a moment.
func TestHandshakeThatHangs(t *testing.T) {
	b := setUp(t, protocol.ModeSteal)
	ctx, cancel := context.WithCancel(t.Context())
	agent, app, done := arriveAs(t, b, ctx, protocol.Incoming{Mode: protocol.ModeSteal, TLS: true})
	if n, err := app.Read(make([]byte, 1)); n == 0 {
		t.Fatal(err)
	}
	cancel()
	within(t, "the end of the delivery", done)
	if _, err := agent.Read(make([]byte, 1)); err == nil {
		t.Error("the client is not told")
	}
}

func TestNewDelivery(t *testing.T) {
	missing, empty := filepath.Join(t.TempDir(), "none.pem"), file(t, []byte("no PEM"))
	for _, c := range []struct {
		o    rules.TLSDelivery
		want string
	}{
		{rules.TLSDelivery{TrustRoots: []string{missing}}, "read trust_roots: open " + missing},
		{rules.TLSDelivery{TrustRoots: []string{empty}}, empty + " has no certificate in PEM"},
		{rules.TLSDelivery{ServerCert: missing}, "read server_cert: open " + missing},
		{rules.TLSDelivery{ServerCert: empty}, empty + " begins with no certificate in PEM"},
		{rules.TLSDelivery{ServerCert: file(t, []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))}, "read server_cert: "},
	} {
		_, err := NewDelivery(c.o)
		if f, ok := errors.AsType[*failure.Error](err); !ok || f.Code != "tls-delivery" || !strings.Contains(f.Why, c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

// TestHandshakeInTime: it is bounded where the program is known to have accepted.
func TestHandshakeInTime(t *testing.T) {
	for limit, want := range map[time.Duration]bool{20 * time.Millisecond: true, 0: false} {
		near, far := testnet.Pair(t)
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error, 1)
		u := &underTLS{below: near, tls: tls.Client(near, &tls.Config{InsecureSkipVerify: true}), ctx: ctx, limit: limit, begins: func() bool { return true }, failed: func(err error) { failed <- err }}
		done := make(chan struct{})
		go func() { defer close(done); _, _ = u.Write([]byte("x")) }()
		select {
		case err := <-failed:
			if !want {
				t.Errorf("without a limit it ends with %v", err)
			}
		case <-time.After(200 * time.Millisecond):
			if want {
				t.Error("it does not end")
			}
		}
		cancel()
		within(t, "the end of the writing", done)
		far.Close()
	}
}
