package image

import (
	"archive/tar"
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func TestPush(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	login := ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); login != "" && password != login {
			w.Header().Set("WWW-Authenticate", `Basic realm="team"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	agent := []byte("\x7fELF the agent")
	ref := host + "/team/mirrord-agent:1"
	if err := Push(t.Context(), agent, ref, "1", "amd64"); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(tag)
	if err != nil {
		t.Fatal(err)
	}
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
	if got, _ := io.ReadAll(tr); !bytes.Equal(got, agent) {
		t.Errorf("the pushed image holds %q", got)
	}

	login = "s3cr3t"
	if got := code(Push(t.Context(), agent, ref, "1", "amd64")); got != "image-push-refused" {
		t.Errorf("without a login: %s", got)
	}
	config := `{"auths":{"` + host + `":{"username":"ana","password":"s3cr3t"}}}`
	if err := os.WriteFile(filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Push(t.Context(), agent, ref, "1", "amd64"); err != nil {
		t.Errorf("with docker's login: %v", err)
	}
	if got := code(Push(t.Context(), agent, "Not A Name", "1", "amd64")); got != "image-name" {
		t.Errorf("a bad name: %s", got)
	}
	s.Close()
	if got := code(Push(t.Context(), agent, ref, "1", "amd64")); got != "image-not-pushed" {
		t.Errorf("nobody there: %s", got)
	}
}

// tool puts a program into PATH that writes its arguments to a file.
func tool(t *testing.T, name, script string) (said string) {
	dir := t.TempDir()
	said = filepath.Join(dir, "said")
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho \"$@\" >"+said+"\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return said
}

func TestLoad(t *testing.T) {
	for _, c := range []struct{ tool, kind, context, want string }{
		{"kind", Auto, "kind-dev", "load image-archive a.tar --name dev"},
		{"k3d", Auto, "k3d-dev", "image import a.tar --cluster dev"},
		{"minikube", Auto, "minikube", "image load a.tar --profile minikube"},
		{"docker", Auto, "docker-desktop", "load --input a.tar"},
		{"k3s", "k3s", "default", "ctr images import a.tar"},
		{"ctr", "containerd", "default", "--namespace k8s.io images import a.tar"},
		{"kind", "kind", "other", "load image-archive a.tar --name other"},
	} {
		t.Run(c.tool+" for "+c.context, func(t *testing.T) {
			said := tool(t, c.tool, "")
			command, err := Load(t.Context(), c.kind, c.context, "a.tar")
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(said)
			if err != nil || strings.TrimSpace(string(got)) != c.want {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
			if command != c.tool+" "+c.want {
				t.Errorf("it says %q", command)
			}
		})
	}
	if _, err := Load(t.Context(), Auto, "prod", "a.tar"); code(err) != "image-load-unknown" {
		t.Errorf("unknown context: %v", err)
	}
	if _, err := Load(t.Context(), "nomad", "prod", "a.tar"); code(err) != "image-load-unknown" || !strings.Contains(err.Error(), "kind") {
		t.Errorf("unknown kind: %v", err)
	}
	tool(t, "kind", "echo no nodes found >&2; exit 1")
	if _, err := Load(t.Context(), "kind", "kind-dev", "a.tar"); code(err) != "image-not-loaded" || !strings.Contains(err.Error(), "no nodes found") {
		t.Errorf("a tool that fails: %v", err)
	}
}
