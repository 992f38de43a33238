package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"
)

// steers fails the test if what mirrord printed would do something to a
// terminal.
func steers(t *testing.T, r *run) {
	t.Helper()
	for line := range strings.Lines(r.stderr.String()) {
		if i := strings.IndexFunc(strings.TrimRight(line, "\n"), func(c rune) bool { return unicode.IsControl(c) || unicode.Is(unicode.Cf, c) }); i >= 0 || len(line) > 16<<10 {
			t.Errorf("a terminal would obey %.300q", line)
		}
		if !strings.HasPrefix(line, "mirrord: ") && !strings.HasPrefix(line, "  ") {
			t.Errorf("not a line of mirrord's: %.300q", line)
		}
	}
}

// TestHostileTarget: a target that does all it can neither hangs, ends nor
// misleads a session; see programs/hostile.py and programs/victim.py.
func TestHostileTarget(t *testing.T) {
	home := filepath.Join(w.dir, "home")
	secret := filepath.Join(home, "secret")
	if err := os.WriteFile(secret, []byte("the developer's"), 0o644); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(secret)
	program, err := os.ReadFile(filepath.Join(w.dir, "bin", "hostile.py"))
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(string(program))
	namespace := w.cluster.Namespace(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	err = w.cluster.Apply(ctx, namespace, fmt.Sprintf(`
apiVersion: v1
kind: ConfigMap
metadata: {name: program}
data: {hostile.py: %s}
---
apiVersion: v1
kind: Pod
metadata: {name: hostile}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: program, configMap: {name: program}}]
  containers:
  - name: app
    image: debian:1
    volumeMounts: [{name: program, mountPath: /program}]
    readinessProbe: {exec: {command: [test, -e, /srv/ready]}, periodSeconds: 1}
    command: [bash, -c, "for i in 1 2 3 4 5 6 7; do export LARGE$i=$(head -c 100000 /dev/zero | tr '\\0' x); done; export ODD=$'\\e]0;x\\a\\n'; exec python3 /program/hostile.py %s"]
`, text, home))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.cluster.WaitReady(ctx, namespace, "pod/hostile"); err != nil {
		t.Fatal(err)
	}
	r := startCommand(t, []string{w.mirrord, "exec", "--verbose", "-n", namespace, "-t", "pod/hostile", "--steal", "python3", filepath.Join(w.dir, "bin", "victim.py")}, nil)
	if code := r.end(); code != 0 || strings.Contains(r.stdout.String(), "WRONG") || !strings.HasSuffix(r.stdout.String(), "done\n") {
		t.Errorf("exit code %d:\n%s", code, r.stdout)
	}
	steers(t, r)
	if said := r.stderr.String(); strings.Contains(said, "ana@laptop") || !strings.Contains(said, "does not say who it is") {
		t.Errorf("a squatter passes for a colleague, or nobody says that port 8080 is held:\n%s", said)
	}
	nothingIn(t, namespace)
}

// TestHostileProcess: a process of this machine may call itself what it likes,
// and end whenever it likes.
func TestHostileProcess(t *testing.T) {
	target := exec.Command("/usr/bin/python3", "-c", `
import ctypes, sys
ctypes.CDLL(None).prctl(15, b"\x1b]0;x\x07\nmirrord", 0, 0, 0) # PR_SET_NAME
print("ready", flush=True)
sys.stdin.read()`)
	target.Env = []string{"ODD=\x1b]0;x\x07\n", "\x1b[2J=name"}
	target.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	out := newOutput()
	target.Stdout = out
	in, err := target.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); _ = target.Wait() }()
	if !out.waitFor("ready", 10*time.Second) {
		t.Fatal("the target does not begin")
	}
	at := fmt.Sprintf("process/%d", target.Process.Pid)
	r := startCommand(t, []string{w.mirrord, "exec", "--verbose", "-t", at, "sh", "-c", "echo ready; read -r line"}, nil)
	r.waitFor("ready")
	steers(t, r)
	in.Close() // the target ends, and the session with it
	if code := r.end(); code == 0 && !strings.Contains(r.stderr.String(), "target") {
		t.Errorf("exit code %d: nobody says that the target has ended:\n%s", code, r.stderr)
	}
	_ = target.Wait()
	r = startCommand(t, []string{w.mirrord, "exec", "-t", at, "true"}, nil)
	if code := r.end(); code == 0 {
		t.Error("a process that has ended is a target")
	}
	steers(t, r)
}
