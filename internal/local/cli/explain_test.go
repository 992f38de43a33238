package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/mirrord-go/mirrord/internal/local/explain"
	"github.com/mirrord-go/mirrord/internal/testnet"
)

// explained runs mirrord explain --json and gives what it prints, by question.
// Nothing of the test's surroundings counts.
func explained(t *testing.T, args ...string) (code int, answers map[string]explain.Answer) {
	t.Helper()
	t.Chdir(t.TempDir())
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	stdout := os.Stdout
	os.Stdout = out
	code = Main("test", append([]string{"mirrord", "explain"}, args...))
	os.Stdout = stdout
	answers = map[string]explain.Answer{}
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	if code != 0 {
		return code, answers
	}
	var list []explain.Answer
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatalf("%v in %q", err, b)
	}
	for _, a := range list {
		answers[a.Question] = a
	}
	return code, answers
}

// A command outside of PATH brings its installation.
func TestExplainPathOfCommand(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("run it as root: it makes a directory that is nobody's own by default")
	}
	tool, err := os.MkdirTemp("/var", "mirrord-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tool) })
	program := filepath.Join(tool, "bin/run")
	for _, dir := range []string{"bin", "lib"} {
		if err := os.Mkdir(filepath.Join(tool, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(program, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	conf := tool + "/lib/x.conf"
	for _, c := range []struct {
		command []string
		where   string
	}{{nil, "remote"}, {[]string{"--", program, "-t", "pod/none", "--json"}, "local"}} {
		code, got := explained(t, append([]string{"path", "--json", "--fs-mode", "read", conf}, c.command...)...)
		if code != 0 || len(got) != 2 || got["read "+conf].Where != c.where {
			t.Errorf("%q: code %d, got %+v, want %s", c.command, code, got, c.where)
		}
	}
	if code, _ := explained(t, "path", "--", program); code != exitUsage {
		t.Errorf("no path: exit code %d, want %d", code, exitUsage)
	}
}

func TestExplainServedFile(t *testing.T) {
	t.Setenv("MIRRORD_REMOTE_DNS", "true")
	const file = "/etc/nsswitch.conf"
	if _, got := explained(t, "path", "--json", file); got["read "+file].Where != "the session" || got["write "+file].Where != "nowhere" {
		t.Errorf("got %+v, want the session's, and no writes", got)
	}
	t.Setenv("MIRRORD_REMOTE_DNS", "false")
	if _, got := explained(t, "path", "--json", file); got["read "+file].Where != "local" {
		t.Errorf("dns is off: got %+v, want local", got)
	}
}

func TestExplainProcess(t *testing.T) {
	if code, _ := explained(t, "path", "-t", "process/x", "/data"); code != exitUsage {
		t.Errorf("of no process: exit code %d, want %d", code, exitUsage)
	}
	pid := testnet.Process(t, syscall.CLONE_NEWNS, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, "mount --make-rprivate / && mount -t tmpfs none /opt")
	if _, got := explained(t, "path", "-t", fmt.Sprintf("process/%d", pid), "--json", "/opt/x"); got["read /opt/x"].Where != "remote" {
		t.Errorf("below a mount of the process's: got %+v, want remote", got)
	}
}

// A target in the cluster has the search list of its namespace.
func TestExplainSearches(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(`{"apiVersion": "v1", "kind": "Config", "current-context": "dev",
		"clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}], "users": [{"name": "u", "user": {}}],
		"contexts": [{"name": "dev", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", file)
	conf := filepath.Join(t.TempDir(), "mirrord.json")
	if err := os.WriteFile(conf, []byte(`{"feature": {"network": {"dns": {"filter": {"local": ["db"]}}, "outgoing": {"filter": {"local": ["db"]}}}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ command, arg, question string }{
		{"dns", "db.shop.svc.cluster.local", "look up db.shop.svc.cluster.local"},
		{"connect", "db.shop.svc.cluster.local:80", "connect to db.shop.svc.cluster.local:80 by tcp"},
	} {
		for target, want := range map[string]string{"pod/app": "local", "targetless": "remote"} {
			if code, got := explained(t, c.command, "-f", conf, "-t", target, "--json", c.arg); got[c.question].Where != want {
				t.Errorf("%s with %s: code %d, got %+v, want %s", c.command, target, code, got, want)
			}
		}
	}
}
