package incoming

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mirrord-go/mirrord/internal/agent/tlsport"
	"github.com/mirrord-go/mirrord/internal/budget"
	"github.com/mirrord-go/mirrord/internal/link"
	"github.com/mirrord-go/mirrord/internal/protocol"
	"github.com/mirrord-go/mirrord/internal/testcert"
)

// vault is files with certificates, each with its key, by path.
type vault map[string][]byte

func (v vault) read(_ context.Context, name string, _ int) ([]byte, error) {
	if b, ok := v[name]; ok {
		return b, nil
	}
	return nil, fs.ErrNotExist
}

// issue adds one.
func (v vault) issue(t *testing.T, path string) tls.Certificate {
	t.Helper()
	by := testcert.New(t, "authority")
	v[path+".ca"] = by.PEM
	certificate, key := by.Issue(t, path)
	v[path] = append(certificate, key...)
	pair, err := tls.X509KeyPair(v[path], v[path])
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// underTLS serves h under TLS.
func underTLS(h http.Handler, config *tls.Config) func(net.Conn) {
	return func(c net.Conn) {
		var protocols http.Protocols
		protocols.SetHTTP1(true)
		protocols.SetHTTP2(true)
		ln := &oneListener{c: tls.Server(c, config), done: c.(*recorded).done}
		srv := &http.Server{Handler: h, Protocols: &protocols, TLSConfig: config.Clone()} // it writes into it
		_ = srv.Serve(ln)
		<-c.(*recorded).done
	}
}

const withShop = `{"certificates":["/tls/shop.pem"]}`

// setSecure is a stage whose original serves under TLS with the certificate of a file,
// as config says further.
func setSecure(t *testing.T, wish protocol.Subscribe, change func(v vault, config *tls.Config), o stageOptions) (*stage, vault) {
	v := vault{}
	config := &tls.Config{Certificates: []tls.Certificate{v.issue(t, "/tls/shop.pem")}, NextProtos: []string{"h2", "http/1.1"}}
	if change != nil {
		change(v, config)
	}
	wish.Port, wish.Mode = 80, protocol.ModeSteal
	o.subscribe, o.files = wish, v.read
	if o.orig == nil {
		o.orig = underTLS(answerer("original"), config)
	}
	if o.local == nil {
		o.local = func(c net.Conn) { serveBoth(c, answerer("local")) }
	}
	return setStage(t, o), v
}

// serveBoth serves HTTP/1 and HTTP/2 in the clear.
func serveBoth(c net.Conn, h http.Handler) {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: h, Protocols: &protocols}
	_ = srv.Serve(&oneListener{c: c, done: c.(*recorded).done})
	<-c.(*recorded).done
}

// browser speaks HTTP under TLS with what is stolen.
func (st *stage) browser(modern bool, config *tls.Config) *http.Client {
	if config == nil {
		config = &tls.Config{ServerName: "shop.example", InsecureSkipVerify: true}
	}
	var protocols http.Protocols
	protocols.SetHTTP1(!modern)
	protocols.SetHTTP2(modern)
	tr := &http.Transport{Protocols: &protocols, TLSClientConfig: config, DialContext: func(context.Context, string, string) (net.Conn, error) { return st.client(), nil }}
	st.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// gets asks for path and gives the answer.
func gets(t *testing.T, c *http.Client, path string) string {
	t.Helper()
	r, err := c.Get("https://shop.example" + path)
	if err != nil {
		t.Fatalf("get %s: %v", path, err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatalf("get %s: %v", path, err)
	}
	return string(b)
}

// told waits for a notice with this code.
func (st *stage) told(code string) {
	st.t.Helper()
	select {
	case got := <-st.notices:
		if got != code {
			st.t.Errorf("told %q, want %q", got, code)
		}
	case <-time.After(5 * time.Second):
		st.t.Errorf("%q was not told", code)
	}
}

// TestDecrypted: requests under TLS are divided like others, by one connection of each
// kind, and the original gets its own under TLS.
func TestDecrypted(t *testing.T) {
	for modern, agreed := range map[bool]string{false: "", true: "h2"} {
		t.Run(fmt.Sprint("HTTP/2 ", modern), func(t *testing.T) {
			st, _ := setSecure(t, protocol.Subscribe{Filter: localFilter, TLS: withShop}, nil, stageOptions{})
			b := st.browser(modern, nil)
			for range 2 {
				for path, want := range map[string]string{"/local/1": "local GET /local/1 0 map[]", "/other/1": "original GET /other/1 0 map[]"} {
					if got := gets(t, b, path); got != want {
						t.Errorf("got %q, want %q", got, want)
					}
				}
			}
			if m := <-st.came; !m.TLS || m.ServerName != "shop.example" || m.Protocol != agreed {
				t.Errorf("local is told %+v", m)
			}
			if strings.Contains(st.orig.said(), "/other") || !strings.Contains(st.orig.said(), "shop.example") {
				t.Error("the original gets it in the clear, or without the name")
			}
			select {
			case code := <-st.notices:
				t.Errorf("%q is told", code)
			default:
			}
		})
	}
}

// TestDecryptedIsReturned: what local refuses is the original's, under TLS.
func TestDecryptedIsReturned(t *testing.T) {
	st, _ := setSecure(t, protocol.Subscribe{Filter: localFilter, TLS: withShop}, nil, stageOptions{local: func(c net.Conn) {
		_ = c.(*recorded).Conn.(*link.Stream).Reset(111)
	}})
	if got := gets(t, st.browser(false, nil), "/local/1"); got != "original GET /local/1 0 map[]" {
		t.Errorf("got %q", got)
	}
}

// TestStaysEncrypted: what cannot be answered as the original would is the original's
// from the first byte on, and that is told.
func TestStaysEncrypted(t *testing.T) {
	for _, c := range []struct {
		name, files, code string
		change            func(v vault, config *tls.Config)
	}{
		{"no file", `{"certificates":["/tls/none.pem"]}`, "tls-keys", nil},
		{"another certificate", `{"certificates":["/tls/other.pem"]}`, "tls-mismatch", func(v vault, _ *tls.Config) { v.issue(t, "/tls/other.pem") }},
		{"certificates of clients", withShop, "tls-client-certificates", func(_ vault, config *tls.Config) { config.ClientAuth = tls.RequestClientCert }},
	} {
		t.Run(c.name, func(t *testing.T) {
			st, _ := setSecure(t, protocol.Subscribe{Filter: localFilter, TLS: c.files}, c.change, stageOptions{})
			var seen []*x509.Certificate
			config := &tls.Config{ServerName: "shop.example", InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error { seen = s.PeerCertificates; return nil }}
			if got := gets(t, st.browser(true, config), "/local/1"); got != "original GET /local/1 0 map[]" {
				t.Errorf("got %q", got)
			}
			if len(seen) != 1 || seen[0].Subject.CommonName != "/tls/shop.pem" {
				t.Errorf("the client sees %v", seen)
			}
			st.told(c.code)
		})
	}
}

// TestAnonymousClient: who shows no certificate where the server wants to see one is
// the server's, whatever the filter says.
func TestAnonymousClient(t *testing.T) {
	var mine tls.Certificate
	st, _ := setSecure(t, protocol.Subscribe{Filter: localFilter, TLS: `{"certificates":["/tls/shop.pem"],"client_ca":"/tls/ana.pem.ca","client_certificate":"/tls/ana.pem"}`},
		func(v vault, config *tls.Config) {
			mine = v.issue(t, "/tls/ana.pem")
			config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, x509.NewCertPool()
			config.ClientCAs.AppendCertsFromPEM(v["/tls/ana.pem.ca"])
		}, stageOptions{})
	for want, certificates := range map[string][]tls.Certificate{"original GET /local/1 0 map[]": nil, "local GET /local/1 0 map[]": {mine}} {
		if got := gets(t, st.browser(false, &tls.Config{InsecureSkipVerify: true, Certificates: certificates}), "/local/1"); got != want {
			t.Errorf("with %d certificates: got %q, want %q", len(certificates), got, want)
		}
	}
}

// TestBesideTLS: what is not TLS is as on any port.
func TestBesideTLS(t *testing.T) {
	wish := protocol.Subscribe{Filter: localFilter, TLS: withShop}
	t.Run("HTTP in the clear", func(t *testing.T) {
		st, _ := setSecure(t, wish, nil, stageOptions{orig: serveHTTP(answerer("original"))})
		conn := st.client()
		br := bufio.NewReader(conn)
		for path, want := range map[string]string{"/local": "200 local GET /local 0 map[]", "/other": "200 original GET /other 0 map[]"} {
			ask(t, conn, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
			if got := answer(t, br, "GET"); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	})
	t.Run("the server speaks first", func(t *testing.T) {
		st, _ := setSecure(t, wish, nil, stageOptions{orig: func(c net.Conn) {
			_, _ = io.WriteString(c, "ready\n")
			_, _ = io.Copy(c, c)
			_ = c.(*recorded).Conn.(*net.TCPConn).CloseWrite()
		}})
		conn := st.client()
		br := bufio.NewReader(conn)
		if line, err := br.ReadString('\n'); line != "ready\n" || err != nil {
			t.Fatalf("got %q, %v", line, err)
		}
		ask(t, conn, "words")
		_ = conn.CloseWrite()
		if b, err := io.ReadAll(br); string(b) != "words" || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
	})
	t.Run("half a word", func(t *testing.T) {
		st, _ := setSecure(t, wish, nil, stageOptions{orig: func(c net.Conn) {
			_, _ = io.Copy(c, c)
			_ = c.(*recorded).Conn.(*net.TCPConn).CloseWrite()
		}})
		conn := st.client()
		ask(t, conn, "\x16\x03\x01")
		_ = conn.CloseWrite()
		if b, err := io.ReadAll(conn); string(b) != "\x16\x03\x01" || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
	})
}

// TestWholeUnderTLS: whole connections stay as they are, but for who wants them opened.
func TestWholeUnderTLS(t *testing.T) {
	for _, c := range []struct {
		name string
		wish protocol.Subscribe
		tls  bool // local gets it as it is
		orig bool
	}{
		{"without a filter", protocol.Subscribe{}, true, false},
		{"without a filter, opened", protocol.Subscribe{TLS: `{"certificates":["/tls/shop.pem"],"always":true}`}, false, false},
		{"by the client", protocol.Subscribe{Filter: `{"client":{"text":"192.0.2.7"}}`, TLS: withShop}, true, false},
		{"by the client, opened", protocol.Subscribe{Filter: `{"client":{"text":"192.0.2.7"}}`, TLS: `{"certificates":["/tls/shop.pem"],"always":true}`}, false, false},
		{"another client", protocol.Subscribe{Filter: `{"client":{"text":"192.0.2.8"}}`, TLS: `{"certificates":["/tls/shop.pem"],"always":true}`}, true, true},
		{"by the name", protocol.Subscribe{Filter: `{"sni":{"text":"^shop"}}`}, true, false},
		{"another name", protocol.Subscribe{Filter: `{"sni":{"text":"^admin"}}`}, true, true},
		{"not another name", protocol.Subscribe{Filter: `{"not":{"sni":{"text":"^admin"}}}`}, true, false},
		{"by the name, opened", protocol.Subscribe{Filter: `{"sni":{"text":"^shop"}}`, TLS: `{"certificates":["/tls/shop.pem"],"always":true}`}, false, false},
		{"by the name and the path", protocol.Subscribe{Filter: `{"all_of":[{"sni":{"text":"^shop"}},{"path":{"text":"^/local"}}]}`, TLS: withShop}, false, false},
		{"another name, and the path", protocol.Subscribe{Filter: `{"all_of":[{"sni":{"text":"^admin"}},{"path":{"text":"^/local"}}]}`, TLS: withShop}, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			local := &tls.Config{}
			st, v := setSecure(t, c.wish, nil, stageOptions{local: func(nc net.Conn) {
				if c.tls {
					underTLS(answerer("local"), local)(nc)
				} else {
					serveBoth(nc, answerer("local"))
				}
			}})
			local.Certificates = []tls.Certificate{v.issue(t, "/local.pem")}
			want := "local GET /local/1 0 map[]"
			if c.orig {
				want = "original GET /local/1 0 map[]"
			}
			if got := gets(t, st.browser(false, nil), "/local/1"); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// TestNameOfNobody: who speaks no TLS, or names nobody, asks for no name.
func TestNameOfNobody(t *testing.T) {
	st, _ := setSecure(t, protocol.Subscribe{Filter: `{"sni":{"text":"^"}}`}, nil, stageOptions{})
	if got := gets(t, st.browser(false, &tls.Config{InsecureSkipVerify: true, ServerName: "192.0.2.1"}), "/local/1"); got != "original GET /local/1 0 map[]" {
		t.Errorf("got %q", got)
	}
	st, _ = setSecure(t, protocol.Subscribe{Filter: `{"sni":{"text":"^"}}`}, nil, stageOptions{orig: serveHTTP(answerer("original"))})
	conn := st.client()
	ask(t, conn, "GET /local HTTP/1.1\r\nHost: a\r\n\r\n")
	if got := answer(t, bufio.NewReader(conn), "GET"); got != "200 original GET /local 0 map[]" {
		t.Errorf("got %q", got)
	}
}

// TestCopiesByName: copies of whole connections follow the name, too.
func TestCopiesByName(t *testing.T) {
	hello := func() []byte {
		near, far := net.Pipe()
		go func() {
			_ = tls.Client(near, &tls.Config{ServerName: "shop.example", InsecureSkipVerify: true}).Handshake()
		}()
		b := make([]byte, 8<<10)
		n, _ := far.Read(b)
		far.Close()
		return b[:n]
	}()
	for name, want := range map[string]bool{"shop": true, "admin": false} {
		t.Run(name, func(t *testing.T) {
			b := setUp(t)
			b.subscribed(&protocol.Subscribe{Port: 8080, Mode: protocol.ModeMirror, Filter: `{"sni":{"text":"^` + name + `"}}`})
			copied := newCopied()
			b.mirror.conns <- copied
			copied.say(string(hello))
			if !want {
				within(t, "the close of the copy", copied.closed)
				if !copied.ignored.Load() {
					t.Error("what comes behind is not ignored")
				}
				return
			}
			go func() { copied.say("more"); close(copied.data) }()
			s, _ := b.arrived()
			if got, err := io.ReadAll(s); string(got) != string(hello)+"more" || err != nil {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
			s.Close()
		})
	}
}

// TestSessionsShareTLS: who names the same files gets requests of the same connection;
// who names others gets none of it, and is told.
func TestSessionsShareTLS(t *testing.T) {
	v := vault{}
	config := &tls.Config{Certificates: []tls.Certificate{v.issue(t, "/tls/shop.pem")}}
	n := newNode(t)
	n.files = v.read
	srv := &http.Server{Handler: answerer("original"), TLSConfig: config}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(tls.NewListener(ln, config)) }()
	t.Cleanup(func() { srv.Close(); <-done })
	n.orig.Close()
	n.orig = ln
	ana, bob, eve := n.session("ana", 0, nil), n.session("bob", 1, nil), n.session("eve", 2, nil)
	for c, wish := range map[*colleague]protocol.Subscribe{
		ana: {Filter: `{"path":{"text":"^/ana"}}`, TLS: withShop}, bob: {Filter: `{"path":{"text":"^/bob"}}`, TLS: `{"certificates":["/tls/shop.pem"],"always":true}`}, eve: {Filter: `{"path":{"text":"^/eve"}}`},
	} {
		wish.Port, wish.Mode = 80, protocol.ModeSteal
		c.subscribed(&wish)
	}
	n.mu.Lock()
	holder := n.holders[80]
	n.mu.Unlock()
	s, nc := newStolen(t)
	holder.steal.conns <- s
	c := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	who := &visitor{t, c, bufio.NewReader(c)}
	for path, want := range map[string]string{"/ana": "200 ana", "/bob": "200 bob", "/eve": "200 original", "/other": "200 original"} {
		who.gets(path, want)
	}
	select {
	case said := <-eve.notices:
		if !strings.HasPrefix(said, "tls-other-files: port 80") {
			t.Errorf("eve is told %q", said)
		}
	case <-time.After(5 * time.Second):
		t.Error("eve is not told")
	}
	c.Close()
}

// TestRuleOfNow: who has gone while the target was asked gets nothing.
func TestRuleOfNow(t *testing.T) {
	asked, goes := make(chan struct{}, 8), make(chan struct{})
	st, _ := setSecure(t, protocol.Subscribe{Filter: localFilter, TLS: withShop}, nil, stageOptions{dialed: func(c *net.TCPConn) net.Conn {
		asked <- struct{}{}
		<-goes
		return c
	}})
	got := make(chan string, 1)
	b := st.browser(false, nil)
	go func() { got <- gets(t, b, "/local/1") }()
	<-asked
	st.sub.Close()
	comes(t, "the end of the subscription", func() bool { return len(st.hub.recipients(key{protocol.ModeSteal, 80})) == 0 })
	close(goes)
	if said := <-got; said != "original GET /local/1 0 map[]" {
		t.Errorf("got %q", said)
	}
}

// TestTLSIsRefused: what cannot be done is refused when it is asked for.
func TestTLSIsRefused(t *testing.T) {
	steal := func(tls string) protocol.Subscribe { return protocol.Subscribe{Mode: protocol.ModeSteal, TLS: tls} }
	read := vault{}.read
	for _, c := range []struct {
		name   string
		wish   protocol.Subscribe
		read   tlsport.ReadFile
		wishes *budget.Share
		want   string // empty: it is not
	}{
		{"not", steal(withShop), read, nil, ""},
		{"no JSON", steal("x"), read, nil, "read what TLS is decrypted with"},
		{"an unknown field", steal(`{"certificates":["/a"],"more":1}`), read, nil, `unknown field "more"`},
		{"no certificate", steal(`{}`), read, nil, "no certificate is named"},
		{"too many", steal(`{"certificates":["/a"` + strings.Repeat(`,"/a"`, 16) + `]}`), read, nil, "at most 16 certificates"},
		{"a path that is none", steal(`{"certificates":["/a/../b"]}`), read, nil, "no absolute, clean path"},
		{"who may come, not what is shown", steal(`{"certificates":["/a"],"client_ca":"/b"}`), read, nil, "go together"},
		{"what is shown, not who may come", steal(`{"certificates":["/a"],"client_certificate":"/b"}`), read, nil, "go together"},
		{"a key of nothing", steal(`{"certificates":["/a"],"client_key":"/b"}`), read, nil, "client_key"},
		{"a mirror", protocol.Subscribe{Mode: protocol.ModeMirror, TLS: withShop}, read, nil, "stolen connections only"},
		{"no files", steal(withShop), nil, nil, "may not read the target's files"},
		{"no memory", steal(withShop), read, budget.New(1<<20).Share(0, 1<<20), "no memory"},
	} {
		h := New(Options{ReadFile: c.read, Memory: Memory{Wishes: c.wishes}})
		r, err := h.wish(&c.wish)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		if err == nil {
			h.unwish(r)
		}
		if len(h.keys) > 0 {
			t.Errorf("%s: keys are left", c.name)
		}
	}
}

// TestKeysAreShared: a session's ports with the same files have one set of keys.
func TestKeysAreShared(t *testing.T) {
	room := budget.New(3<<20).Share(0, 3<<20)
	h := New(Options{ReadFile: vault{}.read, Memory: Memory{Wishes: room}})
	var all []*rule
	for i := range 20 {
		r, err := h.wish(&protocol.Subscribe{Port: uint16(i + 1), Mode: protocol.ModeSteal, Filter: localFilter, TLS: withShop})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	if len(h.keys) != 1 || all[0].keys != all[19].keys {
		t.Errorf("%d sets of keys", len(h.keys))
	}
	for _, r := range all {
		h.unwish(r)
	}
	if !room.Take(3 << 20) {
		t.Error("not all memory is given back")
	}
}
