package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A session that is kept: what holds for a command of its own session holds for
// one that joins.

// kept starts a session and gives its id. At the test's end it is stopped, and
// nothing of it may be left.
func kept(t testing.TB, args ...string) string {
	t.Helper()
	r := startSession(t, args...)
	t.Cleanup(func() { sessionCommand(t, "stop", "--all") }) // before the look whether something is left
	if code := r.wait(); code != 0 {
		t.Fatalf("session start: exit code %d:\n%s", code, r.stderr)
	}
	return strings.TrimSpace(r.stdout.String())
}

func startSession(t testing.TB, args ...string) *run {
	t.Helper()
	return startCommand(t, append([]string{w.mirrord, "session", "start", "-n", w.namespace}, args...), nil)
}

func sessionCommand(t testing.TB, args ...string) string {
	t.Helper()
	r := startCommandOnly(t, append([]string{w.mirrord, "session"}, args...))
	if code := r.wait(); code != 0 {
		t.Errorf("session %v: exit code %d:\n%s", args, code, r.stderr)
	}
	return r.stdout.String()
}

// join runs a command in a session.
func join(t testing.TB, id string, argv ...string) *run {
	t.Helper()
	return startCommandOnly(t, append([]string{w.mirrord, "exec", "--session", id, "--"}, argv...))
}

func TestKeptSession(t *testing.T) {
	id := kept(t, "-t", "pod/app", "--steal")

	t.Run("a command like any other", func(t *testing.T) {
		r := join(t, id, "sh", "-c", "cat /data/hello.txt; hostname; tr a-z A-Z; exit 7")
		io.WriteString(r.stdin, "through stdin\n")
		if code := r.end(); code != 7 || r.stdout.String() != "from-pod\napp\nTHROUGH STDIN\n" {
			t.Errorf("exit code %d, stdout %q", code, r.stdout)
		}
	})
	t.Run("signals", func(t *testing.T) {
		r := join(t, id, "bash", "-c", "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.05; done")
		r.waitFor("ready")
		r.signal(syscall.SIGTERM)
		if code := r.end(); code != 9 || !strings.Contains(r.stdout.String(), "caught") {
			t.Errorf("exit code %d, stdout %q", code, r.stdout)
		}
	})
	t.Run("terminal", func(t *testing.T) {
		command := fmt.Sprintf("%s exec --session %s bash -c 'ulimit -c 0; test -t 0 && test -t 1 && stty size && exec python3 %s'", w.mirrord, id, filepath.Join(w.dir, "bin", "signals.py"))
		r := startCommandOnly(t, []string{"script", "-qec", command, "/dev/null"})
		r.waitFor("ready")
		io.WriteString(r.stdin, "\x03")
		r.waitFor("int1")
		io.WriteString(r.stdin, "\x1c")
		if code := r.end(); code != 128+int(syscall.SIGQUIT) || strings.Contains(r.stdout.String(), "int2") {
			t.Errorf("exit code %d; Ctrl-C arrived twice, or Ctrl-\\ not:\n%s", code, r.stdout)
		}
	})
	t.Run("steal, by turns", func(t *testing.T) {
		for i, s := range servers[:2] {
			url := fmt.Sprintf("http://%s:%d/kept", podIP(t, "app"), 8001)
			if got := request(t, url); !strings.HasPrefix(got, "remote /kept") {
				t.Errorf("before command %d: %q", i, got)
			}
			r := join(t, id, append(s.argv, "8001")...)
			r.waitFor("listening")
			if got := request(t, url); !strings.HasPrefix(got, "local "+s.name+" /kept") {
				t.Errorf("command %d: got %q", i, got)
			}
			r.stop()
			if got := request(t, url); !strings.HasPrefix(got, "remote /kept") {
				t.Errorf("after command %d: %q", i, got)
			}
		}
	})
	t.Run("two at once", func(t *testing.T) {
		a := join(t, id, "python3", "../bin/server.py", "8002")
		b := join(t, id, "python3", "../bin/server.py", "8003")
		a.waitFor("listening")
		b.waitFor("listening")
		for _, port := range []int{8002, 8003} {
			if got := request(t, fmt.Sprintf("http://%s:%d/both", podIP(t, "app"), port)); !strings.HasPrefix(got, "local python /both") {
				t.Errorf("port %d: got %q", port, got)
			}
		}
		if got := join(t, id, "curl", "-sS", "localhost:8002/between"); got.end() != 0 || !strings.HasPrefix(got.stdout.String(), "local python /between") {
			t.Errorf("one reaches the other: %q, %s", got.stdout, got.stderr)
		}
		var st struct {
			Commands []struct{ Argv []string }
		}
		if err := json.Unmarshal([]byte(sessionCommand(t, "show", id, "-o", "json")), &st); err != nil || len(st.Commands) != 2 {
			t.Errorf("session show: %+v, %v, want two commands", st, err)
		}
		a.signal(syscall.SIGKILL)
		a.end()
		for end := time.Now().Add(10 * time.Second); ; {
			got := request(t, fmt.Sprintf("http://%s:8002/gone", podIP(t, "app")))
			if strings.HasPrefix(got, "remote /gone") {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("the port of a command that was killed: %q", got)
			}
		}
		if got := request(t, fmt.Sprintf("http://%s:8003/other", podIP(t, "app"))); !strings.HasPrefix(got, "local python /other") {
			t.Errorf("the other command: %q", got)
		}
		b.stop()
	})
	t.Run("joined quickly", func(t *testing.T) {
		best := time.Hour
		for range 5 {
			began := time.Now()
			if r := join(t, id, "true"); r.end() != 0 {
				t.Fatalf("stderr:\n%s", r.stderr)
			}
			best = min(best, time.Since(began))
		}
		t.Logf("the best of 5: %v", best)
		if best > 150*time.Millisecond {
			t.Errorf("joining takes %v, want 150 ms at most", best)
		}
	})
	t.Run("stopped", func(t *testing.T) {
		r := join(t, id, "bash", "-c", "trap 'echo told; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
		r.waitFor("ready")
		sessionCommand(t, "stop", id)
		nothingLeft(t)
		if code := r.end(); code != 5 || !strings.Contains(r.stdout.String(), "told") {
			t.Errorf("exit code %d, stdout %q, stderr:\n%s", code, r.stdout, r.stderr)
		}
	})
}

// TestKeptSessionKilled: with the supervisor's end everything ends, and the
// front of the command removes the Job.
func TestKeptSessionKilled(t *testing.T) {
	id := kept(t, "-t", "pod/app", "--steal")
	r := join(t, id, "python3", "../bin/server.py", "8004")
	r.waitFor("listening")
	if err := syscall.Kill(supervisor(t), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code := r.end(); code != 1 || !strings.Contains(r.stderr.String(), "supervisor-lost") {
		t.Errorf("exit code %d, stderr:\n%s", code, r.stderr)
	}
	nothingLeft(t)
	if got := request(t, fmt.Sprintf("http://%s:8004/x", podIP(t, "app"))); !strings.HasPrefix(got, "remote /x") {
		t.Errorf("afterwards the target's port answers %q", got)
	}
}

// TestKeptSessionInterrupted: Ctrl-C while it starts leaves nothing.
func TestKeptSessionInterrupted(t *testing.T) {
	r := startSession(t, "-t", "pod/app")
	if !r.stderr.waitFor("target pod/app", runTime) {
		t.Fatalf("stderr:\n%s", r.stderr)
	}
	r.signal(syscall.SIGINT)
	if code := r.end(); code != 130 || r.stdout.String() != "" {
		t.Errorf("exit code %d, stdout %q", code, r.stdout)
	}
}

// TestKeptSessionFollows: the target is replaced while nobody is there.
func TestKeptSessionFollows(t *testing.T) {
	followable(t)
	id := kept(t, "-t", "deployment/followed")
	old := strings.TrimSpace(join(t, id, "hostname").output())
	kubectl(t, "delete", "pod", old, "--wait=false")
	for end := time.Now().Add(runTime); !strings.Contains(sessionCommand(t, "show", id), "the session goes on in"); {
		if time.Now().After(end) {
			t.Fatalf("the session did not follow its target:\n%s", sessionCommand(t, "show", id))
		}
	}
	pod := kubectl(t, "get", "pods", "-l", "app=followed", "--field-selector=status.phase=Running", "-o", "jsonpath={.items[*].metadata.name}")
	if got := join(t, id, "curl", "-sS", "localhost:8021/after").output(); !strings.Contains(got, "/after") || pod == old {
		t.Errorf("after %s came %s: %q", old, pod, got)
	}
}

// TestKeptSessionLosesItsAgent: its command is told why.
func TestKeptSessionLosesItsAgent(t *testing.T) {
	id := kept(t, "-t", "pod/app")
	r := join(t, id, "sh", "-c", "echo ready; sleep 1000")
	r.waitFor("ready")
	kubectl(t, "delete", "pod", "-l", "app.kubernetes.io/name=mirrord-agent", "--grace-period=0", "--force", "--wait=false")
	if code := r.wait(); code != 1 || !strings.Contains(r.stderr.String(), "agent-lost") || !strings.Contains(r.stderr.String(), "mirrord session start") {
		t.Errorf("exit code %d, stderr:\n%s", code, r.stderr)
	}
	if got := sessionCommand(t, "ls", "-o", "json"); strings.TrimSpace(got) != "[]" {
		t.Errorf("sessions afterwards: %s", got)
	}
}

// output waits for the end of a run that must succeed, and gives what it printed.
func (r *run) output() string {
	r.t.Helper()
	if code := r.end(); code != 0 {
		r.t.Fatalf("exit code %d, stderr:\n%s", code, r.stderr)
	}
	return r.stdout.String()
}
