package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/mirrord-go/mirrord/internal/testdocs"
)

// commandTime bounds one command line of a document.
const commandTime = time.Minute

// standIns are programs of clusters, registries and this machine that command
// lines of the documents hand their work to.
var standIns = map[string]string{
	"sudo":     `exec "$@"`,
	"ssh":      `shift; exec "$@"`,
	"kind":     `cat "$3" >/dev/null`,
	"minikube": `exit 0`,
	"ctr":      `cat >/dev/null`,
	"k3s":      `exec "$@"`,
	"jq":       `sed -n 's/.*"pinned": "\(.*\)".*/\1/p'`,
}

// TestDocuments runs the command lines of the documents that need no cluster.
func TestDocuments(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	scripts, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range testdocs.Of(testdocs.Script) {
		text, err := os.ReadFile(filepath.Join(scripts, r.Note))
		if err != nil || !strings.Contains(string(text), "\nexec "+r.Text+"\n") {
			t.Errorf("%s does not run %q: %v", r.Note, r.Text, err)
		}
	}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range testdocs.Of(testdocs.Target) {
		if name := strings.Fields(r.Text)[1]; !strings.Contains(string(makefile), "\n"+name+":") {
			t.Errorf("%s: there is no target %s", r.Text, name)
		}
	}

	plain := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer plain.Close()
	sealed := httptest.NewTLSServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer sealed.Close()
	here := strings.NewReplacer("registry.example", strings.TrimPrefix(sealed.URL, "https://"), "localhost:5000", strings.TrimPrefix(plain.URL, "http://"))
	for _, r := range testdocs.Of(testdocs.Here) {
		t.Run(r.Text, func(t *testing.T) {
			dir := documentsDir(t, r, sealed.TLS)
			text := here.Replace(r.Text)
			if r.Before != "" {
				text = r.Before + " && " + text
			}
			out, code := runDocumented(t, dir, text, r.Until)
			if r.Until == "" && code != r.Code {
				t.Errorf("exit code %d, want %d", code, r.Code)
			}
			if says := here.Replace(r.Says); says != "" && !regexp.MustCompile(says).MatchString(out) {
				t.Errorf("it does not say %q", says)
			}
			if strings.Contains(r.Text, "debug-config") {
				page, err := os.ReadFile(filepath.Join(root, "docs/debuggers.md"))
				if err != nil {
					t.Fatal(err)
				}
				_, after, _ := strings.Cut(string(page), "// after\n")
				if got, want := firstObject(t, out), firstObject(t, after); !reflect.DeepEqual(got, want) {
					t.Errorf("it makes %v, and the page shows %v", got, want)
				}
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}

// firstObject reads the first JSON object of a text.
func firstObject(t *testing.T, text string) (object map[string]any) {
	t.Helper()
	_, text, _ = strings.Cut(text, "{")
	if err := json.NewDecoder(strings.NewReader("{" + text)).Decode(&object); err != nil {
		t.Error(err)
	}
	return object
}

// documentsDir is a directory in which a command line of the documents finds
// what it names.
func documentsDir(t *testing.T, r testdocs.Row, ca *tls.Config) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{
		"kubeconfig": `{"apiVersion": "v1", "kind": "Config", "current-context": "kind-dev",
			"clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:9"}}], "users": [{"name": "u", "user": {}}],
			"contexts": [{"name": "kind-dev", "context": {"cluster": "c", "user": "u"}}]}`,
		"ca.pem":              string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Certificates[0].Certificate[0]})),
		".vscode/launch.json": `{"configurations": [{ "name": "Run shop", "type": "node", "request": "launch", "program": "${workspaceFolder}/app.js" }]}`,
	}
	if r.Config != "" {
		files[".mirrord/mirrord.json"] = r.Config
	}
	for name, program := range standIns {
		files["bin/"+name] = "#!/bin/sh\n" + program + "\n"
	}
	if err := os.MkdirAll(filepath.Join(dir, ".mirrord"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// runDocumented runs a command line in dir, to its end or until it has said a
// text, and gives what it said.
func runDocumented(t *testing.T, dir, text, until string) (said string, code int) {
	t.Helper()
	mirrord, err := exec.LookPath("mirrord") // that of the scripts
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(mirrord, filepath.Join(dir, "bin", "mirrord")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), commandTime)
	defer cancel()
	c := exec.CommandContext(ctx, "bash", "-c", "set -o pipefail\n"+text)
	c.Dir = dir
	c.Env = append(os.Environ(), "HOME="+dir, "XDG_RUNTIME_DIR="+dir, "XDG_STATE_HOME="+filepath.Join(dir, "state"), "KUBECONFIG="+filepath.Join(dir, "kubeconfig"),
		"SSL_CERT_FILE="+filepath.Join(dir, "ca.pem"), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"), "GORACE=atexit_sleep_ms=0")
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	var out bytes.Buffer
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c.Stdout, c.Stderr = w, w
	if err := c.Start(); err != nil {
		w.Close()
		t.Fatal(err)
	}
	w.Close()
	buf, asked := make([]byte, 4096), false
	for {
		n, err := r.Read(buf)
		out.Write(buf[:n])
		if until != "" && !asked && strings.Contains(out.String(), until) {
			asked = true
			_ = syscall.Kill(-c.Process.Pid, syscall.SIGTERM)
		}
		if err != nil {
			break
		}
	}
	_ = c.Wait()
	if until != "" && !asked {
		t.Errorf("it never says %q", until)
	}
	if ctx.Err() != nil {
		t.Error(fmt.Errorf("it does not end: %w", ctx.Err()))
	}
	return out.String(), c.ProcessState.ExitCode()
}
