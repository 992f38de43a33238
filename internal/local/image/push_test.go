package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/mirrord-go/mirrord/internal/failure"
)

// A team is a registry that wants a login, once it has one.
type team struct {
	registry  http.Handler
	login     string       // user:password
	uploads   atomic.Int32 // beginnings of uploads
	forbidden bool
}

func (s *team) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	switch {
	case s.login != "" && user+":"+password != s.login:
		w.Header().Set("WWW-Authenticate", `Basic realm="team"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	case s.forbidden && r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.WriteHeader(http.StatusForbidden)
		return
	case r.Method == http.MethodPost:
		s.uploads.Add(1)
	}
	s.registry.ServeHTTP(w, r)
}

// newTeam starts a registry without TLS on the loopback, and takes docker's
// configuration away from the test.
func newTeam(t *testing.T) (s *team, host string) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("XDG_CONFIG_HOME", "")
	s = &team{registry: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return s, strings.TrimPrefix(server.URL, "http://")
}

// docker writes docker's configuration.
func docker(t *testing.T, config string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}

func pushed(t *testing.T, ref string) *remote.Descriptor {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	d, err := remote.Get(tag)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// agentOf is the program in an image of a registry.
func agentOf(t *testing.T, img v1.Image) string {
	t.Helper()
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	tr := tar.NewReader(content)
	if _, err := tr.Next(); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(tr)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPush(t *testing.T) {
	s, host := newTeam(t)
	img := imageOf(t, "1", Program{"amd64", []byte("\x7fELF the agent")})
	p := Pushing{Ref: host + "/team/mirrord-agent:1", Insecure: true}
	var most, all atomic.Int64
	p.Progress = func(sent, total int64) { most.Store(max(most.Load(), sent)); all.Store(total) }
	if err := img.Push(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if most.Load() == 0 || most.Load() != all.Load() {
		t.Errorf("it told of %d of %d bytes", most.Load(), all.Load())
	}
	d := pushed(t, p.Ref)
	if got := d.Digest.String(); got != img.Digest() {
		t.Errorf("the registry holds %s, the image is %s", got, img.Digest())
	}
	remoteImage, err := d.Image()
	if err != nil {
		t.Fatal(err)
	}
	if got := agentOf(t, remoteImage); got != "\x7fELF the agent" {
		t.Errorf("the pushed image holds %q", got)
	}
	// What is there is not sent again.
	before := s.uploads.Load()
	if err := img.Push(t.Context(), p); err != nil || s.uploads.Load() != before {
		t.Errorf("once more: %v, with %d uploads", err, s.uploads.Load()-before)
	}
	p.Ref = "Not A Name"
	if got := code(img.Push(t.Context(), p)); got != "image-name" {
		t.Errorf("a bad name: %s", got)
	}
}

func TestPushForSeveralArchitectures(t *testing.T) {
	_, host := newTeam(t)
	img := imageOf(t, "1", Program{"amd64", []byte("for amd64")}, Program{"arm64", []byte("for arm64")})
	ref := host + "/team/mirrord-agent:1"
	if err := img.Push(t.Context(), Pushing{Ref: ref, Insecure: true}); err != nil {
		t.Fatal(err)
	}
	d := pushed(t, ref)
	if got := d.Digest.String(); got != img.Digest() {
		t.Errorf("the registry holds %s, the image is %s", got, img.Digest())
	}
	for _, arch := range []string{"amd64", "arm64"} {
		tag, _ := name.NewTag(ref)
		one, err := remote.Image(tag, remote.WithPlatform(v1.Platform{OS: "linux", Architecture: arch}))
		if err != nil {
			t.Fatal(err)
		}
		if got := agentOf(t, one); got != "for "+arch {
			t.Errorf("a node of %s gets %q", arch, got)
		}
	}
}

func TestPushWithCredentials(t *testing.T) {
	s, host := newTeam(t)
	s.login = "ana:s3cr3t"
	img := imageOf(t, "1", Program{"amd64", []byte("agent")})
	push := func() error {
		return img.Push(t.Context(), Pushing{Ref: host + "/team/mirrord-agent:1", Insecure: true})
	}
	refused := func(how, want string) {
		t.Helper()
		f, ok := errors.AsType[*failure.Error](push())
		if !ok || f.Code != "image-push-refused" || !strings.Contains(f.Do, want) || !strings.Contains(f.Do, "docker login "+host) {
			t.Errorf("%s: %+v; want image-push-refused that says to %s", how, f, want)
		}
		if said := fmt.Sprintf("%+v", f); strings.Contains(said, "s3cr3t") || strings.Contains(said, "YW5h") {
			t.Errorf("%s: the failure holds the password: %s", how, said)
		}
	}
	refused("without a login", "log in first")
	docker(t, `{"auths":{"`+host+`":{"username":"ana","password":"s3cr3t"}}}`)
	if err := push(); err != nil {
		t.Errorf("with docker's login: %v", err)
	}
	s.forbidden = true
	img = imageOf(t, "2", Program{"amd64", []byte("another agent")})
	refused("with a login that may only read", "ask for the right")
	s.forbidden = false
	docker(t, `{"auths":{"`+host+`":{"username":"ana","password":"old"}}}`)
	refused("with an old login", "ask for the right")

	// A helper keeps the password.
	tool(t, "docker-credential-vault", `read -r host; test "$host" = `+host+` && echo '{"ServerURL": "x", "Username": "ana", "Secret": "s3cr3t"}'`)
	docker(t, `{"credHelpers":{"`+host+`":"vault"}}`)
	if err := push(); err != nil {
		t.Errorf("with a helper: %v", err)
	}
	docker(t, `{"credHelpers":{"`+host+`":"lost"}}`)
	if err := push(); code(err) != "image-push-credentials" || !strings.Contains(err.Error(), "docker-credential-lost") {
		t.Errorf("with a helper that is not there: %v", err)
	}
	docker(t, `{`)
	if got := code(push()); got != "image-push-credentials" {
		t.Errorf("with a broken configuration: %s", got)
	}

	// Podman's file, where docker has none.
	if err := os.Remove(filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "auth.json")
	if err := os.WriteFile(file, []byte(`{"auths":{"`+host+`":{"auth":"YW5hOnMzY3IzdA=="}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("REGISTRY_AUTH_FILE", file)
	if err := push(); err != nil {
		t.Errorf("with podman's login: %v", err)
	}
}

// Without being asked to, and beyond this machine, nothing is said without TLS:
// neither the image nor a password.
func TestPushKeepsToTLS(t *testing.T) {
	s, host := newTeam(t)
	docker(t, `{"auths":{"`+host+`":{"username":"ana","password":"s3cr3t"}}}`)
	img := imageOf(t, "1", Program{"amd64", []byte("agent")})
	push := func(ref string, insecure bool) error {
		return img.Push(t.Context(), Pushing{Ref: ref, Insecure: insecure})
	}
	err := push(host+"/agent:1", false)
	if f, ok := errors.AsType[*failure.Error](err); !ok || f.Code != "image-push-plain" || !strings.Contains(f.Do, "--insecure") {
		t.Errorf("without --insecure: %+v", err)
	}
	if s.uploads.Load() != 0 {
		t.Error("it began an upload")
	}
	for address, want := range map[string]bool{"127.0.0.1:80": true, "127.1.2.3:80": true, "[::1]:80": true, "[::ffff:127.0.0.1]:80": true,
		"10.0.0.1:80": false, "0.0.0.0:80": false, "[::]:80": false, "[fe80::1%eth0]:80": false, "name:80": false} {
		if err := onlyLoopback(t.Context(), "tcp", address, nil); (err == nil) != want {
			t.Errorf("%s: %v, want it allowed: %v", address, err, want)
		}
	}

	w := newWire(false)
	defer w.close()
	if r, err := w.RoundTrip(&http.Request{Method: "GET", URL: &url.URL{Scheme: "http", Host: host}, Header: http.Header{}}); !errors.Is(err, errPlain) {
		t.Errorf("a request without TLS: %v, %v", r, err)
	}
}

func TestExplain(t *testing.T) {
	to, err := name.NewTag("r.example:5000/team/agent:1")
	if err != nil {
		t.Fatal(err)
	}
	far := &net.OpError{Op: "dial", Err: errNotLoopback}
	for _, c := range []struct {
		name, code, what string
		err              error
	}{
		{"plain here", "image-push-plain", "r.example:5000 does not speak TLS", http.ErrSchemeMismatch},
		{"plain elsewhere, asked for", "image-push-plain", "not on this machine's loopback", errors.Join(http.ErrSchemeMismatch, far)},
		{"TLS, but by whom", "image-push-certificate", "signed by nobody", errors.Join(&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, far)},
		{"no login", "image-push-refused", "does not let you push team/agent", &transport.Error{StatusCode: 403}},
		{"anything", "image-not-pushed", "could not be pushed to r.example:5000", io.ErrUnexpectedEOF},
	} {
		f, ok := errors.AsType[*failure.Error](explain(c.err, to, true))
		if !ok || f.Code != c.code || !strings.Contains(f.What, c.what) || f.Do == "" || !errors.Is(f, c.err) {
			t.Errorf("%s: got %+v, want %s: %s", c.name, f, c.code, c.what)
		}
	}
	hub, err := name.NewTag("team/agent:1")
	if err != nil {
		t.Fatal(err)
	}
	if got := login(hub); got != "docker login" {
		t.Errorf("at Docker's own registry one logs in by %q", got)
	}
}

func TestPushTellsWhatIsWrong(t *testing.T) {
	s, host := newTeam(t)
	img := imageOf(t, "1", Program{"amd64", []byte("agent")})
	ref := host + "/agent:1"
	s.registry = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"errors": [{"code": "NAME_UNKNOWN", "message": "no such repository"}]}`)
	})
	err := img.Push(t.Context(), Pushing{Ref: ref, Insecure: true})
	if f, ok := errors.AsType[*failure.Error](err); !ok || f.Code != "image-not-pushed" || !strings.Contains(f.Do, "create") || !strings.Contains(f.Why, "no such repository") {
		t.Errorf("a repository that must be made first: %+v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if got := code(img.Push(t.Context(), Pushing{Ref: l.Addr().String() + "/agent:1", Insecure: true})); got != "image-not-pushed" {
		t.Errorf("nobody there: %s", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := img.Push(ctx, Pushing{Ref: ref, Insecure: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

// With the authority's certificate a registry is known by it, and may not point
// elsewhere without TLS. SSL_CERT_FILE is read once in a process, so this test
// starts itself again.
func TestPushToAnOwnAuthority(t *testing.T) {
	if ref := os.Getenv("MIRRORD_TEST_PUSH_TO"); ref != "" {
		err := imageOf(t, "1", Program{"amd64", []byte("agent")}).Push(t.Context(), Pushing{Ref: ref})
		if got := code(err); got != os.Getenv("MIRRORD_TEST_PUSH_WANT") {
			t.Fatalf("%s: %v", got, err)
		}
		return
	}
	s, _ := newTeam(t)
	push := func(h http.Handler, want string) {
		t.Helper()
		server := httptest.NewUnstartedServer(h)
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		server.StartTLS()
		defer server.Close()
		ref := strings.TrimPrefix(server.URL, "https://") + "/agent:1"
		if got := code(imageOf(t, "1", Program{"amd64", []byte("agent")}).Push(t.Context(), Pushing{Ref: ref})); got != "image-push-certificate" {
			t.Errorf("an unknown authority: %s", got)
		}
		file := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := again(t, "SSL_CERT_FILE="+file, "MIRRORD_TEST_PUSH_TO="+ref, "MIRRORD_TEST_PUSH_WANT="+want); err != nil {
			t.Errorf("%v: %s", err, bytes.TrimSpace(out))
		}
	}
	push(s, "")
	if s.uploads.Load() == 0 {
		t.Error("nothing came")
	}
	var asked atomic.Int32
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer plain.Close()
	push(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+plain.URL+`/token",service="r"`)
		w.WriteHeader(http.StatusUnauthorized)
	}), "image-not-pushed")
	if asked.Load() != 0 {
		t.Error("a request went out without TLS")
	}
}
