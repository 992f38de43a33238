package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The process is a process like any other: exit code, signals, stdin, terminal.

func httpGet(url string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return strings.TrimSpace(string(b)), err
}

func TestExitCode(t *testing.T) {
	r := start(t, "-t", "pod/app", "sh", "-c", "exit 7")
	if code := r.end(); code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
}

func TestDashesAreOptional(t *testing.T) {
	r := start(t, "-t", "pod/app", "--", "sh", "-c", "echo \"$0 $1\"", "-t", "--steal")
	if code := r.end(); code != 0 || strings.TrimSpace(r.stdout.String()) != "-t --steal" {
		t.Errorf("exit code %d, stdout %q", code, r.stdout)
	}
}

func TestCommandNotFound(t *testing.T) {
	r := start(t, "-t", "pod/app", "no-such-command")
	if code := r.end(); code != 127 || !strings.Contains(r.stderr.String(), "no-such-command") {
		t.Errorf("exit code %d, want 127; stderr:\n%s", code, r.stderr)
	}
}

func TestStdin(t *testing.T) {
	r := start(t, "-t", "pod/app", "tr", "a-z", "A-Z")
	if _, err := io.WriteString(r.stdin, "through stdin\n"); err != nil {
		t.Fatal(err)
	}
	if code := r.end(); code != 0 || r.stdout.String() != "THROUGH STDIN\n" {
		t.Errorf("exit code %d, stdout %q", code, r.stdout)
	}
}

func TestSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			r := start(t, "-t", "pod/app", "bash", "-c", fmt.Sprintf("trap 'echo caught; exit 9' %d; echo ready; while :; do sleep 0.05; done", int(sig)))
			r.waitFor("ready")
			r.signal(sig)
			if code := r.end(); code != 9 || !strings.Contains(r.stdout.String(), "caught") {
				t.Errorf("exit code %d, stdout %q", code, r.stdout)
			}
		})
	}
	t.Run("killed by a signal", func(t *testing.T) {
		r := start(t, "-t", "pod/app", "sh", "-c", "kill -KILL $$")
		if code := r.end(); code != 128+9 {
			t.Errorf("exit code %d, want 137", code)
		}
	})
}

func TestTerminal(t *testing.T) {
	// script(1) gives a terminal; Ctrl-C and Ctrl-\ are typed into it. Bash would
	// lose a signal between its look for one and its read.
	command := fmt.Sprintf("%s exec -n %s -t pod/app bash -c 'ulimit -c 0; test -t 0 && test -t 1 && stty size && exec python3 %s'", w.mirrord, w.namespace, filepath.Join(w.dir, "bin", "signals.py"))
	r := startCommand(t, []string{"script", "-qec", command, "/dev/null"}, nil)
	r.waitFor("ready")
	io.WriteString(r.stdin, "\x03")
	r.waitFor("int1")
	io.WriteString(r.stdin, "\x1c")
	if code := r.end(); code != 128+int(syscall.SIGQUIT) || strings.Contains(r.stdout.String(), "int2") {
		t.Errorf("exit code %d; Ctrl-C arrived twice, or Ctrl-\\ not:\n%s", code, r.stdout)
	}
}

func TestShellWithChildren(t *testing.T) {
	got := in(t, "pod/app", "bash", "-c", "for i in 1 2 3; do (cat /data/hello.txt; env -i "+filepath.Join(w.dir, "bin", "probe")+" hostname) & done; wait")
	if strings.Count(got, "from-pod") != 3 || strings.Count(got, "app") != 3 {
		t.Errorf("got %q", got)
	}
}

func TestBackgroundChildKeepsTheSession(t *testing.T) {
	pidFile := filepath.Join(w.dir, "work", "background")
	r := start(t, "-t", "pod/app", "bash", "-c", "setsid python3 ../bin/server.py 8119 >/dev/null 2>&1 </dev/null & echo $! >"+pidFile+
		"; until curl -s localhost:8119 >/dev/null; do :; done; echo left")
	if code := r.end(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	if !strings.Contains(r.stderr.String(), "keep the session") {
		t.Errorf("nobody said that the session goes on:\n%s", r.stderr)
	}
	if got, err := httpGet("http://127.0.0.1:8119/still"); err != nil || !strings.HasPrefix(got, "local python /still") {
		t.Errorf("after the command: %q, %v", got, err)
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

func TestNotRoot(t *testing.T) {
	// What the tests themselves lean on: mirrord runs as nobody special.
	out, err := exec.Command("stat", "-c", "%a %u", w.mirrord).Output()
	if err != nil || strings.TrimSpace(string(out)) != fmt.Sprintf("755 %d", user) {
		t.Fatalf("mirrord is %q, %v: want a plain executable of uid %d", out, err, user)
	}
	if got := in(t, "pod/app", "sh", "-c", "grep CapEff /proc/self/status | cut -f 2"); got != "0000000000000000" {
		t.Errorf("the command has capabilities: %s", got)
	}
}

func TestChoosingTheCluster(t *testing.T) {
	context := kubectl(t, "config", "current-context")
	r := start(t, "--context", context, "-t", "pod/app", "hostname")
	if code := r.end(); code != 0 || strings.TrimSpace(r.stdout.String()) != "app" {
		t.Errorf("--context %s: exit code %d, %q", context, code, r.stdout)
	}
	for _, c := range []struct {
		name string
		args []string
		says []string
	}{
		{"no such context", []string{"--context", "nowhere", "-t", "pod/app", "true"}, []string{"nowhere", context, "context-not-found"}},
		{"no such pod", []string{"-t", "pod/no-such-pod", "true"}, []string{"no-such-pod", w.namespace, "target-not-found"}},
		{"no such container", []string{"-t", "pod/app/container/x", "true"}, []string{"app", "side", "container-not-found"}},
		{"no such kubeconfig", []string{"--kubeconfig", "/nowhere", "-t", "pod/app", "true"}, []string{"/nowhere"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, c.args...)
			if code := r.end(); code == 0 {
				t.Error("exit code 0")
			}
			for _, want := range c.says {
				if !strings.Contains(r.stderr.String(), want) {
					t.Errorf("the error does not name %q:\n%s", want, r.stderr)
				}
			}
		})
	}
}
