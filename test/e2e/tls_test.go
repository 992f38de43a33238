package e2e

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mirrord-go/mirrord/internal/testcert"
)

// Ports under TLS: with the target's own certificate a filter sees their requests, and
// nobody else sees a difference.

const (
	shop, admin = "shop.example", "admin.example"
	shopPEM     = "/tmp/tls/shop.pem"
	withShop    = `"tls": {"certificate": "` + shopPEM + `"}`
)

// secured is a target with a certificate for shop and admin, and who trusts it.
type secured struct {
	t       *testing.T
	servers *testcert.Authority
	clients *testcert.Authority
}

func secure(t *testing.T) *secured {
	t.Helper()
	s := &secured{t, testcert.New(t, "servers"), testcert.New(t, "clients")}
	podFile(t, "app", shopPEM, s.pair(s.servers, shop))
	podFile(t, "app", "/tmp/tls/admin.pem", s.pair(s.servers, admin))
	podFile(t, "app", "/tmp/tls/clients.pem", s.clients.PEM)
	podFile(t, "app", "/tmp/tls/agent.pem", s.pair(s.clients, "agent"))
	podFile(t, "tools", "/tmp/servers.pem", s.servers.PEM)
	podFile(t, "tools", "/tmp/ana.pem", s.pair(s.clients, "ana"))
	return s
}

// pair is a certificate and its key.
func (s *secured) pair(by *testcert.Authority, name string) []byte {
	certificate, key := by.Issue(s.t, name)
	return append(certificate, key...)
}

// own is a file on this machine with a certificate of the program's.
func (s *secured) own() string {
	s.t.Helper()
	file := filepath.Join(w.dir, "work", "own.pem")
	if err := os.WriteFile(file, s.pair(testcert.New(s.t, "nobody"), "localhost"), 0o644); err != nil {
		s.t.Fatal(err)
	}
	return file
}

// podFile writes a file in a pod.
func podFile(t *testing.T, pod, path string, content []byte) {
	t.Helper()
	kubectl(t, "exec", pod, "--", "sh", "-c", fmt.Sprintf("mkdir -p %s && echo %s | base64 -d >%s", filepath.Dir(path), base64.StdEncoding.EncodeToString(content), path))
}

// there starts modern in pod app under TLS.
func (s *secured) there(what, port string, env ...string) {
	s.t.Helper()
	modern(s.t)
	argv := append(append([]string{"env", "MODERN_TLS=" + shopPEM}, env...), podProgram(s.t, "app", "modern"), what, ":"+port, "remote")
	out, _ := podRun(s.t, "app", argv...)
	if !out.waitFor("ready", runTime) {
		s.t.Fatalf("there is no server in the pod: %s", out)
	}
}

// here starts modern on this machine, in a session with this setting of incoming; env
// says how it serves.
func (s *secured) here(incoming, what, port string, env ...string) *run {
	s.t.Helper()
	argv := append(filtered(s.t, incoming), "env")
	r := start(s.t, append(append(argv, env...), filepath.Join(w.dir, "bin", "modern"), what, ":"+port, "local")...)
	r.waitFor("ready")
	return r
}

// asks has curl ask pod app as who, under TLS, by its name, and checks what the
// target's certificate is.
func (s *secured) asks(name, port, who, path string, args ...string) string {
	s.t.Helper()
	return curl(s.t, append([]string{"--cacert", "/tmp/servers.pem", "--resolve", name + ":" + port + ":" + podIP(s.t, "app"), "-H", "X-User: " + who, "https://" + name + ":" + port + path}, args...)...)
}

func TestTLSByFilter(t *testing.T) {
	const port = "8061"
	s := secure(t)
	s.there("web", port)
	r := s.here(`{"mode": "steal", "http_filter": {"header_filter": "^x-user: ana$"}, `+withShop+`}`, "web", port, "MODERN_TLS="+s.own())
	from := podIP(t, "tools")
	for who, by := range map[string]string{"ana": "local", "bob": "remote"} {
		for _, c := range []struct {
			args           []string
			proto, version string
		}{
			{[]string{"--http2"}, "HTTP/2.0", "TLS 1.3"},
			{[]string{"--http1.1"}, "HTTP/1.1", "TLS 1.3"},
			{[]string{"--http2", "--tls-max", "1.2"}, "HTTP/2.0", "TLS 1.2"},
			{[]string{"--no-alpn"}, "HTTP/1.1", "TLS 1.3"},
		} {
			version := c.version
			if by == "local" {
				version = "TLS 1.3" // between mirrord and the program
			}
			want := fmt.Sprintf("%s %s GET /1?x 0 peer=%s <nil> %s name=%s client=", by, c.proto, from, version, shop)
			if got := s.asks(shop, port, who, "/1?x", c.args...); got != want {
				t.Errorf("%s %v: got %q, want %q", who, c.args, got, want)
			}
		}
	}
	script := fmt.Sprintf(`head -c 3000000 /dev/zero >/tmp/body
		for who in ana bob; do
			curl -sS --max-time 60 -k -H "X-User: $who" --data-binary @/tmp/body https://%[1]s/up
			curl -sS --max-time 60 -k -H "X-User: $who" https://%[1]s/large | tail -c +3000001
			printf 'GET /s HTTP/1.0\r\nX-User: %%s\r\n\r\n' $who | openssl s_client -quiet -servername %[4]s -connect %[1]s 2>/dev/null | tail -n 1
		done
		MODERN_TLS=/tmp/ana.pem MODERN_NAME=%[4]s %[2]s ask https://%[1]s/many`, podIP(t, "app")+":"+port, podProgram(t, "tools", "modern"), from, shop)
	want := ""
	for _, by := range []string{"local", "remote"} {
		for _, line := range []string{"%s HTTP/2.0 POST /up 3000000 peer=%s <nil> TLS 1.3 name= client=", "%s HTTP/2.0 GET /large 0 peer=%s <nil> TLS 1.3 name= client=", "%s HTTP/1.0 GET /s 0 peer=%s <nil> TLS 1.3 name=" + shop + " client="} {
			if by == "local" { // who is asked for nobody by name
				line = strings.ReplaceAll(line, "name= ", "name=localhost ")
			}
			want += fmt.Sprintf(line, by, from) + "\n"
		}
	}
	want += fmt.Sprintf("first: remote HTTP/2.0 POST /many 0 peer=%[1]s <nil> TLS 1.3 name=%[2]s client= (remote)\n"+
		"20 ana: local HTTP/2.0 POST /many 200000 peer=%[1]s <nil> TLS 1.3 name=%[2]s client= (local)\n"+
		"20 bob: remote HTTP/2.0 POST /many 200000 peer=%[1]s <nil> TLS 1.3 name=%[2]s client= (remote)\nconnections: 1", from, shop)
	if got := kubectl(t, "exec", "tools", "--", "bash", "-c", script); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	r.stop()
	if got := s.asks(shop, port, "ana", "/5"); !strings.HasPrefix(got, "remote ") {
		t.Errorf("after the session: %q", got)
	}
	if said := r.stderr.String(); strings.Contains(said, "encrypted") || strings.Contains(said, "PRIVATE") {
		t.Errorf("it is said:\n%s", said)
	}
}

func TestGRPCUnderTLS(t *testing.T) {
	const port = "8062"
	s := secure(t)
	s.there("answer", port)
	r := s.here(`{"mode": "steal", "http_filter": {"header_filter": "^x-user: ana$"}, `+withShop+`}`, "answer", port, "MODERN_TLS="+s.own())
	want := ""
	for _, who := range []string{"local", "remote"} {
		want += fmt.Sprintf("unary: %[1]s one [%[1]s] <nil>\nfail: NotFound %[1]s has none\nslow: DeadlineExceeded\ndown: %[1]s a0, %[1]s a1, %[1]s a2 <nil>\nup: %[1]s a+b <nil>\nboth: %[1]s a, %[1]s b <nil>\n", who)
	}
	want += "connections: 1"
	if got := kubectl(t, "exec", "tools", "--", "env", "MODERN_TLS=/tmp/ana.pem", podProgram(t, "tools", "modern"), "calls", podIP(t, "app")+":"+port); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	r.stop()
}

// A program that speaks plain HTTP gets what the target gets under TLS; what it cannot
// get is the target's, and said.
func TestTLSInTheClear(t *testing.T) {
	const port = "8063"
	s := secure(t)
	s.there("web", port)
	for _, c := range []struct{ incoming, ana, bob, told string }{
		{`{"mode": "steal", "http_filter": {"header_filter": "^x-user: ana$"}, ` + withShop + `, "tls_delivery": {"protocol": "tcp"}}`, "local /1 peer=", "remote HTTP/1.1 GET /1", ""},
		{`{"mode": "steal", ` + withShop + `, "tls_delivery": {"protocol": "tcp"}}`, "local /1 peer=", "local /1 peer=", ""},
		{`{"mode": "steal", "http_filter": {"header_filter": "^x-user: ana$"}, ` + withShop + `}`, "remote HTTP/1.1 GET /1", "remote HTTP/1.1 GET /1", "tls_delivery"},
		{`{"mode": "steal", "http_filter": {"header_filter": "^x-user: ana$"}, "tls": {"certificate": "/tmp/tls/admin.pem"}}`, "remote HTTP/1.1 GET /1", "remote HTTP/1.1 GET /1", "another certificate"},
		{`{"mode": "steal", "http_filter": {"header_filter": "^x-user: ana$"}, "tls": {"certificate": "/tmp/tls/none.pem"}}`, "remote HTTP/1.1 GET /1", "remote HTTP/1.1 GET /1", "/tmp/tls/none.pem"},
	} {
		r := start(t, append(filtered(t, c.incoming), "python3", "../bin/web.py", port)...)
		r.waitFor("listening " + port)
		if got := s.asks(shop, port, "ana", "/1", "--http1.1"); !strings.HasPrefix(got, c.ana) {
			t.Errorf("%s: ana gets %q", c.incoming, got)
		}
		if got := s.asks(shop, port, "bob", "/1", "--http1.1"); !strings.HasPrefix(got, c.bob) {
			t.Errorf("%s: bob gets %q", c.incoming, got)
		}
		r.stop()
		if said := r.stderr.String(); c.told != "" && !strings.Contains(said, c.told) || c.told == "" && strings.Contains(said, "encrypted") {
			t.Errorf("%s: it is said:\n%s", c.incoming, said)
		}
	}
}

func TestTLSClientCertificates(t *testing.T) {
	const port = "8064"
	s := secure(t)
	s.there("web", port, "MODERN_ASKS=yes")
	const by = `{"mode": "steal", "http_filter": {"header_filter": "^x-user: ana$"}, "tls": {"certificate": "` + shopPEM + `"%s}}`
	r := s.here(fmt.Sprintf(by, ""), "web", port, "MODERN_TLS="+s.own())
	if got := s.asks(shop, port, "ana", "/1", "--cert", "/tmp/ana.pem"); !strings.HasPrefix(got, "remote ") || !strings.HasSuffix(got, "client=ana") {
		t.Errorf("without client_ca: got %q", got)
	}
	r.stop()
	if said := r.stderr.String(); !strings.Contains(said, "client_ca") {
		t.Errorf("it is said:\n%s", said)
	}
	r = s.here(fmt.Sprintf(by, `, "client_ca": "/tmp/tls/clients.pem", "client_certificate": "/tmp/tls/agent.pem"`), "web", port, "MODERN_TLS="+s.own())
	for _, c := range []struct {
		who  string
		args []string
		want []string
	}{
		{"ana", []string{"--cert", "/tmp/ana.pem"}, []string{"local ", "client="}},
		{"bob", []string{"--cert", "/tmp/ana.pem"}, []string{"remote ", "client=agent"}},
		{"ana", nil, []string{"remote ", "client="}},
	} {
		if got := s.asks(shop, port, c.who, "/1", c.args...); !strings.HasPrefix(got, c.want[0]) || !strings.HasSuffix(got, c.want[1]) {
			t.Errorf("%s %v: got %q", c.who, c.args, got)
		}
	}
	r.stop()
}

// Whole connections by the name that a client asks for: nothing is decrypted.
func TestFilterOfServerName(t *testing.T) {
	const port = "8065"
	s := secure(t)
	s.there("web", port)
	r := s.here(`{"mode": "steal", "http_filter": {"sni_filter": "^admin\\."}}`, "web", port, "MODERN_TLS="+s.own())
	for name, by := range map[string]string{shop: "remote HTTP/2.0 GET /1", admin: "local HTTP/2.0 GET /1"} {
		if got := s.asks(name, port, "ana", "/1", "-k"); !strings.HasPrefix(got, by) || !strings.Contains(got, "name="+name) {
			t.Errorf("%s: got %q", name, got)
		}
	}
	r.stop()
	if got := s.asks(admin, port, "ana", "/1", "-k"); !strings.HasPrefix(got, "remote ") {
		t.Errorf("after the session: %q", got)
	}
}
