package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const twoContexts = `{"apiVersion": "v1", "kind": "Config", "current-context": "dev",
	"clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}], "users": [{"name": "u", "user": {}}],
	"contexts": [{"name": "dev", "context": {"cluster": "c", "user": "u"}}, {"name": "staging", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}]}`

func TestConnect(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(twoContexts), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(broken, []byte("contexts: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name               string
		env                string
		o                  Options
		context, namespace string
		code               string
		texts              []string
	}{
		{name: "as kubectl", env: file, context: "dev", namespace: "default"},
		{name: "file named", env: "/nonexistent", o: Options{Kubeconfig: file}, context: "dev", namespace: "default"},
		{name: "one of several files", env: "/nonexistent:" + file, context: "dev", namespace: "default"},
		{name: "other context", env: file, o: Options{Context: "staging"}, context: "staging", namespace: "shop"},
		{name: "other namespace", env: file, o: Options{Context: "staging", Namespace: "x"}, context: "staging", namespace: "x"},
		{name: "no file", env: "/nonexistent", code: "no-kubeconfig", texts: []string{"looked at /nonexistent", "KUBECONFIG", "mirrord demo"}},
		{name: "no named file", env: file, o: Options{Kubeconfig: "/nonexistent"}, code: "no-kubeconfig", texts: []string{"looked at /nonexistent"}},
		{name: "no context", env: file, o: Options{Context: "stagin"}, code: "context-not-found", texts: []string{`no context "stagin"`, "dev, staging", "--context staging"}},
		{name: "not YAML", env: broken, code: "kubeconfig-invalid", texts: []string{broken}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("KUBECONFIG", c.env)
			got, err := Connect(c.o)
			if c.code != "" {
				expect(t, err, c.code, c.texts...)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer got.Close()
			if got.Context() != c.context || got.Namespace() != c.namespace {
				t.Errorf("context %q, namespace %q; want %q, %q", got.Context(), got.Namespace(), c.context, c.namespace)
			}
		})
	}
}

// TestUnreachable: nobody listens, and somebody listens who never answers.
func TestUnreachable(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	other := secure(nil)
	defer other.Close()
	for name, address := range map[string]string{"nobody listens": closed.Addr().String(), "nobody answers": ln.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := Connect(Options{Kubeconfig: kubeconfig(t, "https://"+address, other.Certificate())})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			begin := time.Now()
			_, err = c.Resolve(context.Background(), "pod/web-1")
			expect(t, err, "cluster-unreachable", address, `context "test"`)
			if took := time.Since(begin); took > answerTimeout+time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// A password in the kubeconfig's URL is not said.
func TestPasswordOfTheServer(t *testing.T) {
	server := secure(&api{})
	server.Close()
	address := strings.TrimPrefix(server.URL, "https://")
	c, err := Connect(Options{Kubeconfig: kubeconfig(t, "https://ana:pass-word@"+address, server.Certificate())})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Resolve(t.Context(), "pod/web-1")
	expect(t, err, "cluster-unreachable", address)
	if text := err.Error() + c.Server(); strings.Contains(text, "pass-word") {
		t.Errorf("the password is in %q", text)
	}
}

func TestUntrustedCertificate(t *testing.T) {
	server := secure(&api{pods: []corev1.Pod{running("web-1", "app")}})
	defer server.Close()
	file := filepath.Join(t.TempDir(), "config")
	text := `{"apiVersion": "v1", "kind": "Config", "current-context": "test",
		"clusters": [{"name": "c", "cluster": {"server": "` + server.URL + `"}}], "users": [{"name": "u", "user": {"token": "secret"}}],
		"contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}]}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Connect(Options{Kubeconfig: file})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Resolve(context.Background(), "pod/web-1")
	expect(t, err, "cluster-certificate", server.URL, "certificate signed by unknown authority")

	c, err = Connect(Options{Kubeconfig: file, InsecureTLS: new(true)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Resolve(context.Background(), "pod/web-1"); err != nil {
		t.Errorf("with InsecureTLS: %v", err)
	}
}

func TestLoginPlugin(t *testing.T) {
	server := secure(&api{pods: []corev1.Pod{running("web-1", "app")}})
	defer server.Close()
	connect := func(command string) *Cluster {
		t.Helper()
		file := filepath.Join(t.TempDir(), "config")
		text := `{"apiVersion": "v1", "kind": "Config", "current-context": "test",
			"clusters": [{"name": "c", "cluster": {"insecure-skip-tls-verify": true, "server": "` + server.URL + `"}}],
			"users": [{"name": "u", "user": {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never", "command": "` + command + `"}}}],
			"contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}]}`
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Connect(Options{Kubeconfig: file})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	plugin := filepath.Join(t.TempDir(), "plugin")
	script := `#!/bin/sh
echo '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "secret"}}'`
	if err := os.WriteFile(plugin, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := connect(plugin).Resolve(context.Background(), "pod/web-1"); err != nil {
		t.Errorf("with a plugin: %v", err)
	}
	_, err := connect("/nonexistent/plugin").Resolve(context.Background(), "pod/web-1")
	expect(t, err, "cluster-login", "/nonexistent/plugin", "log in again", "is not there")
	failing := filepath.Join(t.TempDir(), "failing")
	if err := os.WriteFile(failing, []byte("#!/bin/sh\nexit 3"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err = connect(failing).Resolve(context.Background(), "pod/web-1")
	expect(t, err, "cluster-login", "has failed", "exit code 3", "log in again, as for kubectl; try: kubectl get pods -n ")
}

func TestWrongToken(t *testing.T) {
	a := &api{refuse: map[string]*metav1.Status{"get pods": status(401, metav1.StatusReasonUnauthorized, "Unauthorized")}}
	c := a.start(t, Options{})
	_, err := c.Resolve(context.Background(), "pod/web-1")
	expect(t, err, "cluster-login", "says Unauthorized")
}

func TestServerError(t *testing.T) {
	a := &api{refuse: map[string]*metav1.Status{"get pods": status(500, metav1.StatusReasonInternalError, "etcdserver: no leader")}}
	c := a.start(t, Options{})
	_, err := c.Resolve(context.Background(), "pod/web-1")
	f := expect(t, err, "cluster-error", "get pods", "etcdserver: no leader")
	if errors.Unwrap(f) == nil {
		t.Error("the failure lost its cause")
	}
}

// A proxy of the environment is left out on request, one of the kubeconfig never.
func TestNoProxy(t *testing.T) {
	const own = "http://proxy.example:3128"
	for name, c := range map[string]struct {
		extra   string
		noProxy bool
		want    string // "environment": as the environment says
	}{
		"nothing said":                      {"", false, "environment"},
		"none":                              {"", true, "<nil>"},
		"of the kubeconfig":                 {`, "proxy-url": "` + own + `"`, false, own},
		"of the kubeconfig, in spite of it": {`, "proxy-url": "` + own + `"`, true, own},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "kubeconfig")
			text := `{"apiVersion": "v1", "kind": "Config", "current-context": "x", "clusters": [{"name": "c", "cluster": {"server": "https://cluster.invalid"` + c.extra + `}}],
				"users": [{"name": "u", "user": {}}], "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]}`
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			cluster, err := Connect(Options{Kubeconfig: path, NoProxy: c.noProxy})
			if err != nil {
				t.Fatal(err)
			}
			defer cluster.Close()
			got := "environment" // what client-go does without
			if choose := cluster.config.Proxy; choose != nil {
				to, err := choose(httptest.NewRequest(http.MethodGet, "https://cluster.invalid", nil))
				if err != nil {
					t.Fatal(err)
				}
				got = fmt.Sprint(to)
			}
			if got != c.want {
				t.Errorf("proxy: %s, want %s", got, c.want)
			}
		})
	}
}
